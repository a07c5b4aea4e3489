//! Placement without its leader: time goes on, and the next leader knows the way at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_client::{PlacementClient, PlacementOptions, Timestamp};
use quorate_tests::process::{Cluster, Shape, eventually, letters};

use crate::RECOVERY;

/// One timestamp and the time in which it was asked for and given.
struct Given {
    asked: Instant,
    answered: Instant,
    timestamp: Timestamp,
}

/// Asks for timestamps until told to stop. Failures are passed over: the next one counts.
async fn ask(client: PlacementClient, stop: Arc<AtomicBool>) -> Vec<Given> {
    let mut given = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        if let Ok(timestamp) = client.timestamp().await {
            given.push(Given { asked, answered: Instant::now(), timestamp });
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    given
}

/// All timestamps differ, and one that was asked for after another had been given is later.
fn check_order(mut given: Vec<Given>) {
    let mut all: Vec<Timestamp> = given.iter().map(|one| one.timestamp).collect();
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "a timestamp was given twice");
    given.sort_unstable_by_key(|one| one.asked);
    let mut ended: Vec<(Instant, Timestamp)> =
        given.iter().map(|one| (one.answered, one.timestamp)).collect();
    ended.sort_unstable();
    let (mut latest, mut ended) = (None, ended.into_iter().peekable());
    for one in &given {
        while let Some((_, timestamp)) = ended.next_if(|(answered, _)| *answered < one.asked) {
            latest = latest.max(Some(timestamp));
        }
        assert!(Some(one.timestamp) > latest, "{:?} after {latest:?}", one.timestamp);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timestamps_grow_and_routes_are_there_when_leaders_are_killed() {
    let mut cluster = Cluster::start(Shape::default()).await;
    let before = cluster.spread().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut asking = Vec::new();
    for _ in 0..3 {
        asking.push(tokio::spawn(ask(cluster.placement().await, Arc::clone(&stop))));
    }
    let leading = cluster.placement().await;
    eventually("timestamps are given", RECOVERY, || async {
        leading.timestamp().await.map_err(|error| error.to_string())
    })
    .await;
    for _ in 0..2 {
        let leader = cluster.placement_leader().await;
        let last = leading.timestamp().await.unwrap();
        cluster.placements[leader].kill();
        let killed = Instant::now();
        // A client that never spoke to the old leader: only the new one can answer it.
        let options = PlacementOptions { deadline: RECOVERY, ..PlacementOptions::default() };
        let fresh = PlacementClient::connect(&cluster.placement_addresses(), options).await;
        let fresh = fresh.unwrap();
        for letter in letters() {
            // At once, though maybe as it was before the last splits: those are saved behind, and
            // a store that is asked for a region of before says which it has become.
            let info = fresh.get_region(Bytes::copy_from_slice(&[letter])).await.unwrap();
            assert!(info.region.range.contains(&[letter]));
            let known = info.leader.unwrap_or_else(|| panic!("{} has no route", info.region.id));
            assert_eq!(info.region.peers.len(), 3);
            // Leaders may move meanwhile, but only to a store that was there.
            assert!(before.values().any(|store| *store == known.store));
        }
        for letter in letters() {
            eventually("a route is as new as the stores", RECOVERY, || async {
                let info = fresh.get_region(Bytes::copy_from_slice(&[letter])).await;
                let info = info.map_err(|error| error.to_string())?;
                let start = info.region.range.start.first().copied();
                let new = start == (letter > b'a').then_some(letter);
                new.then_some(()).ok_or_else(|| format!("{} is not split yet", info.region.id))
            })
            .await;
        }
        println!("routes {:?} after kill -9 of placement-{}", killed.elapsed(), leader + 1);
        let next = fresh.timestamp().await.unwrap();
        assert!(next > last, "{next:?} after {last:?}");
        let client = cluster.client().await;
        client.put(format!("a/{leader}"), "through the new leader").await.unwrap();
        cluster.placements[leader].start();
        cluster.healthy().await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut given = Vec::new();
    for asked in asking {
        given.extend(asked.await.unwrap());
    }
    println!("{} timestamps", given.len());
    assert!(given.len() > 200, "only {} timestamps were given", given.len());
    check_order(given);
}
