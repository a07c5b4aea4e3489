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

use super::command::{Answer, Candidate, Command, Member, NOTES_SINCE, SavedRegion};
use super::ended::EndedOperators;
use super::events::Events;
use super::lifecycle;
use super::operators::Operator;
use super::record::{self, Record};
use super::settings::Settings;
use super::tree::{RegionInfo, RegionTree};

mod join;
mod members;
mod plans;

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
    /// Changes of the placement group's members so far.
    pub members_version: u64,
}

/// A stage of a store's life, as far as it must be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreLife {
    /// It has its id, and has not reported yet.
    Joining,
    /// It has reported at least once.
    Active,
    /// Its replicas go elsewhere; it serves meanwhile.
    Leaving {
        /// It is said not to come back: nobody waits for it.
        dead: bool,
        /// Where its voters should go, where people have said so.
        to: Option<StoreId>,
    },
    /// It has no replicas any more, and its return is refused.
    Left,
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
    candidates: BTreeMap<NodeId, Candidate>,
    stores: BTreeMap<StoreId, Arc<Store>>,
    counters: Counters,
    initial: Option<Vec<Region>>,
    saved: RegionTree,
    operators: BTreeMap<u64, Operator>,
    ended: EndedOperators,
    lifecycles: BTreeMap<RegionId, Vec<lifecycle::Record>>,
    events: Events,
    settings: Settings,
    stores_generation: u64,
    plans_generation: u64,
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
            Record::Candidate(candidate) => {
                state.candidates.insert(candidate.id, candidate);
            }
            Record::Store(store) => {
                state.stores.insert(store.id, Arc::new(store));
            }
            Record::Region(saved) => {
                let _ = state.saved.offer(RegionInfo::from_saved(saved));
            }
            Record::Operator(operator) => {
                state.operators.insert(operator.id, operator);
            }
            Record::Ended(number, ended) => state.ended.load(number, ended),
            Record::Lifecycle(region, records) => {
                state.lifecycles.insert(region, records);
            }
            Record::Event(event) => state.events.load(event),
            Record::Settings(settings) => state.settings = settings,
        })?;
        Ok(state)
    }

    /// Takes over the state of a received snapshot.
    pub fn replace(&mut self, loaded: State) {
        let stores_generation = self.stores_generation + 1;
        let plans_generation = self.plans_generation + 1;
        *self = State { stores_generation, plans_generation, ..loaded };
    }

    /// Without what only counts changes on this member: to compare two states.
    pub fn forget_generations(&mut self) {
        self.stores_generation = 0;
        self.plans_generation = 0;
    }

    /// Applies a command: the answer for its proposer, and the records to write.
    pub fn apply(&mut self, command: Command) -> (Answer, WriteBatch) {
        let mut batch = WriteBatch::new();
        let answer = match command {
            Command::Initialize { cluster_id, members, initial_stores, replicas, version } => {
                let cluster = Cluster { id: cluster_id, version, initial_stores, replicas };
                self.initialize(cluster, members, &mut batch)
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
            Command::ChangeStore { store, life } => {
                match self.change_life(store, life, &mut batch) {
                    Ok(()) => Answer::Done,
                    Err(words) => Answer::Refused(words),
                }
            }
            Command::SavePlan(plan) => {
                self.save_plan(plan, &mut batch);
                Answer::Done
            }
            Command::ChangeSettings(changes) => match self.change_settings(&changes, &mut batch) {
                Ok(()) => Answer::Done,
                Err(bad) => Answer::BadSetting(bad),
            },
            Command::JoinMember(joining) => match self.join_group(joining, &mut batch) {
                Ok(id) => Answer::MemberJoined(id),
                Err(refusal) => Answer::MemberRefused(refusal),
            },
            Command::ChangeMembers { version, members } => {
                self.change_members(version, &members, &mut batch)
            }
        };
        (answer, batch)
    }

    fn initialize(
        &mut self,
        cluster: Cluster,
        members: Vec<Member>,
        batch: &mut WriteBatch,
    ) -> Answer {
        if let Some(cluster) = self.cluster {
            return Answer::Initialized(cluster.id);
        }
        self.cluster = Some(cluster);
        Record::Cluster(cluster).put(batch);
        for member in members {
            Record::Member(member.clone()).put(batch);
            self.members.insert(member.id, member);
        }
        Answer::Initialized(cluster.id)
    }

    fn bootstrap(&mut self, batch: &mut WriteBatch) -> bool {
        if self.initial.is_some() {
            return true;
        }
        if self.missing_stores() > 0 {
            return false;
        }
        let Some(cluster) = self.cluster else { return false };
        let voters = initial_voters(self.founders().count(), cluster.replicas);
        let stores: Vec<StoreId> = self.founders().take(voters).collect();
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
    /// Those who asked to become members, and those who were.
    pub fn candidates(&self) -> &BTreeMap<NodeId, Candidate> {
        &self.candidates
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
                let joined = u32::try_from(self.founders().count()).unwrap_or(u32::MAX);
                cluster.initial_stores.max(1).saturating_sub(joined)
            }
            (None, None) => 1,
        }
    }
    /// Operators under way.
    pub fn operators(&self) -> &BTreeMap<u64, Operator> {
        &self.operators
    }
    /// Operators that ended last.
    pub fn ended(&self) -> &EndedOperators {
        &self.ended
    }
    /// True where the cluster's form has them in the log, and how long learners were ready.
    pub fn takes_notes(&self) -> bool {
        self.cluster.is_some_and(|cluster| cluster.version >= NOTES_SINCE)
    }
    /// Lifecycles of the groups that have any; `r0` is placement's own.
    pub fn lifecycles(&self) -> &BTreeMap<RegionId, Vec<lifecycle::Record>> {
        &self.lifecycles
    }
    /// What happened.
    pub fn events(&self) -> &Events {
        &self.events
    }
    /// What was changed from the defaults.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
    /// Changes whenever a plan was saved, on this member, since this process started.
    pub fn plans_generation(&self) -> u64 {
        self.plans_generation
    }
    /// Stores that the first regions may be on.
    fn founders(&self) -> impl Iterator<Item = StoreId> {
        let stays = |store: &&Arc<Store>| match store.life {
            StoreLife::Joining | StoreLife::Active => true,
            StoreLife::Leaving { .. } | StoreLife::Left => false,
        };
        self.stores.values().filter(stays).map(|store| store.id)
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
