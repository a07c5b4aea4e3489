//! Refusals, broken connections and lost answers: what is tried again and what is not.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_client::{ClientOptions, Error, KvPair, ReadOptions};
use quorate_proto::{StoreId, wire::errorpb};

use crate::{
    proxy::Proxy,
    world::{Move, World},
};

fn error(set: impl FnOnce(&mut errorpb::Error)) -> Move {
    let mut error = errorpb::Error::default();
    set(&mut error);
    Move::Refuse(error)
}

fn quick(deadline_ms: u64) -> ClientOptions {
    ClientOptions { deadline: Duration::from_millis(deadline_ms), ..ClientOptions::default() }
}

#[tokio::test]
async fn a_leader_hint_is_followed_without_asking_placement() {
    let world = World::new(&[]);
    let client = world.client().await;
    client.put("k", "1").await.unwrap();
    let asked = world.state().region_questions;
    world.lead(1, Some(3));
    client.put("k", "2").await.unwrap();
    assert_eq!(client.get("k").await.unwrap(), Some(Bytes::from("2")));
    assert_eq!(world.state().region_questions, asked);
    assert_eq!(client.locate("k").await.unwrap().leader.store, StoreId(3));
}

#[tokio::test]
async fn an_election_is_waited_for_and_found_soon() {
    let world = World::new(&[]);
    let client = world.client().await;
    client.put("k", "1").await.unwrap();
    world.lead(1, None);
    let writer = tokio::spawn({
        let client = client.clone();
        async move { client.put("k", "2").await.map(|()| Instant::now()) }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!writer.is_finished());
    let elected = Instant::now();
    world.lead(1, Some(2));
    let late = writer.await.unwrap().unwrap() - elected;
    assert!(late < Duration::from_millis(100), "{late:?} after the election");
    assert_eq!(world.state().applied, 2, "refusals are no writes");
}

#[tokio::test]
async fn many_operations_wait_for_one_election_together() {
    let world = World::new(&[]);
    let client = world.client().await;
    client.put("k", "1").await.unwrap();
    world.lead(1, None);
    let asked = world.state().region_questions;
    let writers: Vec<_> = (0..64)
        .map(|at| {
            let client = client.clone();
            tokio::spawn(async move { client.put(format!("k{at}"), "2").await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(world.state().applied, 1);
    // Placement is asked again and again, but by one operation at a time.
    let asked = world.state().region_questions - asked;
    assert!((1..200).contains(&asked), "{asked} questions");
    world.lead(1, Some(3));
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    assert_eq!(world.state().applied, 65);
}

#[tokio::test]
async fn without_a_leader_the_deadline_ends_it_and_says_why() {
    let world = World::new(&[]);
    let client = world.client_with(quick(2_000)).await;
    client.put("k", "1").await.unwrap();
    world.lead(1, None);
    let error = client.put("k", "2").await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }) && error.is_retryable(), "{error}");
    assert!(error.to_string().contains("no leader"), "{error}");
    let options =
        ReadOptions { deadline: Some(Duration::from_millis(50)), ..ReadOptions::default() };
    let error = client.get_with("k", options).await.unwrap_err();
    assert!(error.to_string().contains("50ms"), "{error}");
}

#[tokio::test]
async fn splits_and_leader_changes_are_learnt_while_placement_is_away() {
    let mut world = World::new(&["m"]);
    let client = world.client().await;
    client.put("a", "1").await.unwrap();
    client.put("z", "1").await.unwrap();
    world.members.clear();
    world.state().split("g");
    world.state().split("d");
    world.state().split("t");
    world.lead(2, Some(1));
    for key in ["a", "e", "h", "n", "u", "z"] {
        client.put(key, "2").await.unwrap();
        assert_eq!(client.get(key).await.unwrap(), Some(Bytes::from("2")));
    }
    assert_eq!(client.scan("", "", 100).await.unwrap().len(), 6);
    assert_eq!(client.reverse_scan("", "", 100).await.unwrap().len(), 6);
}

#[tokio::test]
async fn a_batch_meets_a_split_and_is_cut_anew() {
    let world = World::new(&["m"]);
    let client = world.client().await;
    client.put("a", "1").await.unwrap();
    for cut in ["c", "e", "g", "r"] {
        world.state().split(cut);
    }
    let pairs: Vec<KvPair> =
        (b'a'..=b'z').map(|key| (Bytes::from(vec![key]), Bytes::from("2"))).collect();
    client.batch_put(pairs.clone()).await.unwrap();
    assert_eq!(world.state().data.len(), 26);
    let keys = pairs.iter().map(|(key, _)| key.clone()).collect();
    let values = client.batch_get(keys).await.unwrap();
    assert!(values.iter().all(|(_, value)| value.as_deref() == Some(b"2")));
}

#[tokio::test]
async fn definite_refusals_are_tried_again() {
    let world = World::new(&[]);
    let client = world.client().await;
    client.put("k", "0").await.unwrap();
    world.next(
        1,
        [
            error(|e| e.read_index_not_ready = Some(errorpb::ReadIndexNotReady::default())),
            error(|e| e.proposal_in_merging_mode = Some(errorpb::ProposalInMergingMode::default())),
            error(|e| e.region_not_initialized = Some(errorpb::RegionNotInitialized::default())),
            error(|e| e.region_not_found = Some(errorpb::RegionNotFound { region_id: 1 })),
            error(|e| e.key_not_in_region = Some(errorpb::KeyNotInRegion::default())),
            error(|e| e.mismatch_peer_id = Some(errorpb::MismatchPeerId::default())),
            error(|e| e.epoch_not_match = Some(errorpb::EpochNotMatch::default())),
            error(|e| e.store_not_match = Some(errorpb::StoreNotMatch::default())),
            error(|e| e.max_timestamp_not_synced = Some(errorpb::MaxTimestampNotSynced {})),
        ],
    );
    client.put("k", "1").await.unwrap();
    assert!(world.state().moves[&StoreId(1)].is_empty());
    assert_eq!(world.state().applied, 2);
}

#[tokio::test]
async fn a_region_that_is_merged_is_waited_for_and_looked_up_again() {
    let world = World::new(&["m"]);
    let client = world.client().await;
    client.put("a", "1").await.unwrap();
    client.put("z", "1").await.unwrap();
    let merging =
        || error(|e| e.proposal_in_merging_mode = Some(errorpb::ProposalInMergingMode::default()));
    // Stopped for a while, then gone.
    let leader = client.locate("a").await.unwrap().leader.store;
    world.next(leader.0, (0..6).map(|_| merging()));
    client.put("a", "2").await.unwrap();
    assert!(world.state().moves[&leader].is_empty(), "all of them were met");
    world.state().merge("m");
    client.put("b", "3").await.unwrap();
    assert_eq!(client.get("a").await.unwrap(), Some(Bytes::from("2")));
    assert_eq!(client.get("z").await.unwrap(), Some(Bytes::from("1")));
    let all = client.locate("a").await.unwrap();
    assert_eq!(all.region.id, client.locate("z").await.unwrap().region.id);
    // One that stays stopped costs no more than the deadline.
    let client = world.client_with(quick(300)).await;
    world.next(all.leader.store.0, (0..10_000).map(|_| merging()));
    let late = client.put("a", "4").await.unwrap_err();
    assert!(!late.is_undetermined() && late.to_string().contains("merged"), "{late}");
}

#[tokio::test]
async fn a_busy_store_is_left_alone_for_as_long_as_it_asks() {
    let world = World::new(&[]);
    let client = world.client().await;
    client.put("k", "0").await.unwrap();
    let busy = errorpb::ServerIsBusy { reason: "compaction".to_owned(), backoff_ms: 150 };
    world.next(1, [error(|e| e.server_is_busy = Some(busy))]);
    let began = Instant::now();
    client.put("k", "1").await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn hopeless_requests_are_not_tried_again() {
    let world = World::new(&[]);
    let client = world.client().await;
    let full = errorpb::DiskFull { store_id: vec![1], reason: "96 % of /data".to_owned() };
    world.next(1, [error(|e| e.disk_full = Some(full))]);
    let refused = client.put("k", "1").await.unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }), "{refused}");
    assert!(refused.to_string().contains("96 % of /data"), "{refused}");
    let large = errorpb::RaftEntryTooLarge { region_id: 1, entry_size: 9 };
    world.next(1, [error(|e| e.raft_entry_too_large = Some(large))]);
    let refused = client.put("k", "1").await.unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }) && refused.to_string().contains("9 bytes"));
    world.next(1, [Move::Fail("value has a bad colour")]);
    let refused = client.put("k", "1").await.unwrap_err();
    assert!(refused.to_string().contains("bad colour") && !refused.is_undetermined());
    assert_eq!(world.state().applied, 0);
}

#[tokio::test]
async fn a_write_that_may_have_been_applied_is_undetermined_and_never_sent_again() {
    let world = World::new(&[]);
    let client = world.client().await;
    client.put("k", "0").await.unwrap();
    let stale = || error(|e| e.stale_command = Some(errorpb::StaleCommand {}));
    let unknown = || error(|e| e.message = "something else".to_owned());
    for (applied, next) in
        [(2, Move::ApplyAndReset), (2, Move::Reset), (2, stale()), (2, unknown())]
    {
        world.next(1, [next]);
        let error = client.put("k", "1").await.unwrap_err();
        assert!(matches!(error, Error::Undetermined { .. }), "{error}");
        assert!(error.is_undetermined() && !error.is_retryable());
        assert_eq!(world.state().applied, applied, "{error}");
    }
    // The connection that broke is opened again by the next operation.
    client.put("k", "2").await.unwrap();
    assert_eq!(client.get("k").await.unwrap(), Some(Bytes::from("2")));
}

#[tokio::test]
async fn a_read_is_tried_again_whatever_happens() {
    let world = World::new(&[]);
    let options =
        ClientOptions { read_attempt: Duration::from_millis(100), ..ClientOptions::default() };
    let client = world.client_with(options).await;
    client.put("k", "v").await.unwrap();
    let stale = error(|e| e.stale_command = Some(errorpb::StaleCommand {}));
    let unknown = error(|e| e.message = "something else".to_owned());
    world.next(1, [Move::Reset, stale, Move::Swallow, unknown, Move::ApplyAndReset]);
    assert_eq!(client.get("k").await.unwrap(), Some(Bytes::from("v")));
    assert!(world.state().moves[&StoreId(1)].is_empty());
    world.next(1, [Move::Reset]);
    assert_eq!(client.scan("", "", 5).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_write_without_an_answer_is_undetermined_at_its_deadline() {
    let world = World::new(&[]);
    let client = world.client_with(quick(200)).await;
    client.put("k", "0").await.unwrap();
    world.next(1, [Move::Swallow]);
    let began = Instant::now();
    let error = client.put("k", "1").await.unwrap_err();
    assert!(error.is_undetermined(), "{error}");
    assert!(began.elapsed() < Duration::from_millis(500));
    client.put("k", "2").await.unwrap();
}

#[tokio::test]
async fn after_a_kill_writes_go_on_at_the_next_leader() {
    let mut world = World::new(&[]);
    let client = world.client().await;
    client.put("k", "0").await.unwrap();
    world.kill(1);
    // Its followers still name it: they have not noticed.
    let writer = tokio::spawn({
        let client = client.clone();
        async move {
            loop {
                match client.put("k", "1").await {
                    Ok(()) => return Instant::now(),
                    // The one that was under way when the connection broke, if any.
                    Err(error) => assert!(error.is_undetermined(), "{error}"),
                }
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!writer.is_finished());
    let elected = Instant::now();
    world.lead(1, Some(3));
    let late = writer.await.unwrap() - elected;
    assert!(late < Duration::from_millis(100), "{late:?} after the election");
    let values = client.batch_get(vec![Bytes::from("k")]).await.unwrap();
    assert_eq!(values[0].1, Some(Bytes::from("1")));
    let value = client.get_with("k", ReadOptions::follower()).await.unwrap();
    assert_eq!(value, Some(Bytes::from("1")), "with one replica gone, another answers");
}

#[tokio::test]
async fn a_half_open_connection_is_noticed() {
    let world = World::new(&[]);
    let proxy = Proxy::start(world.stores[&StoreId(1)].address.to_string()).await;
    world.state().addresses.insert(StoreId(1), proxy.address.clone());
    let options = ClientOptions {
        keepalive: Duration::from_millis(200),
        read_attempt: Duration::from_millis(200),
        ..ClientOptions::default()
    };
    let client = world.client_with(options).await;
    client.put("k", "0").await.unwrap();
    proxy.freeze();
    let write = tokio::spawn({
        let client = client.clone();
        async move { client.put("k", "1").await }
    });
    let began = Instant::now();
    let read = tokio::spawn({
        let client = client.clone();
        async move { client.get("k").await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.lead(1, Some(2));
    assert_eq!(read.await.unwrap().unwrap(), Some(Bytes::from("0")));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let error = write.await.unwrap().unwrap_err();
    assert!(error.is_undetermined(), "{error}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    client.put("k", "2").await.unwrap();
}

#[tokio::test]
async fn a_batch_that_fails_in_part_says_how_far_it_came() {
    let world = World::new(&["m"]);
    let client = world.client().await;
    client
        .batch_put(vec![(Bytes::from("a"), Bytes::new()), (Bytes::from("z"), Bytes::new())])
        .await
        .unwrap();
    world.next(2, [Move::Reset]);
    let pairs: Vec<KvPair> =
        ["a", "b", "z"].iter().map(|key| (Bytes::from(*key), Bytes::from("1"))).collect();
    let error = client.batch_put(pairs).await.unwrap_err();
    match &error {
        Error::Partial { done: 2, total: 3, first, .. } => assert!(first.is_undetermined()),
        other => panic!("{other}"),
    }
    assert!(error.is_undetermined());

    world.next(2, [Move::Reset]);
    let error = client.delete_range("", "").await.unwrap_err();
    assert!(error.is_undetermined() && error.to_string().contains("below m"), "{error}");
}

#[tokio::test]
async fn a_request_whose_caller_went_away_is_forgotten() {
    let world = World::new(&[]);
    let client = world.client().await;
    client.put("k", "0").await.unwrap();
    world.next(1, [Move::Swallow]);
    let waiting = tokio::time::timeout(Duration::from_millis(50), client.put("k", "1")).await;
    assert!(waiting.is_err());
    client.put("k", "2").await.unwrap();
    assert_eq!(client.get("k").await.unwrap(), Some(Bytes::from("2")));
}

#[tokio::test]
async fn placement_that_is_behind_is_waited_for() {
    let world = World::new(&[]);
    let behind: Vec<_> = world.state().known_regions();
    world.state().split("m");
    world.lead(2, Some(2));
    world.state().placement_is_behind = Some(behind);
    // The cached description is the old one; the store corrects it.
    let client = world.client().await;
    client.put("z", "1").await.unwrap();
    assert_eq!(client.get("z").await.unwrap(), Some(Bytes::from("1")));
}
