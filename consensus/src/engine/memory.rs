//! The engine of the simulator: everything in memory, and it can crash.
//!
//! What is written and what is synced are kept apart. The write-ahead log is one order of batches
//! over all column families; each unsynced batch remembers what it replaced, so that
//! [`MemoryEngine::crash`] can undo all but a prefix of them. A sync forgets these memories.
//!
//! Staged files are durable once finished and lie outside of that order. An ingest syncs what was
//! written before it and is durable itself, as [`RocksEngine`] does it.
//!
//! Deterministic: no clock, no randomness, no order of hashes.
//!
//! [`RocksEngine`]: super::RocksEngine

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::memory_stage::{MemoryStage, Pair};
use super::versions::{Entry, Versions};
use super::{
    Cf, Direction, Engine, EngineError, EngineStats, Op, Reader, Resumed, Stage, Visit, WriteBatch,
    check_staged_name,
};

/// Entries that a scan copies out under the lock before it calls the visitor: few at first, since
/// most visitors stop early.
const PAGES: (usize, usize) = (16, 1024);

/// How the next write of a [`MemoryEngine`] fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFault {
    /// The disk reports an error.
    Broken,
    /// The disk is full.
    Full,
}

/// A sorted store in memory with a simulated disk. Clones are handles of the same engine.
#[derive(Clone, Debug, Default)]
pub struct MemoryEngine {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    families: [Versions; 3],
    /// Number of the last batch.
    number: u64,
    /// Open snapshots: number → how many.
    snapshots: BTreeMap<u64, usize>,
    /// Per unsynced batch, oldest first: what each change replaced.
    unsynced: Vec<Vec<(Cf, Entry)>>,
    pub(super) staged: BTreeMap<String, Arc<Vec<Pair>>>,
    /// As of their last checkpoint, with its note.
    pub(super) unfinished: BTreeMap<String, (Vec<Pair>, Bytes)>,
    /// Set by a crash or a failure: what every later write returns.
    dead: Option<EngineError>,
    /// Set by a crash: reads fail as well.
    crashed: bool,
    write_fault: Option<WriteFault>,
    sync_fault: bool,
    stats: EngineStats,
}

impl MemoryEngine {
    /// An empty engine.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends this engine as a power failure would and returns what a restarted process finds: all
    /// that was synced, and the first `keep(n)` of the `n` unsynced batches (all, where it says
    /// more). Every handle and snapshot of this engine fails with [`EngineError::Closed`] from
    /// now on; fault switches and a poisoned state do not survive.
    pub fn crash(&self, keep: impl FnOnce(usize) -> usize) -> MemoryEngine {
        let mut state = std::mem::take(&mut *self.state.lock());
        {
            let mut dead = self.state.lock();
            dead.dead = Some(EngineError::Closed);
            dead.crashed = true;
        }
        state.snapshots.clear();
        state.families.iter_mut().for_each(Versions::forget_stale);
        let kept = keep(state.unsynced.len()).min(state.unsynced.len());
        state.number += 1;
        let number = state.number;
        for replaced in state.unsynced.drain(kept..).rev() {
            for (cf, (key, value)) in replaced.into_iter().rev() {
                state.families[cf.index()].set(&key, value, number, false);
            }
        }
        // What recovery replayed is on disk.
        let restarted = State {
            families: state.families,
            number,
            staged: state.staged,
            unfinished: state.unfinished,
            ..State::default()
        };
        MemoryEngine { state: Arc::new(Mutex::new(restarted)) }
    }

    /// Batches written since the last sync.
    pub fn unsynced(&self) -> usize {
        self.state.lock().unsynced.len()
    }

    /// Lets the next sync fail and poison the engine.
    pub fn fail_next_sync(&self) {
        self.state.lock().sync_fault = true;
    }

    /// Lets the next write fail and poison the engine. Nothing of that batch is written.
    pub fn fail_next_write(&self, fault: WriteFault) {
        self.state.lock().write_fault = Some(fault);
    }

    fn view(&self) -> View {
        let mut state = self.state.lock();
        let number = state.number;
        *state.snapshots.entry(number).or_default() += 1;
        View { state: Arc::clone(&self.state), number }
    }
}

impl State {
    pub(super) fn writable(&self) -> Result<(), EngineError> {
        self.dead.clone().map_or(Ok(()), Err)
    }

    fn readable(&self) -> Result<(), EngineError> {
        if self.crashed { Err(EngineError::Closed) } else { Ok(()) }
    }

    fn poison(&mut self, error: EngineError) -> EngineError {
        self.dead = Some(error.clone());
        error
    }

    fn write(&mut self, batch: WriteBatch) -> Result<(), EngineError> {
        self.writable()?;
        let during = "writing a batch".to_owned();
        match self.write_fault.take() {
            Some(WriteFault::Full) => return Err(self.poison(EngineError::Full { during })),
            Some(WriteFault::Broken) => {
                let reason = "simulated fault".to_owned();
                return Err(self.poison(EngineError::Fatal { during, reason }));
            }
            None => {}
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.stats.batches += 1;
        self.stats.written_bytes += batch.bytes() as u64;
        self.number += 1;
        let mut replaced = Vec::with_capacity(batch.len());
        for op in batch.into_ops() {
            match op {
                Op::Put { cf, key, value } => self.set(cf, key, Some(value), &mut replaced),
                Op::Delete { cf, key } => self.set(cf, key, None, &mut replaced),
                Op::DeleteRange { cf, start, end } => {
                    self.clear_range(cf, &start, &end, &mut replaced);
                }
            }
        }
        self.unsynced.push(replaced);
        Ok(())
    }

    fn set(&mut self, cf: Cf, key: Bytes, value: Option<Bytes>, replaced: &mut Vec<(Cf, Entry)>) {
        let keep = !self.snapshots.is_empty();
        let before = self.families[cf.index()].set(&key, value, self.number, keep);
        replaced.push((cf, (key, before)));
    }

    fn clear_range(&mut self, cf: Cf, start: &[u8], end: &[u8], replaced: &mut Vec<(Cf, Entry)>) {
        let (start, end) = bounds(start, end);
        let family = &self.families[cf.index()];
        for (key, _) in family.page(start, end, Direction::Forward, u64::MAX, usize::MAX) {
            self.set(cf, key, None, replaced);
        }
    }

    fn sync(&mut self) -> Result<(), EngineError> {
        self.writable()?;
        if std::mem::take(&mut self.sync_fault) {
            let (during, reason) = ("syncing".to_owned(), "simulated fault".to_owned());
            return Err(self.poison(EngineError::Fatal { during, reason }));
        }
        self.unsynced.clear();
        self.stats.syncs += 1;
        Ok(())
    }
}

impl Engine for MemoryEngine {
    fn snapshot(&self) -> Box<dyn Reader + Send> {
        Box::new(self.view())
    }

    fn write(&self, batch: WriteBatch) -> Result<(), EngineError> {
        self.state.lock().write(batch)
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.state.lock().sync()
    }

    fn stage(&self, name: &str) -> Result<Box<dyn Stage>, EngineError> {
        check_staged_name(name);
        let mut state = self.state.lock();
        state.writable()?;
        state.unfinished.remove(name);
        Ok(Box::new(MemoryStage::new(Arc::clone(&self.state), name, Vec::new())))
    }

    fn resume_stage(&self, name: &str) -> Result<Option<Resumed>, EngineError> {
        check_staged_name(name);
        let state = self.state.lock();
        state.writable()?;
        let Some((entries, note)) = state.unfinished.get(name).cloned() else { return Ok(None) };
        Ok(Some((Box::new(MemoryStage::new(Arc::clone(&self.state), name, entries)), note)))
    }

    fn unfinished(&self) -> Result<Vec<(String, Bytes)>, EngineError> {
        let state = self.state.lock();
        state.readable()?;
        let pair = |(name, (_, note)): (&String, &(_, Bytes))| (name.clone(), note.clone());
        Ok(state.unfinished.iter().map(pair).collect())
    }

    fn staged(&self) -> Result<Vec<String>, EngineError> {
        let state = self.state.lock();
        state.readable()?;
        Ok(state.staged.keys().cloned().collect())
    }

    fn discard_staged(&self, name: &str) -> Result<(), EngineError> {
        check_staged_name(name);
        let mut state = self.state.lock();
        state.writable()?;
        state.staged.remove(name);
        state.unfinished.remove(name);
        Ok(())
    }

    fn ingest(&self, name: &str, start: &[u8], end: &[u8]) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        state.writable()?;
        let missing = || EngineError::NotStaged { name: name.to_owned() };
        let file = Arc::clone(state.staged.get(name).ok_or_else(missing)?);
        let inside = |key: &Bytes| key >= start && (end.is_empty() || key < end);
        if !file.iter().all(|(key, _)| inside(key)) {
            return Err(EngineError::Unordered { name: name.to_owned() });
        }
        state.sync()?;
        state.number += 1;
        let mut replaced = Vec::new();
        state.clear_range(Cf::Data, start, end, &mut replaced);
        for (key, value) in file.iter() {
            state.set(Cf::Data, key.clone(), Some(value.clone()), &mut replaced);
        }
        Ok(())
    }

    fn prepare_ingest(&self, name: &str) -> Result<(), EngineError> {
        let state = self.state.lock();
        state.writable()?;
        let found = state.staged.contains_key(name);
        if found { Ok(()) } else { Err(EngineError::NotStaged { name: name.to_owned() }) }
    }

    fn approximate_size(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<u64, EngineError> {
        let state = self.state.lock();
        state.readable()?;
        let (start, end) = bounds(start, end);
        Ok(state.families[cf.index()].bytes(start, end))
    }

    fn stats(&self) -> EngineStats {
        let state = self.state.lock();
        let snapshots = state.snapshots.values().sum::<usize>() as u64;
        let all = (Bound::Unbounded, Bound::Unbounded);
        let held = |family: &Versions| family.bytes(all.0, all.1);
        let memtable_bytes = state.families.iter().map(held).sum();
        EngineStats { memtable_bytes, snapshots, ..state.stats }
    }
}

impl Reader for MemoryEngine {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let state = self.state.lock();
        state.readable()?;
        Ok(state.families[cf.index()].get(key, u64::MAX).cloned())
    }

    fn multi_get(&self, cf: Cf, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        let state = self.state.lock();
        state.readable()?;
        let family = &state.families[cf.index()];
        Ok(keys.iter().map(|key| family.get(key, u64::MAX).cloned()).collect())
    }

    fn scan(
        &self,
        cf: Cf,
        start: &[u8],
        end: &[u8],
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        self.view().scan(cf, start, end, direction, visit)
    }
}

/// The engine as of one batch.
struct View {
    state: Arc<Mutex<State>>,
    number: u64,
}

impl Drop for View {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        // After a crash the count went with the state.
        let Some(count) = state.snapshots.get_mut(&self.number) else { return };
        *count -= 1;
        if *count == 0 {
            state.snapshots.remove(&self.number);
        }
        if state.snapshots.is_empty() {
            state.families.iter_mut().for_each(Versions::forget_stale);
        }
    }
}

impl Reader for View {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let state = self.state.lock();
        state.readable()?;
        Ok(state.families[cf.index()].get(key, self.number).cloned())
    }

    fn multi_get(&self, cf: Cf, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        keys.iter().map(|key| self.get(cf, key)).collect()
    }

    fn scan(
        &self,
        cf: Cf,
        start: &[u8],
        end: &[u8],
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        let mut last: Option<Bytes> = None;
        let mut limit = PAGES.0;
        loop {
            let (mut low, mut high) = bounds(start, end);
            match (&last, direction) {
                (Some(last), Direction::Forward) => low = Bound::Excluded(last),
                (Some(last), Direction::Reverse) => high = Bound::Excluded(last),
                (None, _) => {}
            }
            let page = {
                let state = self.state.lock();
                state.readable()?;
                state.families[cf.index()].page(low, high, direction, self.number, limit)
            };
            for (key, value) in &page {
                if let ControlFlow::Break(()) = visit(key, value) {
                    return Ok(());
                }
            }
            if page.len() < limit {
                return Ok(());
            }
            last = page.into_iter().next_back().map(|(key, _)| key);
            limit = (limit * 4).min(PAGES.1);
        }
    }
}

fn bounds<'a>(start: &'a [u8], end: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    let end = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end) };
    (Bound::Included(start), end)
}
