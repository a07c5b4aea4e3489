//! Staged files of the engine in memory.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::memory::State;
use super::{EngineError, Stage, StagedFile};

/// A key with its value.
pub(super) type Pair = (Bytes, Bytes);

/// A staged file being written.
pub(super) struct MemoryStage {
    state: Arc<Mutex<State>>,
    name: String,
    entries: Vec<Pair>,
    bytes: u64,
}

impl MemoryStage {
    pub(super) fn new(state: Arc<Mutex<State>>, name: &str, entries: Vec<Pair>) -> Self {
        let bytes = entries.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        Self { state, name: name.to_owned(), entries, bytes }
    }
}

impl Stage for MemoryStage {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        if self.entries.last().is_some_and(|(last, _)| last >= key) {
            return Err(EngineError::Unordered { name: self.name.clone() });
        }
        self.bytes += (key.len() + value.len()) as u64;
        self.entries.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        Ok(())
    }

    fn checkpoint(&mut self, note: &[u8]) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        state.writable()?;
        let kept = (self.entries.clone(), Bytes::copy_from_slice(note));
        state.unfinished.insert(self.name.clone(), kept);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<StagedFile, EngineError> {
        let mut state = self.state.lock();
        state.writable()?;
        state.unfinished.remove(&self.name);
        let entries = self.entries.len() as u64;
        state.staged.insert(self.name.clone(), Arc::new(self.entries));
        Ok(StagedFile { name: self.name, entries, bytes: self.bytes })
    }
}
