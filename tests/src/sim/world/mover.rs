//! Moves replicas: looks at a region as its leader has it, and orders one step.
//!
//! In bad times any step that comes to mind, also such as must be refused; once all is healed only
//! what brings a region to rest: a joint configuration is left, replicas on lost stores are
//! replaced.

use std::sync::Arc;

use quorate_proto::wire::placement::change_peers_step::Change;
use quorate_proto::wire::placement::order::Step;
use quorate_proto::wire::placement::{
    AddLearner, ChangePeersStep, DestroyPeerStep, EnterJoint, LeaveJoint, Order, RemoveLearner,
    StoreOrders,
};
use quorate_proto::{NodeId, Peer, Region, RegionId, Role, StoreId};

use super::World;
use super::nemesis::NOBODY;
use crate::sim::agenda::MS;
use crate::sim::chance::{Concern, Lane};
use crate::sim::messages::{Ask, Body, Event, Told};

/// Ids of replicas that the mover makes.
const FIRST_PEER: u64 = 1_000_000;
/// Learners that a region has at most.
const MOST_LEARNERS: usize = 2;
/// Voters that a region has at most.
const MOST_VOTERS: usize = 5;
/// Between two looks once all is healed.
const CALM: u64 = 100 * MS;

impl World {
    /// One look.
    pub(super) fn move_replicas(&mut self) {
        if !self.cx.knobs.moving() {
            return;
        }
        let wild = self.cx.net.bad;
        let next = if wild { self.cx.within(Concern::Mover, self.cx.knobs.moves) } else { CALM };
        self.cx.after(next, Event::Move);
        let regions: Vec<RegionId> = self.cx.checks.regions().map(|region| region.id).collect();
        let chosen = if wild { vec![self.choose(&regions)] } else { regions };
        for id in chosen {
            if self.cx.knobs.planned {
                if wild {
                    self.ask_for_move(id);
                }
                continue;
            }
            self.destroy_leftovers(id);
            let Some((leader, region)) = self.region_at_leader(id) else { continue };
            if let Some(change) = self.next_change(&region, leader, wild) {
                let step = ChangePeersStep {
                    region_id: id.0,
                    epoch: Some(region.epoch.into()),
                    change: Some(change),
                };
                self.order(leader, Step::ChangePeers(step));
            }
        }
    }

    fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.cx.one_of(Concern::Mover, choices.len())]
    }

    fn region_at_leader(&self, id: RegionId) -> Option<(StoreId, Arc<Region>)> {
        let leader = self.leader_of(id)?;
        let store = self.processes.get(&leader)?.up.as_ref()?.role.store()?;
        Some((leader.into(), store.directory.get(id)?.region()?))
    }

    pub(super) fn order(&mut self, store: StoreId, step: Step) {
        let order = Order { step: Some(step), ..Order::default() };
        let told = Told::Orders(StoreOrders { orders: vec![order], ..StoreOrders::default() });
        let body = Body::Told { call: 0, told };
        self.cx.send(NodeId(NOBODY), store.into(), Lane::Services, body);
    }

    /// Asks placement for a replica more, one less, or one elsewhere.
    fn ask_for_move(&mut self, id: RegionId) {
        let Some((_, region)) = self.region_at_leader(id) else { return };
        let from = self.choose(&region.peers).store;
        let spare = self.spare(&region);
        let (add, remove) = match self.cx.within(Concern::Mover, (0, 5)) {
            0..=2 if !spare.is_empty() => (Some(self.choose(&spare)), Some(from)),
            3 | 4 if !spare.is_empty() => (Some(self.choose(&spare)), None),
            _ => (None, Some(from)),
        };
        self.ask_placement(&Ask::Replica { region: id, add, remove });
    }

    /// Stores that are not lost and have no replica.
    fn spare(&self, region: &Region) -> Vec<StoreId> {
        let stores = self.store_nodes().into_iter().map(StoreId::from);
        stores.filter(|store| region.peer_on(*store).is_none()).collect()
    }

    fn next_change(&mut self, region: &Region, leader: StoreId, wild: bool) -> Option<Change> {
        let having = |roles: &[Role]| -> Vec<Peer> {
            region.peers.iter().filter(|peer| roles.contains(&peer.role)).copied().collect()
        };
        if !having(&[Role::IncomingVoter, Role::DemotingVoter]).is_empty() {
            return Some(Change::LeaveJoint(LeaveJoint {}));
        }
        let (voters, learners) = (having(&[Role::Voter]), having(&[Role::Learner]));
        let is_lost = |peer: &&Peer| self.cx.checks.lives.is_lost(peer.store.into());
        let ready: Vec<Peer> = learners.iter().filter(|peer| !is_lost(peer)).copied().collect();
        if let Some(peer) = learners.iter().find(is_lost) {
            return Some(Change::RemoveLearner(RemoveLearner { peer_id: peer.id.0 }));
        }
        if let Some(voter) = voters.iter().find(is_lost).copied() {
            return match ready.first() {
                Some(learner) => Some(joint(&[*learner], &[voter])),
                None => self.add_learner(region),
            };
        }
        if !wild {
            return None;
        }
        match self.cx.within(Concern::Mover, (0, 9)) {
            0..=3 if learners.len() < MOST_LEARNERS => self.add_learner(region),
            0..=5 if !learners.is_empty() => {
                let (learner, voter) = (self.choose(&learners), self.choose(&voters));
                Some(joint(&[learner], &[voter]))
            }
            6 if learners.len() >= 2 && voters.len() + 2 <= MOST_VOTERS => {
                Some(joint(&learners[..2], &[]))
            }
            7 if voters.len() > 3 => {
                let mut others = voters.iter().filter(|peer| peer.store != leader).copied();
                let pair: Vec<Peer> = others.by_ref().take(2).collect();
                Some(joint(&[], &pair))
            }
            8 if !learners.is_empty() => {
                let peer_id = self.choose(&learners).id.0;
                Some(Change::RemoveLearner(RemoveLearner { peer_id }))
            }
            // An even number of voters: to be refused.
            9 if !learners.is_empty() => Some(joint(&learners[..1], &[])),
            9 => Some(joint(&[], &voters[..1])),
            _ => None,
        }
    }

    fn add_learner(&mut self, region: &Region) -> Option<Change> {
        let spare = self.spare(region);
        if spare.is_empty() {
            return None;
        }
        let store_id = self.choose(&spare).0;
        self.made += 1;
        let peer_id = FIRST_PEER + self.made;
        Some(Change::AddLearner(AddLearner { store_id, peer_id }))
    }

    /// Some stores with a replica that the region is without are told so.
    fn destroy_leftovers(&mut self, id: RegionId) {
        let newest = self.cx.checks.regions().find(|region| region.id == id).cloned();
        let Some(newest) = newest else { return };
        let mut leftovers = Vec::new();
        for process in self.processes.values() {
            let Some(store) = process.up.as_ref().and_then(|up| up.role.store()) else { continue };
            let Some(local) = store.directory.get(id) else { continue };
            if newest.peer(local.peer()).is_none() {
                leftovers.push((process.id, local.peer()));
            }
        }
        for (node, peer) in leftovers {
            if self.cx.chance(Concern::Mover, self.cx.knobs.destroy_orders) {
                let (region_id, peer_id) = (id.0, peer.0);
                let epoch = Some(newest.epoch.into());
                let step = DestroyPeerStep { region_id, epoch, peer_id };
                self.order(node.into(), Step::DestroyPeer(step));
            }
        }
    }
}

fn joint(promote: &[Peer], demote: &[Peer]) -> Change {
    let ids = |peers: &[Peer]| peers.iter().map(|peer| peer.id.0).collect();
    Change::EnterJoint(EnterJoint { promote: ids(promote), demote: ids(demote) })
}
