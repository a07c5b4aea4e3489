//! balance-leader in a small simulated cluster: it levels out, and then leaves things alone.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use quorate_consensus::time::Instant;
use quorate_placement::core::command::Command;
use quorate_placement::core::leader::Leader;
use quorate_placement::core::operators::{Goal, Operator, Order, Step};
use quorate_proto::limits::SENTINEL_START;
use quorate_proto::{Region, RegionId, StoreId, Term};

use crate::support::{Machine, led, region, report, seconds};

/// Stores that do what they are told, and a leader of placement.
struct Cluster {
    machine: Machine,
    leader: Leader,
    regions: BTreeMap<RegionId, (Region, u64, u64)>,
    now: Instant,
    moves: usize,
}

impl Cluster {
    /// Regions led as given, on three stores.
    fn new(leaders: &[u64]) -> Self {
        let mut machine = Machine::cluster(3, 3);
        for store in 1..=3 {
            machine.apply(Command::ActivateStore(StoreId(store)));
        }
        let key = |n: usize| if n == 0 { String::new() } else { format!("k{n:06}") };
        let regions = leaders.iter().enumerate().map(|(number, store)| {
            let mut region = region(number as u64 + 100, &key(number), &key(number + 1), 2);
            if number + 1 == leaders.len() {
                region.range.end = SENTINEL_START.into();
            }
            (region.id, (region, *store, 6))
        });
        let mut cluster = Cluster {
            regions: regions.collect(),
            leader: Leader::new(Term(1), &machine.state, seconds(0)),
            machine,
            now: seconds(0),
            moves: 0,
        };
        let mut sentinel = region(99, "", "", 2);
        sentinel.range.start = SENTINEL_START.into();
        cluster.regions.insert(sentinel.id, (sentinel, 1, 6));
        for store in 1..=3 {
            cluster.report(store, true);
        }
        cluster
    }

    fn report(&mut self, store: u64, full: bool) {
        let led = self.regions.values().filter(|(_, leader, _)| *leader == store);
        let regions = led.map(|(region, store, term)| led_info(region, *store, *term)).collect();
        let known = self.machine.state.stores()[&StoreId(store)].clone();
        self.leader.report(&known, report(store, full, regions), self.now);
    }

    fn obey(&mut self, order: &Order) {
        let (_, leader, term) = self.regions.get_mut(&order.region).unwrap();
        match order.step {
            Step::TransferLeader { to } => {
                *leader = to.0;
                *term += 1;
                self.moves += 1;
            }
            ref other => panic!("nobody asked for this: {other:?}"),
        }
    }

    /// A tenth of a second: placement plans, stores obey and report.
    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(100);
        let state = self.machine.state.clone();
        for store in self.leader.tick(&state, self.now) {
            for order in self.leader.orders_for(store, 64, self.now) {
                self.obey(&order);
            }
        }
        for store in 1..=3 {
            self.report(store, false);
        }
    }

    fn counts(&self) -> Vec<usize> {
        let counted = self.regions.values().filter(|(region, ..)| region.id != RegionId(99));
        let mut counts = vec![0; 3];
        for (_, leader, _) in counted {
            counts[*leader as usize - 1] += 1;
        }
        counts
    }

    fn spread(&self) -> usize {
        let counts = self.counts();
        counts.iter().max().unwrap() - counts.iter().min().unwrap()
    }
}

fn led_info(region: &Region, store: u64, term: u64) -> quorate_placement::core::tree::RegionInfo {
    led(region, store, term)
}

#[test]
fn a_hundred_regions_on_one_store_level_out_in_seconds_and_stay() {
    let mut cluster = Cluster::new(&[1; 100]);
    for _ in 0..50 {
        cluster.step();
    }
    let mut counts = cluster.counts();
    counts.sort_unstable();
    assert_eq!(counts, [33, 33, 34]);
    assert_eq!(cluster.moves, 66, "no region moved twice");
    assert_eq!(cluster.regions[&RegionId(99)].1, 1, "the sentinel is left alone");
    for _ in 0..1_200 {
        cluster.step();
    }
    assert_eq!(cluster.moves, 66, "two quiet minutes");
    assert_eq!(cluster.leader.operators().iter().count(), 0);
}

#[test]
fn nothing_moves_before_every_store_has_told_what_it_leads() {
    let mut cluster = Cluster::new(&[1, 1, 1, 1, 1, 1]);
    // A new leader of placement has heard of one store only.
    let term = Term(2);
    cluster.leader = Leader::new(term, &cluster.machine.state, cluster.now);
    cluster.report(1, true);
    let state = cluster.machine.state.clone();
    for _ in 0..10 {
        cluster.now = cluster.now + Duration::from_millis(500);
        assert!(cluster.leader.tick(&state, cluster.now).is_empty());
    }
    cluster.report(2, true);
    cluster.now = cluster.now + Duration::from_millis(500);
    let due = cluster.leader.tick(&state, cluster.now);
    assert_eq!(due.into_iter().collect::<Vec<_>>(), [StoreId(1)]);
    let to_second = |operator: &Operator| matches!(operator.goal, Goal::TransferLeader { to, .. } if to == StoreId(2));
    assert!(cluster.leader.operators().iter().all(to_second), "store 3 has not reported");
}

#[test]
fn silent_and_stopping_stores_get_no_leaders() {
    let mut cluster = Cluster::new(&[1; 30]);
    let third = cluster.machine.state.stores()[&StoreId(3)].clone();
    let mut stopping = report(3, true, Vec::new());
    stopping.stats.stopping = true;
    cluster.leader.report(&third, stopping, cluster.now);
    let state = cluster.machine.state.clone();
    // Store 2 falls silent for longer than the others.
    cluster.now = cluster.now + Duration::from_secs(25);
    cluster.report(1, false);
    cluster.now = cluster.now + Duration::from_secs(1);
    assert!(cluster.leader.tick(&state, cluster.now).is_empty());
    cluster.report(2, false);
    cluster.now = cluster.now + Duration::from_secs(1);
    assert!(!cluster.leader.tick(&state, cluster.now).is_empty());
}

#[test]
fn a_peer_that_is_behind_does_not_get_to_lead() {
    let mut cluster = Cluster::new(&[1; 6]);
    let first = cluster.machine.state.stores()[&StoreId(1)].clone();
    let behind = cluster.regions.values().filter(|(_, leader, _)| *leader == 1);
    let behind = behind.map(|(region, ..)| {
        let mut info = led(region, 1, 6);
        info.pending = vec![region.peer_on(StoreId(2)).unwrap().id];
        info.down = vec![region.peer_on(StoreId(3)).unwrap().id];
        info
    });
    let behind = report(1, true, behind.collect());
    cluster.leader.report(&first, behind, cluster.now);
    let state = cluster.machine.state.clone();
    assert!(cluster.leader.tick(&state, cluster.now).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_cluster_levels_out_and_then_rests(
        leaders in proptest::collection::vec(1u64..=3, 1..300),
    ) {
        let mut cluster = Cluster::new(&leaders);
        let tolerated = (leaders.len() as f64 / 3.0 * 0.04) as usize;
        for _ in 0..150 {
            cluster.step();
        }
        prop_assert!(cluster.spread() <= tolerated.max(1), "{:?}", cluster.counts());
        prop_assert!(cluster.moves <= leaders.len(), "no region moved twice");
        let moves = cluster.moves;
        for _ in 0..300 {
            cluster.step();
        }
        prop_assert_eq!(cluster.moves, moves, "it rests");
    }
}
