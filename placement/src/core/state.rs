//! The replicated state of placement: a state machine of commands.
//!
//! Invariants:
//! * Equal commands in equal order give equal states and equal records on every member; nothing
//!   here depends on a clock, on chance, or on what only a leader knows.
//! * An id, once handed out, is never handed out again; the ceiling of timestamps and the safe
//!   point only grow.
//! * A cluster gets its first regions once.
//!
//! The saved regions are the leader's region tree of some seconds ago, merged by the tree's own
//! rules; nothing is decided from them except where a new leader routes until stores report.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_consensus::engine::{EngineError, Reader, WriteBatch};
use quorate_proto::limits::SENTINEL_START;
use quorate_proto::{Epoch, KeyRange, NodeId, Peer, PeerId, Region, RegionId, Role, StoreId};

use super::command::{Answer, CLUSTER_VERSION, Command, JoinRefusal, Joining, Member, SavedRegion};
use super::record::{self, Record};
use super::tree::{RegionInfo, RegionTree};

/// What a cluster is, once and for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Drawn by the first leader; every process and client of the cluster names it.
    pub id: u64,
    /// The newest form of commands and records in use.
    pub version: u32,
    /// How many stores the first regions wait for.
    pub initial_stores: u32,
    /// Wanted voters of a region.
    pub replicas: u32,
}

/// What only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Largest id set aside so far, for whatever purpose.
    pub last_id: u64,
    /// No timestamp at or above it was handed out. Milliseconds since the Unix epoch.
    pub time_ceiling_ms: u64,
    /// Versions below it may be collected.
    pub safe_point: u64,
}

/// A stage of a store's life, as far as it must be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreLife {
    /// It has its id, and has not reported yet.
    Joining,
    /// It has reported at least once.
    Active,
}

/// A store of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Never reused.
    pub id: StoreId,
    /// `HOST:PORT`; empty where another store has that address now.
    pub address: String,
    /// `HOST:PORT` of its status pages; may be empty.
    pub status_address: String,
    /// Where it stands.
    pub labels: BTreeMap<String, String>,
    /// Version of its program.
    pub version: String,
    /// Of its last start.
    pub incarnation: u64,
    /// Of its data folder.
    pub data_id: u64,
    /// How far it got.
    pub life: StoreLife,
}

/// The state. See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    cluster: Option<Cluster>,
    members: BTreeMap<NodeId, Member>,
    stores: BTreeMap<StoreId, Arc<Store>>,
    counters: Counters,
    initial: Option<Vec<Region>>,
    saved: RegionTree,
    stores_generation: u64,
}

impl State {
    /// The state that the records describe; an empty one where there are none.
    ///
    /// # Errors
    /// The engine cannot be read, or holds what is no record of ours.
    pub fn load(reader: &dyn Reader) -> Result<Self, EngineError> {
        let mut state = State::default();
        record::visit(reader, |record| match record {
            Record::Cluster(cluster) => state.cluster = Some(cluster),
            Record::Counters(counters) => state.counters = counters,
            Record::Initial(regions) => state.initial = Some(regions),
            Record::Member(member) => {
                state.members.insert(member.id, member);
            }
            Record::Store(store) => {
                state.stores.insert(store.id, Arc::new(store));
            }
            Record::Region(saved) => {
                let _ = state.saved.offer(RegionInfo::from_saved(saved));
            }
        })?;
        Ok(state)
    }

    /// Takes over the state of a received snapshot.
    pub fn replace(&mut self, loaded: State) {
        let stores_generation = self.stores_generation + 1;
        *self = State { stores_generation, ..loaded };
    }

    /// Applies a command: the answer for its proposer, and the records to write.
    pub fn apply(&mut self, command: Command) -> (Answer, WriteBatch) {
        let mut batch = WriteBatch::new();
        let answer = match command {
            Command::Initialize { cluster_id, members, initial_stores, replicas } => {
                self.initialize(cluster_id, members, initial_stores, replicas, &mut batch)
            }
            Command::JoinStore(joining) => match self.join(joining, &mut batch) {
                Ok(store) => Answer::Joined(store),
                Err(refusal) => Answer::JoinRefused(refusal),
            },
            Command::ActivateStore(store) => {
                self.activate(store, &mut batch);
                Answer::Done
            }
            Command::Bootstrap => Answer::Bootstrapped(self.bootstrap(&mut batch)),
            Command::AllocateIds { count } => {
                let first = self.take_ids(count, &mut batch);
                Answer::Ids { first, count }
            }
            Command::ExtendTime { ceiling_ms } => {
                let previous_ms = self.counters.time_ceiling_ms;
                self.counters.time_ceiling_ms = previous_ms.max(ceiling_ms);
                Record::Counters(self.counters).put(&mut batch);
                Answer::Time { previous_ms, ceiling_ms: self.counters.time_ceiling_ms }
            }
            Command::SaveRegions(regions) => {
                self.save_regions(regions, &mut batch);
                Answer::Done
            }
            Command::RaiseSafePoint(safe_point) => {
                self.counters.safe_point = self.counters.safe_point.max(safe_point);
                Record::Counters(self.counters).put(&mut batch);
                Answer::SafePoint(self.counters.safe_point)
            }
        };
        (answer, batch)
    }

    fn initialize(
        &mut self,
        cluster_id: u64,
        members: Vec<Member>,
        initial_stores: u32,
        replicas: u32,
        batch: &mut WriteBatch,
    ) -> Answer {
        if let Some(cluster) = self.cluster {
            return Answer::Initialized(cluster.id);
        }
        let cluster =
            Cluster { id: cluster_id, version: CLUSTER_VERSION, initial_stores, replicas };
        self.cluster = Some(cluster);
        Record::Cluster(cluster).put(batch);
        for member in members {
            Record::Member(member.clone()).put(batch);
            self.members.insert(member.id, member);
        }
        Answer::Initialized(cluster_id)
    }

    /// Whether the store may join, as far as the replicated state can tell. A leader asks before
    /// it proposes, so that refusals cost nothing.
    ///
    /// # Errors
    /// The reason to tell the store.
    pub fn may_join(&self, joining: &Joining) -> Result<(), JoinRefusal> {
        let cluster = self.cluster.ok_or(JoinRefusal::NotInitialized)?;
        if joining.cluster_id != 0 && joining.cluster_id != cluster.id {
            return Err(JoinRefusal::WrongCluster { theirs: joining.cluster_id, ours: cluster.id });
        }
        if joining.address.is_empty() {
            return Err(JoinRefusal::Incomplete("an address that others can reach it at"));
        }
        if joining.data_id == 0 {
            return Err(JoinRefusal::Incomplete("a data id, drawn once for its data folder"));
        }
        let Some(id) = joining.store else { return Ok(()) };
        match self.stores.get(&id) {
            None => Err(JoinRefusal::UnknownStore { store: id }),
            Some(store) if store.data_id != joining.data_id => {
                Err(JoinRefusal::IdInUse { store: id, address: store.address.clone() })
            }
            Some(_) => Ok(()),
        }
    }

    fn join(&mut self, joining: Joining, batch: &mut WriteBatch) -> Result<StoreId, JoinRefusal> {
        self.may_join(&joining)?;
        let known = self.store_of(&joining).map(|store| (store.id, store.life));
        let (id, life) = match known {
            Some(known) => known,
            None => (StoreId(self.take_ids(1, batch)), StoreLife::Joining),
        };
        // Nobody may be routed to this store under another one's name.
        let shadowed: Vec<StoreId> = self
            .stores
            .values()
            .filter(|store| store.id != id && store.address == joining.address)
            .map(|store| store.id)
            .collect();
        for other in shadowed {
            self.change_store(other, |store| store.address.clear(), batch);
        }
        let Joining { address, status_address, labels, version, incarnation, data_id, .. } =
            joining;
        let store =
            Store { id, address, status_address, labels, version, incarnation, data_id, life };
        if self.stores.get(&id).is_none_or(|known| **known != store) {
            Record::Store(store.clone()).put(batch);
            self.stores.insert(id, Arc::new(store));
            self.stores_generation += 1;
        }
        Ok(id)
    }

    /// The store that announces itself, if it is known: by its id, or by its data folder where it
    /// never got our answer.
    pub fn store_of(&self, joining: &Joining) -> Option<&Arc<Store>> {
        match joining.store {
            Some(id) => self.stores.get(&id),
            None => self.stores.values().find(|store| store.data_id == joining.data_id),
        }
    }

    /// The store's id where joining would change nothing, so that asking again costs nothing.
    pub fn has_joined(&self, joining: &Joining) -> Option<StoreId> {
        let store = self.store_of(joining)?;
        let same = self.may_join(joining).is_ok()
            && store.address == joining.address
            && store.status_address == joining.status_address
            && store.labels == joining.labels
            && store.version == joining.version
            && store.incarnation == joining.incarnation;
        same.then_some(store.id)
    }

    fn activate(&mut self, id: StoreId, batch: &mut WriteBatch) {
        if self.stores.get(&id).is_some_and(|store| store.life == StoreLife::Joining) {
            self.change_store(id, |store| store.life = StoreLife::Active, batch);
        }
    }

    fn change_store(
        &mut self,
        id: StoreId,
        change: impl FnOnce(&mut Store),
        batch: &mut WriteBatch,
    ) {
        if let Some(store) = self.stores.get_mut(&id) {
            let store = Arc::make_mut(store);
            change(store);
            Record::Store(store.clone()).put(batch);
            self.stores_generation += 1;
        }
    }

    fn bootstrap(&mut self, batch: &mut WriteBatch) -> bool {
        if self.initial.is_some() {
            return true;
        }
        if self.missing_stores() > 0 {
            return false;
        }
        let Some(cluster) = self.cluster else { return false };
        let voters = initial_voters(self.stores.len(), cluster.replicas);
        let stores: Vec<StoreId> = self.stores.keys().copied().take(voters).collect();
        let sentinel = SENTINEL_START;
        let regions: Vec<Region> =
            [KeyRange::new(&b""[..], sentinel), KeyRange::new(sentinel, &b""[..])]
                .into_iter()
                .map(|range| {
                    let first = self.take_ids(1 + stores.len() as u64, batch);
                    let peers = (first + 1..).zip(&stores).map(|(id, store)| Peer {
                        id: PeerId(id),
                        store: *store,
                        role: Role::Voter,
                    });
                    let epoch = Epoch { conf_ver: 1, version: 1 };
                    Region { id: RegionId(first), range, epoch, peers: peers.collect() }
                })
                .collect();
        Record::Initial(regions.clone()).put(batch);
        let saved = |region: &Region| SavedRegion {
            region: region.clone(),
            leader: None,
            term: Default::default(),
            bytes: 0,
            keys: 0,
        };
        self.save_regions(regions.iter().map(saved).collect(), batch);
        self.initial = Some(regions);
        true
    }

    fn save_regions(&mut self, regions: Vec<SavedRegion>, batch: &mut WriteBatch) {
        for saved in regions {
            let id = saved.region.id;
            // A route that is older than what is saved is of no use to anybody.
            let Ok(offered) = self.saved.offer(RegionInfo::from_saved(saved)) else { continue };
            for evicted in offered.evicted {
                record::delete_region(batch, evicted);
            }
            if let Some(merged) = self.saved.get(id) {
                Record::Region(merged.to_saved()).put(batch);
            }
        }
    }

    fn take_ids(&mut self, count: u64, batch: &mut WriteBatch) -> u64 {
        let first = self.counters.last_id + 1;
        self.counters.last_id += count;
        Record::Counters(self.counters).put(batch);
        first
    }

    /// What the cluster is, once it is something.
    pub fn cluster(&self) -> Option<Cluster> {
        self.cluster
    }
    /// The placement group; empty until the cluster is initialised.
    pub fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members
    }
    /// All stores.
    pub fn stores(&self) -> &BTreeMap<StoreId, Arc<Store>> {
        &self.stores
    }
    /// Changes whenever a store does, on this member, since this process started.
    pub fn stores_generation(&self) -> u64 {
        self.stores_generation
    }
    /// What only grows.
    pub fn counters(&self) -> Counters {
        self.counters
    }
    /// The regions the cluster started with; `None` until it has.
    pub fn initial_regions(&self) -> Option<&[Region]> {
        self.initial.as_deref()
    }
    /// How many stores the first regions still wait for; 0 once they are made.
    pub fn missing_stores(&self) -> u32 {
        match (&self.initial, self.cluster) {
            (Some(_), _) => 0,
            (None, Some(cluster)) => {
                let joined = u32::try_from(self.stores.len()).unwrap_or(u32::MAX);
                cluster.initial_stores.max(1).saturating_sub(joined)
            }
            (None, None) => 1,
        }
    }
    /// The routes written behind.
    pub fn saved_regions(&self) -> &RegionTree {
        &self.saved
    }
}

/// Voters of the first regions: the wanted number, or the largest odd number of stores there are.
fn initial_voters(stores: usize, replicas: u32) -> usize {
    let wanted = usize::try_from(replicas).unwrap_or(usize::MAX).clamp(1, 7);
    let most = wanted.min(stores.max(1));
    if most % 2 == 0 { most - 1 } else { most }
}
