//! Stores that leave, that are lost, and that come later; and what happens to them on the way.
//!
//! Only where placement plans and is short of patience ([`Knobs::settings`]). Once all is healed,
//! every removal must come to its end, and whoever is out must be told so when it comes back.
//!
//! [`Knobs::settings`]: crate::sim::knobs::Knobs::settings

use quorate_placement::core::leader::Leader;
use quorate_placement::core::state::{State, StoreLife};
use quorate_proto::{NodeId, Region, RegionId, Role, StoreId};

use super::World;
use super::deeds::Deed;
use crate::sim::agenda::MS;
use crate::sim::chance::Concern;
use crate::sim::messages::Ask;
use crate::sim::placement::GROUP;

/// Data ids of stores and members that come later begin here.
const FIRST_DATA: u64 = 1_000;
/// Stores and members that come later, at most.
pub(super) const MOST_ARRIVALS: u64 = 16;
/// Between two looks of who tends the cluster.
const TEND: u64 = 1_000 * MS;

impl World {
    /// Machines of stores, running or not.
    pub(super) fn store_nodes(&self) -> Vec<NodeId> {
        self.processes.keys().filter(|node| !self.cx.is_member(**node)).copied().collect()
    }

    /// What placement's leader has applied.
    pub(super) fn placement_state(&self) -> Option<&State> {
        let leader = self.leader_of(GROUP)?;
        Some(&self.processes.get(&leader)?.up.as_ref()?.role.member()?.state)
    }

    /// Stores on their way out, which serve meanwhile.
    fn leaving(&self) -> Vec<StoreId> {
        let stores = self.placement_state().into_iter().flat_map(|state| state.stores().values());
        let leaves = stores.filter(|store| match store.life {
            StoreLife::Leaving { dead, .. } => !dead,
            StoreLife::Joining | StoreLife::Active | StoreLife::Left => false,
        });
        leaves.map(|store| store.id).collect()
    }

    /// The data id of a process that comes later.
    pub(super) fn next_arrival(&mut self) -> u64 {
        self.arrivals += 1;
        FIRST_DATA + self.arrivals
    }

    /// A store more.
    pub(super) fn join_a_store(&mut self) {
        if self.joining.is_none() {
            self.joining = Some(self.next_arrival());
            self.perform(Deed::JoinStore);
        }
    }

    /// Where placement plans, somebody may tell it of a lost store before it gives the store up.
    pub(super) fn bury(&mut self, store: StoreId) {
        let down = self.cx.knobs.down_ms * MS;
        if self.cx.knobs.planned && self.cx.chance(Concern::Nemesis, 0.5) {
            // Placement does not believe it before it suspects the store itself.
            self.plan(down * 3 / 4, Deed::Bury { store });
            self.plan(down * 3 / 2, Deed::Bury { store });
        }
    }

    /// Some store is to leave. Where there are too few, another one comes first.
    pub(super) fn ask_a_store_to_leave(&mut self) {
        let staying = self.staying();
        if self.room() <= self.cx.knobs.replicas as usize {
            return self.make_room();
        }
        let store = self.one_of(&staying);
        self.ask_placement(&Ask::RemoveStore { store, cancel: false, dead: false });
    }

    /// Stores that may keep what they have.
    fn room(&self) -> usize {
        let leaving = self.leaving();
        self.staying().iter().filter(|store| !leaving.contains(store)).count()
    }

    /// Another store comes, unless there were many in bad times.
    fn make_room(&mut self) {
        if self.arrivals < MOST_ARRIVALS || !self.cx.net.bad {
            self.join_a_store();
        }
    }

    /// Stores whose return is not refused.
    fn staying(&self) -> Vec<StoreId> {
        let stores = self.store_nodes().into_iter().map(StoreId::from);
        stores.filter(|store| !self.cx.checks.lives.is_out(*store)).collect()
    }

    /// A store that leaves, or placement's leader meanwhile, dies or is cut off; or the store stays
    /// after all; or one that has left comes back.
    pub(super) fn trouble_a_leaver(&mut self) {
        let out = self.out();
        if !out.is_empty() && self.draw((0, 1)) == 0 {
            let (node, down) = (self.one_of(&out), self.draw((5 * MS, 1_000 * MS)));
            return self.perform(Deed::Kill { node, down });
        }
        let leaving = self.leaving();
        if leaving.is_empty() {
            return self.ask_a_store_to_leave();
        }
        let store = self.one_of(&leaving);
        let (what, down) = (self.draw((0, 5)), self.draw((5 * MS, 2_500 * MS)));
        match what {
            0 => self.ask_placement(&Ask::RemoveStore { store, cancel: true, dead: false }),
            1 => self.cut_off(store.into()),
            2 | 3 => self.perform(Deed::Kill { node: store.into(), down }),
            _ => self.kill_placement_leader(),
        }
    }

    /// Processes of stores that were taken out.
    fn out(&self) -> Vec<NodeId> {
        let mut nodes = self.store_nodes();
        nodes.retain(|node| self.cx.checks.lives.is_out(StoreId::from(*node)));
        nodes
    }

    /// Somebody looks after the cluster: restarts stores that are out, has stores join where replicas
    /// have no place to go to, and members of placement where they are missing.
    pub(super) fn tend(&mut self) {
        self.plan(TEND, Deed::Tend);
        if !self.cx.net.bad {
            for node in self.out() {
                self.kill(node, 10 * MS);
            }
        }
        let is_lost = |store: StoreId| self.cx.checks.lives.is_lost(store.into());
        let named = self.cx.checks.regions().flat_map(|region| &region.peers);
        let has_lost = named.map(|peer| peer.store).any(is_lost);
        let presses = has_lost || !self.leaving().is_empty();
        if presses && self.room() < self.cx.knobs.replicas as usize {
            self.make_room();
        }
        self.tend_members();
    }

    /// Why stores that come or go are not where they shall be.
    pub(super) fn unfinished(&self) -> Option<String> {
        if self.cx.knobs.down_ms == 0 {
            return None;
        }
        if self.placement_state().is_none() {
            return Some("nobody leads placement".to_owned());
        }
        if let Some(data_id) = self.joining {
            return Some(format!("the store with data id {data_id} has not joined"));
        }
        if let Some(store) = self.leaving().first() {
            return Some(self.what_keeps(*store));
        }
        self.out().first().map(|node| format!("{node} has left, and runs"))
    }

    /// What a store has left to give, as it and as placement know.
    fn what_keeps(&self, store: StoreId) -> String {
        let up = self.processes.get(&store.into()).and_then(|process| process.up.as_ref());
        let role = up.and_then(|up| up.role.store());
        let hosted = role.into_iter().flat_map(|role| role.directory.hosted());
        let hosted: Vec<RegionId> = hosted.map(|local| local.id()).collect();
        let listed = self.planner().into_iter().flat_map(|planner| planner.tree().iter());
        let listed = listed.filter(|info| info.region.peer_on(store).is_some());
        let listed: Vec<RegionId> = listed.map(|info| info.region.id).collect();
        let said = listed.first().map(|region| self.said_of(*region)).unwrap_or_default();
        format!("{store} has not left: it has {hosted:?}, placement lists {listed:?} there{said}")
    }

    /// What placement decided last for a region.
    fn said_of(&self, region: RegionId) -> String {
        let last = self.planner().and_then(|planner| planner.history().of(region).last());
        last.map(|last| format!("; {}: {}", last.by, last.what)).unwrap_or_default()
    }

    /// Placement's leader.
    fn planner(&self) -> Option<&Leader> {
        let process = self.processes.get(&self.leader_of(GROUP)?)?;
        Some(&process.up.as_ref()?.role.member()?.session.as_ref()?.leader)
    }

    /// Why a region has not the replicas that it shall have on the stores that are there.
    pub(super) fn lacks_voters(&self, region: &Region) -> Option<String> {
        if self.cx.knobs.down_ms == 0 {
            return None;
        }
        let wanted = odd((self.cx.knobs.replicas as usize).min(self.staying().len()));
        let voters = region.peers.iter().filter(|peer| peer.role == Role::Voter).count();
        let (id, peers) = (region.id, &region.peers);
        (voters != wanted).then(|| {
            let said = self.said_of(id);
            format!("{id} has {peers:?}, with {wanted} voters wanted{said}")
        })
    }
}

/// The largest odd number up to `most`; at least 1.
pub(super) fn odd(most: usize) -> usize {
    if most.is_multiple_of(2) { most.saturating_sub(1).max(1) } else { most }
}
