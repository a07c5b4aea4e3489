//! A dead store is replaced by one that people name: its voters go there, as far as that can be.

use quorate_placement::core::command::{Answer, NOTES_SINCE};
use quorate_placement::core::stores::StoreState;
use quorate_proto::{RegionId, StoreId};

use super::moves::move_replica;
use super::stores::{label, state};
use super::{Cluster, FIRST};

/// Replaces a dead store; what does not go to the other one, in words.
fn replace(cluster: &mut Cluster, old: u64, new: u64) -> Result<(u64, Vec<String>), String> {
    let (known, now) = (&cluster.machine.state, cluster.now);
    let (old, new) = (StoreId(old), StoreId(new));
    let replacement = cluster.leader.replace_store(known, old, new, now);
    let replacement = replacement.map_err(|refused| refused.to_string())?;
    let told = replacement.elsewhere.iter().map(|(region, why)| format!("{region}: {new} {why}"));
    let told = told.collect();
    assert_eq!(cluster.machine.apply(replacement.command), Answer::Done);
    Ok((replacement.replicas, told))
}

/// Stores 1 to 3 have all regions, and the third one is dead.
fn cluster(stores: u64) -> Cluster {
    let mut cluster = Cluster::new(stores, 6);
    cluster.seconds(2);
    cluster
}

fn dies(cluster: &mut Cluster, store: u64) {
    cluster.stores.get_mut(&store).unwrap().dead = true;
    cluster.seconds(30);
}

#[test]
fn all_its_voters_go_to_the_store_that_was_named() {
    let mut cluster = cluster(6);
    dies(&mut cluster, 3);
    assert_eq!(replace(&mut cluster, 3, 5), Ok((7, Vec::new())));
    cluster.seconds(5);
    // What people wanted is replicated.
    cluster.failover();
    cluster.seconds(120);
    for region in 100..=106 {
        assert_eq!(cluster.voters(RegionId(region)), [1, 2, 5], "r{region}");
    }
    assert_eq!(state(&cluster, 3), StoreState::Left);
}

#[test]
fn one_that_has_a_replica_already_gets_no_second_one() {
    let mut cluster = cluster(6);
    move_replica(&mut cluster, 2, 5);
    cluster.seconds(20);
    dies(&mut cluster, 3);
    let told = vec!["r100: s5 has a replica already".to_owned()];
    assert_eq!(replace(&mut cluster, 3, 5), Ok((7, told)));
    cluster.seconds(120);
    let voters = cluster.voters(FIRST);
    assert!(voters == [1, 4, 5] || voters == [1, 5, 6] || voters == [1, 2, 5], "{voters:?}");
    for region in 101..=106 {
        assert_eq!(cluster.voters(RegionId(region)), [1, 2, 5], "r{region}");
    }
}

#[test]
fn replicas_do_not_stand_closer_together_for_it() {
    let mut cluster = cluster(5);
    for (store, zone) in [(1, "a"), (2, "b"), (3, "c"), (4, "c"), (5, "a")] {
        label(&mut cluster, store, &[("zone", zone)]);
    }
    dies(&mut cluster, 3);
    let (replicas, told) = replace(&mut cluster, 3, 5).unwrap();
    assert_eq!((replicas, told.len()), (7, 7));
    assert_eq!(told[0], "r100: s5 stands closer to the other replicas by zone");
    cluster.seconds(120);
    for region in 100..=106 {
        assert_eq!(cluster.voters(RegionId(region)), [1, 2, 4], "r{region}");
    }
}

#[test]
fn what_finds_no_room_goes_elsewhere() {
    let mut cluster = cluster(6);
    cluster.stores.get_mut(&5).unwrap().full = true;
    dies(&mut cluster, 3);
    let (_, told) = replace(&mut cluster, 3, 5).unwrap();
    assert_eq!(told.len(), 7);
    assert_eq!(told[0], "r100: s5 has 1 of 1024 MiB free");
    cluster.seconds(120);
    for region in 100..=106 {
        let voters = cluster.voters(RegionId(region));
        assert!(!voters.contains(&3) && !voters.contains(&5), "r{region}: {voters:?}");
    }
}

#[test]
fn it_waits_for_a_store_that_is_only_busy() {
    let mut cluster = cluster(6);
    cluster.set("store_limit.arriving", "1");
    dies(&mut cluster, 3);
    assert_eq!(replace(&mut cluster, 3, 5), Ok((7, Vec::new())));
    cluster.seconds(300);
    for region in 100..=106 {
        assert_eq!(cluster.voters(RegionId(region)), [1, 2, 5], "r{region}");
    }
}

#[test]
fn refusals_say_what_to_do() {
    let mut cluster = cluster(6);
    let alive = replace(&mut cluster, 3, 5).unwrap_err();
    assert!(alive.starts_with("s3 is alive: stop it first"), "{alive}");
    dies(&mut cluster, 3);
    for (with, words) in [
        (9, "s9 is not known to this cluster"),
        (3, "s3 is not up, or is the one that goes: name a store that is up"),
    ] {
        let refused = replace(&mut cluster, 3, with).unwrap_err();
        assert!(refused.starts_with(words), "{refused}");
    }
    dies(&mut cluster, 5);
    let refused = replace(&mut cluster, 3, 5).unwrap_err();
    assert!(refused.starts_with("s5 is not up"), "{refused}");
    assert_eq!(state(&cluster, 3), StoreState::Suspect, "nothing has changed");
}

#[test]
fn an_older_form_of_the_cluster_names_no_store() {
    let mut cluster = cluster(6);
    cluster.machine = crate::support::Machine::older(NOTES_SINCE - 1, 6);
    cluster.set("schedule.paused", "balance-leader,balance-region,hot-region");
    cluster.failover();
    dies(&mut cluster, 3);
    let refused = replace(&mut cluster, 3, 5).unwrap_err();
    assert!(refused.contains("until then `quorate store remove --dead`"), "{refused}");
    cluster.set("cluster_version", &NOTES_SINCE.to_string());
    assert_eq!(replace(&mut cluster, 3, 5), Ok((7, Vec::new())));
}
