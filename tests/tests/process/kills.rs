//! kill -9 of each role while clients write: nothing acknowledged is lost, and no answer lies.

use std::time::Duration;

use quorate_tests::process::{Cluster, Load, LoadOptions, Shape};

use crate::{RECOVERY, all_letters, clients, led_by};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_store_in_turn_and_the_placement_leader() {
    let mut cluster = Cluster::start(Shape::default()).await;
    cluster.spread().await;
    let all = all_letters();
    let load = Load::start(&clients(&cluster).await, LoadOptions::default());
    load.progress(&all, 20, RECOVERY).await;
    let ids = cluster.store_ids();
    let mut outages = Vec::new();
    for (number, id) in ids.iter().enumerate() {
        let led = led_by(&cluster, *id).await;
        let from = load.elapsed();
        cluster.stores[number].kill();
        load.progress(&all, 20, RECOVERY).await;
        outages.push((format!("{id}"), led, from, load.elapsed()));
        cluster.stores[number].start();
        cluster.healthy().await;
        load.progress(&all, 10, RECOVERY).await;
    }
    let leader = cluster.placement_leader().await;
    let from = load.elapsed();
    cluster.placements[leader].kill();
    load.progress(&all, 20, RECOVERY).await;
    outages.push((
        format!("the placement leader, {}", leader + 1),
        all.clone(),
        from,
        load.elapsed(),
    ));
    cluster.placements[leader].start();
    cluster.healthy().await;
    load.progress(&all, 10, RECOVERY).await;
    let accounts = load.stop().await;
    for (who, led, from, to) in outages {
        let gap = accounts.longest_gap(&led, from, to);
        println!("kill -9 of {who} with {} regions: longest gap {gap:?}", led.len());
    }
    accounts.check(&cluster.client().await, 1_000).await;
    cluster.covering_regions().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_processes_at_once() {
    let mut cluster = Cluster::start(Shape::default()).await;
    cluster.spread().await;
    let all = all_letters();
    let load = Load::start(&clients(&cluster).await, LoadOptions::default());
    load.progress(&all, 30, RECOVERY).await;
    for node in cluster.stores.iter_mut().chain(&mut cluster.placements) {
        node.kill();
    }
    for node in cluster.stores.iter_mut().chain(&mut cluster.placements) {
        node.start();
    }
    cluster.healthy().await;
    load.progress(&all, 20, Duration::from_secs(40)).await;
    let accounts = load.stop().await;
    let gap = accounts.longest_gap(&all, Duration::ZERO, accounts.lasted);
    println!("kill -9 of everything, then started again: longest gap {gap:?}");
    accounts.check(&cluster.client().await, 500).await;
    // 12 letters and the sentinel.
    assert_eq!(cluster.covering_regions().await.len(), 13);
}
