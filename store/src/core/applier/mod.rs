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

mod commands;
mod delete_range;
mod split;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::engine::{Cf, Engine, EngineError, WriteBatch};
use quorate_consensus::hash::FixedState;
use quorate_consensus::node::{Outcome, Progress};
use quorate_consensus::shard::{ApplyTask, NewGroup};
use quorate_proto::wire::command::ApplyState;
use quorate_proto::{LogIndex, Region, RegionId, Term};

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
            for entry in task.entries {
                if entry.index <= slot.index {
                    // Applied before the log was read again.
                    work.answers.extend(entry.tokens.into_iter().map(undetermined));
                    continue;
                }
                work.entry(slot, self.engine.as_ref(), &self.directory, entry, &mut written)?;
                if work.divisions.is_empty() && work.batch.bytes() < BATCH_BYTES {
                    continue;
                }
                slot.save(&mut work.batch);
                self.engine.write(std::mem::take(&mut work.batch))?;
                for division in work.divisions.drain(..) {
                    let groups = division.publish(slot, &self.directory, &mut created);
                    outcome.created.extend(groups);
                }
                answers.append(&mut work.answers);
            }
            slot.save(&mut work.batch);
            slot.local.stats().record_write(written);
            let (index, term) = (slot.index, slot.term);
            outcome.progress.push(Progress { group: task.group, index, term });
            self.slots.extend(created.into_iter().map(|slot: Slot| (slot.region.id, slot)));
        }
        if !work.batch.is_empty() {
            self.engine.write(work.batch)?;
        }
        answers.append(&mut work.answers);
        Ok(outcome)
    }

    /// Takes a region off this store for good: its data goes, its id stays known. Durable when it
    /// returns; stop the group first. A region that is not here is fine.
    ///
    /// # Errors
    /// An error of the engine stops the process.
    pub fn destroy(&mut self, region: RegionId) -> Result<(), EngineError> {
        let Some(local) = self.directory.get(region) else { return Ok(()) };
        let mut batch = WriteBatch::new();
        let state = super::snapshot::tombstone(&local);
        keys::put_region_state(&mut batch, region, &state);
        batch.delete(Cf::Meta, keys::apply_state(region));
        if let Some(region) = local.state().region() {
            keys::delete_data(&mut batch, &region.range);
        }
        // Nobody reads it any more before its data goes.
        self.directory.remove(&local);
        self.slots.remove(&region);
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
