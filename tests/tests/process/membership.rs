//! Replicas that move between real stores, and a store that leaves, under load.

use std::time::Duration;

use bytes::Bytes;
use quorate_client::PlacementClient;
use quorate_proto::wire::placement as wire;
use quorate_proto::{Region, Role, StoreId};
use quorate_tests::process::{Cluster, Load, LoadOptions, Shape, eventually};

use crate::{RECOVERY, all_letters, clients};

/// How long a change of replicas may take on a machine with other work.
pub(crate) const CHANGE: Duration = Duration::from_secs(90);

pub(crate) async fn region_of(placement: &PlacementClient, letter: u8) -> Region {
    eventually("a region is known", RECOVERY, || async {
        let found = placement.get_region(Bytes::copy_from_slice(&[letter])).await;
        found.map(|info| info.region).map_err(|error| error.to_string())
    })
    .await
}

async fn leader_of(placement: &PlacementClient, letter: u8) -> StoreId {
    eventually("a region has a leader", RECOVERY, || async {
        let found = placement.get_region(Bytes::copy_from_slice(&[letter])).await;
        let info = found.map_err(|error| error.to_string())?;
        info.leader.map(|leader| leader.store).ok_or_else(|| "none".to_owned())
    })
    .await
}

/// Begins a change, however often placement has to be asked.
pub(crate) async fn change(
    placement: &PlacementClient,
    request: wire::ChangeReplicaRequest,
) -> u64 {
    eventually("a change of replicas begins", RECOVERY, || async {
        let begun = placement.change_replica(request).await;
        begun.map_err(|error| error.to_string())
    })
    .await
}

/// Waits until a region's voters are on exactly these stores, and nothing else is of it.
pub(crate) async fn settled(placement: &PlacementClient, letter: u8, stores: &[StoreId]) -> Region {
    let mut wanted = stores.to_vec();
    wanted.sort_unstable();
    let wanted = &wanted;
    eventually("the replicas are where they should be", CHANGE, || async {
        let region = region_of(placement, letter).await;
        let mut on: Vec<StoreId> = region.peers.iter().map(|peer| peer.store).collect();
        on.sort_unstable();
        let plain = region.peers.iter().all(|peer| peer.role == Role::Voter);
        if on == *wanted && plain {
            return Ok(region);
        }
        let why = placement.explain_region(region.id).await.map_err(|error| error.to_string())?;
        Err(format!("{region:?}: {:?} {:?}", why.operator, why.decisions.last()))
    })
    .await
}

pub(crate) async fn pause_balance(placement: &PlacementClient) {
    for name in ["balance-region", "balance-leader", "hot-region"] {
        placement.set_scheduler(name, true).await.unwrap();
    }
}

pub(crate) fn without(stores: &[StoreId], gone: StoreId, new: StoreId) -> Vec<StoreId> {
    let mut stores: Vec<StoreId> = stores.iter().copied().filter(|store| *store != gone).collect();
    stores.push(new);
    stores.sort_unstable();
    stores
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_move_to_a_fourth_store_while_placement_fails_over() {
    let mut cluster = Cluster::start(Shape::default()).await;
    cluster.spread().await;
    let placement = cluster.placement().await;
    pause_balance(&placement).await;
    let three = cluster.store_ids();
    let load = Load::start(&clients(&cluster).await, LoadOptions::default());
    let all = all_letters();
    load.progress(&all, 20, RECOVERY).await;
    let fourth = cluster.join_store(&[]);

    // One that leads hands over first.
    let region = region_of(&placement, b'a').await;
    let from = leader_of(&placement, b'a').await;
    let request = wire::ChangeReplicaRequest {
        region_id: region.id.0,
        add_store_id: fourth.0,
        remove_store_id: from.0,
        analytics: false,
    };
    let id = change(&placement, request).await;
    let moved = settled(&placement, b'a', &without(&three, from, fourth)).await;
    // Add, enter, leave, remove.
    assert_eq!(moved.epoch.conf_ver, region.epoch.conf_ver + 4);
    let ended = eventually("the operator has ended", RECOVERY, || async {
        let told = placement.operators(id, true).await.map_err(|error| error.to_string())?;
        let one = told.first().cloned().ok_or("unknown")?;
        if one.ended.is_empty() { Err(format!("{one:?}")) } else { Ok(one) }
    })
    .await;
    assert_eq!(ended.ended, "done", "{ended:?}");
    load.progress(&all, 20, RECOVERY).await;

    // Another one, while placement's leader is killed.
    let region = region_of(&placement, b'b').await;
    let from = *three.iter().find(|store| region.peer_on(**store).is_some()).unwrap();
    let request =
        wire::ChangeReplicaRequest { region_id: region.id.0, remove_store_id: from.0, ..request };
    change(&placement, request).await;
    let leader = cluster.placement_leader().await;
    cluster.placements[leader].kill();
    settled(&placement, b'b', &without(&three, from, fourth)).await;
    cluster.placements[leader].start();
    cluster.healthy().await;
    load.progress(&all, 20, RECOVERY).await;

    // A learner for analytics, which stays one, is read from and goes again.
    let region = region_of(&placement, b'c').await;
    let add = wire::ChangeReplicaRequest {
        region_id: region.id.0,
        add_store_id: fourth.0,
        remove_store_id: 0,
        analytics: true,
    };
    change(&placement, add).await;
    eventually("the learner is kept", CHANGE, || async {
        let request = wire::MembersRequest { region_id: region.id.0, placement: false };
        let told = placement.lifecycles(request).await;
        let told = told.map_err(|error| error.to_string())?;
        let one = told.iter().find(|one| one.node_id == fourth.0).ok_or("no lifecycle")?;
        if one.state == "KeepAsLearner" { Ok(()) } else { Err(format!("{one:?}")) }
    })
    .await;
    let remove = wire::ChangeReplicaRequest { add_store_id: 0, remove_store_id: fourth.0, ..add };
    change(&placement, remove).await;
    settled(&placement, b'c', &three).await;

    let events = placement.events(wire::EventsRequest::default()).await;
    let mut events = events.unwrap();
    let mut told = Vec::new();
    while let Some(event) = events.message().await.unwrap() {
        told.push(event.text);
    }
    let region = region_of(&placement, b'a').await;
    let promoted = told
        .iter()
        .find(|text| text.starts_with(&format!("{} {fourth} promoted in place of", region.id)));
    assert!(promoted.is_some(), "{told:#?}");
    let accounts = load.stop().await;
    println!(
        "moves: longest gap {:?}",
        accounts.longest_gap(&all, Duration::ZERO, accounts.lasted)
    );
    accounts.check(&cluster.client().await, 300).await;
}

fn removal(store: StoreId) -> wire::RemoveStoreRequest {
    wire::RemoveStoreRequest { store_id: store.0, cancel: false, dead: false, with_store_id: 0 }
}

async fn has_left(placement: &PlacementClient, leaving: StoreId) {
    eventually("the store has left", CHANGE * 2, || async {
        let status = placement.status().await.map_err(|error| error.to_string())?;
        let mut stores = status.stores.iter();
        let store = stores.find(|it| it.store.as_ref().is_some_and(|it| it.id == leaving.0));
        match store.ok_or("unknown")? {
            store if store.state == "Left" => Ok(()),
            store => Err(format!("{}: {}", store.state, store.not_left_because)),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_leaves_and_does_not_come_back() {
    let mut cluster = Cluster::start(Shape::default()).await;
    cluster.spread().await;
    let placement = cluster.placement().await;
    pause_balance(&placement).await;
    let three = cluster.store_ids();
    let leaving = three[0];
    let request = removal(leaving);
    let refused = placement.remove_store(request).await.unwrap_err().to_string();
    assert!(refused.contains("add a store first, or lower `replicas`"), "{refused}");

    let load = Load::start(&clients(&cluster).await, LoadOptions::default());
    let all = all_letters();
    load.progress(&all, 20, RECOVERY).await;
    let fourth = cluster.join_store(&[]);
    let replicas = eventually("the removal begins", RECOVERY, || async {
        let begun = placement.remove_store(request).await;
        begun.map_err(|error| error.to_string())
    })
    .await;
    // Twelve letters and the last region.
    assert_eq!(replicas, 13);
    has_left(&placement, leaving).await;
    let wanted = without(&three, leaving, fourth);
    for letter in all.iter().copied() {
        settled(&placement, letter, &wanted).await;
    }
    load.progress(&all, 20, RECOVERY).await;
    let mut gone = cluster.stores.remove(0);
    gone.terminate();
    gone.ended(Duration::from_secs(60));
    gone.start();
    gone.refuses(RECOVERY, &["was taken out of this cluster", "empty data folder"]);
    let accounts = load.stop().await;
    accounts.check(&cluster.client().await, 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_stores_are_exchanged_for_others_at_once() {
    let mut cluster = Cluster::start(Shape::default()).await;
    cluster.spread().await;
    let placement = cluster.placement().await;
    let old = cluster.store_ids();
    let load = Load::start(&clients(&cluster).await, LoadOptions::default());
    let all = all_letters();
    load.progress(&all, 20, RECOVERY).await;
    let new: Vec<StoreId> = old.iter().map(|_| cluster.join_store(&[])).collect();
    for store in &old {
        eventually("the removal begins", RECOVERY, || async {
            placement.remove_store(removal(*store)).await.map_err(|error| error.to_string())
        })
        .await;
    }
    for store in &old {
        has_left(&placement, *store).await;
    }
    for letter in all.iter().copied() {
        settled(&placement, letter, &new).await;
    }
    for mut gone in cluster.stores.drain(..old.len()) {
        gone.terminate();
        gone.ended(Duration::from_secs(60));
    }
    load.progress(&all, 20, RECOVERY).await;
    let accounts = load.stop().await;
    accounts.check(&cluster.client().await, 300).await;
}
