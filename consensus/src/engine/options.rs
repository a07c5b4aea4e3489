//! How RocksDB is set up, and why.
//!
//! Measured with `examples/engine_bench.rs` on a machine of two cores; figures are ratios within
//! one run. TODO-FINDINGS

use rocksdb::{
    BlockBasedOptions, BlockBasedTablePinningTier, Cache, ColumnFamilyDescriptor,
    DBCompressionType, DBRecoveryMode, Env, LogLevel, Options,
};

use super::Cf;

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
    /// Sorted files kept open. Default 1,024.
    pub open_files: i32,
    /// Bytes of a flush or compaction after which the kernel is asked to begin writing, so that
    /// a sync of the log never waits for a mountain of other pages. Default 1 MiB.
    pub bytes_per_sync: u64,
    /// Write-ahead log files kept for reuse. A sync of a file that does not grow needs no journal
    /// commit of the file system. 0: none. Default 4.
    pub recycled_logs: usize,
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
            open_files: 1024,
            bytes_per_sync: 1 << 20,
            recycled_logs: 4,
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
        options.set_max_total_wal_size(self.wal_bytes);
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
        let mut options = family();
        options.set_write_buffer_size(self.memtable_bytes / 2);
        options.set_max_write_buffer_number(4);
        options.set_block_based_table_factory(&table(cache, 16 << 10));
        options
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
        options.set_memtable_whole_key_filtering(true);
        options.set_memtable_prefix_bloom_ratio(0.05);
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
    options.set_target_file_size_base(32 << 20);
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
