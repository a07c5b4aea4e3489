//! Clients whose knowledge is old: they work, and they work without placement.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_client::Client;
use quorate_proto::StoreId;
use quorate_tests::process::{Cluster, Shape, eventually, letter_key, letters};

use crate::RECOVERY;

/// Writes and reads every letter `times` times.
async fn work(client: &Client, times: u64, tag: &str) {
    for number in 0..times {
        for letter in letters() {
            let (key, value) = (letter_key(letter, number), Bytes::from(format!("{tag}{number}")));
            client.put(key.clone(), value.clone()).await.unwrap_or_else(|e| panic!("{tag}: {e}"));
            let found = client.get(key).await.unwrap_or_else(|e| panic!("{tag}: {e}"));
            assert_eq!(found, Some(value), "{tag}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_cache_works_after_splits_moves_and_without_placement() {
    let mut cluster = Cluster::start(Shape::default()).await;
    // One region is all that this client knows.
    let old = cluster.client().await;
    work(&old, 1, "one region").await;
    cluster.spread().await;
    work(&old, 2, "after the splits").await;

    // Every leader moves on, behind the client's back.
    let placement = cluster.placement().await;
    let (ids, before) = (cluster.store_ids(), cluster.leaders().await);
    let next = |store: &StoreId| {
        let at = ids.iter().position(|id| id == store).unwrap();
        ids[(at + 1) % ids.len()]
    };
    eventually("every leader has moved", RECOVERY, || async {
        let mut waiting = Vec::new();
        for (letter, store) in &before {
            let info = placement.get_region(Bytes::copy_from_slice(&[*letter])).await;
            let info = info.map_err(|error| error.to_string())?;
            if info.leader.is_none_or(|leader| leader.store == *store) {
                // Refused while a move is under way; the next look asks again.
                let _ = placement.transfer_leader(info.region.id, next(store)).await;
                waiting.push(char::from(*letter));
            }
        }
        if waiting.is_empty() { Ok(()) } else { Err(format!("{waiting:?} stay")) }
    })
    .await;
    work(&old, 2, "after the moves").await;

    // Placement stands still: what is cached goes on, without a hiccup of a deadline.
    for node in &cluster.placements {
        node.pause();
    }
    let begun = Instant::now();
    work(&old, 5, "placement paused").await;
    println!("120 operations while placement stood still: {:?}", begun.elapsed());
    for node in &cluster.placements {
        node.resume();
    }
    // Then it is gone, longer than any lease of it.
    for node in &mut cluster.placements {
        node.kill();
    }
    let gone = Instant::now();
    while gone.elapsed() < Duration::from_secs(2) {
        work(&old, 1, "placement killed").await;
    }
    let options = ["--timeout", "1"];
    cluster
        .quorate(&[&["kv", "get", "a"], &options[..]].concat())
        .refused(3, &["placement", "unreachable"]);
    for node in &mut cluster.placements {
        node.start();
    }
    cluster.healthy().await;
    work(&old, 1, "placement is back").await;
    work(&cluster.client().await, 1, "a new client").await;
}
