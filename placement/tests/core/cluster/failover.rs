//! Placement's leader changes, and regions change their own: at any step of the way.

use std::time::Duration;

use quorate_placement::core::command::Command;
use quorate_placement::core::leader::Leader;
use quorate_placement::core::operators::Goal;
use quorate_placement::core::stores::StoreState;
use quorate_proto::{Peer, PeerId, RegionId, Role, StoreId, Term};

use super::moves::{move_replica, request};
use super::stores::{remove, state};
use super::{Cluster, FIRST};

#[test]
fn whenever_placement_fails_over_a_move_is_finished_once() {
    for at in 0..60 {
        let mut cluster = Cluster::new(4, 1);
        move_replica(&mut cluster, 1, 4);
        for tick in 0..250 {
            if tick == at {
                cluster.failover();
            }
            cluster.tick();
        }
        let told = format!("failover at tick {at}: {:?}", cluster.done);
        if at == 0 {
            // Nobody but the former leader knew of it.
            assert_eq!(cluster.voters(FIRST), [1, 2, 3], "{told}");
            continue;
        }
        assert_eq!(cluster.voters(FIRST), [2, 3, 4], "{told}");
        assert_eq!(cluster.regions[&FIRST].region.peers.len(), 3, "{told}");
        let adds = cluster.done.iter().filter(|step| step.contains("add")).count();
        assert_eq!(adds, 1, "{told}");
        assert!(cluster.stores[&1].destroyed.contains(&PeerId(1_001)), "{told}");
        assert!(cluster.machine.state.operators().is_empty(), "{told}");
    }
}

#[test]
fn whenever_placement_fails_over_growth_ends_with_five_voters() {
    for at in (1..100).step_by(7) {
        let mut cluster = Cluster::new(5, 1);
        cluster.set("replicas", "5");
        for tick in 0..400 {
            if tick == at {
                cluster.failover();
            }
            cluster.tick();
        }
        assert_eq!(cluster.voters(FIRST), [1, 2, 3, 4, 5], "failover at tick {at}");
    }
}

#[test]
fn events_are_numbered_on_and_told_once() {
    let mut cluster = Cluster::new(4, 1);
    move_replica(&mut cluster, 2, 4);
    for _ in 0..10 {
        cluster.seconds(5);
        cluster.failover();
    }
    let events = cluster.machine.state.events().after(0, 0);
    let numbers: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
    let promoted = |text: &&String| text.as_str() == "r100 s4 promoted in place of s2, voters 3";
    assert_eq!(cluster.events().iter().filter(promoted).count(), 1);
    assert_eq!(cluster.machine.reloaded().events(), cluster.machine.state.events());
}

#[test]
fn the_next_leader_can_tell_what_was_decided() {
    let mut cluster = Cluster::new(4, 1);
    move_replica(&mut cluster, 2, 4);
    cluster.seconds(60);
    assert_eq!(cluster.voters(FIRST), [1, 3, 4]);
    move_replica(&mut cluster, 4, 2);
    cluster.seconds(1);
    cluster.failover();
    let decisions: Vec<_> = cluster.leader.history().of(FIRST).collect();
    assert!(decisions.is_sorted_by_key(|decision| decision.at_ms), "{decisions:?}");
    let has = |what: &str| decisions.iter().any(|decision| decision.what.contains(what));
    assert!(has("s4 promoted in place of s2, voters 3"), "{decisions:?}");
    assert!(has("move a replica from s4 to s2: on request"), "{decisions:?}");
}

#[test]
fn a_region_that_changes_its_leader_at_every_step_gets_there() {
    let mut cluster = Cluster::new(4, 1);
    move_replica(&mut cluster, 2, 4);
    for tick in 0..600 {
        if tick % 7 == 0 {
            let hosted = cluster.regions.get_mut(&FIRST).unwrap();
            let able = |peer: &&Peer| peer.role == Role::Voter && peer.store != hosted.leader;
            let next = hosted.region.peers.iter().filter(able).nth(tick / 7 % 2).unwrap().store;
            hosted.leader = next;
            hosted.term += 1;
            cluster.report_all(false);
        }
        cluster.tick();
    }
    assert_eq!(cluster.voters(FIRST), [1, 3, 4], "{:?}", cluster.done);
}

#[test]
fn a_joint_configuration_without_an_operator_is_completed() {
    let mut cluster = Cluster::new(4, 1);
    let hosted = cluster.regions.get_mut(&FIRST).unwrap();
    let store = StoreId(4);
    hosted.region.peers.push(Peer { id: PeerId(9_999), store, role: Role::IncomingVoter });
    hosted.region.peers[1].role = Role::DemotingVoter;
    hosted.region.epoch.conf_ver += 2;
    hosted.matched.insert(PeerId(9_999), 1_000);
    cluster.report_all(true);
    cluster.seconds(20);
    assert_eq!(cluster.voters(FIRST), [1, 3, 4]);
    assert_eq!(cluster.done[0], "r100 leave");
    // What was demoted has no purpose that anybody knows of: another one is in its place.
    assert_eq!(cluster.learners(FIRST), [0; 0]);
    let told = cluster.decisions(FIRST);
    assert!(told.iter().any(|why| why.starts_with("joint-checker")), "{told:?}");
}

#[test]
fn a_split_in_the_middle_of_a_move_that_stalls_keeps_no_store_in() {
    let mut cluster = Cluster::new(4, 1);
    cluster.stores.get_mut(&4).unwrap().stuck = true;
    remove(&mut cluster, 2, false, false).unwrap();
    cluster.seconds(5);
    assert_eq!(cluster.learners(FIRST), [4]);
    let id = split_off(&mut cluster);
    // The learners of both go stale, and get on at last.
    cluster.seconds(120);
    for region in [FIRST, id] {
        let stale = format!("{region} s4 is stale");
        assert!(cluster.events().iter().any(|event| event.starts_with(&stale)), "{stale}");
    }
    cluster.stores.get_mut(&4).unwrap().stuck = false;
    cluster.seconds(200);
    for region in [FIRST, id] {
        assert_eq!((cluster.voters(region), cluster.learners(region)), (vec![1, 3, 4], vec![]));
    }
    assert_eq!(state(&cluster, 2), StoreState::Left);
}

/// The first region splits: the child takes the left part, with a peer beside each of the parent's.
fn split_off(cluster: &mut Cluster) -> RegionId {
    let hosted = cluster.regions.get_mut(&FIRST).unwrap();
    let mut child = hosted.region.clone();
    hosted.region.range.start = "h".into();
    hosted.region.epoch.version += 1;
    child.id = RegionId(500);
    child.range.end = "h".into();
    child.epoch.version += 1;
    for peer in &mut child.peers {
        peer.id = PeerId(peer.id.0 + 50_000);
    }
    let child = super::Hosted {
        leader: hosted.leader,
        term: 5,
        last: 10,
        matched: child.peers.iter().map(|peer| (peer.id, 0)).collect(),
        region: child,
        ..super::Hosted::default()
    };
    let id = child.region.id;
    cluster.regions.insert(id, child);
    cluster.report_all(false);
    id
}

#[test]
fn a_split_in_the_middle_of_a_move_moves_both_halves() {
    let mut cluster = Cluster::new(4, 1);
    cluster.stores.get_mut(&4).unwrap().stuck = true;
    move_replica(&mut cluster, 2, 4);
    cluster.seconds(5);
    assert_eq!(cluster.learners(FIRST), [4]);
    let id = split_off(&mut cluster);
    cluster.stores.get_mut(&4).unwrap().stuck = false;
    cluster.seconds(60);
    assert_eq!((cluster.voters(FIRST), cluster.learners(FIRST)), (vec![1, 3, 4], vec![]));
    assert_eq!((cluster.voters(id), cluster.learners(id)), (vec![1, 3, 4], vec![]));
}

#[test]
fn an_older_form_of_the_cluster_refuses_until_it_is_raised() {
    let mut cluster = Cluster::new(4, 1);
    cluster.machine = crate::support::Machine::older(1, 4);
    cluster.failover();
    cluster.seconds(3);
    let goal = || Goal::MoveReplica { from: StoreId(2), to: StoreId(4) };
    let refused = request(&mut cluster, goal()).unwrap_err();
    assert!(refused.starts_with("replicas are changed from cluster_version 2 on"), "{refused}");
    assert_eq!(cluster.machine.state.events().last(), 0);
    cluster.set("cluster_version", "2");
    request(&mut cluster, goal()).unwrap();
    cluster.seconds(20);
    assert_eq!(cluster.voters(FIRST), [1, 3, 4]);
    let falls = vec![("cluster_version".to_owned(), "1".to_owned())];
    let bad = cluster.machine.state.check_settings(&falls).unwrap_err().to_string();
    assert_eq!(bad, "cluster_version is 2 and never falls: what was written in that form stays");
}

#[test]
fn routes_of_some_seconds_ago_destroy_nothing() {
    let mut cluster = Cluster::new(4, 1);
    cluster.seconds(2);
    // What is saved is from before the learner came.
    let saved = cluster.leader.to_save(100);
    cluster.machine.apply(Command::SaveRegions(saved));
    cluster.stores.get_mut(&4).unwrap().stuck = true;
    move_replica(&mut cluster, 2, 4);
    cluster.seconds(5);
    assert_eq!(cluster.learners(FIRST), [4]);
    failover_in_silence(&mut cluster);
    cluster.stores.get_mut(&4).unwrap().stuck = false;
    cluster.report_all(true);
    cluster.seconds(20);
    assert_eq!(cluster.voters(FIRST), [1, 3, 4]);
    assert!(cluster.stores[&4].destroyed.is_empty());
}

/// Another member of placement takes over, with the routes that were saved, and hears of nobody for
/// a while.
fn failover_in_silence(cluster: &mut Cluster) {
    cluster.term += 1;
    let state = cluster.machine.reloaded();
    cluster.leader = Leader::new(Term(cluster.term), &state, cluster.now);
    for _ in 0..20 {
        cluster.now = cluster.now + Duration::from_millis(100);
        assert!(cluster.leader.tick(&cluster.machine.state, cluster.now).is_empty());
        cluster.replicate();
    }
}

#[test]
fn routes_of_before_a_joint_configuration_undo_nothing() {
    for removed in [false, true] {
        let mut cluster = Cluster::new(4, 1);
        move_replica(&mut cluster, 2, 4);
        while cluster.learners(FIRST) != [4] {
            cluster.tick();
        }
        let saved = cluster.leader.to_save(100);
        assert_eq!(saved[0].region.peer_on(StoreId(4)).unwrap().role, Role::Learner);
        cluster.machine.apply(Command::SaveRegions(saved));
        let wanted: &[u64] = if removed { &[] } else { &[2] };
        while cluster.voters(FIRST) != [1, 3, 4] || cluster.learners(FIRST) != wanted {
            cluster.tick();
        }
        // What has become of the members is replicated, and the next step is not ordered.
        cluster.leader.tick(&cluster.machine.state, cluster.now);
        cluster.replicate();
        failover_in_silence(&mut cluster);
        cluster.report_all(true);
        cluster.seconds(20);
        assert_eq!(cluster.voters(FIRST), [1, 3, 4]);
        assert!(cluster.learners(FIRST).is_empty(), "{:?}", cluster.done);
        let events = cluster.events();
        let promoted = events.iter().filter(|text| text.contains("promoted")).count();
        assert_eq!(promoted, 1, "{events:?}");
        assert!(events.iter().all(|text| !text.contains("given up")), "{events:?}");
    }
}

#[test]
fn a_join_that_was_rolled_back_is_not_destroyed_where_it_may_yet_appear() {
    let mut cluster = Cluster::new(4, 1);
    cluster.stores.get_mut(&1).unwrap().refuses = Some("busy".to_owned());
    move_replica(&mut cluster, 2, 4);
    cluster.seconds(60);
    assert_eq!(cluster.voters(FIRST), [1, 2, 3]);
    assert!(cluster.stores[&4].destroyed.is_empty(), "it was in no configuration");
}
