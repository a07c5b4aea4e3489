//! Which regions this store has, by id and by key.
//!
//! Network threads look a region up by id on every request: one short read lock of one of
//! sixty-four maps, then no lock at all. The order by key changes only where regions are created,
//! split, installed or removed. Only the applier does that, on one thread, except that any thread
//! may [`Directory::admit_peer`] a replica that has no data yet.
//!
//! Invariants: regions with data are disjoint; a region's epoch only grows; the id of a removed
//! replica is remembered for good, so that a late message cannot create it again.

mod admit;
mod local;
mod merging;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use quorate_consensus::hash::FixedState;
use quorate_consensus::shard::{Member, NewGroup};
use quorate_consensus::view::GroupView;
use quorate_proto::{KeyRange, LogIndex, PeerId, Region, RegionId, StoreId, Term};
use thiserror::Error;

pub use self::admit::{Admitted, PeerAdmission};
pub(super) use self::admit::{check_range, outside};
pub(super) use self::local::Written;
pub use self::local::{LocalRegion, RegionStats, State};
use self::merging::named_gone;
pub use self::merging::{Gone, Merging};

/// Maps by id: enough that network threads rarely meet.
const MAPS: usize = 64;

/// All regions of a store.
#[derive(Debug)]
pub struct Directory {
    store: StoreId,
    by_id: Vec<RwLock<HashMap<RegionId, Arc<LocalRegion>, FixedState>>>,
    order: RwLock<Order>,
}

/// What must change together. Locked before a map of [`Directory::by_id`], never after.
#[derive(Debug, Default)]
struct Order {
    /// Regions with data, by start key.
    ranges: BTreeMap<Bytes, Arc<LocalRegion>>,
    /// Replicas without data.
    waiting: BTreeMap<RegionId, Arc<LocalRegion>>,
    /// Removed replicas: the last one of each region.
    tombstones: BTreeMap<RegionId, Tombstone>,
}

/// What is remembered of a removed replica.
#[derive(Debug)]
pub(super) struct Tombstone {
    pub(super) peer: PeerId,
    /// Where the whole region is gone.
    pub(super) gone: Option<Gone>,
}

/// A replica whose place a snapshot takes, what it was, and what is remembered of it.
pub(super) type Replaced = (Arc<LocalRegion>, Arc<Region>, Gone);

/// Why a region cannot be taken in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Conflict {
    /// Another region has a part of its range.
    #[error("{region} overlaps {other} on this store: wait until {other} has split")]
    Overlap {
        /// The refused one.
        region: RegionId,
        /// The one in its way.
        other: RegionId,
    },
    /// The replica was removed from this store.
    #[error("{peer} of {region} was removed from this store for good")]
    Removed {
        /// The region.
        region: RegionId,
        /// The replica.
        peer: PeerId,
    },
    /// Another replica of the region is here.
    #[error("{region} is {actual} on this store, not {asked}")]
    OtherPeer {
        /// The region.
        region: RegionId,
        /// The replica here.
        actual: PeerId,
        /// The refused one.
        asked: PeerId,
    },
    /// The description does not name this store, or another replica on it.
    #[error("{peer} is not in the peer list of {region} for this store")]
    NotMember {
        /// The region.
        region: RegionId,
        /// The replica.
        peer: PeerId,
    },
    /// The description is older than what is here.
    #[error("{region} is newer on this store than the description received")]
    Stale {
        /// The region.
        region: RegionId,
    },
    /// The region is here already, as something else.
    #[error("{region} is on this store already, with another range, epoch or peer list")]
    Exists {
        /// The region.
        region: RegionId,
    },
}

impl Directory {
    /// The empty directory of a store.
    pub fn new(store: StoreId) -> Self {
        let by_id = (0..MAPS).map(|_| RwLock::default()).collect();
        Self { store, by_id, order: RwLock::default() }
    }
    /// The store.
    pub fn store(&self) -> StoreId {
        self.store
    }
    /// The region with that id, with or without data.
    pub fn get(&self, region: RegionId) -> Option<Arc<LocalRegion>> {
        self.map(region).read().get(&region).cloned()
    }
    /// The region with data whose range has the key.
    pub fn find(&self, key: &[u8]) -> Option<Arc<LocalRegion>> {
        let order = self.order.read();
        let (_, local) = order.ranges.range::<[u8], _>(up_to(key)).next_back()?;
        let inside = local.state().region().is_some_and(|region| region.range.contains(key));
        inside.then(|| Arc::clone(local))
    }
    /// All regions with data, by start key.
    pub fn all(&self) -> Vec<Arc<LocalRegion>> {
        self.order.read().ranges.values().cloned().collect()
    }
    /// All replicas that are here, with or without data.
    pub fn hosted(&self) -> Vec<Arc<LocalRegion>> {
        let order = self.order.read();
        order.ranges.values().chain(order.waiting.values()).cloned().collect()
    }
    /// How many regions have data.
    pub fn len(&self) -> usize {
        self.order.read().ranges.len()
    }
    /// True without regions.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn map(&self, region: RegionId) -> &RwLock<HashMap<RegionId, Arc<LocalRegion>, FixedState>> {
        &self.by_id[region.0 as usize % MAPS]
    }

    /// Whether no region with data is in the way of this one.
    pub(super) fn check_free(&self, region: &Region) -> Result<(), Conflict> {
        self.order.read().check_free(region)
    }

    /// Takes in a region with data: found at start, or one of the first.
    pub(super) fn insert(&self, peer: PeerId, state: State) -> Result<Arc<LocalRegion>, Conflict> {
        let region = state.region().cloned().expect("what is inserted has a region");
        let mut order = self.order.write();
        order.check_free(&region)?;
        if self.get(region.id).is_some() {
            return Err(Conflict::Exists { region: region.id });
        }
        let local = LocalRegion::new(region.id, peer, GroupView::new(region.id, peer), state);
        order.ranges.insert(region.range.start.clone(), Arc::clone(&local));
        self.map(region.id).write().insert(region.id, Arc::clone(&local));
        Ok(local)
    }

    /// Remembers a removed replica found at start.
    pub(super) fn insert_tombstone(&self, region: RegionId, peer: PeerId, gone: Option<Gone>) {
        self.order.write().tombstones.insert(region, Tombstone { peer, gone });
    }

    /// The last removed replica of a region.
    pub(super) fn tombstone(&self, region: RegionId) -> Option<PeerId> {
        self.order.read().removed(region)
    }

    /// Puts a split into effect whose state is written. `children` are ascending; those that
    /// waited for a snapshot keep their view. Returns them.
    pub(super) fn split(
        &self,
        parent: &Arc<LocalRegion>,
        rest: Arc<Region>,
        children: Vec<(Arc<Region>, PeerId)>,
    ) -> Vec<Arc<LocalRegion>> {
        let mut order = self.order.write();
        let old = parent.region().expect("a region that splits has data");
        let share = parent.stats().share(children.len() as u64 + 1);
        order.ranges.remove(&old.range.start);
        // Narrow the parent first: a lookup by id never finds two regions with one key.
        parent.set(State::Serving(Arc::clone(&rest)));
        parent.stats().estimate(share);
        order.ranges.insert(rest.range.start.clone(), Arc::clone(parent));
        let mut created = Vec::with_capacity(children.len());
        for (region, peer) in children {
            let serving = State::Serving(Arc::clone(&region));
            let local = match order.waiting.remove(&region.id) {
                Some(local) => {
                    local.set(serving);
                    local
                }
                None => {
                    let view = GroupView::new(region.id, peer);
                    let local = LocalRegion::new(region.id, peer, view, serving);
                    self.map(region.id).write().insert(region.id, Arc::clone(&local));
                    local
                }
            };
            local.stats().estimate(share);
            order.ranges.insert(region.range.start.clone(), Arc::clone(&local));
            created.push(local);
        }
        created
    }

    /// Marks a region as being replaced by a snapshot of `region`. Returns the replicas whose place
    /// it takes, with what they were; they are gone.
    pub(super) fn begin_install(
        &self,
        local: &Arc<LocalRegion>,
        region: &Arc<Region>,
        taken_in: &[RegionId],
    ) -> Result<Vec<Replaced>, Conflict> {
        let mut order = self.order.write();
        let needless = order.check_snapshot(local, region, taken_in)?;
        let mut replaced = Vec::with_capacity(needless.len());
        for other in needless {
            let Some(old) = other.state().region().cloned() else { continue };
            order.ranges.remove(&old.range.start);
            let gone = other.known_gone().unwrap_or_else(|| named_gone(region, &old));
            self.bury(&mut order, &other, Some(gone.clone()));
            replaced.push((other, old, gone));
        }
        if let Some(old) = local.state().region() {
            order.ranges.remove(&old.range.start);
        }
        order.waiting.remove(&region.id);
        local.set(State::Installing(Arc::clone(region)));
        order.ranges.insert(region.range.start.clone(), Arc::clone(local));
        Ok(replaced)
    }

    /// Puts a change of peers into effect whose state is written. Where the local replica is not
    /// among them, it serves no more.
    pub(super) fn change_peers(&self, local: &LocalRegion, region: Arc<Region>) {
        let _order = self.order.write();
        local.set(match region.peer(local.peer()) {
            Some(_) => State::Serving(region),
            None => State::Removing(region),
        });
    }

    /// Ends the service of a region whose data is about to go. Until [`Directory::remove`], its id
    /// and its range stay taken.
    pub(super) fn retire(&self, local: &LocalRegion) {
        let _order = self.order.write();
        let state = local.state();
        local.set(match state.region() {
            Some(region) => State::Removing(Arc::clone(region)),
            None => State::Tombstone,
        });
    }

    /// Forgets a region but for its id.
    pub(super) fn remove(&self, local: &Arc<LocalRegion>) {
        let mut order = self.order.write();
        if let Some(old) = local.state().region() {
            order.ranges.remove(&old.range.start);
        }
        self.bury(&mut order, local, local.known_gone());
    }
}

impl Order {
    /// A region with data that shares a key with `range`, other than `except`.
    fn overlapping(&self, range: &KeyRange, except: RegionId) -> Option<RegionId> {
        let below = self.ranges.range::<[u8], _>(up_to(&range.start)).next_back();
        let above = self.ranges.range::<Bytes, _>(&range.start..).map(|(_, local)| local);
        below
            .into_iter()
            .map(|(_, local)| local)
            // Those that begin inside; with `except` among them, one more decides.
            .chain(above.take(2))
            .filter(|local| local.id() != except)
            .find(|local| local.state().region().is_some_and(|other| other.range.overlaps(range)))
            .map(|local| local.id())
    }

    fn check_free(&self, region: &Region) -> Result<(), Conflict> {
        match self.overlapping(&region.range, region.id) {
            Some(other) => Err(Conflict::Overlap { region: region.id, other }),
            None => Ok(()),
        }
    }

    /// Whether a snapshot of `region` may replace what is here; returns the replicas beside its own
    /// whose place it takes.
    fn check_snapshot(
        &self,
        local: &LocalRegion,
        region: &Region,
        taken_in: &[RegionId],
    ) -> Result<Vec<Arc<LocalRegion>>, Conflict> {
        match &*local.state() {
            State::Serving(old) | State::Merging(old, _) | State::Installing(old) => {
                if region.epoch.is_stale_against(old.epoch) {
                    return Err(Conflict::Stale { region: region.id });
                }
            }
            State::Uninitialized { .. } => {}
            State::Removing(_) | State::Tombstone => {
                return Err(Conflict::Removed { region: region.id, peer: local.peer() });
            }
        }
        let replaced = self.room_for(region, taken_in)?;
        for other in self.waiting.values().filter(|other| other.id() != region.id) {
            match &*other.state() {
                State::Uninitialized { expected: Some(expected), .. }
                    if expected.range.overlaps(&region.range) =>
                {
                    return Err(Conflict::Overlap { region: region.id, other: other.id() });
                }
                State::Uninitialized { .. }
                | State::Serving(_)
                | State::Merging(..)
                | State::Installing(_)
                | State::Removing(_)
                | State::Tombstone => {}
            }
        }
        Ok(replaced)
    }
}

/// Everything up to a key, itself included.
fn up_to(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, Bound::Included(key))
}

/// The members of a region's group.
pub(super) fn members(region: &Region) -> Vec<Member> {
    let member = |peer: &quorate_proto::Peer| Member {
        peer: peer.id,
        node: peer.store.into(),
        role: peer.role,
    };
    region.peers.iter().map(member).collect()
}

/// The group of a local region.
pub(super) fn new_group(
    local: &LocalRegion,
    region: &Region,
    applied: (LogIndex, Term),
    campaign: bool,
) -> NewGroup {
    NewGroup {
        group: local.id(),
        peer: local.peer(),
        members: members(region),
        applied,
        view: Arc::clone(local.view()),
        campaign,
    }
}
