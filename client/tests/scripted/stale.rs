//! Reads that may be old: whom they ask, and what happens where a replica is older than that.

use std::time::Duration;

use bytes::Bytes;
use quorate_client::{Client, Error, ReadOptions};
use quorate_proto::{Role, StoreId};

use crate::world::World;

const BOUND: Duration = Duration::from_secs(5);

async fn get(client: &Client, options: ReadOptions) -> Result<Option<Bytes>, Error> {
    client.get_with("k", options).await
}

/// Stale reads that each of the three stores has served.
fn served(world: &World) -> [usize; 3] {
    let state = world.state();
    [1, 2, 3].map(|store| state.stale_reads.get(&StoreId(store)).copied().unwrap_or(0))
}

#[tokio::test]
async fn stale_reads_spread_over_all_replicas_learners_included() {
    let world = World::new(&[]);
    world.state().regions[0].region.peers[2].role = Role::Learner;
    let client = world.client().await;
    client.put("k", "v").await.unwrap();
    for _ in 0..64 {
        let value = get(&client, ReadOptions::stale(BOUND)).await.unwrap();
        assert_eq!(value, Some(Bytes::from("v")));
    }
    let served = served(&world);
    assert_eq!(served.iter().sum::<usize>(), 64);
    assert!(served.iter().all(|count| *count > 0), "{served:?}");
    assert!(world.state().replica_reads.is_empty(), "nobody asks a leader");
    assert_eq!(client.scan_with("", "", 9, ReadOptions::stale(BOUND)).await.unwrap().len(), 1);
    let keys = vec![Bytes::from("k")];
    let values = client.batch_get_with(keys, ReadOptions::stale(BOUND)).await.unwrap();
    assert_eq!(values[0].1, Some(Bytes::from("v")));
}

#[tokio::test]
async fn where_a_replica_is_too_old_the_leader_is_asked_at_once() {
    let world = World::new(&[]);
    let client = world.client().await;
    client.put("k", "v").await.unwrap();
    for store in [2, 3] {
        world.state().ages.insert(StoreId(store), 60_000);
    }
    let before = world.state().requests;
    for _ in 0..32 {
        get(&client, ReadOptions::stale(BOUND)).await.unwrap();
    }
    let requests = world.state().requests - before;
    assert!((32..=64).contains(&requests), "{requests} requests: two at most for each read");
    assert_eq!(served(&world)[1..], [0, 0]);
    // With a bound that is wide enough they serve again.
    for _ in 0..32 {
        get(&client, ReadOptions::stale(Duration::from_secs(120))).await.unwrap();
    }
    assert!(served(&world)[1] + served(&world)[2] > 0);
}

#[tokio::test]
async fn without_a_leader_stale_reads_go_on() {
    let mut world = World::new(&[]);
    let client = world.client().await;
    client.put("k", "v").await.unwrap();
    world.kill(1);
    world.lead(1, None);
    world.state().ages.insert(StoreId(2), 60_000);
    for _ in 0..8 {
        let value = get(&client, ReadOptions::stale(BOUND)).await.unwrap();
        assert_eq!(value, Some(Bytes::from("v")), "s3 is fresh enough");
    }
    // Once nobody is, the error says so in time.
    world.state().ages.insert(StoreId(3), 60_000);
    let options =
        ReadOptions { deadline: Some(Duration::from_millis(600)), ..ReadOptions::stale(BOUND) };
    let error = get(&client, options).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    // Any bound is a bound: a read of no age at all is the leader's to answer.
    let none = ReadOptions { deadline: options.deadline, ..ReadOptions::stale(Duration::ZERO) };
    assert!(get(&client, none).await.is_err());
}
