//! A group's log as raft-rs sees it: a tail of entries in memory over the records of the engine.
//!
//! Entries stay in memory from the moment raft-rs hands them out for writing until they are
//! applied here and known to the members that can be reached; older ones are read from the
//! engine inside `step` (a follower that lags by more than the tail is rare, the read is bounded
//! by raft-rs's message size, and the `raft` column family is small enough to stay in memory).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use quorate_proto::RegionId;
use quorate_proto::limits::INITIAL_INDEX;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::records;
use crate::engine::{Cf, Direction, Engine, EngineError, WriteBatch};

pub(crate) struct GroupLog {
    engine: Arc<dyn Engine>,
    group: RegionId,
    hard: HardState,
    pub(crate) conf: ConfState,
    truncated: (u64, u64),
    last: (u64, u64),
    applied: (u64, u64),
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    /// Bytes of all entries after the truncated one, as far as known.
    bytes: u64,
    /// An engine error met inside raft-rs, which only knows "storage error": the caller of `step`
    /// takes it from here.
    failed: RefCell<Option<EngineError>>,
}

fn corrupt(group: RegionId, reason: impl ToString) -> EngineError {
    EngineError::Corrupt { what: format!("log of {group}"), reason: reason.to_string() }
}

fn size_of(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + 32
}

impl GroupLog {
    /// Loads what the engine has of a group; a group without records starts empty at `applied`.
    pub(crate) fn load(
        engine: Arc<dyn Engine>,
        group: RegionId,
        applied: (u64, u64),
        conf: ConfState,
    ) -> Result<Self, EngineError> {
        let bad = |error: records::BadRecord| corrupt(group, error);
        let mut hard = match engine.get(Cf::Raft, &records::hard_state_key(group))? {
            Some(value) => records::parse_hard_state(group, &value).map_err(bad)?,
            // raft-rs cannot speak in term 0.
            None => HardState { term: applied.1.max(1), ..HardState::default() },
        };
        let truncated = match engine.get(Cf::Raft, &records::truncated_key(group))? {
            Some(value) => records::parse_truncated(group, &value).map_err(bad)?,
            None if applied.0 == 0 => (0, 0),
            None => (INITIAL_INDEX, INITIAL_INDEX),
        };
        let mut last = truncated;
        let (start, end) = records::entry_bounds(group);
        let mut damaged = None;
        engine.scan(Cf::Raft, &start, &end, Direction::Reverse, &mut |key, value| {
            match (records::entry_index(key), records::entry_term(group, value)) {
                (Some(index), Ok(term)) if index > truncated.0 => last = (index, term),
                (Some(_), Ok(_)) => {}
                (None, _) => {
                    damaged = Some(records::BadRecord { group, what: "log entry key" });
                }
                (_, Err(error)) => damaged = Some(error),
            }
            ControlFlow::Break(())
        })?;
        if let Some(error) = damaged {
            return Err(bad(error));
        }
        hard.commit = hard.commit.max(applied.0);
        if last.0 < hard.commit {
            let reason = format!("it ends at {} but {} is committed", last.0, hard.commit);
            return Err(corrupt(group, reason));
        }
        Ok(Self {
            engine,
            group,
            hard,
            conf,
            truncated,
            last,
            applied,
            tail: VecDeque::new(),
            tail_bytes: 0,
            bytes: 0,
            failed: RefCell::new(None),
        })
    }

    pub(crate) fn take_failure(&self) -> Option<EngineError> {
        self.failed.borrow_mut().take()
    }

    pub(crate) fn hard_state(&self) -> &HardState {
        &self.hard
    }

    pub(crate) fn truncated_index(&self) -> u64 {
        self.truncated.0
    }

    pub(crate) fn applied_index(&self) -> u64 {
        self.applied.0
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts entries that raft-rs wants persisted into the tail and into the batch. They may
    /// replace a suffix of the log.
    pub(crate) fn append(&mut self, entries: Vec<Entry>, batch: &mut WriteBatch) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        let old_last = self.last.0;
        while self.tail.back().is_some_and(|entry| entry.index >= first) {
            if let Some(entry) = self.tail.pop_back() {
                self.tail_bytes -= size_of(&entry);
                self.bytes = self.bytes.saturating_sub(size_of(&entry) as u64);
            }
        }
        for entry in entries {
            records::put_entry(self.group, &entry, batch);
            self.last = (entry.index, entry.term);
            self.tail_bytes += size_of(&entry);
            self.bytes += size_of(&entry) as u64;
            self.tail.push_back(entry);
        }
        if self.last.0 < old_last {
            batch.delete_range(
                Cf::Raft,
                records::entry_key(self.group, self.last.0 + 1),
                records::entry_key(self.group, old_last + 1),
            );
        }
    }

    pub(crate) fn set_hard_state(&mut self, hard: HardState, batch: &mut WriteBatch) {
        records::put_hard_state(self.group, &hard, batch);
        self.hard = hard;
    }

    pub(crate) fn note_commit(&mut self, commit: u64) {
        self.hard.commit = commit;
    }

    pub(crate) fn set_applied(&mut self, index: u64, term: u64) {
        self.applied = (index, term);
    }

    /// Forgets entries of the tail up to `index`; they can be read from the engine.
    pub(crate) fn shrink_tail(&mut self, index: u64) {
        let index = index.min(self.applied.0);
        while self.tail.front().is_some_and(|entry| entry.index <= index) {
            if let Some(entry) = self.tail.pop_front() {
                self.tail_bytes -= size_of(&entry);
            }
        }
        if self.tail.is_empty() {
            self.tail = VecDeque::new();
        }
    }

    pub(crate) fn tail_bytes(&self) -> usize {
        self.tail_bytes
    }

    /// Removes the log up to and including `index`, which must be applied.
    pub(crate) fn truncate(
        &mut self,
        index: u64,
        batch: &mut WriteBatch,
    ) -> Result<(), raft::Error> {
        if index <= self.truncated.0 || index > self.applied.0 {
            return Ok(());
        }
        let term = self.term(index)?;
        let share = (index - self.truncated.0) as f64 / (self.last.0 - self.truncated.0) as f64;
        self.bytes -= (self.bytes as f64 * share) as u64;
        self.shrink_tail(index);
        batch.delete_range(
            Cf::Raft,
            records::entry_key(self.group, self.truncated.0 + 1),
            records::entry_key(self.group, index + 1),
        );
        self.truncated = (index, term);
        records::put_truncated(self.group, index, term, batch);
        Ok(())
    }

    /// Replaces the whole log by "everything up to the snapshot".
    pub(crate) fn restore(
        &mut self,
        index: u64,
        term: u64,
        conf: ConfState,
        mut hard: HardState,
        batch: &mut WriteBatch,
    ) {
        let (start, end) = records::entry_bounds(self.group);
        batch.delete_range(Cf::Raft, start, end);
        self.tail = VecDeque::new();
        self.tail_bytes = 0;
        self.bytes = 0;
        self.truncated = (index, term);
        self.last = (index, term);
        self.conf = conf;
        records::put_truncated(self.group, index, term, batch);
        hard.commit = index;
        self.set_hard_state(hard, batch);
    }

    fn fail<A>(&self, error: EngineError) -> raft::Result<A> {
        let words = error.to_string();
        *self.failed.borrow_mut() = Some(error);
        Err(raft::Error::Store(StorageError::Other(words.into())))
    }

    fn read(&self, low: u64, high: u64, limit: u64) -> raft::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut size = 0;
        let mut bad = None;
        let scanned = self.engine.scan(
            Cf::Raft,
            &records::entry_key(self.group, low),
            &records::entry_key(self.group, high),
            Direction::Forward,
            &mut |key, value| {
                let index = records::entry_index(key).unwrap_or(0);
                let value = bytes::Bytes::copy_from_slice(value);
                match records::parse_entry(self.group, index, value) {
                    Ok(entry) if index == low + entries.len() as u64 => {
                        size += size_of(&entry) as u64;
                        if !entries.is_empty() && size > limit {
                            return ControlFlow::Break(());
                        }
                        entries.push(entry);
                        ControlFlow::Continue(())
                    }
                    Ok(_) => ControlFlow::Break(()),
                    Err(error) => {
                        bad = Some(error);
                        ControlFlow::Break(())
                    }
                }
            },
        );
        if let Err(error) = scanned {
            return self.fail(error);
        }
        if let Some(error) = bad {
            return self.fail(corrupt(self.group, error));
        }
        if entries.is_empty() {
            return self.fail(corrupt(self.group, format!("entry {low} is missing")));
        }
        Ok(entries)
    }
}

impl Storage for GroupLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState { hard_state: self.hard.clone(), conf_state: self.conf.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.truncated.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last.0 + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        if low >= high {
            return Ok(Vec::new());
        }
        let limit = max_size.into().unwrap_or(u64::MAX);
        let tail_first = self.tail.front().map_or(u64::MAX, |entry| entry.index);
        if low < tail_first {
            return self.read(low, high.min(tail_first), limit);
        }
        let mut size = 0;
        let mut entries = Vec::new();
        let range = (low - tail_first) as usize..(high - tail_first) as usize;
        for entry in self.tail.range(range) {
            size += size_of(entry) as u64;
            if !entries.is_empty() && size > limit {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.truncated.0 {
            return Ok(self.truncated.1);
        }
        if index < self.truncated.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if index > self.last.0 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        if index == self.last.0 {
            return Ok(self.last.1);
        }
        if index == self.applied.0 {
            return Ok(self.applied.1);
        }
        if let Some(first) = self.tail.front().map(|entry| entry.index)
            && index >= first
        {
            return Ok(self.tail[(index - first) as usize].term);
        }
        Ok(self.read(index, index + 1, u64::MAX)?[0].term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last.0)
    }

    /// Only what raft-rs needs to know: the data is produced when the message leaves, and may
    /// then end at a later index.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.applied.0 < request_index || self.applied.0 == 0 {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        snapshot.mut_metadata().index = self.applied.0;
        snapshot.mut_metadata().term = self.applied.1;
        *snapshot.mut_metadata().mut_conf_state() = self.conf.clone();
        Ok(snapshot)
    }
}
