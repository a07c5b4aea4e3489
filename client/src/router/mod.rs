//! The router: which region holds a key, and which of its peers to ask.
//!
//! A plain value: no IO, no clock, no randomness. The shell asks [`Router::lookup`], sends the
//! request, and tells the router what the answer taught it; each correction returns an
//! [`Advice`] that says what the same request should do next.
//!
//! Invariants: cached ranges never overlap; a description never replaces a newer one of the same
//! keys; a leader that is known is always one of the region's own peers.
//!
//! Absent on purpose: expiry. A description is right until a store says otherwise, which is why
//! cached traffic goes on while placement is away.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use quorate_proto::{Peer, PeerId, Region, RegionId, Role, StoreId};

mod floor;
#[cfg(test)]
mod tests;

use self::floor::Floor;

/// Who is believed to lead a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leader {
    /// A store, placement or the peer itself said so.
    Known(Peer),
    /// Nobody knows: voters are tried in turn.
    Unknown {
        /// The voter to try next, as a position among the region's voters.
        next: usize,
        /// Voters tried since the leader was last known.
        tried: usize,
    },
}

/// A cached region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its description.
    pub region: Arc<Region>,
    /// Who is asked first.
    pub leader: Leader,
}

/// What the request that brought a correction should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Look the route up again and go at once.
    Now,
    /// Every voter was tried and none leads: wait a little, then go on.
    Pause,
    /// The cached description is of no use: ask placement, then go on.
    Ask,
}

impl Route {
    fn new(region: Arc<Region>, leader: Option<PeerId>) -> Self {
        let known = leader.and_then(|id| region.peer(id)).copied();
        let leader = known.map_or(Leader::Unknown { next: 0, tried: 0 }, Leader::Known);
        Self { region, leader }
    }

    /// The peer to ask; none where the region has no voter at all.
    pub fn target(&self) -> Option<Peer> {
        match self.leader {
            Leader::Known(peer) => Some(peer),
            Leader::Unknown { next, .. } => {
                let voters = self.voters().count();
                (voters > 0).then(|| self.voters().nth(next % voters).copied()).flatten()
            }
        }
    }

    /// The leader, where it is known.
    pub fn known_leader(&self) -> Option<Peer> {
        match self.leader {
            Leader::Known(peer) => Some(peer),
            Leader::Unknown { .. } => None,
        }
    }

    fn voters(&self) -> impl Iterator<Item = &Peer> {
        self.region.peers.iter().filter(|peer| match peer.role {
            Role::Voter | Role::IncomingVoter | Role::DemotingVoter => true,
            Role::Learner => false,
        })
    }

    /// Gives up on `failed` as the leader: the voter after it is next.
    fn rotate(&mut self, failed: Peer, down: &BTreeSet<StoreId>) -> Advice {
        let voters: Vec<Peer> = self.voters().copied().collect();
        if voters.is_empty() {
            return Advice::Ask;
        }
        let mut tried = match self.leader {
            Leader::Known(_) => 0,
            Leader::Unknown { tried, .. } => tried,
        } + 1;
        let mut next = voters.iter().position(|peer| peer.id == failed.id).map_or(0, |at| at + 1);
        // Stores that are known to be down are passed over, once around at most.
        for _ in 0..voters.len() {
            if !down.contains(&voters[next % voters.len()].store) || tried % voters.len() == 0 {
                break;
            }
            next += 1;
            tried += 1;
        }
        self.leader = Leader::Unknown { next: next % voters.len(), tried };
        let rounds = tried / voters.len();
        match (tried % voters.len(), rounds % 4) {
            (0, 0) => Advice::Ask,
            (0, _) => Advice::Pause,
            (_, _) => Advice::Now,
        }
    }
}

/// The region cache. See the module.
#[derive(Default)]
pub struct Router {
    by_start: Floor,
    starts: BTreeMap<RegionId, Bytes>,
    down: BTreeSet<StoreId>,
}

impl Router {
    /// The cached region that holds `key`.
    pub fn lookup(&self, key: &[u8]) -> Option<&Arc<Route>> {
        self.by_start.holding(key)
    }

    /// The cached region that holds the keys just below `end` (empty: the last keys of all).
    pub fn lookup_below(&self, end: &[u8]) -> Option<&Arc<Route>> {
        let route = self.by_start.last_below(end)?;
        let last = &route.region.range.end;
        (last.is_empty() || (!end.is_empty() && end <= last.as_ref())).then_some(route)
    }

    /// The cached region of that id.
    pub fn by_id(&self, id: RegionId) -> Option<&Arc<Route>> {
        self.by_start.at(self.starts.get(&id)?)
    }

    /// Takes in a description, from placement or a store. Older descriptions of the same keys are
    /// dropped; where a newer one is cached, this one is. A leader that is not named stays what it
    /// was, for the same region. Returns whether it was taken in.
    pub fn insert(&mut self, region: Region, leader: Option<PeerId>) -> bool {
        let old = self.by_id(region.id).cloned();
        if old.as_ref().is_some_and(|old| region.epoch.is_stale_against(old.region.epoch)) {
            return false;
        }
        let overlapping = self.by_start.overlapping(&region.range);
        let newer = |route: &Arc<Route>| {
            route.region.id != region.id && route.region.epoch.version > region.epoch.version
        };
        if overlapping.iter().any(newer) {
            return false;
        }
        for route in overlapping {
            self.remove(route.region.id);
        }
        self.remove(region.id);
        let mut route = Route::new(Arc::new(region), leader);
        if let (Leader::Unknown { .. }, Some(old)) = (route.leader, old) {
            let kept = old.known_leader().and_then(|peer| route.region.peer(peer.id)).copied();
            match (kept, old.leader) {
                (Some(peer), _) => route.leader = Leader::Known(peer),
                (None, Leader::Unknown { .. }) if old.region.peers == route.region.peers => {
                    route.leader = old.leader;
                }
                (None, Leader::Known(_) | Leader::Unknown { .. }) => {}
            }
        }
        self.starts.insert(route.region.id, route.region.range.start.clone());
        self.by_start.insert(Arc::new(route));
        true
    }

    /// `from` said that it does not lead, and who does where it knows.
    pub fn not_leader(&mut self, id: RegionId, from: Peer, hint: Option<Peer>) -> Advice {
        let down = self.down.clone();
        let Some(route) = self.route_mut(id) else { return Advice::Ask };
        if route.target().map(|peer| peer.id) != Some(from.id) {
            // Another request has already learnt better.
            return Advice::Now;
        }
        match hint.filter(|hint| hint.id != from.id) {
            Some(hint) => match route.region.peer(hint.id).copied() {
                Some(leader) if !down.contains(&leader.store) => {
                    route.leader = Leader::Known(leader);
                    Advice::Now
                }
                // The hint names a store that is gone: its followers have not noticed yet.
                Some(_) => route.rotate(from, &down),
                // A leader that this description does not list: the description is old.
                None => {
                    self.remove(id);
                    Advice::Ask
                }
            },
            None => route.rotate(from, &down),
        }
    }

    /// A write or a linearizable read was answered by `by`: it leads.
    pub fn answered(&mut self, id: RegionId, by: Peer) {
        if let Some(route) = self.route_mut(id)
            && route.region.peer(by.id).is_some()
        {
            route.leader = Leader::Known(by);
        }
    }

    /// The store refused the epoch of `refused` and sent the regions that now hold those keys.
    /// `store` is the one that answered: it is asked first for regions that are new here.
    pub fn epoch_not_match(
        &mut self,
        refused: &Region,
        store: StoreId,
        current: Vec<Region>,
    ) -> Advice {
        let named =
            current.iter().find(|region| region.id == refused.id).map(|region| region.epoch);
        for region in current {
            let id = region.id;
            let fresh = self.by_id(id).is_none();
            if self.insert(region, None) && fresh {
                self.ask_first(id, store);
            }
        }
        match (self.by_id(refused.id), named) {
            // Learnt from this answer, or from another one before it.
            (Some(cached), Some(_)) if cached.region.epoch != refused.epoch => Advice::Now,
            // The store is behind: it has yet to apply a change that is known here.
            (Some(_), Some(named)) if named.is_stale_against(refused.epoch) => Advice::Pause,
            (Some(_), _) => {
                self.remove(refused.id);
                Advice::Ask
            }
            // Taken over by others, which may be cached by now; a lookup will tell.
            (None, _) => Advice::Now,
        }
    }

    /// The store of `peer` does not answer: another voter may lead by now.
    pub fn unreachable(&mut self, id: RegionId, peer: Peer) -> Advice {
        let down = self.down.clone();
        let Some(route) = self.route_mut(id) else { return Advice::Ask };
        if route.target().map(|target| target.id) != Some(peer.id) {
            return Advice::Now;
        }
        route.rotate(peer, &down)
    }

    /// The cached description is wrong (no such region there, another peer, another store).
    /// Forgets it, unless it was replaced in the meantime.
    pub fn invalidate(&mut self, refused: &Region) -> Advice {
        match self.by_id(refused.id) {
            Some(route) if route.region.epoch == refused.epoch => {
                self.remove(refused.id);
                Advice::Ask
            }
            Some(_) => Advice::Now,
            None => Advice::Ask,
        }
    }

    /// Leaders on `store` are not believed until it is up again.
    pub fn store_down(&mut self, store: StoreId) {
        self.down.insert(store);
    }

    /// `store` answers again.
    pub fn store_up(&mut self, store: StoreId) {
        self.down.remove(&store);
    }

    /// How many regions are cached.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_start.len()
    }

    /// The voter on `store` is asked next: it is the one that is known to answer.
    pub(crate) fn ask_first(&mut self, id: RegionId, store: StoreId) {
        let Some(route) = self.route_mut(id) else { return };
        let position = route.voters().position(|peer| peer.store == store);
        if let Some(next) = position {
            route.leader = Leader::Unknown { next, tried: 0 };
        }
    }

    fn route_mut(&mut self, id: RegionId) -> Option<&mut Route> {
        let start = self.starts.get(&id)?;
        self.by_start.at_mut(start).map(Arc::make_mut)
    }

    fn remove(&mut self, id: RegionId) {
        if let Some(start) = self.starts.remove(&id) {
            self.by_start.remove(&start);
        }
    }
}
