//! An engine under test that can be restarted, whichever it is.

use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::engine::{
    Cf, Direction, Engine, MemoryEngine, Reader, RocksEngine, RocksOptions,
};
use tempfile::TempDir;

/// Options that make files and logs small, so that short tests meet flushes.
pub(crate) fn small_options() -> RocksOptions {
    RocksOptions {
        block_cache_bytes: 1 << 20,
        memtable_bytes: 4 << 20,
        wal_bytes: 4 << 20,
        background_jobs: 1,
        ..RocksOptions::default()
    }
}

pub(crate) enum Subject {
    Memory(MemoryEngine),
    Rocks { engine: Option<RocksEngine>, folder: TempDir },
}

impl Subject {
    pub(crate) fn memory() -> Self {
        Subject::Memory(MemoryEngine::new())
    }

    pub(crate) fn rocks() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = RocksEngine::open(folder.path(), &small_options()).unwrap();
        Subject::Rocks { engine: Some(engine), folder }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Subject::Memory(_) => "memory",
            Subject::Rocks { .. } => "rocks",
        }
    }

    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        match self {
            Subject::Memory(engine) => Arc::new(engine.clone()),
            Subject::Rocks { engine, .. } => Arc::new(engine.clone().unwrap()),
        }
    }

    /// Ends the process and starts it again; the machine stays up, so nothing is lost. Nobody
    /// may hold a handle or a snapshot.
    pub(crate) fn restart(&mut self) {
        match self {
            Subject::Memory(engine) => *engine = engine.crash(|unsynced| unsynced),
            Subject::Rocks { engine, folder } => {
                drop(engine.take());
                *engine = Some(RocksEngine::open(folder.path(), &small_options()).unwrap());
            }
        }
    }
}

/// All entries of `[start, end)`, at most `limit`.
pub(crate) fn collect(
    reader: &dyn Reader,
    cf: Cf,
    (start, end): (&[u8], &[u8]),
    direction: Direction,
    limit: usize,
) -> Vec<(Bytes, Bytes)> {
    let mut entries = Vec::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        entries.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        if entries.len() < limit {
            std::ops::ControlFlow::Continue(())
        } else {
            std::ops::ControlFlow::Break(())
        }
    };
    reader.scan(cf, start, end, direction, visit).unwrap();
    entries
}
