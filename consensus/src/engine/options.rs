//! How RocksDB is set up, and why.
//!
//! Measured with `examples/engine_bench.rs` on two cores, as ratios between runs that alternated
//! (medians; time on a quiet machine, CPU also on a busy one):
//! * Reusing log files: 0.75 of the time and 0.72 of the CPU of a synced batch of 1, 0.68 of the
//!   time of one of 16.
//! * Insert hints for the log, entries of 100 regions: 0.83 of the time of a synced batch of 16,
//!   0.74 of one of 128, and 0.8 of the CPU.
//! * Flushing all memtables together: 0.2 writes of an inode for each sync instead of 0.7 (one client)
//!   and 0.34 (64 clients), counted in the block layer; see `docs/adr/0031`.
//! * Pipelined writes: no difference alone; beside a thread that applies 0.9 of the time when
//!   quiet, 1.3 when busy. Undecided, so off.
//! * Memtables of 64 MiB instead of 32: 0.8 of the CPU of synced batches of 128, on the busy
//!   machine only; no difference otherwise.
//! * The hyper clock cache instead of LRU: 0.9 of the CPU of a read from files (busy).
//! * Files of 8 MiB instead of 32: while the kernel removes a file, syncs of the log wait, 8 ms for
//!   32 MiB and 2 ms for 8 (`scripts/snapshot-impact.sh`, and counted with strace).
//! * A limit on what flushes and compactions write (RocksDB's rate limiter, tuned by itself): flushes
//!   came too late, and writers stood still for seconds. Left out.
//! * No difference beyond noise: hash indexes in data blocks, filters in memtables. Left out.
//!
//! Of what a writing thread burns, the skip list takes a third, checksums a fifth as long as
//! RocksDB is compiled without SSE 4.2, and making RocksDB's batch out of ours less than 4 %.

use rocksdb::{
    BlockBasedOptions, BlockBasedTablePinningTier, Cache, ColumnFamilyDescriptor,
    DBCompressionType, DBRecoveryMode, Env, LogLevel, Options,
};

use super::Cf;

/// Bytes of a sorted file, before compression.
const FILE_BYTES: u64 = 8 << 20;
/// The column family that RocksDB insists on. It holds the number of the last sync.
pub(super) const DEFAULT_FAMILY: &str = "default";

/// What can be tuned. The defaults suit a small machine that also runs other things.
#[derive(Clone)]
pub struct RocksOptions {
    /// Bytes of uncompressed blocks, indexes and filters to keep in memory. Default 64 MiB.
    pub block_cache_bytes: usize,
    /// Bytes of memtables, all column families together; half of it for any one of them.
    /// Default 32 MiB.
    pub memtable_bytes: usize,
    /// Bytes of write-ahead log at which the column families that hold back the oldest file are
    /// flushed. Bounds the time that recovery takes. Default 64 MiB.
    pub wal_bytes: u64,
    /// Threads that flush and compact. Default 2.
    pub background_jobs: i32,
    /// Sorted files kept open. Default 2,048: about 16 GiB of data.
    pub open_files: i32,
    /// Bytes of a flush or compaction after which the kernel is asked to begin writing, so that
    /// a sync of the log never waits for a mountain of other pages. Default 1 MiB.
    pub bytes_per_sync: u64,
    /// Write-ahead log files kept for reuse. A sync of a file that does not grow needs no journal
    /// commit of the file system. 0: none. Default 4.
    pub recycled_logs: usize,
    /// How long the common start of the keys of one region's log is, in bytes. The next entry of a
    /// region then finds its place in the memtable without a search. Only a hint: right for any
    /// keys, fast for keys that ascend behind that start. 0: none. Default 9, a byte that tells
    /// the kind and a region's number.
    pub log_prefix_bytes: usize,
    /// Lets a group of writers fill memtables while the next group writes the log. Default false.
    pub pipelined_write: bool,
    /// The file system to use instead of the real one, for tests that inject faults. Files beside
    /// the database (staged files excepted) are not covered.
    pub env: Option<Env>,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: 64 << 20,
            memtable_bytes: 32 << 20,
            wal_bytes: 64 << 20,
            background_jobs: 2,
            open_files: 2048,
            bytes_per_sync: 1 << 20,
            recycled_logs: 4,
            log_prefix_bytes: 9,
            pipelined_write: false,
            env: None,
        }
    }
}

/// What an open database shares with the engine around it.
pub(super) struct Prepared {
    pub(super) database: Options,
    pub(super) families: Vec<ColumnFamilyDescriptor>,
    pub(super) cache: Cache,
    /// Options of files to be ingested into [`Cf::Data`].
    pub(super) staged: Options,
}

impl RocksOptions {
    pub(super) fn prepare(&self) -> Prepared {
        let cache = Cache::new_hyper_clock_cache(self.block_cache_bytes, 0);
        let mut families = vec![ColumnFamilyDescriptor::new(DEFAULT_FAMILY, self.small(&cache))];
        for cf in Cf::ALL {
            let options = match cf {
                Cf::Raft => self.raft(&cache),
                Cf::Meta => self.small(&cache),
                Cf::Data => self.data(&cache),
            };
            families.push(ColumnFamilyDescriptor::new(cf.name(), options));
        }
        let mut staged = self.data(&cache);
        if let Some(env) = &self.env {
            staged.set_env(env);
        }
        Prepared { database: self.database(), families, cache, staged }
    }

    fn database(&self) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        if let Some(env) = &self.env {
            options.set_env(env);
        }
        // Recycling needs point-in-time recovery: a recycled file ends in old records, which look
        // like a torn tail. The file `SYNCED` tells such a tail from synced entries that vanished.
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        options.set_recycle_log_file_num(self.recycled_logs);
        // Records wait in memory until the next sync writes them out, with one system call for all.
        // What is applied needs no more: the log, which is synced, brings it back.
        options.set_manual_wal_flush(true);
        options.set_max_total_wal_size(self.wal_bytes);
        // All memtables are flushed together, so that log files are of one size, and a file that
        // is used again hardly ever grows: a sync that makes its file larger writes the inode, too.
        options.set_atomic_flush(true);
        options.set_db_write_buffer_size(self.memtable_bytes);
        options.set_bytes_per_sync(self.bytes_per_sync);
        options.set_wal_bytes_per_sync(self.bytes_per_sync);
        options.set_enable_pipelined_write(self.pipelined_write);
        options.set_max_background_jobs(self.background_jobs);
        options.set_max_open_files(self.open_files);
        options.set_max_file_opening_threads(self.background_jobs);
        // An idle engine does nothing: no periodic statistics.
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_log_level(LogLevel::Info);
        options.set_max_log_file_size(4 << 20);
        options.set_keep_log_file_num(2);
        options.set_max_manifest_file_size(16 << 20);
        options
    }

    /// Written once, deleted soon and by range, read when a follower lags: large memtables, so
    /// that much of it never reaches a file; no filters.
    fn raft(&self, cache: &Cache) -> Options {
        let mut options = self.hinted(family());
        options.set_write_buffer_size(self.memtable_bytes / 2);
        options.set_max_write_buffer_number(4);
        options.set_block_based_table_factory(&table(cache, 16 << 10));
        options
    }

    /// RocksDB offers insert hints in options of text alone.
    fn hinted(&self, mut options: Options) -> Options {
        if self.log_prefix_bytes == 0 {
            return options;
        }
        let hint = format!(
            "memtable_insert_with_hint_prefix_extractor=rocksdb.FixedPrefix.{}",
            self.log_prefix_bytes
        );
        // Without it, everything works as well, a little slower.
        options.get_options_from_string(hint).unwrap_or(options)
    }

    /// A few hundred bytes a region, overwritten all the time: compaction keeps it tiny.
    fn small(&self, cache: &Cache) -> Options {
        let mut options = family();
        options.set_write_buffer_size((self.memtable_bytes / 8).max(1 << 20));
        options.set_max_write_buffer_number(3);
        options.set_block_based_table_factory(&table(cache, 4 << 10));
        options
    }

    /// What users wrote: filters over whole keys, except in the last level, where most reads hit
    /// and most filter memory would go.
    fn data(&self, cache: &Cache) -> Options {
        let mut options = family();
        options.set_write_buffer_size(self.memtable_bytes / 2);
        options.set_max_write_buffer_number(4);
        options.set_optimize_filters_for_hits(true);
        let mut table = table(cache, 4 << 10);
        table.set_bloom_filter(10.0, false);
        table.set_whole_key_filtering(true);
        table.set_optimize_filters_for_memory(true);
        options.set_block_based_table_factory(&table);
        options
    }
}

fn family() -> Options {
    let mut options = Options::default();
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_target_file_size_base(FILE_BYTES);
    // Files of the first level live for minutes: not worth the CPU.
    let (none, lz4) = (DBCompressionType::None, DBCompressionType::Lz4);
    options.set_compression_per_level(&[none, lz4, lz4, lz4, lz4, lz4, lz4]);
    options.set_compression_type(lz4);
    options
}

fn table(cache: &Cache, block_bytes: usize) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(block_bytes);
    table.set_format_version(6);
    // Indexes and filters count against the cache, and are pinned, so that a read does not have
    // to look them up.
    table.set_cache_index_and_filter_blocks(true);
    table.set_unpartitioned_pinning_tier(BlockBasedTablePinningTier::All);
    table
}
