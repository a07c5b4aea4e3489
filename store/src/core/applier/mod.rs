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
//! **Merges.** See [`merge`]. A region is brought up to the entry that stopped it by whoever takes it
//! in, through the same code as always; that may split it, or take yet another one in.
//!
//! A region without a slot here (removed, or waiting for its first snapshot) has its entries
//! dropped; whoever proposed them is told that nobody can say.
//!
//! Absent on purpose: any answer of its own to time or leadership. All replicas do the same.

mod change_peers;
mod commands;
mod delete_range;
mod merge;
mod split;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::engine::{Cf, Engine, EngineError, WriteBatch};
use quorate_consensus::hash::FixedState;
use quorate_consensus::node::{Outcome, Progress};
use quorate_consensus::shard::{ApplyTask, Committed, Merged, NewGroup, forget_group};
use quorate_proto::wire::command::{ApplyState, RegionState};
use quorate_proto::{LogIndex, PeerId, Region, RegionId, Term};

use self::merge::Union;
use self::split::Division;
use super::directory::{Directory, Gone, LocalRegion, Merging, Written, new_group};
use super::error::RegionError;
use super::keys;
use super::snapshot::replicated;

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
    /// Where it is stopped; ahead in the same way.
    pub(super) merging: Option<Merging>,
    /// Regions that it took in, and those that these had taken in, the latest last.
    pub(super) taken_in: Vec<RegionId>,
    pub(super) index: LogIndex,
    pub(super) term: Term,
    /// Time of the last command: never goes back.
    pub(super) time_ms: u64,
    /// Where its [`ApplyState`] lies.
    key: Bytes,
}

impl Slot {
    pub(super) fn new(
        local: Arc<LocalRegion>,
        region: Arc<Region>,
        (merging, taken_in): (Option<Merging>, Vec<RegionId>),
        applied: &ApplyState,
    ) -> Self {
        let key = keys::apply_state(region.id);
        let (index, term) = (LogIndex(applied.index), Term(applied.term));
        Self { local, region, merging, taken_in, index, term, time_ms: applied.time_ms, key }
    }
    pub(super) fn apply_state(&self) -> ApplyState {
        ApplyState { index: self.index.0, term: self.term.0, time_ms: self.time_ms }
    }
    /// The region's state as it is stored.
    pub(super) fn state(&self) -> RegionState {
        replicated(&self.region, self.local.peer(), self.merging, &self.taken_in)
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
    /// What the others are to know once the batch is written, in order.
    changes: Vec<Change>,
}

impl<T> Work<T> {
    fn new(entries: usize, batch: WriteBatch) -> Self {
        Self { batch, answers: Vec::with_capacity(entries), changes: Vec::new() }
    }
}

/// A change of a region whose batch is being written.
enum Change {
    /// It was split.
    Split(Division),
    /// It has other peers.
    Peers(Arc<Region>),
    /// It stops for a merge, or goes on, or has another version.
    Epoch(Arc<Region>, Option<Merging>),
    /// It has taken its neighbour in.
    Union(Union),
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
        let mut work = Work::new(entries, WriteBatch::with_capacity(entries + tasks.len()));
        outcome.progress.reserve(tasks.len());
        for task in tasks {
            let Some(mut slot) = self.take_slot(task.group) else {
                tracing::debug!(region = %task.group, "dropped entries of a region without data");
                let tokens = task.entries.into_iter().flat_map(|entry| entry.tokens);
                work.answers.extend(tokens.map(undetermined));
                continue;
            };
            let stays = self.run(&mut slot, task.entries, &mut work, answers, &mut outcome)?;
            let (index, term) = (slot.index, slot.term);
            outcome.progress.push(Progress { group: task.group, index, term });
            if stays {
                slot.save(&mut work.batch);
                self.slots.insert(task.group, slot);
            }
        }
        if !work.batch.is_empty() {
            self.engine.write(work.batch)?;
        }
        answers.append(&mut work.answers);
        Ok(outcome)
    }

    /// Takes a region out of its slot. One that is known to be taken in elsewhere does not move any
    /// more by itself, so that what is decided about its range holds.
    fn take_slot(&mut self, region: RegionId) -> Option<Slot> {
        let slot = self.slots.remove(&region)?;
        if slot.local.known_gone().is_none() {
            return Some(slot);
        }
        self.slots.insert(region, slot);
        None
    }

    /// Applies entries of one region, which is out of its slot meanwhile. False where the local
    /// replica was removed by one of them.
    fn run<T>(
        &mut self,
        slot: &mut Slot,
        entries: Vec<Committed<T>>,
        work: &mut Work<T>,
        answers: &mut Vec<Answered<T>>,
        outcome: &mut Outcome,
    ) -> Result<bool, EngineError> {
        let mut written = Written::default();
        let mut stays = true;
        let mut entries = entries.into_iter();
        while stays && let Some(entry) = entries.next() {
            if entry.index <= slot.index {
                // Applied before the log was read again.
                work.answers.extend(entry.tokens.into_iter().map(undetermined));
                continue;
            }
            work.entry(slot, self, entry, &mut written, outcome)?;
            if work.changes.is_empty() && work.batch.bytes() < BATCH_BYTES {
                continue;
            }
            slot.save(&mut work.batch);
            self.engine.write(std::mem::take(&mut work.batch))?;
            answers.append(&mut work.answers);
            for change in work.changes.drain(..) {
                stays &= self.publish(slot, change, outcome);
            }
        }
        work.answers.extend(entries.flat_map(|entry| entry.tokens).map(undetermined));
        slot.local.stats().record_write(written);
        Ok(stays)
    }

    /// The batch is written: everybody may know. False where the local replica was removed.
    fn publish(&mut self, slot: &Slot, change: Change, outcome: &mut Outcome) -> bool {
        match change {
            Change::Split(division) => {
                let mut created = Vec::new();
                outcome.created.extend(division.publish(slot, &self.directory, &mut created));
                self.slots.extend(created.into_iter().map(|slot| (slot.region.id, slot)));
            }
            Change::Peers(region) => {
                let changes = &mut outcome.reconfigured;
                return change_peers::publish(slot, &self.directory, region, changes);
            }
            Change::Epoch(region, merging) => {
                outcome.changed.push(region.id);
                self.directory.set_merging(&slot.local, region, merging);
            }
            Change::Union(union) => union.publish(slot, &self.directory, outcome),
        }
        true
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
        let (state, gone) = (local.state(), local.known_gone());
        self.erase(region, local.peer(), state.region().map(Arc::as_ref), gone.as_ref())?;
        self.directory.remove(&local);
        Ok(())
    }

    /// Takes note of a region that others know to be taken in. Returns its replica here, if there
    /// is one and nobody needs it any more: stop hosting it, then [`Applier::destroy`] it.
    pub fn merged(&mut self, told: Merged) -> Option<(RegionId, PeerId)> {
        let Merged { group, into, region } = told;
        let region = match Region::try_from(region) {
            Ok(region) if region.id == group && into.0 != 0 => Arc::new(region),
            Ok(_) | Err(_) => {
                tracing::warn!(region = %group, %into, "dropped word of a merge that says too little");
                return None;
            }
        };
        let local = self.directory.note_taken_in(into, region)?;
        tracing::info!(region = %group, peer = %local.peer(), %into, "the region was taken in without us");
        Some((group, local.peer()))
    }

    /// Removes what raft has stored of a region that was taken in. Its group must be gone from its
    /// shard. Others stay as they are.
    ///
    /// # Errors
    /// An error of the engine stops the process.
    pub fn forget_merged(&mut self, region: RegionId) -> Result<(), EngineError> {
        if self.directory.taken_in(region).is_some() { self.forget(region) } else { Ok(()) }
    }

    pub(super) fn forget(&self, region: RegionId) -> Result<(), EngineError> {
        let mut batch = WriteBatch::new();
        forget_group(region, &mut batch);
        self.engine.write(batch)
    }

    /// One synced batch: a tombstone instead of everything that is stored of a replica.
    pub(super) fn erase(
        &self,
        id: RegionId,
        peer: PeerId,
        region: Option<&Region>,
        gone: Option<&Gone>,
    ) -> Result<(), EngineError> {
        let mut batch = WriteBatch::new();
        keys::put_region_state(&mut batch, id, &super::snapshot::tombstone(region, peer, gone));
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
        history: (Option<Merging>, Vec<RegionId>),
        applied: &ApplyState,
    ) -> NewGroup {
        let at = (LogIndex(applied.index), Term(applied.term));
        let group = new_group(&local, &region, at, false);
        self.slots.insert(region.id, Slot::new(local, region, history, applied));
        group
    }
}

fn undetermined<T>(token: T) -> Answered<T> {
    Answered { token, answer: Answer::Undetermined }
}
