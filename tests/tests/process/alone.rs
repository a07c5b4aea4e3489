//! Regions with one replica each: their store leaves, under a checked load.

use std::time::Duration;

use quorate_proto::wire::placement as wire;
use quorate_proto::{Role, StoreId};
use quorate_tests::process::{Cluster, Load, LoadOptions, Shape, Witness, eventually};

use crate::membership::{CHANGE, pause_balance, region_of, settled};
use crate::{RECOVERY, all_letters, clients};

/// How many regions have a replica on that store.
async fn left_on(placement: &quorate_client::PlacementClient, store: StoreId) -> usize {
    let mut left = 0;
    for letter in all_letters() {
        let region = region_of(placement, letter).await;
        left += usize::from(region.peer_on(store).is_some());
    }
    left
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_store_leaves_while_placement_fails_over_and_nothing_is_lost() {
    let mut cluster = Cluster::start(Shape { stores: 1, ..Shape::default() }).await;
    cluster.spread().await;
    let placement = cluster.placement().await;
    pause_balance(&placement).await;
    let first = cluster.store_ids()[0];
    let request = wire::RemoveStoreRequest {
        store_id: first.0,
        cancel: false,
        dead: false,
        with_store_id: 0,
    };
    let refused = placement.remove_store(request).await.unwrap_err().to_string();
    assert!(refused.contains("add a store first"), "{refused}");

    let witness = Witness::start(cluster.placement().await);
    let load = Load::start(&clients(&cluster).await, LoadOptions::default());
    let all = all_letters();
    load.progress(&all, 20, RECOVERY).await;
    let second = cluster.join_store(&[]);
    let replicas = eventually("the removal begins", RECOVERY, || async {
        placement.remove_store(request).await.map_err(|error| error.to_string())
    })
    .await;
    // Twelve letters and the last region.
    assert_eq!(replicas, 13);
    eventually("some have moved", CHANGE, || async {
        match left_on(&placement, first).await {
            left if left < all.len() => Ok(()),
            left => Err(format!("{left} are left")),
        }
    })
    .await;
    let leader = cluster.placement_leader().await;
    cluster.placements[leader].kill();
    eventually("the store has left", CHANGE * 2, || async {
        let status = placement.status().await.map_err(|error| error.to_string())?;
        let is_it =
            |one: &&wire::StoreStatus| one.store.as_ref().is_some_and(|store| store.id == first.0);
        match status.stores.iter().find(is_it).map(|store| store.state.as_str()) {
            Some("Left") => Ok(()),
            other => Err(format!("{other:?}, {} operators", status.operators)),
        }
    })
    .await;
    cluster.placements[leader].start();
    for letter in all.iter().copied() {
        let region = settled(&placement, letter, &[second]).await;
        assert_eq!(region.peers[0].role, Role::Voter);
    }
    // Nobody needs the first one any more.
    let mut gone = cluster.stores.remove(0);
    gone.terminate();
    gone.ended(Duration::from_secs(60));
    load.progress(&all, 20, RECOVERY).await;

    // How each move ended is known, also of those that the former leader of placement ended.
    let told = placement.operators(0, true).await.unwrap();
    let moves = told.iter().filter(|one| one.kind == "move-replica" && one.ended == "done");
    let mut regions: Vec<u64> = moves.map(|one| one.region_id).collect();
    regions.sort_unstable();
    regions.dedup();
    assert_eq!(regions.len(), 13, "{told:#?}");

    let seen = witness.stop().await;
    assert!(seen.looks > 0 && seen.even.is_empty(), "{seen:?}");
    let accounts = load.stop().await;
    println!(
        "moves: longest gap {:?}",
        accounts.longest_gap(&all, Duration::ZERO, accounts.lasted)
    );
    accounts.check(&cluster.client().await, 300).await;
}
