//! What must hold of stores and members of placement that come and go.
//!
//! * A store that has left has no replica that counts or serves, and no region names it.
//! * No configuration comes into force that a majority of either side is lost to, neither of a region
//!   nor of placement's own group; and both sides are odd.
//! * Who was taken out is told so and ends; nobody else is.

use std::collections::BTreeSet;

use quorate_consensus::shard::Member;
use quorate_consensus::time::Instant;
use quorate_placement::core::state::StoreLife;
use quorate_proto::{NodeId, Peer, Region, StoreId};
use quorate_store::core::Directory;

use super::Checks;

/// Who came and who went.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    /// The newest entry of placement's log that any member has applied.
    placement: u64,
    /// Processes that never come back.
    lost: BTreeSet<NodeId>,
    /// Stores whose return is refused.
    out: BTreeSet<StoreId>,
    /// Those of them that have left.
    left: BTreeSet<StoreId>,
    /// Stores that were said to leave because they said themselves that they are empty.
    empty: BTreeSet<StoreId>,
    /// Members of placement that were taken out.
    retired: BTreeSet<NodeId>,
    /// Members of placement, as applied last.
    members: BTreeSet<NodeId>,
}

impl Lives {
    /// Stores that have left.
    pub(crate) fn removals(&self) -> u64 {
        self.left.len() as u64
    }

    /// Processes that never come back.
    pub(crate) fn losses(&self) -> u64 {
        self.lost.len() as u64
    }

    /// True where the store's return is refused.
    pub(crate) fn is_out(&self, store: StoreId) -> bool {
        self.out.contains(&store)
    }

    /// True where the member was taken out of placement.
    pub(crate) fn is_retired(&self, member: NodeId) -> bool {
        self.retired.contains(&member)
    }

    /// True where the process never comes back.
    pub(crate) fn is_lost(&self, node: NodeId) -> bool {
        self.lost.contains(&node)
    }
}

impl Checks {
    /// A process never comes back.
    pub(crate) fn lost(&mut self, node: NodeId) {
        self.lives.lost.insert(node);
    }

    /// True where nobody has applied that entry of placement's log before.
    pub(crate) fn is_new_to_placement(&mut self, index: u64) -> bool {
        let is_new = index > self.lives.placement;
        self.lives.placement = self.lives.placement.max(index);
        is_new
    }

    /// Placement's leader is about to say that a store has left, which said itself that it is empty
    /// or was given up.
    pub(crate) fn leaves(&mut self, store: StoreId, given_up: bool) {
        match given_up {
            true => self.lives.empty.remove(&store),
            false => self.lives.empty.insert(store),
        };
    }

    /// What became of a store, as placement's log has it for the first time.
    pub(crate) fn life(&mut self, store: StoreId, life: StoreLife) {
        match life {
            StoreLife::Joining | StoreLife::Active | StoreLife::Leaving { dead: false, .. } => {
                self.lives.out.remove(&store);
            }
            StoreLife::Leaving { dead: true, .. } => {
                self.lives.out.insert(store);
            }
            StoreLife::Left => {
                self.lives.out.insert(store);
                self.lives.left.insert(store);
                let listed = self.newest.values().find(|it| it.peer_on(store).is_some());
                if let Some(region) = listed.cloned() {
                    let (id, peers) = (region.id, &region.peers);
                    self.fail(|| format!("{store} has left, and {id} has {peers:?}"));
                }
            }
        }
    }

    /// A store that runs looks at what it has.
    pub(crate) fn remains(&mut self, node: NodeId, directory: &Directory, now: Instant) {
        let store = StoreId::from(node);
        if !self.lives.left.contains(&store) {
            return;
        }
        for local in directory.all() {
            let id = local.id();
            if local.view().lease(now).is_some() {
                self.fail(|| format!("{store} has left, and serves {id} under a lease"));
            }
            if self.lives.empty.contains(&store) {
                let peer = local.peer();
                self.fail(|| format!("{store} has left as an empty store, and has {peer} of {id}"));
            }
        }
    }

    /// A configuration of a region has come into force.
    pub(super) fn living(&mut self, region: &Region) {
        let (id, epoch) = (region.id, region.epoch);
        let left = region.peers.iter().find(|peer| self.lives.left.contains(&peer.store));
        if let Some(peer) = left {
            let peer = *peer;
            self.fail(|| format!("{id} at {epoch:?} has {peer:?}, on a store that has left"));
        }
        let member =
            |peer: &Peer| Member { peer: peer.id, node: peer.store.into(), role: peer.role };
        let members: Vec<Member> = region.peers.iter().map(member).collect();
        self.has_quorum(&format!("{id} at {epoch:?}"), &members);
    }

    fn has_quorum(&mut self, what: &str, members: &[Member]) {
        let sides: [fn(&Member) -> bool; 2] = [Member::is_incoming, Member::is_outgoing];
        for votes in sides {
            let voters = members.iter().filter(|member| votes(member));
            let voters: Vec<NodeId> = voters.map(|member| member.node).collect();
            let lost = voters.iter().filter(|node| self.lives.lost.contains(node)).count();
            if lost * 2 >= voters.len().max(1) {
                self.fail(|| format!("{what}: {lost} of the voters {voters:?} are lost for good"));
            }
        }
    }

    /// Raft is told on `node` who is in placement's group.
    pub(crate) fn told_members(&mut self, node: NodeId, members: &[Member]) {
        let incoming = members.iter().filter(|member| member.is_incoming()).count();
        let outgoing = members.iter().filter(|member| member.is_outgoing()).count();
        // A member that joins knows nobody before its first snapshot.
        if !members.is_empty() && (incoming % 2 == 0 || outgoing % 2 == 0) {
            self.fail(|| format!("{node} has {incoming} and {outgoing} voters of placement"));
        }
    }

    /// A configuration of placement's group is applied for the first time.
    pub(crate) fn placement_changed(&mut self, members: &[Member]) {
        let nodes: BTreeSet<NodeId> = members.iter().map(|member| member.node).collect();
        self.lives.retired.extend(self.lives.members.difference(&nodes));
        if let Some(member) = nodes.intersection(&self.lives.retired).next().copied() {
            self.fail(|| format!("{member} is in placement's group again"));
        }
        self.lives.members = nodes;
        self.has_quorum("placement", members);
    }
}
