//! The engine of processes, on RocksDB.
//!
//! Writers do not wait for a sync that is under way; callers of [`Engine::sync`] wait for each
//! other and share one where they can. Which options are set, and why, stands in
//! [`RocksOptions`]; what lies in the folder, in the module `rocks_open`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use rocksdb::{Cache, ColumnFamily, DB, Options, ReadOptions, ReadTier, WriteOptions, properties};

use super::options::DEFAULT_FAMILY;
use super::rocks_list;
use super::rocks_open::{self, SYNC_KEY};
use super::rocks_read::{self, RocksSnapshot};
use super::rocks_stage::{self, RocksStage};
use super::synced::SyncedFile;
use super::{
    Cf, Direction, Engine, EngineError, EngineStats, Op, Reader, Resumed, RocksOptions, Stage,
    WriteBatch, check_staged_name,
};

/// Bytes that RocksDB adds to a change of a batch, at most: tag, family and two lengths.
const OP_OVERHEAD: usize = 12;
/// Entries that [`Engine::approximate_size`] counts one by one before it asks for estimates.
const COUNTED_ENTRIES: usize = 256;

/// A sorted store on disk. Clones are handles of the same engine; the folder is released with the
/// last of them and of their snapshots.
#[derive(Clone)]
pub struct RocksEngine {
    pub(super) shared: Arc<Shared>,
}

/// What handles, snapshots and stages share.
pub(super) struct Shared {
    /// Point into `database`; by [`Cf::index`].
    families: [&'static ColumnFamily; 3],
    default: &'static ColumnFamily,
    database: Box<DB>,
    pub(super) reads: ReadOptions,
    /// For reads of keys that must not wait for the disk.
    pub(super) brief_reads: ReadOptions,
    writes: WriteOptions,
    cache: Cache,
    staged_options: Options,
    staged_folder: PathBuf,
    can_link: bool,
    /// Number of the next segment of a staged file.
    segments: AtomicU64,
    /// Finished staged files whose segments this process wrote or has checked.
    verified: Mutex<BTreeSet<String>>,
    /// Flushes and compactions that had failed when there was nothing left to be done.
    made_good: AtomicU64,
    /// The first failure; what every later write returns.
    poison: OnceLock<EngineError>,
    /// Calls of `sync` so far.
    sync_calls: AtomicU64,
    syncing: Mutex<Syncing>,
    batches: AtomicU64,
    written_bytes: AtomicU64,
    syncs: AtomicU64,
}

/// Held during a sync.
struct Syncing {
    file: SyncedFile,
    /// Number of the last sync.
    number: u64,
    /// Calls of `sync` that the last one served.
    served: u64,
}

impl RocksEngine {
    /// Opens the engine in a folder, which is created where it does not exist. Recovers from a
    /// crash.
    ///
    /// # Errors
    /// [`EngineError::Locked`], [`EngineError::Newer`], [`EngineError::LostWrites`],
    /// [`EngineError::Corrupt`]; otherwise the folder cannot be used.
    pub fn open(path: impl AsRef<Path>, options: &RocksOptions) -> Result<Self, EngineError> {
        let opened = rocks_open::open(path.as_ref(), options)?;
        let database = Box::new(opened.database);
        let family = |name: &str| -> Result<&'static ColumnFamily, EngineError> {
            let found = database.cf_handle(name).ok_or_else(|| EngineError::Corrupt {
                what: path.as_ref().display().to_string(),
                reason: format!("no column family {name}"),
            })?;
            // SAFETY: handles live in a map on the heap that the boxed database owns. It is never
            // borrowed mutably, so they stay where they are until `Shared` drops it, and they do
            // not leave `Shared` for longer than a borrow of it.
            Ok(unsafe { &*std::ptr::from_ref(found) })
        };
        let families =
            [family(Cf::Raft.name())?, family(Cf::Meta.name())?, family(Cf::Data.name())?];
        let default = family(DEFAULT_FAMILY)?;
        let shared = Shared {
            families,
            default,
            database,
            reads: ReadOptions::default(),
            brief_reads: rocks_read::from_memory(),
            writes: WriteOptions::default(),
            cache: opened.cache,
            staged_options: opened.staged_options,
            staged_folder: opened.staged_folder,
            can_link: options.env.is_none(),
            segments: AtomicU64::new(opened.next_segment),
            verified: Mutex::default(),
            made_good: AtomicU64::new(0),
            poison: OnceLock::new(),
            sync_calls: AtomicU64::new(0),
            syncing: Mutex::new(Syncing { file: opened.synced, number: opened.number, served: 0 }),
            batches: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Writes memtables to sorted files. For tests and for a backup; the engine does so by itself.
    ///
    /// # Errors
    /// As [`Engine::write`].
    pub fn flush(&self) -> Result<(), EngineError> {
        for family in self.shared.families.iter().chain([&self.shared.default]) {
            let flushed = self.shared.database.flush_cf(family);
            flushed.map_err(|error| {
                self.shared.poison(EngineError::from_rocks("flushing memtables", &error))
            })?;
        }
        Ok(())
    }
}

impl Shared {
    pub(super) fn database(&self) -> &DB {
        &self.database
    }

    pub(super) fn family(&self, cf: Cf) -> &ColumnFamily {
        self.families[cf.index()]
    }

    pub(super) fn staged_options(&self) -> &Options {
        &self.staged_options
    }

    pub(super) fn staged_folder(&self) -> &Path {
        &self.staged_folder
    }

    pub(super) fn can_link(&self) -> bool {
        self.can_link
    }

    pub(super) fn segments(&self) -> &AtomicU64 {
        &self.segments
    }

    pub(super) fn verified(&self) -> &Mutex<BTreeSet<String>> {
        &self.verified
    }

    /// Refuses all writes from now on. Returns the first failure, which may be an earlier one.
    pub(super) fn poison(&self, error: EngineError) -> EngineError {
        self.poison.get_or_init(|| error).clone()
    }

    fn writable(&self) -> Result<(), EngineError> {
        self.poison.get().cloned().map_or(Ok(()), Err)
    }

    /// Writes the batch and, before a sync, the number of that sync.
    fn write(&self, batch: &WriteBatch, sync: Option<u64>) -> Result<(), EngineError> {
        self.writable()?;
        let room = batch.bytes() + OP_OVERHEAD * (batch.len() + 3);
        let mut converted = rocksdb::WriteBatch::with_capacity_bytes(room);
        for op in batch.ops() {
            match op {
                Op::Put { cf, key, value } => converted.put_cf(&self.family(*cf), key, value),
                Op::Delete { cf, key } => converted.delete_cf(&self.family(*cf), key),
                Op::DeleteRange { cf, start, end } => {
                    converted.delete_range_cf(&self.family(*cf), start, end);
                }
            }
        }
        if let Some(number) = sync {
            converted.put_cf(&self.default, SYNC_KEY, number.to_le_bytes());
        }
        self.database
            .write_opt(converted, &self.writes)
            .map_err(|error| self.poison(EngineError::from_rocks("writing a batch", &error)))?;
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.written_bytes.fetch_add(batch.bytes() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Writes the batch, then makes it and everything before it durable.
    fn write_synced(&self, batch: &WriteBatch, syncing: &mut Syncing) -> Result<(), EngineError> {
        // Who has called `sync` by now has had its writes returned, so they precede this one.
        let served = self.sync_calls.load(Ordering::Acquire);
        let number = syncing.number + 1;
        self.write(batch, Some(number))?;
        self.database
            .flush_wal(true)
            .map_err(|error| self.poison(EngineError::from_rocks("syncing the log", &error)))?;
        syncing.file.set(number);
        syncing.number = number;
        syncing.served = served;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn gauge(&self, name: &properties::PropName) -> u64 {
        let of = |family: &&ColumnFamily| self.database.property_int_value_cf(family, name);
        self.families.iter().chain([&self.default]).filter_map(|family| of(family).ok()?).sum()
    }
}

impl Engine for RocksEngine {
    fn snapshot(&self) -> Box<dyn Reader + Send> {
        Box::new(RocksSnapshot::new(Arc::clone(&self.shared)))
    }

    fn write(&self, batch: WriteBatch) -> Result<(), EngineError> {
        if batch.is_empty() {
            return self.shared.writable();
        }
        self.shared.write(&batch, None)
    }

    fn sync(&self) -> Result<(), EngineError> {
        let call = self.shared.sync_calls.fetch_add(1, Ordering::AcqRel) + 1;
        let mut syncing = self.shared.syncing.lock();
        if syncing.served >= call {
            return Ok(());
        }
        self.shared.write_synced(&WriteBatch::new(), &mut syncing)
    }

    fn write_synced(&self, batch: WriteBatch) -> Result<(), EngineError> {
        if let Some(mut syncing) = self.shared.syncing.try_lock() {
            return self.shared.write_synced(&batch, &mut syncing);
        }
        // Another sync is under way: write meanwhile, and share the next one with whoever waits.
        self.write(batch)?;
        self.sync()
    }

    fn stage(&self, name: &str) -> Result<Box<dyn Stage>, EngineError> {
        check_staged_name(name);
        self.shared.writable()?;
        Ok(Box::new(RocksStage::new(Arc::clone(&self.shared), name)?))
    }

    fn resume_stage(&self, name: &str) -> Result<Option<Resumed>, EngineError> {
        check_staged_name(name);
        self.shared.writable()?;
        let stage = RocksStage::resume(Arc::clone(&self.shared), name)?;
        Ok(stage.map(|stage| {
            let note = stage.note();
            (Box::new(stage) as Box<dyn Stage>, note)
        }))
    }

    fn unfinished(&self) -> Result<Vec<(String, Bytes)>, EngineError> {
        rocks_stage::unfinished(&self.shared.staged_folder)
            .map_err(|error| EngineError::from_io("listing staged files", &error))
    }

    fn staged(&self) -> Result<Vec<String>, EngineError> {
        rocks_list::names(&self.shared.staged_folder, "done")
            .map_err(|error| EngineError::from_io("listing staged files", &error))
    }

    fn discard_staged(&self, name: &str) -> Result<(), EngineError> {
        check_staged_name(name);
        rocks_stage::discard(&self.shared, name)
            .map_err(|error| EngineError::from_io("removing a staged file", &error))
    }

    fn ingest(&self, name: &str, start: &[u8], end: &[u8]) -> Result<(), EngineError> {
        check_staged_name(name);
        self.shared.writable()?;
        let list = rocks_stage::finished(&self.shared, name)?;
        // What an ingest adds is durable at once; so is what was written before it.
        self.write_synced(WriteBatch::new())?;
        // Up to what is there instead of up to the end, which may be unbounded; and nothing where
        // nothing is, the usual case: then the file goes to the last level.
        if let Some(mut last) =
            rocks_read::last_key(&self.shared, Cf::Data, start, end, ReadTier::All)?
        {
            last.push(0);
            rocks_stage::clear(&self.shared, name, start, &last)?;
        }
        if !list.segments.is_empty() {
            rocks_stage::ingest(&self.shared, name, &list)?;
        }
        Ok(())
    }

    fn prepare_ingest(&self, name: &str) -> Result<(), EngineError> {
        check_staged_name(name);
        self.shared.writable()?;
        let list = rocks_stage::finished(&self.shared, name)?;
        let mut end = list.last;
        end.push(0);
        let (shared, tier) = (&self.shared, ReadTier::Memtable);
        if list.segments.is_empty()
            || rocks_read::last_key(shared, Cf::Data, &list.first, &end, tier)?.is_none()
        {
            return Ok(());
        }
        let during = "flushing memtables before an ingest";
        let flushed = self.shared.database.flush_cf(self.shared.family(Cf::Data));
        flushed.map_err(|error| self.shared.poison(EngineError::from_rocks(during, &error)))
    }

    fn approximate_size(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<u64, EngineError> {
        let (mut counted, mut entries) = (0, 0);
        self.scan(cf, start, end, Direction::Forward, &mut |key, value| {
            counted += (key.len() + value.len()) as u64;
            entries += 1;
            if entries < COUNTED_ENTRIES {
                std::ops::ControlFlow::Continue(())
            } else {
                std::ops::ControlFlow::Break(())
            }
        })?;
        if entries < COUNTED_ENTRIES {
            return Ok(counted);
        }
        let last = if end.is_empty() {
            rocks_read::last_key(&self.shared, cf, start, end, ReadTier::All)?
        } else {
            None
        };
        let range = rocksdb::Range::new(start, last.as_deref().unwrap_or(end));
        let family = self.shared.family(cf);
        let files = self.shared.database.get_approximate_sizes_cf(&family, &[range]);
        Ok(files.into_iter().sum::<u64>().max(counted))
    }

    fn stuck(&self) -> Option<EngineError> {
        let shared = &self.shared;
        let failures = shared.gauge(properties::BACKGROUND_ERRORS);
        if shared.gauge(properties::IS_WRITE_STOPPED) == 0 {
            let pending = shared.gauge(properties::MEM_TABLE_FLUSH_PENDING)
                + shared.gauge(properties::COMPACTION_PENDING);
            if pending == 0 {
                // What failed once was made good: nothing is left to be done.
                shared.made_good.store(failures, Ordering::Relaxed);
            }
            return None;
        }
        let stuck = failures > shared.made_good.load(Ordering::Relaxed);
        stuck.then(|| rocks_open::background_failure(shared.database.path()))
    }

    fn stats(&self) -> EngineStats {
        let shared = &self.shared;
        EngineStats {
            syncs: shared.syncs.load(Ordering::Relaxed),
            batches: shared.batches.load(Ordering::Relaxed),
            written_bytes: shared.written_bytes.load(Ordering::Relaxed),
            memtable_bytes: shared.gauge(properties::CUR_SIZE_ALL_MEM_TABLES),
            block_cache_bytes: shared.cache.get_usage() as u64,
            table_reader_bytes: shared.gauge(properties::ESTIMATE_TABLE_READERS_MEM),
            sst_bytes: shared.gauge(properties::LIVE_SST_FILES_SIZE),
            wal_bytes: rocks_open::wal_bytes(shared.database.path()),
            pending_compaction_bytes: shared.gauge(properties::ESTIMATE_PENDING_COMPACTION_BYTES),
            snapshots: shared
                .database
                .property_int_value(properties::NUM_SNAPSHOTS)
                .ok()
                .flatten()
                .unwrap_or(0),
        }
    }
}
