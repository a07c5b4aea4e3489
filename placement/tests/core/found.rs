//! Regions that placement hears of only from a replica without leader, and replicas that missed their
//! removal.

use quorate_placement::core::command::Command;
use quorate_placement::core::leader::Leader;
use quorate_placement::core::operators::{Order, Step};
use quorate_placement::core::report::{BadReport, HostedReplica, Report};
use quorate_placement::core::tree::RegionInfo;
use quorate_proto::wire::placement as wire;
use quorate_proto::{KeyRange, PeerId, Region, RegionId, StoreId, Term};

use crate::support::{Machine, led, region, report, seconds};

fn unled(region: &Region) -> RegionInfo {
    RegionInfo { leader: None, led: false, ..led(region, 2, 0) }
}

struct Placement {
    machine: Machine,
    leader: Leader,
}

impl Placement {
    fn new() -> Self {
        let mut machine = Machine::cluster(3, 3);
        for number in 1..=3 {
            machine.apply(Command::ActivateStore(StoreId(number)));
        }
        let mut leader = Leader::new(Term(1), &machine.state, seconds(0));
        for (number, store) in (1..).zip(machine.state.stores().values()) {
            leader.report(store, report(number, true, Vec::new()), seconds(0));
        }
        Self { machine, leader }
    }

    /// The first region, from `start` on, split so often.
    fn first(&self, start: &str, version: u64) -> Region {
        let mut region = self.machine.state.initial_regions().unwrap()[0].clone();
        region.range = KeyRange::new(start.as_bytes().to_vec(), region.range.end);
        region.epoch.version = version;
        region
    }

    fn told(&mut self, report: Report) -> bool {
        let store = self.machine.state.stores()[&report.store].clone();
        self.leader.report(&store, report, seconds(1)).routes
    }

    fn tells_of(&mut self, store: u64, region: &Region) -> bool {
        self.told(Report { unled: vec![unled(region)], ..report(store, false, Vec::new()) })
    }

    fn hosts(&mut self, store: u64, region: RegionId, peer: PeerId, conf_ver: u64) -> Vec<Order> {
        let hosted = vec![HostedReplica { region, peer, conf_ver }];
        self.told(Report { hosted: hosted.clone(), ..report(store, false, Vec::new()) });
        // Told again before the orders have left.
        self.told(Report { hosted, ..report(store, false, Vec::new()) });
        self.leader.orders_for(StoreId(store), 10, seconds(1))
    }
}

#[test]
fn a_region_that_lost_its_leader_before_it_was_reported_is_learnt_from_a_replica() {
    let mut placement = Placement::new();
    let child = region(40, "", "m", 2);
    assert!(!placement.tells_of(2, &child), "its parent is still known to have the keys");
    let parent = placement.first("m", 2);
    placement.told(report(1, false, vec![led(&parent, 1, 6)]));
    assert!(placement.leader.tree().find(b"a").is_none(), "a hole");

    assert!(placement.tells_of(2, &child), "clients may hear of it");
    let info = placement.leader.tree().find(b"a").unwrap().clone();
    assert_eq!((info.region.clone(), info.leader, info.led), (child.clone(), None, false));
    let counts = placement.leader.counts(&placement.machine.state, seconds(1));
    assert_eq!((counts.regions, counts.leaderless), (3, 2), "with the sentinel");
    let words = "r40 was unknown here: s2 has a replica and hears no leader";
    let decisions: Vec<&str> =
        placement.leader.history().of(child.id).map(|decision| decision.what.as_str()).collect();
    assert_eq!(decisions, [words]);
    let saved = placement.leader.to_save(10);
    assert!(saved.iter().any(|saved| saved.region == child), "the next leader knows it too");

    // Once it is led, that counts.
    assert!(placement.told(report(3, false, vec![led(&child, 3, 7)])));
    let leader = placement.leader.tree().get(child.id).unwrap().leader.unwrap();
    assert_eq!(leader.store, StoreId(3));
}

#[test]
fn what_is_known_is_not_replaced_by_what_a_replica_without_leader_says() {
    let mut placement = Placement::new();
    let parent = placement.first("m", 2);
    placement.told(report(1, false, vec![led(&parent, 1, 6), led(&region(40, "", "m", 2), 1, 6)]));
    let before = placement.leader.tree().clone();
    for claim in [
        // Newer, and narrower: only a leader is believed.
        region(40, "", "c", 9),
        // Another id.
        region(41, "", "m", 9),
        region(41, "a", "c", 9),
        // What was before the split.
        placement.first("", 1),
    ] {
        assert!(!placement.tells_of(2, &claim), "{claim:?}");
        assert_eq!(*placement.leader.tree(), before, "{claim:?}");
    }
}

#[test]
fn a_replica_that_missed_its_removal_is_ordered_away_in_its_turn() {
    let mut placement = Placement::new();
    let mut region = placement.first("", 1);
    let old = region.peer_on(StoreId(3)).unwrap().id;
    region.peers.retain(|peer| peer.store != StoreId(3));
    region.epoch.conf_ver = 5;
    placement.told(report(1, false, vec![led(&region, 1, 6)]));

    let orders = placement.hosts(3, region.id, old, 4);
    assert_eq!(orders.len(), 1, "{orders:?}");
    let Order { region: of, epoch, step, .. } = &orders[0];
    assert_eq!((*of, epoch.conf_ver, step), (region.id, 5, &Step::Destroy { peer: old }));
    assert_eq!(placement.hosts(3, region.id, old, 4).len(), 1, "until it is gone");

    assert_eq!(placement.hosts(3, region.id, old, 5), [], "it knows as new a configuration");
    assert_eq!(placement.hosts(3, region.id, PeerId(999), 6), [], "it was added since");
    let member = region.peers[0].id;
    assert_eq!(placement.hosts(1, region.id, member, 1), [], "it lags, and is a member");
    assert_eq!(placement.hosts(3, RegionId(77), old, 1), [], "nothing is known of its region");
}

#[test]
fn what_a_store_tells_without_leading_it_is_checked() {
    let told = |region: Option<wire::RegionReport>| {
        let report = wire::StoreReport {
            store_id: 2,
            unled: region.into_iter().collect(),
            ..wire::StoreReport::default()
        };
        Report::try_from(report)
    };
    let of = |region: &Region| wire::RegionReport {
        region: Some(region.into()),
        leader: region.peer_on(StoreId(1)).map(|peer| (*peer).into()),
        term: 9,
        ..wire::RegionReport::default()
    };
    let mut known = region(40, "", "m", 2);
    let parsed = told(Some(of(&known))).unwrap().unled.remove(0);
    assert_eq!((parsed.leader, parsed.term, parsed.led), (None, Term(0), false));
    known.peers.retain(|peer| peer.store != StoreId(2));
    assert_eq!(told(Some(of(&known))), Err(BadReport::NotHosted(known.id)));
    assert_eq!(told(Some(wire::RegionReport::default())), Err(BadReport::NoRegion));
    assert!(told(None).unwrap().unled.is_empty());
}
