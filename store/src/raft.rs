//! What the shell asks of the Raft node, so that tests can stand in for it.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_consensus::node::{Counter, Node, SnapshotProgress};
use quorate_consensus::shard::Member;
use quorate_consensus::view::Slept;
use quorate_consensus::vigil::Vouched;
use quorate_proto::{NodeId, PeerId, RegionId};

use crate::metrics::Exposition;
use crate::serve::Token;

/// The Raft groups of this store. None of the calls blocks; each token is answered once.
pub(crate) trait Raft: Send + Sync + 'static {
    /// Replicates a command.
    fn propose(&self, region: RegionId, command: Bytes, token: Token, suspends_lease: bool);
    /// Answers the token once the state machine has reached the read index.
    fn read(&self, region: RegionId, token: Token);
    /// Renews a lease that is used and about to lapse.
    fn renew_lease(&self, region: RegionId);
    /// Hands leadership over.
    fn transfer_leader(&self, region: RegionId, to: NodeId);
    /// Snapshots on their way from here and to here.
    fn snapshots(&self) -> Vec<SnapshotProgress>;
    /// What beats say of a group that slept here then (see [`Node::vouched`]).
    fn vouched(&self, slept: Slept) -> Option<Vouched>;
    /// Processes that are not heard though they share a region with this one.
    fn unheard(&self) -> BTreeSet<NodeId>;
    /// Logs truncated since the start, and entries in them.
    fn truncated(&self) -> (u64, u64);
    /// Changes who replicates a region: `members` are all of them afterwards.
    fn change_members(&self, region: RegionId, members: Vec<Member>, command: Bytes, token: Token);
    /// Removes a replica that is here, for good.
    fn destroy(&self, region: RegionId, peer: PeerId);
}

impl Raft for Node<Token> {
    fn propose(&self, region: RegionId, command: Bytes, token: Token, suspends_lease: bool) {
        Node::propose(self, region, command, token, suspends_lease);
    }
    fn read(&self, region: RegionId, token: Token) {
        Node::read(self, region, token);
    }
    fn renew_lease(&self, region: RegionId) {
        Node::renew_lease(self, region);
    }
    fn transfer_leader(&self, region: RegionId, to: NodeId) {
        Node::transfer_leader(self, region, to);
    }
    fn snapshots(&self) -> Vec<SnapshotProgress> {
        Node::snapshots(self)
    }
    fn vouched(&self, slept: Slept) -> Option<Vouched> {
        Node::vouched(self, slept)
    }
    fn unheard(&self) -> BTreeSet<NodeId> {
        Node::unheard(self)
    }
    fn truncated(&self) -> (u64, u64) {
        let counters = self.counters();
        (counters.log_truncations.get(), counters.log_truncated_entries.get())
    }
    fn change_members(&self, region: RegionId, members: Vec<Member>, command: Bytes, token: Token) {
        Node::change_members(self, region, members, command, token);
    }
    fn destroy(&self, region: RegionId, peer: PeerId) {
        Node::destroy(self, region, peer);
    }
}

/// Writes the counters of the node.
pub(crate) fn write(node: &Node<Token>, page: &mut Exposition) {
    let counters = node.counters();
    let totals: [(&str, &str, &Counter); 27] = [
        ("proposals", "Commands handed to raft.", &counters.proposals),
        ("read_indexes", "Reads that needed the leader's word.", &counters.read_indexes),
        ("log_writes", "Write batches of the log.", &counters.log_writes),
        ("log_syncs", "Write batches of the log that were synced.", &counters.log_syncs),
        ("log_nanoseconds", "Nanoseconds spent in writing the log.", &counters.log_nanos),
        ("applied_entries", "Entries applied.", &counters.applied_entries),
        ("messages_sent", "Messages sent to other processes.", &counters.messages_sent),
        ("frames_sent", "Frames that messages travelled in.", &counters.frames_sent),
        ("messages_received", "Messages received.", &counters.messages_received),
        ("messages_dropped", "Messages that a link could not take.", &counters.messages_dropped),
        ("mailbox_dropped", "Messages that a worker could not take.", &counters.mailbox_dropped),
        ("mailbox_refused", "Requests that a worker could not take.", &counters.mailbox_refused),
        ("snapshots_sent", "Snapshots delivered.", &counters.snapshots_sent),
        (
            "snapshots_postponed",
            "Snapshots whose receiver had no place yet.",
            &counters.snapshots_postponed,
        ),
        (
            "snapshots_broken",
            "Transfers that broke off and were gone on with.",
            &counters.snapshots_broken,
        ),
        (
            "snapshots_resumed",
            "Transfers that went on behind what was there.",
            &counters.snapshots_resumed,
        ),
        ("snapshots_failed", "Snapshots that were not delivered.", &counters.snapshots_failed),
        ("snapshot_chunks_sent", "Chunks of snapshots sent.", &counters.snapshot_chunks_sent),
        ("snapshot_bytes_sent", "Bytes of snapshots sent.", &counters.snapshot_bytes_sent),
        (
            "snapshots_abandoned",
            "Unfinished snapshots that nobody went on with.",
            &counters.snapshots_abandoned,
        ),
        (
            "snapshot_chunks_received",
            "Chunks of snapshots received.",
            &counters.snapshot_chunks_received,
        ),
        (
            "snapshot_bytes_received",
            "Bytes of snapshots received.",
            &counters.snapshot_bytes_received,
        ),
        ("snapshots_received", "Snapshots received whole.", &counters.snapshots_received),
        ("snapshots_installed", "Snapshots installed.", &counters.snapshots_installed),
        ("log_truncations", "Times that a log was truncated.", &counters.log_truncations),
        (
            "log_truncated_entries",
            "Entries that were truncated away.",
            &counters.log_truncated_entries,
        ),
        ("leader_changes", "Changes of leadership seen.", &counters.leader_changes),
    ];
    for (name, help, counter) in totals {
        page.single(&format!("quorate_raft_{name}_total"), "counter", help, counter.get());
    }
    let (groups, awake) = node.group_counts();
    page.single("quorate_raft_groups", "gauge", "Groups hosted.", groups);
    page.single("quorate_raft_groups_awake", "gauge", "Groups that are awake.", awake);
    let help = "Bytes of commands and messages that wait for a raft worker.";
    page.single("quorate_raft_mailbox_bytes", "gauge", help, node.mailbox_bytes());
    write_snapshots(&node.snapshots(), page);
}

/// One number of a snapshot.
type Figure = fn(&SnapshotProgress) -> u64;

/// Writes how far the snapshots on their way have come.
fn write_snapshots(all: &[SnapshotProgress], page: &mut Exposition) {
    let directions = [(true, "sending"), (false, "receiving")];
    let name = "quorate_raft_snapshots";
    page.family(name, "gauge", "Snapshots on their way, and those that wait for their turn.");
    for (sending, direction) in directions {
        for (running, state) in [(true, "running"), (false, "waiting")] {
            let here = |s: &&SnapshotProgress| s.sending == sending && s.running == running;
            let count = all.iter().filter(here).count();
            page.sample(name, &[("direction", direction), ("state", state)], count);
        }
    }
    let bytes: [(&str, &str, Figure); 2] = [
        ("quorate_raft_snapshot_progress_bytes", "Bytes moved of a snapshot.", |s| s.bytes),
        ("quorate_raft_snapshot_total_bytes", "Bytes of a snapshot, roughly.", |s| s.total_bytes),
    ];
    for (name, help, value) in bytes {
        page.family(name, "gauge", help);
        for snapshot in all.iter().filter(|snapshot| snapshot.running) {
            let direction = if snapshot.sending { "sending" } else { "receiving" };
            let (region, peer) = (snapshot.group.0.to_string(), snapshot.peer.0.to_string());
            let labels = [("direction", direction), ("region", &region), ("peer", &peer)];
            page.sample(name, &labels, value(snapshot));
        }
    }
}
