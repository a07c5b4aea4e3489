//! The storage engine: reads, and batches that leave as data.
//!
//! One engine serves all regions of a store (or one placement member). It has three column
//! families under **one write-ahead log**, so that a batch is atomic over all of them and one
//! [`Engine::sync`] makes everything written before it durable.
//!
//! Two implementations, held together by the same golden scripts (`tests/engine/`):
//! [`RocksEngine`] for processes, [`MemoryEngine`] for the simulator, which can crash.
//!
//! Invariants:
//! * After a crash the engine holds all synced batches and a prefix of the unsynced ones, in the
//!   order in which they were written, never a part of a batch.
//! * A failed write or sync poisons the engine: pages that could not be written are clean
//!   afterwards and lost, so nothing is retried and every later write returns the first error.
//! * An ingested file is durable, and so is everything written before it.
//!
//! Absent on purpose: compaction filters (replicas would differ), transactions, merge operators,
//! time to live, and writes without a write-ahead log.

mod batch;
mod error;
mod memory;
mod memory_stage;
mod options;
mod rocks;
mod rocks_list;
mod rocks_open;
mod rocks_read;
mod rocks_stage;
mod space;
mod synced;
mod versions;

use std::ops::ControlFlow;

use bytes::Bytes;

pub use self::batch::{Op, WriteBatch};
pub use self::error::EngineError;
pub use self::memory::{MemoryEngine, WriteFault};
pub use self::options::RocksOptions;
pub use self::rocks::RocksEngine;
pub use self::space::{Space, space};

/// Column family: a key space of its own under the common write-ahead log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cf {
    /// Log entries and hard states: written once, read rarely, soon deleted by range.
    Raft,
    /// Region states, applied indexes, the identity of the store. Small.
    Meta,
    /// What users wrote.
    Data,
}

impl Cf {
    /// All of them, in the order of [`Cf::index`].
    pub const ALL: [Cf; 3] = [Cf::Raft, Cf::Meta, Cf::Data];

    /// Its name on disk and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Cf::Raft => "raft",
            Cf::Meta => "meta",
            Cf::Data => "data",
        }
    }

    /// Its place in [`Cf::ALL`].
    pub const fn index(self) -> usize {
        match self {
            Cf::Raft => 0,
            Cf::Meta => 1,
            Cf::Data => 2,
        }
    }
}

/// Which way a scan goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// From the start of the range up.
    Forward,
    /// From the greatest key below the end of the range down.
    Reverse,
}

/// What a scan calls for each entry with key and value; `Break` ends the scan.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Reads from an engine or from a snapshot of it.
///
/// A range has an inclusive start and an exclusive end; an empty end means no bound.
pub trait Reader {
    /// The value of one key.
    ///
    /// # Errors
    /// The stored bytes cannot be read or are damaged.
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// [`Reader::get`] for a thread that others wait for: it gives up where the disk would have to
    /// be asked.
    ///
    /// # Errors
    /// [`EngineError::Incomplete`] then; otherwise as [`Reader::get`].
    fn get_briefly(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.get(cf, key)
    }

    /// The values of several keys, in the order asked for, all of the same moment.
    ///
    /// # Errors
    /// As [`Reader::get`]; one bad key fails the call.
    fn multi_get(&self, cf: Cf, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError>;

    /// [`Reader::multi_get`] for a thread that others wait for.
    ///
    /// # Errors
    /// As [`Reader::get_briefly`]; one key that is not in memory fails the call.
    fn multi_get_briefly(&self, cf: Cf, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.multi_get(cf, keys)
    }

    /// Visits the entries of `[start, end)` as of the moment of the call, in key order or against
    /// it, until `visit` returns `Break`. `visit` may use the engine, even write to it.
    ///
    /// # Errors
    /// As [`Reader::get`]; entries before the bad one have been visited.
    fn scan(
        &self,
        cf: Cf,
        start: &[u8],
        end: &[u8],
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), EngineError>;

    /// [`Reader::scan`] for a thread that others wait for: it gives up where many deleted or
    /// overwritten entries lie between those that are there, and where the disk would have to be
    /// asked.
    ///
    /// # Errors
    /// [`EngineError::Incomplete`] then; otherwise as [`Reader::scan`].
    fn scan_briefly(
        &self,
        cf: Cf,
        start: &[u8],
        end: &[u8],
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        self.scan(cf, start, end, direction, visit)
    }

    /// [`Reader::scan`] forward, for a long pass over what nobody else asks for at the moment:
    /// the cache keeps what it has.
    ///
    /// # Errors
    /// As [`Reader::scan`].
    fn sweep(&self, cf: Cf, start: &[u8], end: &[u8], visit: Visit<'_>) -> Result<(), EngineError> {
        self.scan(cf, start, end, Direction::Forward, visit)
    }
}

/// A staged file that is gone on with, and the note of its last checkpoint.
pub type Resumed = (Box<dyn Stage>, Bytes);

/// A store of sorted bytes. Shared as `Arc<dyn Engine>`.
pub trait Engine: Reader + Send + Sync + 'static {
    /// A consistent view of all column families. It keeps what it needs of the engine alive and
    /// holds back the reclaiming of overwritten data, so do not keep it for long.
    fn snapshot(&self) -> Box<dyn Reader + Send>;

    /// Writes a batch into the write-ahead log and makes it visible, atomically over the column
    /// families, **without** making it durable: until the next sync, the end of the process in any
    /// way may take it.
    ///
    /// # Errors
    /// [`EngineError::Fatal`], [`EngineError::Full`]: the engine is poisoned, stop the process.
    fn write(&self, batch: WriteBatch) -> Result<(), EngineError>;

    /// Makes every write that returned before this call durable. Does not hold up writers while
    /// it waits for the disk.
    ///
    /// # Errors
    /// As [`Engine::write`]. Never try again: what was lost stays lost.
    fn sync(&self) -> Result<(), EngineError>;

    /// [`Engine::write`], then [`Engine::sync`], in fewer steps. The way to write a log.
    ///
    /// # Errors
    /// As [`Engine::write`].
    fn write_synced(&self, batch: WriteBatch) -> Result<(), EngineError> {
        self.write(batch)?;
        self.sync()
    }

    /// Begins a staged file: sorted entries of [`Cf::Data`] outside of the column family, to be
    /// ingested later. A finished file of the same name stays until this one is finished; an
    /// unfinished one is removed. One [`Stage`] of a name at a time.
    ///
    /// # Errors
    /// The file cannot be created.
    ///
    /// # Panics
    /// `name` is not 1 to 100 bytes of ASCII letters, digits, `-` and `_`.
    fn stage(&self, name: &str) -> Result<Box<dyn Stage>, EngineError>;

    /// Goes on with an unfinished staged file behind its last checkpoint, with the note given
    /// there; perhaps of an earlier process. What it has is checked: `None` where it is damaged
    /// (it is removed then) or not there.
    ///
    /// # Errors
    /// The file cannot be read.
    ///
    /// # Panics
    /// As [`Engine::stage`].
    fn resume_stage(&self, name: &str) -> Result<Option<Resumed>, EngineError>;

    /// Names and notes of the unfinished staged files that have a checkpoint, sorted.
    ///
    /// # Errors
    /// The folder cannot be read.
    fn unfinished(&self) -> Result<Vec<(String, Bytes)>, EngineError>;

    /// Names of the finished staged files, sorted.
    ///
    /// # Errors
    /// The folder cannot be read.
    fn staged(&self) -> Result<Vec<String>, EngineError>;

    /// Removes a staged file, finished or not; nothing happens where there is none.
    ///
    /// # Errors
    /// The file cannot be removed.
    fn discard_staged(&self, name: &str) -> Result<(), EngineError>;

    /// Replaces what [`Cf::Data`] holds in `[start, end)` by the named staged file, whose keys
    /// must lie inside. Durable when it returns, together with every earlier write. May be done
    /// again, also after a crash in the middle, which can leave the range in its old state or
    /// empty. The staged file stays until [`Engine::discard_staged`]. Nobody else may write to
    /// the range meanwhile.
    ///
    /// # Errors
    /// [`EngineError::NotStaged`], [`EngineError::BadStaged`]; otherwise as
    /// [`Engine::write`].
    fn ingest(&self, name: &str, start: &[u8], end: &[u8]) -> Result<(), EngineError>;

    /// Does ahead what [`Engine::ingest`] of that file would have to do while writers wait. For a
    /// background thread, shortly before; never needed.
    ///
    /// # Errors
    /// As [`Engine::ingest`].
    fn prepare_ingest(&self, name: &str) -> Result<(), EngineError>;

    /// Roughly how many bytes a range takes: exact for a few hundred entries; beyond that,
    /// RocksDB counts sorted files as compressed and misses what is still in memtables. Costs
    /// about a hundred reads: for each region now and then, not for each write.
    ///
    /// # Errors
    /// As [`Reader::get`].
    fn approximate_size(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<u64, EngineError>;

    /// Writers wait, and something that the engine does by itself (it flushes and compacts) has
    /// failed. Where that lasts they wait in vain, and the process must stop. To be asked about once
    /// a second, from a thread that does not write.
    fn stuck(&self) -> Option<EngineError> {
        None
    }

    /// Counters and gauges. Cheap enough for a scrape, not for the hot path.
    fn stats(&self) -> EngineStats;
}

/// A staged file being written. Dropped before it is finished, it leaves what its last checkpoint
/// has, or nothing.
pub trait Stage: Send {
    /// Adds an entry.
    ///
    /// # Errors
    /// [`EngineError::Unordered`] for a key that is not above the one before;
    /// [`EngineError::Full`] or [`EngineError::Fatal`] where the file cannot be written.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), EngineError>;

    /// Makes everything put so far durable, with a note for [`Engine::resume_stage`]. Each one
    /// ends a file on disk: every few MiB, not for every entry.
    ///
    /// # Errors
    /// The file cannot be written.
    fn checkpoint(&mut self, note: &[u8]) -> Result<(), EngineError>;

    /// Ends the file. It is durable, and listed by [`Engine::staged`], once this returns.
    ///
    /// # Errors
    /// The file cannot be written.
    fn finish(self: Box<Self>) -> Result<StagedFile, EngineError>;
}

/// A finished staged file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedFile {
    /// The name it was staged under.
    pub name: String,
    /// How many entries it has.
    pub entries: u64,
    /// Bytes of its keys and values.
    pub bytes: u64,
}

/// What an engine says about itself. Counters start at zero with the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Syncs of the write-ahead log that reached the disk.
    pub syncs: u64,
    /// Batches written.
    pub batches: u64,
    /// Bytes of keys and values in those batches.
    pub written_bytes: u64,
    /// Bytes of memory that hold what is not flushed to sorted files yet.
    pub memtable_bytes: u64,
    /// Bytes in the block cache.
    pub block_cache_bytes: u64,
    /// Bytes of memory for open files' indexes and filters outside of the block cache.
    pub table_reader_bytes: u64,
    /// Bytes of live sorted files.
    pub sst_bytes: u64,
    /// Bytes of write-ahead log files, preallocated and recycled ones included.
    pub wal_bytes: u64,
    /// Estimate of the bytes that compaction still has to rewrite.
    pub pending_compaction_bytes: u64,
    /// Snapshots that are held.
    pub snapshots: u64,
}

/// Panics unless `name` can be a file name on every system. Names come from our own code.
fn check_staged_name(name: &str) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    assert!(
        (1..=100).contains(&name.len()) && name.bytes().all(plain),
        "a staged file's name is 1 to 100 letters, digits, '-' and '_', unlike {name:?}"
    );
}
