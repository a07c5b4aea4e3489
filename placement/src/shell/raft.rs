//! What the shell asks of the Raft node, and what the node asks of the shell.

use bytes::Bytes;
use quorate_consensus::node::{Node, Replies, SnapshotProgress};
use quorate_consensus::shard::{LeaderChange, Member, Reply};
use quorate_proto::NodeId;
use tokio::sync::watch;

use super::machine::{Ended, GROUP, Token};

/// The group, as requests use it. None of the calls blocks; each token ends once.
pub(crate) trait Raft: Send + Sync + 'static {
    /// Replicates a command.
    fn propose(&self, command: Bytes, token: Token);
    /// Replicates a change of the group's members, with the command that goes with it.
    fn change_members(&self, members: Vec<Member>, command: Bytes, token: Token);
    /// Ends the token once the state machine has reached the read index.
    fn read(&self, token: Token);
    /// Renews a lease that is used and about to lapse.
    fn renew_lease(&self);
    /// Hands leadership over.
    fn transfer_leader(&self, to: NodeId);
    /// Snapshots on their way.
    fn snapshots(&self) -> Vec<SnapshotProgress>;
}

impl Raft for Node<Token> {
    fn propose(&self, command: Bytes, token: Token) {
        Node::propose(self, GROUP, command, token, false);
    }
    fn change_members(&self, members: Vec<Member>, command: Bytes, token: Token) {
        Node::change_members(self, GROUP, members, command, token);
    }
    fn read(&self, token: Token) {
        Node::read(self, GROUP, token);
    }
    fn renew_lease(&self) {
        Node::renew_lease(self, GROUP);
    }
    fn transfer_leader(&self, to: NodeId) {
        Node::transfer_leader(self, GROUP, to);
    }
    fn snapshots(&self) -> Vec<SnapshotProgress> {
        Node::snapshots(self)
    }
}

/// Passes on what ends without an applied entry, and changes of leadership.
pub(crate) struct Listener {
    pub(crate) leader: watch::Sender<Option<LeaderChange>>,
}

impl Replies<Token> for Listener {
    fn reply(&self, token: Token, reply: Reply) {
        token.end(match reply {
            Reply::ReadAt(_) => Ended::ReadAt,
            Reply::Refused(refusal) => Ended::Refused(refusal),
        });
    }

    fn leader_changed(&self, change: LeaderChange) {
        self.leader.send_replace(Some(change));
    }
}
