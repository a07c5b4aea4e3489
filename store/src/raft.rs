//! What the shell asks of the Raft node, so that tests can stand in for it.

use bytes::Bytes;
use quorate_consensus::node::{Counter, Node};
use quorate_consensus::shard::Member;
use quorate_proto::{NodeId, RegionId};

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
    /// Changes who replicates a region: `members` are all of them afterwards.
    fn change_members(&self, region: RegionId, members: Vec<Member>, command: Bytes, token: Token);
    /// Removes the replica that is here, for good.
    fn destroy(&self, region: RegionId);
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
    fn change_members(&self, region: RegionId, members: Vec<Member>, command: Bytes, token: Token) {
        Node::change_members(self, region, members, command, token);
    }
    fn destroy(&self, region: RegionId) {
        Node::destroy(self, region);
    }
}

/// Writes the counters of the node.
pub(crate) fn write(node: &Node<Token>, page: &mut Exposition) {
    let counters = node.counters();
    let totals: [(&str, &str, &Counter); 16] = [
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
        ("snapshots_received", "Snapshots received whole.", &counters.snapshots_received),
        ("snapshots_installed", "Snapshots installed.", &counters.snapshots_installed),
        ("leader_changes", "Changes of leadership seen.", &counters.leader_changes),
    ];
    for (name, help, counter) in totals {
        page.single(&format!("quorate_raft_{name}_total"), "counter", help, counter.get());
    }
    let (groups, awake) = node.group_counts();
    page.single("quorate_raft_groups", "gauge", "Groups hosted.", groups);
    page.single("quorate_raft_groups_awake", "gauge", "Groups that are awake.", awake);
}
