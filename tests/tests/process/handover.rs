//! A store that is told to end, and one that stands still: others lead, and no read is old.

use std::time::{Duration, Instant};

use quorate_proto::{Peer, Region};
use quorate_tests::process::tikv::{self, Wire};
use quorate_tests::process::{Cluster, Load, LoadOptions, Shape, until};

use crate::{RECOVERY, all_letters, clients, led_by};

/// How long a store may take to hand over and end.
const DRAIN: Duration = Duration::from_secs(30);
/// Voters keep still for 600 ms after the last word of a leader.
const BEFORE_ELECTIONS: Duration = Duration::from_millis(500);
/// How long a store stands still: longer than every lease and promise.
const PAUSE: Duration = Duration::from_secs(2);

/// What a request of a TiKV client says about its region, addressed to `peer`.
pub(crate) fn context_of(region: &Region, peer: Peer) -> tikv::Context {
    let epoch = region.epoch;
    tikv::Context {
        region_id: region.id.0,
        region_epoch: Some(tikv::RegionEpoch { conf_ver: epoch.conf_ver, version: epoch.version }),
        peer: Some(tikv::Peer { id: peer.id.0, store_id: peer.store.0, role: 0 }),
        term: 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_told_to_end_hands_over_first() {
    let mut cluster = Cluster::start(Shape::default()).await;
    cluster.spread().await;
    let all = all_letters();
    let load = Load::start(&clients(&cluster).await, LoadOptions::default());
    load.progress(&all, 20, RECOVERY).await;
    let ids = cluster.store_ids();
    for (number, id) in ids.iter().enumerate().take(2) {
        let led = led_by(&cluster, *id).await;
        let (from, begun) = (load.elapsed(), Instant::now());
        cluster.stores[number].terminate();
        let status = cluster.stores[number].ended(DRAIN);
        assert_eq!(status.code(), Some(0), "{}", cluster.stores[number].log_text());
        println!("{id} with {} leaders ended after {:?}", led.len(), begun.elapsed());
        // Handed over, not found dead: the others lead before an election could have ended.
        let others: Vec<_> = (0..ids.len()).filter(|other| *other != number).collect();
        let leaders = |other: &usize| cluster.stores[*other].health().unwrap()["leaders"].as_u64();
        until("the others lead all regions", BEFORE_ELECTIONS, || {
            let led: Option<u64> = others.iter().map(leaders).sum();
            // 12 letters and the sentinel.
            if led == Some(13) { Ok(()) } else { Err(format!("{led:?}")) }
        });
        load.progress(&all, 20, RECOVERY).await;
        let to = load.elapsed();
        cluster.stores[number].start();
        cluster.healthy().await;
        println!("{id} was away from {from:?} to {to:?}");
    }
    let accounts = load.stop().await;
    let gap = accounts.longest_gap(&all, Duration::ZERO, accounts.lasted);
    println!("SIGTERM of two stores: longest gap {gap:?}");
    accounts.check(&cluster.client().await, 500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stood_still_does_not_answer_with_the_past() {
    let mut cluster = Cluster::start(Shape::default()).await;
    cluster.spread().await;
    let all = all_letters();
    let client = cluster.client().await;
    let load = Load::start(&clients(&cluster).await, LoadOptions::default());
    load.progress(&all, 20, RECOVERY).await;
    let ids = cluster.store_ids();
    let mut probed = 0;
    for (number, id) in ids.iter().enumerate().cycle().take(6) {
        if probed == 2 {
            break;
        }
        let letter = *led_by(&cluster, *id).await.first().expect("every store leads something");
        let key = format!("{}/probe", char::from(letter));
        client.put(key.clone(), "old").await.unwrap();
        let route = client.locate(key.clone()).await.unwrap();
        let peer = route.region.peers.iter().find(|peer| peer.store == *id).copied().unwrap();
        let context = context_of(&route.region, peer);
        let mut direct = Wire::connect(&cluster.stores[number].address).await.unwrap();
        let request = tikv::RawGetRequest {
            context: Some(context),
            key: key.clone().into_bytes(),
            cf: String::new(),
        };
        let first: tikv::RawGetResponse = direct.kv("RawGet", request.clone()).await.unwrap();
        if first.region_error.is_some() {
            // Leaders are balanced: it leads another region by now.
            continue;
        }
        assert_eq!(first.value, b"old");
        probed += 1;

        cluster.stores[number].pause();
        let paused = Instant::now();
        // Others take over; a write there is acknowledged while the old leader stands still.
        load.progress(&all, 5, RECOVERY).await;
        client.put(key.clone(), "new").await.unwrap();
        // A read that waits in the socket of the old leader for the moment it goes on.
        let waiting =
            tokio::spawn(
                async move { direct.kv::<_, tikv::RawGetResponse>("RawGet", request).await },
            );
        tokio::time::sleep(PAUSE.saturating_sub(paused.elapsed())).await;
        cluster.stores[number].resume();
        let answer = waiting.await.unwrap().unwrap();
        assert!(
            answer.region_error.is_some() || answer.value == b"new",
            "the old leader answered with the past: {answer:?}"
        );
        load.progress(&all, 10, RECOVERY).await;
        cluster.healthy().await;
    }
    assert_eq!(probed, 2, "no store led a region for long enough");
    let accounts = load.stop().await;
    accounts.check(&cluster.client().await, 500).await;
}
