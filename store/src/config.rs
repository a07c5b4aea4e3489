//! Every knob of a store node, with its default.
//!
//! Each leaf is a number, a text, a switch or a list of texts, so that a flag, a variable of the
//! environment and a line of a TOML file can all set it; [`HELP`] says what each one means.

mod help;

use std::path::PathBuf;

use quorate_consensus::engine::RocksOptions;
use quorate_consensus::node::{MAILBOX_BYTES, SnapshotOptions};
use quorate_consensus::shard::RaftOptions;
use serde::{Deserialize, Serialize};

use crate::budget::LEAST_ANSWER_BYTES;
use crate::core::SplitOptions;

pub use help::HELP;

/// Settings of a store node. Keys that nobody knows are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// `HOST:PORT` to listen on for clients and other stores. Port 0: any free port.
    pub listen: String,
    /// `HOST:PORT` under which others reach this store; empty: the listen address.
    pub advertise: String,
    /// `HOST:PORT` of `/health`, `/ready` and `/metrics`; empty: none.
    pub status_address: String,
    /// `HOST:PORT` of the placement members; any that answers is enough.
    pub placement: Vec<String>,
    /// The data folder; created where it is missing.
    pub data: PathBuf,
    /// Where this store stands, as `KEY=VALUE`.
    pub labels: Vec<String>,
    /// Threads that serve the network. 0: 1 on up to 4 cores, else a quarter of the cores.
    pub network_threads: usize,
    /// Threads that step Raft groups. 0: 1 on up to 4 cores, else a quarter of the cores.
    pub raft_workers: usize,
    /// MiB of commands, and as many of messages of other stores, that may wait for one of those
    /// threads. Beyond, writes are refused as busy, and log entries of others have to be sent again.
    pub raft_mailbox_mib: u64,
    /// Seconds that a graceful shutdown may take.
    pub shutdown_secs: u64,
    /// Milliseconds between reports to placement.
    pub report_interval_ms: u64,
    /// When and how regions split.
    pub split: SplitConfig,
    /// Bounds on what clients may ask for at once.
    pub limits: LimitsConfig,
    /// The storage engine.
    pub engine: EngineConfig,
    /// The Raft groups. Equal on all stores of a cluster.
    pub raft: RaftOptions,
    /// How snapshots are sent and received.
    pub snapshot: SnapshotOptions,
}

/// When and how regions split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SplitConfig {
    /// A region of more bytes than this is split.
    pub region_bytes: u64,
    /// A region of more keys than this is split.
    pub region_keys: u64,
    /// Milliseconds between looks at which regions have grown.
    pub check_interval_ms: u64,
    /// Splits that may be under way at once on this store.
    pub concurrent: usize,
}

/// Bounds on what clients may ask for at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Connections to the listen address; further ones are closed at once.
    pub connections: usize,
    /// Streams on one connection.
    pub streams_per_connection: u32,
    /// Requests of one batched stream that may wait for an answer; then its reading pauses.
    pub requests_per_stream: usize,
    /// Requests of all streams and calls that may wait for an answer; then reading pauses.
    pub requests: usize,
    /// Bytes of writes that may wait for an answer; then reading pauses.
    pub write_bytes: u64,
    /// Bytes of large answers that may wait for their clients to read; then further large reads
    /// wait, and are refused as busy in the end.
    pub answer_bytes: u64,
    /// Milliseconds after which a request without an outcome is answered as undetermined.
    pub request_timeout_ms: u64,
    /// A stale read that names no bound of its own may be this old, in milliseconds.
    pub stale_read_ms: u64,
    /// A scan for more pairs than this leaves the network thread.
    pub inline_scan_pairs: u32,
    /// Scans that may run outside of the network thread at once.
    pub concurrent_scans: usize,
    /// Reads of keys that may wait for the disk at once, outside of the network thread.
    pub concurrent_disk_reads: usize,
}

/// The storage engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// MiB of uncompressed blocks, indexes and filters kept in memory.
    pub block_cache_mib: u64,
    /// MiB of memtables, all column families together.
    pub memtable_mib: u64,
    /// MiB of write-ahead log at which memtables are flushed; bounds recovery time.
    pub wal_mib: u64,
    /// Threads that flush and compact.
    pub background_jobs: u32,
    /// Sorted files kept open.
    pub open_files: u32,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:20160".to_owned(),
            advertise: String::new(),
            status_address: "127.0.0.1:20180".to_owned(),
            placement: vec!["127.0.0.1:2379".to_owned()],
            data: PathBuf::from("data/store"),
            labels: Vec::new(),
            network_threads: 0,
            raft_workers: 0,
            raft_mailbox_mib: (MAILBOX_BYTES >> 20) as u64,
            shutdown_secs: 30,
            report_interval_ms: 1_000,
            split: SplitConfig::default(),
            limits: LimitsConfig::default(),
            engine: EngineConfig::default(),
            raft: RaftOptions::default(),
            snapshot: SnapshotOptions::default(),
        }
    }
}

impl Default for SplitConfig {
    fn default() -> Self {
        Self {
            region_bytes: 96 << 20,
            region_keys: 960_000,
            check_interval_ms: 2_000,
            concurrent: 4,
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: 4_096,
            streams_per_connection: 1_024,
            requests_per_stream: 4_096,
            requests: 65_536,
            write_bytes: 256 << 20,
            answer_bytes: 256 << 20,
            request_timeout_ms: 10_000,
            stale_read_ms: 10_000,
            inline_scan_pairs: 256,
            concurrent_scans: 4,
            concurrent_disk_reads: 8,
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            block_cache_mib: 64,
            memtable_mib: 32,
            wal_mib: 64,
            background_jobs: 2,
            open_files: 2_048,
        }
    }
}

/// Threads of one kind, at most: more only wait for each other.
const MAX_THREADS: u64 = 1_024;

impl StoreConfig {
    /// Threads that serve the network, from the setting or from the number of cores.
    pub fn effective_network_threads(&self) -> usize {
        by_cores(self.network_threads)
    }

    /// Threads that step Raft groups, from the setting or from the number of cores.
    pub fn effective_raft_workers(&self) -> usize {
        by_cores(self.raft_workers)
    }

    /// Bytes that may wait for one Raft thread.
    pub(crate) fn mailbox_bytes(&self) -> usize {
        mib(self.raft_mailbox_mib)
    }

    /// The first bound that makes no sense, in words that say what to write instead.
    ///
    /// # Errors
    /// A knob that is zero where zero means "never", or out of its range.
    pub fn check(&self) -> Result<(), String> {
        let positive: [(&str, u64); 15] = [
            ("raft_mailbox_mib", self.raft_mailbox_mib),
            ("shutdown_secs", self.shutdown_secs),
            ("report_interval_ms", self.report_interval_ms),
            ("split.region_bytes", self.split.region_bytes),
            ("split.region_keys", self.split.region_keys),
            ("split.check_interval_ms", self.split.check_interval_ms),
            ("split.concurrent", self.split.concurrent as u64),
            ("limits.connections", self.limits.connections as u64),
            ("limits.streams_per_connection", u64::from(self.limits.streams_per_connection)),
            ("limits.requests_per_stream", self.limits.requests_per_stream as u64),
            ("limits.request_timeout_ms", self.limits.request_timeout_ms),
            ("limits.concurrent_scans", self.limits.concurrent_scans as u64),
            ("limits.concurrent_disk_reads", self.limits.concurrent_disk_reads as u64),
            ("engine.memtable_mib", self.engine.memtable_mib),
            // RocksDB does not run without one.
            ("engine.block_cache_mib", self.engine.block_cache_mib),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{key} is 0; set it to 1 or more"));
        }
        let (hour, day, tebibyte) = (3_600, 24 * 3_600_000, 1 << 20);
        let bounded: [(&str, u64, u64); 12] = [
            ("network_threads", self.network_threads as u64, MAX_THREADS),
            ("raft_workers", self.raft_workers as u64, MAX_THREADS),
            ("raft_mailbox_mib", self.raft_mailbox_mib, tebibyte),
            ("limits.concurrent_scans", self.limits.concurrent_scans as u64, MAX_THREADS),
            ("limits.concurrent_disk_reads", self.limits.concurrent_disk_reads as u64, MAX_THREADS),
            ("engine.background_jobs", u64::from(self.engine.background_jobs), MAX_THREADS),
            ("shutdown_secs", self.shutdown_secs, hour),
            ("report_interval_ms", self.report_interval_ms, day),
            ("split.check_interval_ms", self.split.check_interval_ms, day),
            ("limits.request_timeout_ms", self.limits.request_timeout_ms, day),
            ("engine.block_cache_mib", self.engine.block_cache_mib, tebibyte),
            ("engine.memtable_mib", self.engine.memtable_mib, tebibyte),
        ];
        if let Some((key, value, most)) = bounded.iter().find(|(_, value, most)| value > most) {
            return Err(format!("{key} is {value}; set it to {most} or less"));
        }
        if self.limits.answer_bytes < LEAST_ANSWER_BYTES {
            return Err(format!(
                "limits.answer_bytes is {}; set it to {LEAST_ANSWER_BYTES} or more: that is four of \
                 the largest answers",
                self.limits.answer_bytes
            ));
        }
        self.raft.validate().map_err(|reason| format!("raft: {reason}"))?;
        self.snapshot.validate().map_err(|reason| format!("snapshot: {reason}"))?;
        if self.placement.is_empty() {
            return Err("placement is empty; name at least one member as HOST:PORT".to_owned());
        }
        if let Some(label) = self.labels.iter().find(|label| split_label(label).is_none()) {
            return Err(format!("label {label:?} is not KEY=VALUE; write it as zone=a"));
        }
        Ok(())
    }

    /// The labels, taken apart.
    pub(crate) fn parsed_labels(&self) -> Vec<(String, String)> {
        self.labels.iter().filter_map(|label| split_label(label)).collect()
    }
}

impl SplitConfig {
    /// The bounds, for the core that plans.
    pub(crate) fn options(&self) -> SplitOptions {
        SplitOptions { max_bytes: self.region_bytes, max_keys: self.region_keys }
    }
}

impl EngineConfig {
    /// The engine's own options.
    pub(crate) fn options(&self) -> RocksOptions {
        RocksOptions {
            block_cache_bytes: mib(self.block_cache_mib),
            memtable_bytes: mib(self.memtable_mib),
            wal_bytes: self.wal_mib << 20,
            background_jobs: i32::try_from(self.background_jobs).unwrap_or(i32::MAX),
            open_files: i32::try_from(self.open_files).unwrap_or(i32::MAX),
            ..RocksOptions::default()
        }
    }
}

fn mib(number: u64) -> usize {
    usize::try_from(number << 20).unwrap_or(usize::MAX)
}

fn split_label(label: &str) -> Option<(String, String)> {
    let (key, value) = label.split_once('=')?;
    (!key.is_empty() && !value.is_empty()).then(|| (key.to_owned(), value.to_owned()))
}

fn by_cores(setting: usize) -> usize {
    if setting > 0 {
        return setting;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores <= 4 { 1 } else { cores / 4 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn leaves(prefix: &str, value: &serde_json::Value, into: &mut Vec<String>) {
        match value.as_object() {
            Some(section) => {
                for (key, value) in section {
                    let path =
                        if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    leaves(&path, value, into);
                }
            }
            None => into.push(prefix.to_owned()),
        }
    }

    #[test]
    fn every_knob_is_explained_and_no_other() {
        let mut knobs = Vec::new();
        leaves("", &serde_json::to_value(StoreConfig::default()).unwrap(), &mut knobs);
        let mut explained: Vec<&str> = HELP.iter().map(|(key, _)| *key).collect();
        knobs.sort();
        explained.sort_unstable();
        assert_eq!(knobs, explained);
    }

    #[test]
    fn a_bad_knob_is_named() {
        assert_eq!(StoreConfig::default().check(), Ok(()));
        let mut config = StoreConfig::default();
        config.split.concurrent = 0;
        assert!(config.check().unwrap_err().contains("split.concurrent"));
        let set: [fn(&mut StoreConfig); 6] = [
            |config| config.shutdown_secs = u64::MAX,
            |config| config.network_threads = 1_000_000,
            |config| config.raft_mailbox_mib = u64::MAX,
            |config| config.raft.tick_ms = u64::MAX,
            |config| config.raft.lease_ms = u64::MAX,
            |config| config.engine.block_cache_mib = u64::MAX,
        ];
        for set in set {
            let mut config = StoreConfig::default();
            set(&mut config);
            assert!(config.check().unwrap_err().contains("or less"));
        }
        let mut config = StoreConfig::default();
        config.limits.answer_bytes = 1 << 20;
        assert!(config.check().unwrap_err().contains("limits.answer_bytes"));
        let config = StoreConfig { labels: vec!["zone".to_owned()], ..StoreConfig::default() };
        assert!(config.check().unwrap_err().contains("zone=a"));
        let config = StoreConfig { placement: Vec::new(), ..StoreConfig::default() };
        assert!(config.check().unwrap_err().contains("HOST:PORT"));
    }
}
