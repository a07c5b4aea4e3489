//! What the shell asks of the Raft node, so that tests can stand in for it.

use bytes::Bytes;
use quorate_consensus::node::Node;
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
}

/// Writes the counters of the node.
pub(crate) fn write(_node: &Node<Token>, _page: &mut Exposition) {}
