//! Merges: what is ordered, what is rolled back, and what becomes of it when placement fails over.

use quorate_placement::core::operators::{End, Goal, Operator};
use quorate_proto::RegionId;

use super::{Cluster, FIRST};

const SECOND: RegionId = RegionId(101);
const THIRD: RegionId = RegionId(102);

/// Region r101 is to be taken in by r100.
fn merge(cluster: &mut Cluster) -> u64 {
    ask(cluster, SECOND, Some(FIRST)).unwrap()
}

fn ask(cluster: &mut Cluster, source: RegionId, into: Option<RegionId>) -> Result<u64, String> {
    let begun = cluster.leader.merge(&cluster.machine.state, source, into, cluster.now);
    begun.map(|(id, _)| id).map_err(|refused| refused.to_string())
}

fn ended(cluster: &Cluster, id: u64) -> Option<(Operator, End)> {
    let ended = cluster.leader.operators().ended().find(|ended| ended.operator.id == id);
    ended.map(|ended| (ended.operator.clone(), ended.end.clone()))
}

/// Runs until that was done.
fn until(cluster: &mut Cluster, step: &str) {
    for _ in 0..600 {
        if cluster.done.iter().any(|done| done == step) {
            return;
        }
        cluster.tick();
    }
    panic!("{step} was not done: {:?}", cluster.done);
}

fn rests(cluster: &Cluster) {
    assert_eq!(cluster.leader.operators().iter().count(), 0);
    assert!(cluster.machine.state.operators().is_empty());
    let stopped: Vec<_> = cluster.regions.values().filter(|one| one.merging.is_some()).collect();
    assert!(stopped.is_empty());
}

#[test]
fn a_region_stops_and_its_neighbour_takes_it_in() {
    for repeats in [false, true] {
        let mut cluster = Cluster::new(3, 3);
        cluster.repeats = repeats;
        let id = merge(&mut cluster);
        cluster.seconds(5);
        assert_eq!(cluster.done, ["r101 stops for r100", "r100 takes r101 in"]);
        assert_eq!(ended(&cluster, id).unwrap().1, End::Done);
        rests(&cluster);
        assert!(cluster.leader.tree().get(SECOND).is_none());
        let one = cluster.leader.tree().find(b"k000001").unwrap();
        assert_eq!(one.region.id, FIRST);
        let events = cluster.events();
        let told = |words: &str| events.iter().any(|event| event == words);
        assert!(told("r101 is to merge into r100: on request"), "{events:?}");
        assert!(told("r100 took r101 in"), "{events:?}");
        // Until the right neighbour, too.
        let id = ask(&mut cluster, FIRST, None).unwrap();
        cluster.seconds(5);
        assert_eq!(ended(&cluster, id).unwrap().1, End::Done);
        assert_eq!(cluster.regions.len(), 2);
    }
}

#[test]
fn nothing_is_ordered_before_it_is_replicated() {
    let mut cluster = Cluster::new(3, 3);
    cluster.replicates = false;
    let id = merge(&mut cluster);
    cluster.seconds(3);
    assert!(cluster.done.is_empty());
    // No order is out: it ends at once.
    cluster.leader.cancel(id, cluster.now).unwrap();
    cluster.replicates = true;
    cluster.seconds(5);
    assert_eq!(ended(&cluster, id).unwrap().1, End::Cancelled);
    assert!(cluster.done.is_empty());
    rests(&cluster);
}

#[test]
fn whenever_placement_fails_over_a_merge_is_finished_once() {
    for at in 1..40 {
        let mut cluster = Cluster::new(3, 3);
        merge(&mut cluster);
        for tick in 0..200 {
            if tick == at {
                cluster.failover();
            }
            cluster.tick();
        }
        let told = format!("failover at tick {at}: {:?}", cluster.done);
        assert_eq!(cluster.done, ["r101 stops for r100", "r100 takes r101 in"], "{told}");
        let events = cluster.events();
        let merged = events.iter().filter(|event| *event == "r100 took r101 in").count();
        assert_eq!(merged, 1, "{told}: {events:?}");
        rests(&cluster);
    }
}

#[test]
fn a_source_with_a_dead_replica_goes_on_again() {
    for at in (1..300).step_by(5) {
        let mut cluster = Cluster::new(3, 3);
        // Led by s2; the target by s1.
        merge(&mut cluster);
        let mut stopped = 0;
        for tick in 0..600 {
            if cluster.regions.get(&SECOND).is_some_and(|one| one.merging.is_some()) {
                cluster.stores.get_mut(&3).unwrap().dead = true;
                stopped += 1;
            }
            if tick == at {
                cluster.failover();
            }
            cluster.tick();
        }
        let told = format!("failover at tick {at}: {:?}", cluster.done);
        let steps = ["r101 stops for r100", "r100 refuses", "r101 goes on"];
        match cluster.regions.contains_key(&SECOND) {
            true => assert_eq!(cluster.done[..3], steps, "{told}"),
            false => assert!(stopped <= 2, "{told}"),
        }
        assert!(stopped < 450, "{told}: stopped for {stopped} ticks");
        rests(&cluster);
    }
}

#[test]
fn a_target_that_changes_lets_the_source_go() {
    let mut cluster = Cluster::new(3, 3);
    cluster.stores.get_mut(&3).unwrap().dead = true;
    // The store died unnoticed, so that the merge begins.
    cluster.regions.get_mut(&SECOND).unwrap().merging = None;
    let id = merge(&mut cluster);
    until(&mut cluster, "r101 stops for r100");
    // It splits, in more parts than one.
    cluster.regions.get_mut(&FIRST).unwrap().region.epoch.version += 7;
    cluster.stores.get_mut(&3).unwrap().dead = false;
    cluster.seconds(10);
    assert_eq!(cluster.done, ["r101 stops for r100", "r101 goes on"]);
    let (operator, end) = ended(&cluster, id).unwrap();
    assert!(matches!(operator.goal, Goal::RollBackMerge { target: FIRST, .. }));
    assert_eq!(operator.reason, "on request; given up: r100 changed meanwhile");
    assert_eq!(end, End::Done);
    rests(&cluster);
}

#[test]
fn cancelled_at_any_moment_nothing_stays_stopped() {
    for at in 0..20 {
        for failover in [false, true] {
            let mut cluster = Cluster::new(3, 3);
            let id = merge(&mut cluster);
            for _ in 0..at {
                cluster.tick();
            }
            let late = cluster.leader.cancel(id, cluster.now).is_err();
            if failover {
                cluster.replicate();
                cluster.failover();
            }
            cluster.seconds(15);
            let told = format!("cancelled at tick {at}: {:?}", cluster.done);
            let taken = !cluster.regions.contains_key(&SECOND);
            // A commit that was out already may win.
            assert!(taken || !late, "{told}");
            rests(&cluster);
        }
    }
}

#[test]
fn an_order_to_stop_that_arrives_late_stops_nobody() {
    let mut cluster = Cluster::new(3, 3);
    cluster.stores.get_mut(&2).unwrap().held = Some(Vec::new());
    let id = merge(&mut cluster);
    cluster.seconds(3);
    let busy = ask(&mut cluster, FIRST, Some(SECOND)).unwrap_err();
    assert!(busy.starts_with(&format!("r100 is busy with operator {id}")), "{busy}");
    cluster.leader.cancel(id, cluster.now).unwrap();
    // Its neighbour goes into no third region before that is over.
    let busy = ask(&mut cluster, FIRST, Some(SECOND)).unwrap_err();
    assert!(busy.contains("is busy with operator"), "{busy}");
    cluster.seconds(5);
    assert_eq!(cluster.done, ["r101 refuses"]);
    for order in cluster.stores.get_mut(&2).unwrap().held.take().unwrap() {
        cluster.obey(quorate_proto::StoreId(2), order);
    }
    cluster.seconds(5);
    assert_eq!(cluster.done, ["r101 refuses"]);
    rests(&cluster);
}

#[test]
fn a_stopped_region_that_nobody_knows_of_goes_on() {
    let mut cluster = Cluster::new(3, 3);
    cluster.replicates = false;
    merge(&mut cluster);
    cluster.seconds(1);
    let target_epoch = cluster.regions[&FIRST].region.epoch;
    cluster.stop(SECOND, FIRST, target_epoch);
    cluster.replicates = true;
    cluster.failover();
    cluster.seconds(10);
    assert_eq!(cluster.done, ["r100 refuses", "r101 goes on"]);
    assert!(cluster.events().contains(&"r101 goes on: r100 did not take it in".to_owned()));
    rests(&cluster);
}

#[test]
fn an_older_epoch_of_the_target_proves_nothing() {
    let mut cluster = Cluster::new(3, 3);
    let mut target_epoch = cluster.regions[&FIRST].region.epoch;
    // The target is known from a leader that is behind.
    target_epoch.version += 1;
    cluster.stop(SECOND, FIRST, target_epoch);
    cluster.seconds(30);
    assert!(cluster.done.is_empty());
    let operator = cluster.leader.operators().under_way().next().unwrap();
    assert_eq!(operator.waits_for, "the newest epoch of r100, which is not reported yet");
    cluster.regions.get_mut(&FIRST).unwrap().region.epoch = target_epoch;
    cluster.seconds(5);
    assert_eq!(cluster.done, ["r100 refuses", "r101 goes on"]);
    rests(&cluster);
}

#[test]
fn a_refusal_of_the_store_ends_it_and_names_the_rule() {
    let mut cluster = Cluster::new(3, 3);
    let slow = "its replica on s3 is behind";
    cluster.stores.get_mut(&2).unwrap().refuses = Some(slow.to_owned());
    let id = merge(&mut cluster);
    cluster.seconds(5);
    // It may have been proposed before it was refused.
    assert_eq!(cluster.done, ["r101 refuses"]);
    let (operator, _) = ended(&cluster, id).unwrap();
    assert_eq!(operator.reason, format!("on request; refused: {slow}"));
    let why = cluster.decisions(SECOND);
    assert!(why.iter().any(|why| why.contains(slow)), "{why:?}");
    rests(&cluster);
}

#[test]
fn what_cannot_be_merged_is_refused_with_the_rule() {
    let mut cluster = Cluster::new(4, 4);
    cluster.seconds(2);
    let sentinel = RegionId(104);
    let elsewhere = cluster.regions.get_mut(&RegionId(103)).unwrap();
    elsewhere.region.peers[0].store = quorate_proto::StoreId(4);
    elsewhere.leader = quorate_proto::StoreId(2);
    elsewhere.region.epoch.conf_ver += 1;
    cluster.seconds(1);
    for (source, into, words) in [
        (RegionId(7), None, "r7 is not known"),
        (FIRST, Some(FIRST), "r100 cannot be merged into itself"),
        (FIRST, Some(THIRD), "r100 and r102 are no neighbours"),
        (sentinel, None, "r104 is the cluster's last region"),
        (RegionId(103), Some(sentinel), "r104 is the cluster's last region"),
        (THIRD, Some(RegionId(103)), "r102 is on s1+s2+s3, r103 is on s2+s3+s4"),
    ] {
        let refused = ask(&mut cluster, source, into).unwrap_err();
        assert!(refused.starts_with(words), "{refused}");
    }
    cluster.set("placement.rules", "5 voters from \"k000001\" to \"k000002\"");
    let refused = ask(&mut cluster, FIRST, Some(SECOND)).unwrap_err();
    assert!(refused.starts_with("other placement rules begin at k000001"), "{refused}");
    cluster.set("placement.rules", "");
    cluster.stores.get_mut(&4).unwrap().old = true;
    cluster.seconds(2);
    let refused = ask(&mut cluster, FIRST, Some(SECOND)).unwrap_err();
    assert!(refused.contains("run the newer program on all members"), "{refused}");
    cluster.stores.get_mut(&4).unwrap().old = false;
    cluster.seconds(2);
    cluster.stores.get_mut(&3).unwrap().dead = true;
    cluster.seconds(2);
    let refused = ask(&mut cluster, FIRST, Some(SECOND)).unwrap_err();
    assert!(refused.contains("is not well: its replica on s3 is silent"), "{refused}");
    let why = cluster.decisions(FIRST);
    assert!(why.last().unwrap().starts_with("request: merge: on request; refused:"), "{why:?}");
    rests(&cluster);
}
