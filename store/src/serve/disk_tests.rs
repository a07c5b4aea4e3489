//! Reads of what is not in memory leave the network thread.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use quorate_consensus::engine::{RocksEngine, RocksOptions};
use quorate_proto::limits::MAX_VALUE_BYTES;
use quorate_proto::wire::kvrpcpb::{RawBatchGetRequest, RawGetRequest, RawPutRequest};
use quorate_proto::wire::tikvpb::BatchCommandsRequest;
use quorate_proto::wire::tikvpb::batch_commands_request::Request;
use quorate_proto::wire::tikvpb::batch_commands_request::request::Cmd as Asked;
use quorate_proto::wire::tikvpb::batch_commands_response::response::Cmd as Response;
use tonic::Status;

use super::stream::{BatchStream, VALUES_FROM_DISK};
use crate::config::LimitsConfig;
use crate::testing::{LEFT, TestStore, context};

/// Nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

fn key(number: usize) -> String {
    format!("a{number:03}")
}

fn get(number: usize) -> Asked {
    let key = key(number).into();
    Asked::RawGet(RawGetRequest { context: context(LEFT), key, ..Default::default() })
}

/// A store whose values are on disk and nowhere else, and its engine.
async fn store(values: usize, bytes: usize) -> (TestStore, RocksEngine, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(folder.path(), &RocksOptions::default()).unwrap();
    let store = TestStore::on(Arc::new(engine.clone()), LimitsConfig::default());
    for number in 0..values {
        let (key, value) = (key(number).into(), vec![7; bytes].into());
        let put = RawPutRequest { context: context(LEFT), key, value, ..Default::default() };
        let Response::RawPut(put) = store.serving.call(Asked::RawPut(put)).await else { panic!() };
        assert_eq!(put.region_error, None);
    }
    engine.flush().unwrap();
    // As of a disk that takes its time; a thousand quick reads would make it a quick one.
    store.serving.disk.took(Duration::from_secs(1), 1);
    (store, engine, folder)
}

fn stream(store: &TestStore, asked: Vec<Asked>) -> BatchStream {
    let ids = (1..=asked.len() as u64).collect();
    let requests = asked.into_iter().map(|asked| Request { cmd: Some(asked) }).collect();
    let message = BatchCommandsRequest { requests, request_ids: ids };
    let inbound = futures::stream::iter([Ok::<_, Status>(message)]);
    BatchStream::new(store.serving.clone(), inbound.chain(futures::stream::pending()))
}

#[tokio::test]
async fn a_key_that_is_only_on_disk_holds_up_no_other() {
    // Each in a block of its own, so that none brings another one in.
    let (store, _engine, _folder) = store(4, 5_000).await;
    let keys = vec![key(1).into(), key(2).into()];
    let batch = RawBatchGetRequest { context: context(LEFT), keys, ..Default::default() };
    let fresh = RawPutRequest {
        context: context(LEFT),
        key: "b".into(),
        value: "fresh".into(),
        ..Default::default()
    };
    store.serving.call(Asked::RawPut(fresh)).await;
    let hot = Asked::RawGet(RawGetRequest {
        context: context(LEFT),
        key: "b".into(),
        ..Default::default()
    });
    let asked = vec![get(0), Asked::RawBatchGet(batch.clone()), hot, get(3)];
    let mut answers = stream(&store, asked);
    // One look is enough for what is in memory; the others are read meanwhile, or later.
    let mut message = answers.next().now_or_never().unwrap().unwrap().unwrap();
    assert!(message.request_ids.contains(&3), "{:?}", message.request_ids);
    assert_eq!(store.metrics.disk_reads.load(Ordering::Relaxed), 3);
    let mut answered = Vec::new();
    loop {
        for (id, answer) in message.request_ids.into_iter().zip(message.responses) {
            match answer.cmd.unwrap() {
                Response::RawGet(found) => {
                    assert_eq!((found.region_error, found.not_found), (None, false));
                    assert_eq!(found.value.len(), if id == 3 { 5 } else { 5_000 });
                }
                Response::RawBatchGet(found) => assert_eq!(found.pairs.len(), 2),
                other => panic!("{other:?}"),
            }
            answered.push(id);
        }
        if answered.len() == 4 {
            break;
        }
        let next = tokio::time::timeout(PATIENCE, answers.next()).await.unwrap();
        message = next.unwrap().unwrap();
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 2, 3, 4]);

    // Now it is in the cache.
    let asked = vec![get(0), Asked::RawBatchGet(batch), get(3)];
    let all = stream(&store, asked).next().now_or_never().unwrap().unwrap().unwrap();
    assert_eq!(all.request_ids, [1, 2, 3]);
    assert_eq!(store.metrics.disk_reads.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_key_that_is_not_in_memory_is_read_at_once_where_the_disk_is_quick() {
    let (store, _engine, _folder) = store(2, 5_000).await;
    for _ in 0..3_000 {
        store.serving.disk.took(Duration::from_micros(5), 1);
    }
    let all = stream(&store, vec![get(0)]).next().now_or_never().unwrap().unwrap().unwrap();
    assert_eq!(all.request_ids, [1]);
    assert_eq!(store.metrics.disk_reads.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_call_for_a_key_on_disk_is_answered_and_without_a_lease_too() {
    let (store, _engine, _folder) = store(2, 5_000).await;
    let Response::RawGet(found) = store.serving.call(get(0)).await else { panic!() };
    assert_eq!((found.region_error, found.value.len()), (None, 5_000));
    store.revoke(LEFT);
    let Response::RawGet(found) = store.serving.call(get(1)).await else { panic!() };
    assert_eq!((found.region_error, found.value.len()), (None, 5_000));
    assert_eq!(store.metrics.disk_reads.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_client_that_does_not_read_has_few_values_from_disk_at_a_time() {
    const VALUE: usize = 400_000;
    let asked = 4 * VALUES_FROM_DISK;
    let (store, _engine, _folder) = store(asked, VALUE).await;
    let budget = store.serving.budget();
    let mut answers = stream(&store, (0..asked).map(get).collect());
    let most = (VALUES_FROM_DISK * (MAX_VALUE_BYTES + 1_024)) as u64;
    let mut answered = 0;
    while answered < asked {
        // Nobody polls meanwhile: what is read piles up, as far as it may.
        tokio::task::yield_now().await;
        assert!(budget.answer_bytes() <= most, "{} bytes wait", budget.answer_bytes());
        let message = tokio::time::timeout(PATIENCE, answers.next()).await.unwrap();
        for answer in message.unwrap().unwrap().responses {
            let Some(Response::RawGet(found)) = answer.cmd else { panic!() };
            assert_eq!((found.region_error, found.value.len()), (None, VALUE));
            answered += 1;
        }
    }
    assert_eq!(budget.answer_bytes(), 0);
}
