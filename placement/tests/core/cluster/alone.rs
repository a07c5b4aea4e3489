//! Regions with one voter: it moves like any other, and hands over on the way.

use quorate_placement::core::operators::Goal;
use quorate_placement::core::stores::StoreState;
use quorate_proto::{Peer, RegionId, Role, StoreId};

use super::moves::{move_replica, request};
use super::stores::{remove, state};
use super::{Cluster, FIRST};

/// One voter for each region, and what was done to get there forgotten.
fn cluster(stores: u64, regions: u64) -> Cluster {
    let mut cluster = Cluster::new(stores, regions);
    cluster.set("replicas", "1");
    let is_alone = |cluster: &Cluster| {
        let mut all = cluster.regions.values();
        all.all(|one| one.region.peers.len() == 1) && cluster.leader.operators().iter().count() == 0
    };
    for _ in 0..1_200 {
        if is_alone(&cluster) {
            break;
        }
        cluster.tick();
    }
    assert!(is_alone(&cluster), "{:?}", cluster.done);
    cluster.seconds(1);
    cluster.done.clear();
    cluster
}

fn alone_on(cluster: &Cluster) -> u64 {
    let [store] = cluster.voters(FIRST)[..] else { panic!("{:?}", cluster.voters(FIRST)) };
    store
}

fn has_moved(cluster: &Cluster, from: u64, to: u64, told: &str) {
    let told = format!("{told}: {:?}", cluster.done);
    assert_eq!(cluster.voters(FIRST), [to], "{told}");
    assert_eq!(cluster.regions[&FIRST].region.peers.len(), 1, "{told}");
    assert_eq!(cluster.regions[&FIRST].leader.0, to, "{told}");
    let destroys = format!("r100 s{from} destroys");
    assert!(cluster.done.iter().any(|step| step.starts_with(&destroys)), "{told}");
    let adds = cluster.done.iter().filter(|step| step.contains("r100 add")).count();
    assert_eq!(adds, 1, "{told}");
    assert!(cluster.machine.state.operators().is_empty(), "{told}");
}

#[test]
fn it_moves_on_request_step_by_step() {
    let mut cluster = cluster(4, 1);
    let from = alone_on(&cluster);
    move_replica(&mut cluster, from, 4);
    cluster.seconds(20);
    let steps = ["r100 add s4", "r100 enter +1 -1", "r100 leader s4", "r100 leave", "r100 remove"];
    assert_eq!(cluster.done[..5], steps);
    has_moved(&cluster, from, 4, "on request");
    let promoted = format!("r100 s4 promoted in place of s{from}, voters 1");
    assert!(cluster.events().contains(&promoted), "{:?}", cluster.events());
}

#[test]
fn a_store_with_nothing_but_only_voters_leaves() {
    let mut cluster = cluster(4, 6);
    let leaving = alone_on(&cluster);
    let hosts = |cluster: &Cluster| {
        let regions = cluster.regions.values();
        regions.filter(|one| one.region.peer_on(StoreId(leaving)).is_some()).count()
    };
    let replicas = hosts(&cluster) as u64;
    assert_eq!(remove(&mut cluster, leaving, false, false), Ok(replicas));
    cluster.seconds(180);
    assert_eq!((hosts(&cluster), state(&cluster, leaving)), (0, StoreState::Left));
    for region in 100..=106 {
        assert_eq!(cluster.voters(RegionId(region)).len(), 1, "r{region}");
    }
}

#[test]
fn it_stays_where_there_is_no_other_store() {
    let mut cluster = cluster(3, 1);
    let from = alone_on(&cluster);
    for store in (1..=3).filter(|store| *store != from) {
        cluster.stores.get_mut(&store).unwrap().dead = true;
    }
    cluster.set("store.down_ms", "60000");
    cluster.seconds(120);
    let refused = remove(&mut cluster, from, false, false).unwrap_err();
    assert!(refused.contains("no other store is up that could take the one on"), "{refused}");
    let refused = request(&mut cluster, Goal::RemoveReplica { from: StoreId(from) }).unwrap_err();
    assert!(refused.starts_with("no voter of r100 would be left"), "{refused}");
}

#[test]
fn a_lost_one_is_not_replaced_by_a_copy_that_nobody_has() {
    let mut cluster = cluster(4, 1);
    let from = alone_on(&cluster);
    cluster.stores.get_mut(&from).unwrap().dead = true;
    cluster.seconds(4_000);
    assert!(cluster.done.iter().all(|step| !step.starts_with("r100")), "{:?}", cluster.done);
    assert_eq!(cluster.voters(FIRST), [from]);
}

#[test]
fn whenever_placement_fails_over_it_has_moved_once_in_the_end() {
    for at in 1..80 {
        let mut cluster = cluster(4, 1);
        let from = alone_on(&cluster);
        move_replica(&mut cluster, from, 4);
        for tick in 0..300 {
            if tick == at {
                cluster.failover();
            }
            cluster.tick();
        }
        has_moved(&cluster, from, 4, &format!("failover at tick {at}"));
    }
}

#[test]
fn placement_that_fails_over_at_every_step_gets_there() {
    let mut cluster = cluster(4, 1);
    let from = alone_on(&cluster);
    move_replica(&mut cluster, from, 4);
    // What is left of removed replicas is ordered away once in each term.
    let steps =
        |cluster: &Cluster| cluster.done.iter().filter(|step| !step.contains("destroys")).count();
    let mut seen = 0;
    for _ in 0..600 {
        cluster.tick();
        if steps(&cluster) > seen {
            seen = steps(&cluster);
            cluster.failover();
        }
    }
    assert_eq!(seen, 5, "{:?}", cluster.done);
    has_moved(&cluster, from, 4, "failover at every step");
}

/// Whoever may lead does, in turn: in the joint configuration that is either of the two.
#[test]
fn a_region_that_goes_back_and_forth_between_the_two_gets_there() {
    let mut cluster = cluster(4, 1);
    let from = alone_on(&cluster);
    move_replica(&mut cluster, from, 4);
    for tick in 0..600 {
        let hosted = cluster.regions.get_mut(&FIRST).unwrap();
        let able = |peer: &&Peer| peer.role != Role::Learner && peer.store != hosted.leader;
        if tick % 11 == 0
            && let Some(next) = hosted.region.peers.iter().find(able)
        {
            hosted.leader = next.store;
            hosted.term += 1;
            cluster.report_all(false);
        }
        cluster.tick();
    }
    has_moved(&cluster, from, 4, "back and forth");
}

/// Either store dies as soon as the joint configuration is in force. Nothing is done without it, and
/// once it is back the move ends as it should.
#[test]
fn it_waits_for_either_store_in_the_joint_configuration() {
    for dies in ["the old one", "the new one"] {
        let mut cluster = cluster(4, 1);
        let from = alone_on(&cluster);
        move_replica(&mut cluster, from, 4);
        while !cluster.done.iter().any(|step| step == "r100 enter +1 -1") {
            cluster.tick();
        }
        let dead = if dies == "the old one" { from } else { 4 };
        cluster.stores.get_mut(&dead).unwrap().dead = true;
        let steps = cluster.done.len();
        cluster.seconds(300);
        assert_eq!(cluster.done.len(), steps, "{dies}: {:?}", cluster.done);
        cluster.stores.get_mut(&dead).unwrap().dead = false;
        cluster.seconds(60);
        has_moved(&cluster, from, 4, dies);
    }
}
