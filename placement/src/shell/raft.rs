//! What the shell asks of the Raft node, and what the node asks of the shell.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_consensus::node::{Addresses, Node, Replies};
use quorate_consensus::shard::{LeaderChange, Reply};
use quorate_proto::{NodeId, PeerId, RegionId};
use tokio::sync::watch;

use super::machine::{Ended, GROUP, Token};
use crate::core::command::Member;

/// The group, as requests use it. None of the calls blocks; each token ends once.
pub(crate) trait Raft: Send + Sync + 'static {
    /// Replicates a command.
    fn propose(&self, command: Bytes, token: Token);
    /// Ends the token once the state machine has reached the read index.
    fn read(&self, token: Token);
    /// Renews a lease that is used and about to lapse.
    fn renew_lease(&self);
    /// Hands leadership over.
    fn transfer_leader(&self, to: NodeId);
}

impl Raft for Node<Token> {
    fn propose(&self, command: Bytes, token: Token) {
        Node::propose(self, GROUP, command, token, false);
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

    fn stranger(&self, group: RegionId, peer: PeerId) {
        tracing::warn!(%group, %peer, "messages for a group that placement does not have");
    }
}

/// Where the members are.
pub(crate) struct Directory(BTreeMap<NodeId, String>);

impl Directory {
    pub(crate) fn new(group: &[Member]) -> Self {
        Self(group.iter().map(|member| (member.id, member.address.clone())).collect())
    }
}

impl Addresses for Directory {
    fn address(&self, node: NodeId) -> Option<String> {
        self.0.get(&node).cloned()
    }
}
