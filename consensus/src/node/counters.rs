//! Counters of a node, for metrics. All only grow.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that many threads add to.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }
    /// Reads.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a node has done since its start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Commands handed in.
    pub proposals: Counter,
    /// Reads that needed the leader's word.
    pub read_indexes: Counter,
    /// Write batches of the log.
    pub log_writes: Counter,
    /// Of those, synced ones.
    pub log_syncs: Counter,
    /// Nanoseconds spent in them.
    pub log_nanos: Counter,
    /// Entries applied.
    pub applied_entries: Counter,
    /// Messages sent to other processes.
    pub messages_sent: Counter,
    /// Frames they travelled in.
    pub frames_sent: Counter,
    /// Messages received.
    pub messages_received: Counter,
    /// Messages dropped because an outbox was full or its link down.
    pub messages_dropped: Counter,
    /// Messages dropped because a worker's mailbox was full.
    pub mailbox_dropped: Counter,
    /// Requests refused because a worker's mailbox was full.
    pub mailbox_refused: Counter,
    /// Snapshots delivered.
    pub snapshots_sent: Counter,
    /// Attempts to send a snapshot whose receiver had no place.
    pub snapshots_postponed: Counter,
    /// Attempts to send a snapshot that broke off and are gone on with.
    pub snapshots_broken: Counter,
    /// Attempts that went on behind chunks that an earlier one had sent.
    pub snapshots_resumed: Counter,
    /// Snapshots that were not delivered.
    pub snapshots_failed: Counter,
    /// Chunks sent.
    pub snapshot_chunks_sent: Counter,
    /// Bytes in them.
    pub snapshot_bytes_sent: Counter,
    /// Unfinished snapshots that were removed because nobody went on with them.
    pub snapshots_abandoned: Counter,
    /// Chunks received and staged.
    pub snapshot_chunks_received: Counter,
    /// Bytes in them.
    pub snapshot_bytes_received: Counter,
    /// Snapshots received whole.
    pub snapshots_received: Counter,
    /// Snapshots installed.
    pub snapshots_installed: Counter,
    /// Times that a log was truncated.
    pub log_truncations: Counter,
    /// Entries that went then.
    pub log_truncated_entries: Counter,
    /// Changes of leadership seen.
    pub leader_changes: Counter,
}
