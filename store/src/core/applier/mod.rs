//! The state machine of all regions of a store.
//!
//! Committed entries come in, writes to [`Cf::Data`] go out, and with them, in the same batch, how
//! far each region has applied: after a crash the log is applied again from exactly there. The
//! batches are not synced, since the log is. What many regions have to write in one call becomes
//! one batch, cut between entries at [`BATCH_BYTES`]; what one entry does is never cut. Requests
//! are answered after the batch that holds their effect is written.
//!
//! Every command is checked against the region as it is when its turn comes: between proposal and
//! turn a split may have moved its keys elsewhere.
//!
//! **Splits.** The region keeps its right end under its id, and the parts to the left become new
//! regions. Keys that only ever ascend (an import, a log) then stay with the group whose leader and
//! lease are in place, and it is the part that has gone quiet which elects a leader.
//!
//! A region without a slot here (removed, or waiting for its first snapshot) has its entries
//! dropped; whoever proposed them is told that nobody can say.
//!
//! Absent on purpose: any answer of its own to time or leadership. All replicas do the same.

mod change_peers;
mod commands;
mod delete_range;
mod split;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::engine::{Cf, Engine, EngineError, WriteBatch};
use quorate_consensus::hash::FixedState;
use quorate_consensus::node::{Outcome, Progress};
use quorate_consensus::shard::{ApplyTask, NewGroup, forget_group};
use quorate_proto::wire::command::ApplyState;
use quorate_proto::{LogIndex, PeerId, Region, RegionId, Term};

use self::split::Division;
use super::directory::{Directory, LocalRegion, Written, new_group};
use super::error::RegionError;
use super::keys;

/// A batch of this many bytes is written before the next entry is looked at. A batch ends up
/// larger by at most one entry.
pub const BATCH_BYTES: usize = 1024 * 1024;

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is applied.
    Done,
    /// It certainly is not.
    Refused(RegionError),
    /// Nobody can say whether it will be.
    Undetermined,
}

/// A request and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered<T> {
    /// The request.
    pub token: T,
    /// How it ended.
    pub answer: Answer,
}

/// The state machine of all regions of a store. Owned by one thread.
pub struct Applier {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) directory: Arc<Directory>,
    pub(super) slots: HashMap<RegionId, Slot, FixedState>,
}

/// A region with data, as the applier has it.
pub(super) struct Slot {
    pub(super) local: Arc<LocalRegion>,
    /// Ahead of the directory's until the batch that changes it is written.
    pub(super) region: Arc<Region>,
    pub(super) index: LogIndex,
    pub(super) term: Term,
    /// Time of the last command: never goes back.
    pub(super) time_ms: u64,
    /// Where its [`ApplyState`] lies.
    key: Bytes,
}

impl Slot {
    pub(super) fn new(local: Arc<LocalRegion>, region: Arc<Region>, applied: &ApplyState) -> Self {
        let key = keys::apply_state(region.id);
        let (index, term) = (LogIndex(applied.index), Term(applied.term));
        Self { local, region, index, term, time_ms: applied.time_ms, key }
    }
    pub(super) fn apply_state(&self) -> ApplyState {
        ApplyState { index: self.index.0, term: self.term.0, time_ms: self.time_ms }
    }
    fn save(&self, batch: &mut WriteBatch) {
        let state = prost::Message::encode_to_vec(&self.apply_state());
        batch.put(Cf::Meta, self.key.clone(), state);
    }
}

/// What one call of [`Applier::apply`] has gathered and not written yet.
struct Work<T> {
    batch: WriteBatch,
    /// What the batch stands for.
    answers: Vec<Answered<T>>,
    divisions: Vec<Division>,
    /// A region with other peers.
    changed: Option<Arc<Region>>,
}

impl Applier {
    /// What this applier keeps up to date.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Applies committed entries. Adds an answer for each token to `answers`, once what it stands
    /// for is written.
    ///
    /// # Errors
    /// An error of the engine, or an entry that cannot be read ([`EngineError::Corrupt`]): stop the
    /// process. Nothing that was not written has been answered.
    pub fn apply<T>(
        &mut self,
        tasks: Vec<ApplyTask<T>>,
        answers: &mut Vec<Answered<T>>,
    ) -> Result<Outcome, EngineError> {
        let mut outcome = Outcome::default();
        let entries: usize = tasks.iter().map(|task| task.entries.len()).sum();
        let mut work = Work {
            batch: WriteBatch::with_capacity(entries + tasks.len()),
            answers: Vec::with_capacity(entries),
            divisions: Vec::new(),
            changed: None,
        };
        outcome.progress.reserve(tasks.len());
        for task in tasks {
            let Some(slot) = self.slots.get_mut(&task.group) else {
                tracing::debug!(region = %task.group, "dropped entries of a region without data");
                let tokens = task.entries.into_iter().flat_map(|entry| entry.tokens);
                work.answers.extend(tokens.map(undetermined));
                continue;
            };
            let mut created = Vec::new();
            let mut written = Written::default();
            let mut removed = false;
            let mut entries = task.entries.into_iter();
            while let Some(entry) = entries.next() {
                if entry.index <= slot.index {
                    // Applied before the log was read again.
                    work.answers.extend(entry.tokens.into_iter().map(undetermined));
                    continue;
                }
                work.entry(slot, self.engine.as_ref(), &self.directory, entry, &mut written)?;
                let published = work.divisions.is_empty() && work.changed.is_none();
                if published && work.batch.bytes() < BATCH_BYTES {
                    continue;
                }
                slot.save(&mut work.batch);
                self.engine.write(std::mem::take(&mut work.batch))?;
                for division in work.divisions.drain(..) {
                    let groups = division.publish(slot, &self.directory, &mut created);
                    outcome.created.extend(groups);
                }
                answers.append(&mut work.answers);
                if let Some(region) = work.changed.take() {
                    let changes = &mut outcome.reconfigured;
                    removed = !change_peers::publish(slot, &self.directory, region, changes);
                    if removed {
                        let rest = entries.flat_map(|entry| entry.tokens);
                        work.answers.extend(rest.map(undetermined));
                        break;
                    }
                }
            }
            slot.local.stats().record_write(written);
            let (index, term) = (slot.index, slot.term);
            outcome.progress.push(Progress { group: task.group, index, term });
            if removed {
                self.slots.remove(&task.group);
            } else {
                slot.save(&mut work.batch);
            }
            self.slots.extend(created.into_iter().map(|slot: Slot| (slot.region.id, slot)));
        }
        if !work.batch.is_empty() {
            self.engine.write(work.batch)?;
        }
        answers.append(&mut work.answers);
        Ok(outcome)
    }

    /// Takes a region off this store for good: its data and the records of its group go, its id
    /// stays known. Durable when it returns; the group must be gone from its shard. A region that
    /// is not here is fine.
    ///
    /// # Errors
    /// An error of the engine stops the process.
    pub fn destroy(&mut self, region: RegionId) -> Result<(), EngineError> {
        let Some(local) = self.directory.get(region) else { return Ok(()) };
        // Nobody reads it any more before its data goes, and nothing takes its place.
        self.directory.retire(&local);
        self.slots.remove(&region);
        let state = local.state();
        self.erase(region, local.peer(), state.region().map(Arc::as_ref))?;
        self.directory.remove(&local);
        Ok(())
    }

    /// One synced batch: a tombstone instead of everything that is stored of a replica.
    pub(super) fn erase(
        &self,
        id: RegionId,
        peer: PeerId,
        region: Option<&Region>,
    ) -> Result<(), EngineError> {
        let mut batch = WriteBatch::new();
        keys::put_region_state(&mut batch, id, &super::snapshot::tombstone(region, peer));
        batch.delete(Cf::Meta, keys::apply_state(id));
        if let Some(region) = region {
            keys::delete_data(&mut batch, &region.range);
        }
        forget_group(id, &mut batch);
        self.engine.write_synced(batch)
    }

    /// Gives a region with data its slot, and describes its group.
    pub(super) fn host(
        &mut self,
        local: Arc<LocalRegion>,
        region: Arc<Region>,
        applied: &ApplyState,
    ) -> NewGroup {
        let at = (LogIndex(applied.index), Term(applied.term));
        let group = new_group(&local, &region, at, false);
        self.slots.insert(region.id, Slot::new(local, region, applied));
        group
    }
}

fn undetermined<T>(token: T) -> Answered<T> {
    Answered { token, answer: Answer::Undetermined }
}
