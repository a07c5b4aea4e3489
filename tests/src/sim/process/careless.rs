//! A staged file that is written carelessly: a bug that is put in.

use bytes::Bytes;
use quorate_consensus::engine::{EngineError, Stage, StagedFile};

/// Notes how far the chunks have come, and writes them afterwards.
pub(super) struct Careless {
    stage: Box<dyn Stage>,
    unwritten: Vec<(Bytes, Bytes)>,
}

impl Careless {
    pub(super) fn new(stage: Box<dyn Stage>) -> Self {
        Self { stage, unwritten: Vec::new() }
    }

    fn flush(&mut self) -> Result<(), EngineError> {
        for (key, value) in self.unwritten.drain(..) {
            self.stage.put(&key, &value)?;
        }
        Ok(())
    }
}

impl Stage for Careless {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        self.unwritten.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        Ok(())
    }

    fn checkpoint(&mut self, note: &[u8]) -> Result<(), EngineError> {
        self.stage.checkpoint(note)?;
        self.flush()
    }

    fn finish(mut self: Box<Self>) -> Result<StagedFile, EngineError> {
        self.flush()?;
        self.stage.finish()
    }
}
