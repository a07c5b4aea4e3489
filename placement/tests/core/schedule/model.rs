//! A model cluster: stores that report, operators that take their time, a checker that repairs.
//!
//! It plays the parts around the schedulers under virtual time: it executes drafts with delays
//! (learner, copy, swap, removal), reports what has become of them, and writes down every draft and
//! every breach of what must always hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::time::Instant;
use quorate_placement::core::command::{Answer, Command, Joining};
use quorate_placement::core::limit::{LimitRates, Limits};
use quorate_placement::core::load::Loads;
use quorate_placement::core::operators::{Draft, Goal};
use quorate_placement::core::policy::Policy;
use quorate_placement::core::report::{Report, StoreStats};
use quorate_placement::core::schedule::{Schedulers, select_target};
use quorate_placement::core::state::Store;
use quorate_placement::core::stores::{StoreState, Stores};
use quorate_placement::core::tree::{RegionInfo, RegionStats, RegionTree};
use quorate_placement::core::view::{ClusterView, Sources};
use quorate_proto::limits::SENTINEL_START;
use quorate_proto::{Epoch, KeyRange, Peer, PeerId, Region, RegionId, Role, StoreId};

use super::potential;
use crate::support::{Machine, joining, led, report, seconds};

pub const MIB: u64 = 1024 * 1024;
pub const SENTINEL: RegionId = RegionId(1);

/// A region as it really is.
#[derive(Clone, Debug)]
pub struct Truth {
    pub region: Region,
    pub leader: StoreId,
    pub term: u64,
    pub bytes: u64,
    /// Keys written and read a second.
    pub writes: u64,
    pub reads: u64,
    /// Learners that do not have the data yet.
    pub pending: Vec<PeerId>,
    /// Something about it is to be reported.
    pub changed: bool,
}

/// How far an operator got.
#[derive(Clone, Debug)]
pub struct Running {
    pub goal: Goal,
    pub done: usize,
    pub next: Instant,
}

/// A draft that was begun.
#[derive(Clone, Debug)]
pub struct Begun {
    pub at: Instant,
    pub draft: Draft,
}

pub struct Model {
    pub now: Instant,
    pub truth: BTreeMap<RegionId, Truth>,
    pub schedulers: Schedulers,
    pub policy: Arc<Policy>,
    pub limits: Limits,
    pub begun: Vec<Begun>,
    /// Stores that do not report any more.
    pub dead: BTreeSet<StoreId>,
    pub stores: BTreeMap<StoreId, Arc<Store>>,
    machine: Machine,
    tree: RegionTree,
    alive: Stores,
    loads: Loads,
    pub running: BTreeMap<RegionId, Running>,
    cpu_us: BTreeMap<StoreId, u64>,
    reported: Instant,
    full: BTreeSet<StoreId>,
    pub next_peer: u64,
    chance: u64,
}

impl Model {
    /// So many stores with labels as given, without any region but the sentinel.
    pub fn new(labels: &[&[(&str, &str)]]) -> Self {
        let start = seconds(0);
        let mut model = Model {
            now: start,
            truth: BTreeMap::new(),
            schedulers: Schedulers::default(),
            policy: Arc::new(Policy::of_replicas(3).unwrap()),
            limits: Limits::new(LimitRates::default()),
            begun: Vec::new(),
            dead: BTreeSet::new(),
            stores: BTreeMap::new(),
            machine: Machine::cluster(labels.len() as u32, 0),
            tree: RegionTree::default(),
            alive: Stores::new(start),
            loads: Loads::default(),
            running: BTreeMap::new(),
            cpu_us: BTreeMap::new(),
            reported: start,
            full: BTreeSet::new(),
            next_peer: 1_000_000,
            chance: 0x9e37_79b9_7f4a_7c15,
        };
        for labels in labels {
            model.add_store(labels);
        }
        let range = KeyRange::new(SENTINEL_START, &b""[..]);
        model.add_region(SENTINEL, range, &[1, 2, 3], 0);
        model
    }

    /// Unlabelled stores.
    pub fn plain(stores: usize) -> Self {
        Self::new(&vec![&[][..]; stores])
    }

    pub fn add_store(&mut self, labels: &[(&str, &str)]) -> StoreId {
        let number = self.stores.len() as u64 + 1;
        let labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let joining = Joining { labels: labels.collect(), ..joining(number) };
        let Answer::Joined(id) = self.machine.apply(Command::JoinStore(joining)) else { panic!() };
        self.machine.apply(Command::ActivateStore(id));
        self.stores = self.machine.state.stores().clone();
        assert_eq!(id, StoreId(number));
        id
    }

    fn add_region(&mut self, id: RegionId, range: KeyRange, stores: &[u64], bytes: u64) {
        let peers = stores.iter().map(|store| {
            self.next_peer += 1;
            Peer { id: PeerId(self.next_peer), store: StoreId(*store), role: Role::Voter }
        });
        let region =
            Region { id, range, epoch: Epoch { conf_ver: 1, version: 1 }, peers: peers.collect() };
        let leader = region.peers[0].store;
        let truth = Truth {
            region,
            leader,
            term: 6,
            bytes,
            writes: 0,
            reads: 0,
            pending: Vec::new(),
            changed: true,
        };
        self.truth.insert(id, truth);
    }

    /// Regions over the whole key space; each has the stores and the bytes given, the first store
    /// leads. Call it once.
    pub fn fill(&mut self, regions: &[(Vec<u64>, u64)]) {
        let key = |n: usize| if n == 0 { Vec::new() } else { format!("k{n:06}").into_bytes() };
        for (number, (stores, bytes)) in regions.iter().enumerate() {
            let last = number + 1 == regions.len();
            let end = if last { SENTINEL_START.to_vec() } else { key(number + 1) };
            let range = KeyRange::new(key(number), end);
            self.add_region(RegionId(number as u64 + 100), range, stores, *bytes);
        }
    }

    /// A number below `bound`; the same ones in every run.
    pub fn draw(&mut self, bound: u64) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance % bound
    }

    pub fn view(&self) -> ClusterView {
        let sources = Sources {
            tree: &self.tree,
            known: &self.stores,
            alive: &self.alive,
            loads: &self.loads,
            limits: &self.limits,
            policy: &self.policy,
        };
        let under_way = self.running.iter().map(|(region, running)| (*region, &running.goal));
        ClusterView::of(sources, under_way, self.running.keys().copied().collect(), self.now)
    }

    /// What is promised of each region: who has a replica of it, and who leads it.
    pub fn promised(&self) -> BTreeMap<RegionId, potential::Promised> {
        let mut promised: BTreeMap<RegionId, potential::Promised> = BTreeMap::new();
        for (id, truth) in self.truth.iter().filter(|(id, _)| **id != SENTINEL) {
            let stores = truth.region.peers.iter().map(|peer| peer.store).collect();
            let leader = Some(truth.leader).filter(|leader| !self.dead.contains(leader));
            promised.insert(*id, potential::Promised { stores, leader, bytes: truth.bytes });
        }
        for (id, running) in &self.running {
            promised.get_mut(id).unwrap().follow(&running.goal);
        }
        promised
    }

    /// Lets time pass: operators go on, stores report once a second.
    pub fn observe(&mut self, time: Duration) {
        self.now = self.now + time;
        self.advance();
        self.report();
    }

    /// As [`Model::observe`], and placement plans.
    pub fn step(&mut self, time: Duration) {
        self.observe(time);
        let mut view = self.view();
        for draft in repair(&view) {
            view.begin(&draft);
            self.begin(draft);
        }
        let room = 256 - self.running.len();
        let drafts = self.schedulers.plan(&view, room, self.now);
        assert!(drafts.len() <= room);
        potential::assert_falls(self, &view, &drafts);
        for draft in drafts {
            assert!(!view.busy.contains(&draft.region), "{draft:?} is for a busy region");
            self.begin(draft);
        }
    }

    pub fn run(&mut self, minutes: u64, step: Duration) {
        let end = self.now + Duration::from_secs(minutes * 60);
        while self.now < end {
            self.step(step);
        }
    }

    fn begin(&mut self, draft: Draft) {
        let truth = &self.truth[&draft.region];
        assert_ne!(draft.region, SENTINEL, "the sentinel is left alone");
        assert_eq!(draft.epoch, truth.region.epoch);
        assert!(!draft.reason.is_empty());
        self.limits.began(&draft.goal, truth.bytes, self.now);
        let next = self.now + Duration::from_millis(200 + self.draw(800));
        let running = Running { goal: draft.goal.clone(), done: 0, next };
        assert!(self.running.insert(draft.region, running).is_none(), "one operator a region");
        self.begun.push(Begun { at: self.now, draft });
    }

    /// A store dies; its leaders go to other voters.
    pub fn kill(&mut self, store: StoreId) {
        self.dead.insert(store);
        for truth in self.truth.values_mut() {
            if truth.leader == store {
                let mut others =
                    truth.region.peers.iter().filter(|peer| {
                        peer.role == Role::Voter && !self.dead.contains(&peer.store)
                    });
                truth.leader = others.next().unwrap().store;
                truth.term += 1;
            }
            truth.changed = true;
        }
    }

    fn report(&mut self) {
        let elapsed = self.now.since(self.reported);
        let seconds = elapsed.as_secs();
        let periodic = seconds >= 1;
        if periodic {
            self.reported = self.now;
        }
        let mut reports: BTreeMap<StoreId, Vec<RegionInfo>> = BTreeMap::new();
        let mut work: BTreeMap<StoreId, u64> = BTreeMap::new();
        for truth in self.truth.values_mut() {
            let loaded = truth.writes + truth.reads > 0;
            if !(truth.changed || (periodic && loaded)) {
                continue;
            }
            truth.changed = false;
            let mut info = led(&truth.region, truth.leader.0, truth.term);
            info.pending = truth.pending.clone();
            let down = truth.region.peers.iter().filter(|peer| self.dead.contains(&peer.store));
            info.down = down.map(|peer| peer.id).collect();
            let counted = if periodic { seconds } else { 0 };
            info.stats = RegionStats {
                bytes: truth.bytes,
                written_keys: truth.writes * counted,
                read_keys: truth.reads * counted,
                ..RegionStats::default()
            };
            *work.entry(truth.leader).or_default() += (truth.writes * 8 + truth.reads) * counted;
            reports.entry(truth.leader).or_default().push(info);
        }
        let stores: Vec<Arc<Store>> = self.stores.values().cloned().collect();
        for store in stores {
            let regions = reports.remove(&store.id).unwrap_or_default();
            let news = !regions.is_empty() || periodic || !self.full.contains(&store.id);
            if self.dead.contains(&store.id) || !news {
                continue;
            }
            let cpu = self.cpu_us.entry(store.id).or_default();
            *cpu += work.get(&store.id).copied().unwrap_or_default() * 5;
            let stats = StoreStats {
                capacity_bytes: 1_000_000 * MIB,
                available_bytes: 900_000 * MIB,
                cpu_us: *cpu,
                ..StoreStats::default()
            };
            let full = self.full.insert(store.id);
            let report = Report { stats, ..report(store.id.0, full, regions) };
            self.loads.report(&report, self.now);
            self.alive.heard(store.id, 1, stats, full, self.now);
            for info in report.regions {
                self.tree.offer(info).unwrap();
            }
        }
    }
}

/// The replica checker's part that the model needs: whoever stands on a store that is given up is
/// replaced.
fn repair(view: &ClusterView) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let mut view = view.clone();
    let lost: Vec<StoreId> = view
        .stores
        .iter()
        .filter(|(_, store)| store.state == StoreState::Down)
        .map(|(id, _)| *id)
        .collect();
    for from in lost {
        let infos: Vec<Arc<RegionInfo>> =
            view.on(from).map(|region| Arc::clone(&region.info)).collect();
        for info in infos.iter().filter(|info| info.led) {
            if view.busy.contains(&info.region.id) || view.busy.len() >= 64 {
                continue;
            }
            let Ok(to) = select_target(&view, info, Some(from)) else { continue };
            let draft = Draft {
                region: info.region.id,
                epoch: info.region.epoch,
                goal: Goal::MoveReplica { from, to },
                by: "replica-checker",
                reason: format!("{from} is down"),
            };
            view.begin(&draft);
            drafts.push(draft);
        }
    }
    drafts
}
