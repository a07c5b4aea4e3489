//! Who is in the placement group, as applied here, for all who need to know.
//!
//! The state machine writes it with every change of members. A process that joins knows nobody
//! before its first snapshot, except those that it was told of when it asked: they are only used
//! to find them.

use std::collections::BTreeSet;

use parking_lot::RwLock;
use quorate_consensus::node::Addresses;
use quorate_proto::NodeId;
use tokio::sync::watch;

use crate::core::command::Member;

/// See the module.
pub(crate) struct Roster {
    members: RwLock<Vec<Member>>,
    /// Those that were told of.
    told: Vec<Member>,
    /// Those that lag and do not move, as seen by the leader that this member is.
    stalled: RwLock<BTreeSet<NodeId>>,
    /// Set once this member was taken out of the group.
    left: watch::Sender<bool>,
}

impl Roster {
    /// The members as applied, and those that this process was told of.
    pub(crate) fn new(members: Vec<Member>, told: Vec<Member>) -> Self {
        let (members, stalled) = (RwLock::new(members), RwLock::default());
        Self { members, told, stalled, left: watch::Sender::new(false) }
    }

    /// Those who are in the group; before the first snapshot, those that were told of.
    pub(crate) fn list(&self) -> Vec<Member> {
        let members = self.members.read();
        if members.is_empty() { self.told.clone() } else { members.clone() }
    }

    /// One of them.
    pub(crate) fn get(&self, id: NodeId) -> Option<Member> {
        let find = |list: &[Member]| list.iter().find(|member| member.id == id).cloned();
        find(&self.members.read()).or_else(|| find(&self.told))
    }

    /// The members from now on.
    pub(crate) fn set(&self, members: Vec<Member>) {
        *self.members.write() = members;
    }

    /// Those that lag and do not move, from now on.
    pub(crate) fn set_stalled(&self, stalled: BTreeSet<NodeId>) {
        *self.stalled.write() = stalled;
    }

    /// Whether that one does not move.
    pub(crate) fn is_stalled(&self, id: NodeId) -> bool {
        self.stalled.read().contains(&id)
    }

    /// This member was taken out.
    pub(crate) fn leave(&self) {
        self.left.send_replace(true);
    }

    /// Resolves once this member was taken out.
    pub(crate) async fn left(&self) {
        let mut left = self.left.subscribe();
        // The sender lives as long as this.
        let _ = left.wait_for(|left| *left).await;
    }
}

impl Addresses for Roster {
    fn address(&self, node: NodeId) -> Option<String> {
        self.get(node).map(|member| member.address)
    }
}
