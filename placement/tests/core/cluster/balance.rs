//! All parts together: schedulers, checkers and lifecycles, from uneven to even and to rest.

use std::collections::BTreeMap;

use quorate_placement::core::state::StoreLife;
use quorate_proto::StoreId;

use super::Cluster;
use super::stores::{remove, state};
use quorate_placement::core::stores::StoreState;

/// Replicas and leaders of each store, without the sentinel, which is the last region.
fn counts(cluster: &Cluster) -> BTreeMap<u64, (usize, usize)> {
    let stores = cluster.machine.state.stores().values();
    let stays = stores.filter(|store| store.life == StoreLife::Active);
    let mut counts: BTreeMap<u64, (usize, usize)> =
        stays.map(|store| (store.id.0, (0, 0))).collect();
    let last = *cluster.regions.last_key_value().unwrap().0;
    for hosted in cluster.regions.values().filter(|hosted| hosted.region.id != last) {
        for peer in &hosted.region.peers {
            counts.entry(peer.store.0).or_default().0 += 1;
        }
        counts.entry(hosted.leader.0).or_default().1 += 1;
    }
    counts
}

/// Largest minus smallest, over the mean: of replicas and of leaders.
fn skews(cluster: &Cluster) -> (f64, f64) {
    let counts = counts(cluster);
    let skew = |values: Vec<usize>| {
        let mean = values.iter().sum::<usize>() as f64 / values.len() as f64;
        (values.iter().max().unwrap() - values.iter().min().unwrap()) as f64 / mean
    };
    let replicas = counts.values().map(|count| count.0).collect();
    (skew(replicas), skew(counts.values().map(|count| count.1).collect()))
}

fn assert_even_and_at_rest(cluster: &mut Cluster) {
    let (replicas, leaders) = skews(cluster);
    assert!(replicas <= 0.10 && leaders <= 0.10, "{:?}", counts(cluster));
    let done = cluster.done.len();
    cluster.seconds(300);
    assert_eq!(cluster.done.len(), done, "{:?}", &cluster.done[done..]);
    assert_eq!(cluster.leader.operators().iter().count(), 0);
}

#[test]
fn a_fourth_store_gets_its_share_of_two_hundred_regions() {
    let mut cluster = Cluster::new(3, 200);
    cluster.set("schedule.paused", "");
    cluster.seconds(20);
    assert_eq!(cluster.done.len(), 0);
    let new = cluster.join(4);
    cluster.seconds(240);
    assert_even_and_at_rest(&mut cluster);
    let adds = cluster.done.iter().filter(|step| step.contains("add")).count();
    assert!(counts(&cluster)[&new].0 >= 140 && adds <= 150, "{adds} replicas were copied");
    let moves = cluster.leader.schedulers().list().iter().find(|one| one.name == "balance-region");
    assert_eq!(moves.unwrap().begun, adds as u64);
    let transfers = cluster.done.iter().filter(|step| step.contains("leader")).count();
    assert!(transfers <= 120, "{transfers} transfers, where 50 would do at best");
    let (last, _) = cluster.regions.last_key_value().unwrap();
    assert_eq!(cluster.voters(*last), [1, 2, 3], "the last region stays");
}

#[test]
fn placement_fails_over_in_the_middle_and_the_next_leader_goes_on() {
    let mut cluster = Cluster::new(4, 60);
    cluster.set("schedule.paused", "");
    for _ in 0..6 {
        cluster.seconds(3);
        cluster.failover();
    }
    cluster.seconds(120);
    assert_even_and_at_rest(&mut cluster);
    let adds = cluster.done.iter().filter(|step| step.contains("add")).count();
    assert!(adds <= 47, "{adds} replicas were copied, where 45 would do");
}

#[test]
fn a_store_leaves_and_the_others_share_what_it_had() {
    let mut cluster = Cluster::new(5, 80);
    cluster.set("schedule.paused", "");
    cluster.seconds(150);
    assert_even_and_at_rest(&mut cluster);
    let before = cluster.done.len();
    let hosted = counts(&cluster)[&2].0 as u64;
    let last = *cluster.regions.last_key_value().unwrap().0;
    let sentinel = u64::from(cluster.voters(last).contains(&2));
    assert_eq!(remove(&mut cluster, 2, false, false), Ok(hosted + sentinel));
    cluster.seconds(150);
    assert_eq!(state(&cluster, 2), StoreState::Left);
    assert_even_and_at_rest(&mut cluster);
    assert!(!counts(&cluster).contains_key(&2));
    // Nothing went to the store that left, and hardly more was copied than what it had.
    let adds = cluster.done[before..].iter().filter(|step| step.contains("add"));
    assert!(adds.clone().all(|step| !step.ends_with("add s2")));
    assert!(adds.count() as u64 <= hosted + sentinel + 12);
    let known = &cluster.machine.state.stores()[&StoreId(2)];
    assert_eq!(known.life, StoreLife::Left);
}
