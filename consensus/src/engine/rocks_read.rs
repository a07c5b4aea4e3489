//! Reads from RocksDB, of the engine and of its snapshots.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{ColumnFamily, DB, ReadOptions, ReadTier, SnapshotWithThreadMode};

use super::rocks::{RocksEngine, Shared};
use super::{Cf, Direction, EngineError, Reader, Visit};

/// Bytes that a long pass reads ahead.
const SWEEP_READAHEAD: usize = 1 << 20;

/// Deleted or overwritten entries that a brief scan passes over on its way to the next one; some
/// tenths of a microsecond each.
const BRIEF_SKIPS: u64 = 256;

/// A consistent view that keeps the database open.
pub(super) struct RocksSnapshot {
    // Released before the database it belongs to: fields drop in this order.
    options: ReadOptions,
    snapshot: SnapshotWithThreadMode<'static, DB>,
    shared: Arc<Shared>,
}

impl RocksSnapshot {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        // SAFETY: the database lives in the heap allocation of `shared`, at an address that does
        // not change, and is neither dropped nor mutably borrowed while this struct holds `shared`;
        // `snapshot` is dropped before it and the extended lifetime never leaves the struct.
        let database: &'static DB = unsafe { &*std::ptr::from_ref(shared.database()) };
        let snapshot = database.snapshot();
        let mut options = ReadOptions::default();
        options.set_snapshot(&snapshot);
        Self { options, snapshot, shared }
    }
}

impl Reader for RocksSnapshot {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        get(self.shared.database(), self.shared.family(cf), key, &self.options)
    }

    fn multi_get(&self, cf: Cf, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        multi_get(self.shared.database(), self.shared.family(cf), keys, &self.options)
    }

    fn scan(
        &self,
        cf: Cf,
        start: &[u8],
        end: &[u8],
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        let family = self.shared.family(cf);
        scan(self.shared.database(), family, (start, end), direction, options, visit)
    }

    fn scan_briefly(
        &self,
        cf: Cf,
        start: &[u8],
        end: &[u8],
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        let mut options = brief();
        options.set_snapshot(&self.snapshot);
        let family = self.shared.family(cf);
        scan(self.shared.database(), family, (start, end), direction, options, visit)
    }

    fn sweep(&self, cf: Cf, start: &[u8], end: &[u8], visit: Visit<'_>) -> Result<(), EngineError> {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options.fill_cache(false);
        options.set_readahead_size(SWEEP_READAHEAD);
        let family = self.shared.family(cf);
        scan(self.shared.database(), family, (start, end), Direction::Forward, options, visit)
    }
}

impl Reader for RocksEngine {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        get(self.shared.database(), self.shared.family(cf), key, &self.shared.reads)
    }

    fn multi_get(&self, cf: Cf, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        let family = self.shared.family(cf);
        multi_get(self.shared.database(), family, keys, &self.shared.reads)
    }

    fn get_briefly(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        get(self.shared.database(), self.shared.family(cf), key, &self.shared.brief_reads)
    }

    fn multi_get_briefly(&self, cf: Cf, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        // One by one: RocksDB's own call for several keys asks the disk all the same.
        let (database, family) = (self.shared.database(), self.shared.family(cf));
        let snapshot = database.snapshot();
        let mut options = from_memory();
        options.set_snapshot(&snapshot);
        keys.iter().map(|key| get(database, family, key, &options)).collect()
    }

    fn scan(
        &self,
        cf: Cf,
        start: &[u8],
        end: &[u8],
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        let (family, options) = (self.shared.family(cf), ReadOptions::default());
        scan(self.shared.database(), family, (start, end), direction, options, visit)
    }

    fn scan_briefly(
        &self,
        cf: Cf,
        start: &[u8],
        end: &[u8],
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        let (family, options) = (self.shared.family(cf), brief());
        scan(self.shared.database(), family, (start, end), direction, options, visit)
    }
}

/// For a read that must not wait for the disk: memtables and the block cache alone, where the indexes
/// and filters of open files are pinned. (The last level has no filters: keys that do not exist need
/// the disk as often as others.) A block that is not there ends the read as incomplete and is not
/// brought in.
pub(super) fn from_memory() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_read_tier(ReadTier::BlockCache);
    options
}

/// For a scan that must not take long.
fn brief() -> ReadOptions {
    let mut options = from_memory();
    options.set_max_skippable_internal_keys(BRIEF_SKIPS);
    options
}

pub(super) fn get(
    database: &DB,
    family: &ColumnFamily,
    key: &[u8],
    options: &ReadOptions,
) -> Result<Option<Bytes>, EngineError> {
    let found = database.get_pinned_cf_opt(&family, key, options).map_err(failed)?;
    Ok(found.map(|value| Bytes::copy_from_slice(&value)))
}

pub(super) fn multi_get(
    database: &DB,
    family: &ColumnFamily,
    keys: &[&[u8]],
    options: &ReadOptions,
) -> Result<Vec<Option<Bytes>>, EngineError> {
    let found = database.batched_multi_get_cf_opt(&family, keys.iter().copied(), false, options);
    let copied = |value: Option<rocksdb::DBPinnableSlice<'_>>| {
        value.map(|value| Bytes::copy_from_slice(&value))
    };
    found.into_iter().map(|value| value.map(copied).map_err(failed)).collect()
}

pub(super) fn scan(
    database: &DB,
    family: &ColumnFamily,
    (start, end): (&[u8], &[u8]),
    direction: Direction,
    mut options: ReadOptions,
    visit: Visit<'_>,
) -> Result<(), EngineError> {
    if !end.is_empty() {
        if start >= end {
            return Ok(());
        }
        options.set_iterate_upper_bound(end);
    }
    if direction == Direction::Reverse {
        options.set_iterate_lower_bound(start);
    }
    let mut cursor = database.raw_iterator_cf_opt(&family, options);
    match direction {
        Direction::Forward => cursor.seek(start),
        Direction::Reverse => cursor.seek_to_last(),
    }
    while let Some((key, value)) = cursor.item() {
        if let ControlFlow::Break(()) = visit(key, value) {
            return Ok(());
        }
        match direction {
            Direction::Forward => cursor.next(),
            Direction::Reverse => cursor.prev(),
        }
    }
    // The cursor also ends at what it cannot read.
    cursor.status().map_err(failed)
}

fn failed(error: rocksdb::Error) -> EngineError {
    EngineError::from_rocks("reading", &error)
}

/// The greatest key of a family below `end`, where there is one at or above `start`, as far as `tier`
/// looks.
pub(super) fn last_key(
    shared: &Shared,
    cf: Cf,
    start: &[u8],
    end: &[u8],
    tier: ReadTier,
) -> Result<Option<Vec<u8>>, EngineError> {
    let mut last = None;
    let mut options = ReadOptions::default();
    options.set_read_tier(tier);
    let visit = &mut |key: &[u8], _: &[u8]| {
        last = Some(key.to_vec());
        ControlFlow::Break(())
    };
    scan(shared.database(), shared.family(cf), (start, end), Direction::Reverse, options, visit)?;
    Ok(last)
}
