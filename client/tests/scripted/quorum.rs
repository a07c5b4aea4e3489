//! Regions that have lost their quorum: said once, looked at once more, and given up soon.

use std::time::{Duration, Instant};

use quorate_client::{Client, Error, ReadOptions};
use quorate_proto::{StoreId, wire::errorpb};

use crate::world::{Move, World};

/// Far less than the deadline of an operation, which is ten seconds.
const SOON: Duration = Duration::from_secs(4);

/// What a store says that hears nobody but itself.
fn lost(silent: &[u64]) -> Move {
    let message = "r1 has lost its quorum: start s2 and s3 again".to_owned();
    let reason = message.clone();
    Move::Refuse(errorpb::Error {
        message,
        server_is_busy: Some(errorpb::ServerIsBusy { reason, backoff_ms: 1_000 }),
        no_quorum: Some(errorpb::NoQuorum { region_id: 1, silent_store_ids: silent.to_vec() }),
        ..errorpb::Error::default()
    })
}

async fn fails(client: &Client) -> Error {
    let begun = Instant::now();
    let error = client.put("k", "2").await.unwrap_err();
    assert!(begun.elapsed() < SOON, "{error} after {:?}", begun.elapsed());
    error
}

#[tokio::test]
async fn a_lost_quorum_ends_an_operation_after_one_more_look() {
    let world = World::new(&[]);
    let client = world.client().await;
    client.put("k", "1").await.unwrap();
    let asked = world.state().region_questions;
    world.next(1, (0..8).map(|_| lost(&[2, 3])));
    let error = fails(&client).await;
    assert!(matches!(error, Error::NoQuorum { .. }) && error.is_retryable(), "{error}");
    assert!(!error.is_undetermined(), "nothing was written");
    assert!(error.to_string().contains("start s2 and s3 again"), "{error}");
    assert!(world.state().region_questions > asked, "placement is asked who leads");
    assert_eq!(world.state().moves[&StoreId(1)].len(), 6, "two looks and no more");
}

#[tokio::test]
async fn a_write_does_not_go_to_a_store_that_is_said_to_be_silent() {
    // Placement still names s2 as the leader, and s2 swallows what it is sent: a write would stay
    // without an outcome.
    let world = World::new(&[]);
    let client = world.client().await;
    client.put("k", "1").await.unwrap();
    world.state().regions[0].leader = Some(StoreId(2));
    world.next(1, (0..8).map(|_| lost(&[2, 3])));
    world.next(2, [Move::Swallow]);
    let error = fails(&client).await;
    assert!(matches!(error, Error::NoQuorum { .. }), "{error}");
    assert_eq!(world.state().moves[&StoreId(2)].len(), 1);
}

#[tokio::test]
async fn a_store_that_is_cut_off_is_left_for_the_leader() {
    let world = World::new(&[]);
    let client = world.client().await;
    client.put("k", "1").await.unwrap();
    // It hears nobody, but placement hears s2, which leads.
    world.state().regions[0].leader = Some(StoreId(2));
    world.next(1, (0..8).map(|_| lost(&[3])));
    client.put("k", "2").await.unwrap();
    assert_eq!(client.locate("k").await.unwrap().leader.store, StoreId(2));
}

#[tokio::test]
async fn stale_reads_go_on_without_a_quorum() {
    let world = World::new(&[]);
    let client = world.client().await;
    client.put("k", "1").await.unwrap();
    for store in [2, 3] {
        world.state().ages.insert(StoreId(store), 60_000);
    }
    // Whoever is asked first, one replica is too old and one has lost its leader: the third serves.
    world.state().ages.remove(&StoreId(3));
    world.next(1, (0..64).map(|_| lost(&[2])));
    for _ in 0..8 {
        let options = ReadOptions::stale(Duration::from_secs(5));
        assert_eq!(client.get_with("k", options).await.unwrap().as_deref(), Some(&b"1"[..]));
    }
}
