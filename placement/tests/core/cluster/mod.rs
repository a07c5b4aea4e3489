//! The leader of placement against a small model of stores that carry out what they are told, or
//! misbehave.

mod alone;
mod balance;
mod chaos;
mod events;
mod failover;
mod lasting;
mod merges;
mod model;
mod moves;
mod notes;
mod people;
mod replace;
mod shrink;
mod stores;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_consensus::time::Instant;
use quorate_placement::core::command::{Answer, Command};
use quorate_placement::core::leader::Leader;
use quorate_placement::core::operators::Order;
use quorate_placement::core::oracle::CEILING_AHEAD_MS;
use quorate_placement::core::report::{OrderRefusal, Report, StoreStats};
use quorate_placement::core::tree::Merging;
use quorate_proto::limits::SENTINEL_START;
use quorate_proto::{Peer, PeerId, Region, RegionId, Role, StoreId, Term};

use crate::support::{Machine, joining, region, seconds};

/// A region as its stores have it.
pub struct Hosted {
    pub region: Region,
    pub leader: StoreId,
    pub term: u64,
    pub last: u64,
    pub matched: BTreeMap<PeerId, u64>,
    /// Where it is stopped for a merge.
    pub merging: Option<Merging>,
    pub bytes: u64,
    /// Keys written a second.
    pub written: u64,
}

impl Default for Hosted {
    fn default() -> Self {
        Self {
            region: region(0, "", "", 1),
            leader: StoreId(1),
            term: 6,
            last: 1_000,
            matched: BTreeMap::new(),
            merging: None,
            bytes: 0,
            written: 0,
        }
    }
}

/// How a store behaves.
#[derive(Default)]
pub struct Behaviour {
    pub dead: bool,
    /// It refuses all changes of members, for this reason.
    pub refuses: Option<String>,
    /// It hears no order to change members.
    pub deaf: bool,
    /// The first order to enter a joint configuration lies in its log, and further ones are refused.
    pub holds: bool,
    pub entering: Option<Order>,
    /// Its learners take nothing in.
    pub stuck: bool,
    /// Orders to stop for a merge wait here, where there is such a place.
    pub held: Option<Vec<Order>>,
    /// All orders wait there.
    pub holds_all: bool,
    /// Stores that it does not hear.
    pub unheard: Vec<StoreId>,
    /// Its learners take in half of what is written.
    pub slow: bool,
    /// Its disk is.
    pub full: bool,
    /// It runs an older program.
    pub old: bool,
    /// Bytes beyond which it splits.
    pub splits_at: u64,
    /// Replicas it destroyed.
    pub destroyed: BTreeSet<PeerId>,
}

pub struct Cluster {
    pub machine: Machine,
    pub leader: Leader,
    pub now: Instant,
    pub term: u64,
    pub regions: BTreeMap<RegionId, Hosted>,
    pub stores: BTreeMap<u64, Behaviour>,
    /// Orders carried out, in words.
    pub done: Vec<String>,
    /// False: the log of placement takes nothing.
    pub replicates: bool,
    /// Each order arrives twice.
    pub repeats: bool,
    ticks: u64,
}

pub const FIRST: RegionId = RegionId(100);

impl Cluster {
    /// Regions on the stores 1 to 3, led in turn, in a cluster of that many stores.
    pub fn new(stores: u64, regions: u64) -> Self {
        let mut machine = Machine::cluster(3, stores);
        for store in 1..=stores {
            machine.apply(Command::ActivateStore(StoreId(store)));
        }
        // What balances by itself would blur the stories.
        let paused = "balance-leader,balance-region,hot-region".to_owned();
        let change = vec![("schedule.paused".to_owned(), paused)];
        machine.apply(Command::ChangeSettings(change));
        machine.apply(Command::ExtendTime { ceiling_ms: 10_000_000 });
        let key = |n: u64| if n == 0 { String::new() } else { format!("k{n:06}") };
        let mut hosted = BTreeMap::new();
        for number in 0..=regions {
            let mut described = region(100 + number, &key(number), &key(number + 1), 2);
            if number + 1 == regions {
                described.range.end = SENTINEL_START.into();
            }
            if number == regions {
                described.range.start = SENTINEL_START.into();
                described.range.end = Default::default();
            }
            let matched = described.peers.iter().map(|peer| (peer.id, 1_000)).collect();
            let leader = StoreId(1 + number % 3);
            let one = Hosted { leader, region: described, matched, ..Hosted::default() };
            hosted.insert(one.region.id, one);
        }
        let leader = Leader::new(Term(1), &machine.state, seconds(0));
        let mut cluster = Self {
            machine,
            leader,
            now: seconds(0),
            term: 1,
            regions: hosted,
            stores: (1..=stores).map(|store| (store, Behaviour::default())).collect(),
            done: Vec::new(),
            replicates: true,
            repeats: false,
            ticks: 0,
        };
        cluster.report_all(true);
        cluster
    }

    /// Another member of placement takes over, with what is replicated. No former leader's time has
    /// reached the ceiling that it finds.
    pub fn failover(&mut self) {
        self.term += 1;
        let ceiling_ms = self.leader.time_ms(self.now) + CEILING_AHEAD_MS + 1;
        self.machine.apply(Command::ExtendTime { ceiling_ms });
        let state = self.machine.reloaded();
        self.leader = Leader::new(Term(self.term), &state, self.now);
        self.report_all(true);
    }

    /// A tenth of a second.
    pub fn tick(&mut self) {
        self.ticks += 1;
        self.now = self.now + Duration::from_millis(100);
        if self.ticks.is_multiple_of(10) {
            self.second();
        }
        let due = self.leader.tick(&self.machine.state, self.now);
        for store in due {
            for order in self.leader.orders_for(store, 64, self.now) {
                if !self.stores[&store.0].dead {
                    if self.repeats {
                        self.obey(store, order.clone());
                    }
                    self.obey(store, order);
                }
            }
        }
        self.replicate();
    }

    pub fn replicate(&mut self) {
        for command in self.leader.to_propose(&self.machine.state, self.now) {
            match self.replicates {
                true => {
                    let answer = self.machine.apply(command);
                    assert_eq!(answer, Answer::Done);
                }
                false => self.leader.not_proposed(),
            }
        }
    }

    pub fn seconds(&mut self, count: u64) {
        for _ in 0..count * 10 {
            self.tick();
        }
    }

    /// Writes, replication, elections, reports.
    fn second(&mut self) {
        let dead: BTreeSet<u64> = self.dead();
        for hosted in self.regions.values_mut() {
            let lives = |peer: &&Peer| !dead.contains(&peer.store.0);
            let voters = hosted.region.peers.iter().filter(|peer| peer.role != Role::Learner);
            let alive = voters.clone().filter(lives).count();
            if alive * 2 <= voters.count() {
                continue;
            }
            if dead.contains(&hosted.leader.0) {
                let mut able = hosted.region.peers.iter().filter(lives);
                let able = able.find(|peer| peer.role != Role::Learner).unwrap();
                hosted.leader = able.store;
                hosted.term += 1;
            }
            hosted.last += 10;
            for peer in hosted.region.peers.iter().filter(lives) {
                let (behaviour, known) = (&self.stores[&peer.store.0], hosted.matched[&peer.id]);
                let matched = match (behaviour.stuck, behaviour.slow) {
                    (true, _) => known,
                    (false, true) => known + 5,
                    (false, false) => hosted.last,
                };
                hosted.matched.insert(peer.id, matched);
            }
        }
        self.report_all(false);
    }

    fn dead(&self) -> BTreeSet<u64> {
        self.stores.iter().filter(|(_, store)| store.dead).map(|(id, _)| *id).collect()
    }

    pub fn report_all(&mut self, full: bool) {
        for store in self.stores.keys().copied().collect::<Vec<_>>() {
            if !self.stores[&store].dead {
                let led: Vec<RegionId> = self
                    .regions
                    .values()
                    .filter(|hosted| hosted.leader.0 == store)
                    .map(|hosted| hosted.region.id)
                    .collect();
                self.report(store, &led, full, Vec::new());
            }
        }
    }

    fn report(&mut self, store: u64, led: &[RegionId], full: bool, refusals: Vec<OrderRefusal>) {
        let Some(known) = self.machine.state.stores().get(&StoreId(store)).cloned() else { return };
        let regions = led.iter().map(|id| model::info(&self.regions[id], &self.dead())).collect();
        let hosted = |one: &&Hosted| one.region.peer_on(StoreId(store)).is_some();
        let capacity_bytes = if self.stores[&store].full { 1 << 30 } else { 0 };
        let stats = StoreStats {
            regions: self.regions.values().filter(hosted).count() as u32,
            capacity_bytes,
            available_bytes: 1 << 20,
            split_bytes: self.stores[&store].splits_at,
            known_version: if self.stores[&store].old { 0 } else { 5 },
            ..StoreStats::default()
        };
        let report = Report {
            store: StoreId(store),
            incarnation: 1,
            stats,
            regions,
            full,
            sequence: 1,
            refusals,
            unled: Vec::new(),
            hosted: Vec::new(),
            unheard: self.stores[&store].unheard.clone(),
        };
        self.leader.report(&known, report, self.now);
    }

    pub fn voters(&self, region: RegionId) -> Vec<u64> {
        let voters =
            self.regions[&region].region.peers.iter().filter(|peer| peer.role == Role::Voter);
        let mut stores: Vec<u64> = voters.map(|peer| peer.store.0).collect();
        stores.sort_unstable();
        stores
    }

    pub fn learners(&self, region: RegionId) -> Vec<u64> {
        let peers = self.regions[&region].region.peers.iter();
        peers.filter(|peer| peer.role == Role::Learner).map(|peer| peer.store.0).collect()
    }

    /// All events that are replicated, in words.
    pub fn events(&self) -> Vec<String> {
        let events = self.machine.state.events().after(0, 0);
        events.into_iter().map(|event| event.news.text).collect()
    }

    pub fn set(&mut self, name: &str, value: &str) {
        let change = vec![(name.to_owned(), value.to_owned())];
        assert_eq!(self.machine.apply(Command::ChangeSettings(change)), Answer::Done);
    }

    /// A store more; its id.
    pub fn join(&mut self, store: u64) -> u64 {
        let answer = self.machine.apply(Command::JoinStore(joining(store)));
        let Answer::Joined(id) = answer else { panic!("{answer:?}") };
        self.machine.apply(Command::ActivateStore(id));
        self.stores.insert(id.0, Behaviour::default());
        self.report(id.0, &[], true, Vec::new());
        id.0
    }

    pub fn decisions(&self, region: RegionId) -> Vec<String> {
        let decisions = self.leader.history().of(region);
        decisions.map(|decision| format!("{}: {}", decision.by, decision.what)).collect()
    }
}
