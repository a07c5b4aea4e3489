//! Clients that ask for much and do not read.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use quorate_proto::wire::kvrpcpb::{RawGetRequest, RawPutRequest, RawScanRequest};
use quorate_proto::wire::tikvpb::BatchCommandsRequest;
use quorate_proto::wire::tikvpb::batch_commands_request::Request;
use quorate_proto::wire::tikvpb::batch_commands_request::request::Cmd as Asked;
use quorate_proto::wire::tikvpb::batch_commands_response::response::Cmd as Response;
use tonic::Status;

use super::stream::{BatchStream, LARGE_ANSWERS};
use crate::budget::LEAST_ANSWER_BYTES;
use crate::config::LimitsConfig;
use crate::testing::{LEFT, TestStore, context};

/// Bytes of each value.
const VALUE: usize = 512 << 10;
/// Nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

fn scan() -> Asked {
    Asked::RawScan(RawScanRequest { context: context(LEFT), limit: 10, ..Default::default() })
}

/// A store with four large values, where every scan leaves the network thread.
async fn store(limits: LimitsConfig) -> TestStore {
    let store = TestStore::new(LimitsConfig { inline_scan_pairs: 1, ..limits });
    for key in ["a", "b", "c", "d"] {
        let (key, value) = (key.into(), vec![7; VALUE].into());
        let put = RawPutRequest { context: context(LEFT), key, value, ..Default::default() };
        let Response::RawPut(put) = store.serving.call(Asked::RawPut(put)).await else { panic!() };
        assert_eq!(put.region_error, None);
    }
    store
}

#[tokio::test]
async fn a_stream_has_few_large_answers_at_a_time_however_much_is_asked() {
    const ASKED: u64 = 60;
    let store = store(LimitsConfig { answer_bytes: 1 << 30, ..LimitsConfig::default() }).await;
    let budget = store.serving.budget();
    let requests = (0..ASKED).map(|_| Request { cmd: Some(scan()) }).collect();
    let message = BatchCommandsRequest { requests, request_ids: (0..ASKED).collect() };
    let inbound = futures::stream::iter([Ok::<_, Status>(message)]);
    let inbound = inbound.chain(futures::stream::pending());
    let mut stream = BatchStream::new(store.serving.clone(), inbound);
    assert!(stream.next().now_or_never().is_none(), "all is read elsewhere");

    let most = LARGE_ANSWERS as u64 * LEAST_ANSWER_BYTES / 4;
    let mut answered = 0;
    while answered < ASKED {
        // Nobody polls meanwhile: what is read piles up, as far as it may.
        let read = async {
            while budget.answer_bytes() < 4 * VALUE as u64 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, read).await.unwrap();
        assert!(budget.answer_bytes() <= most, "{} bytes wait", budget.answer_bytes());
        let message = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap();
        for answer in message.unwrap().unwrap().responses {
            let Some(Response::RawScan(found)) = answer.cmd else { panic!() };
            assert_eq!((found.region_error, found.kvs.len()), (None, 4));
            answered += 1;
        }
        assert!(budget.answer_bytes() <= most, "{} bytes wait", budget.answer_bytes());
    }
    assert_eq!(budget.answer_bytes(), 0, "what was handed over is not counted any more");
}

#[tokio::test]
async fn calls_whose_answers_nobody_takes_make_the_store_busy_not_full() {
    let limits = LimitsConfig {
        answer_bytes: LEAST_ANSWER_BYTES,
        request_timeout_ms: 200,
        ..LimitsConfig::default()
    };
    let store = store(limits).await;
    let budget = store.serving.budget();
    let (mut taken, mut busy) = (Vec::new(), 0);
    for answer in join_all((0..40).map(|_| store.serving.call(scan()))).await {
        let Response::RawScan(found) = &answer else { panic!() };
        match &found.region_error {
            None => taken.push(answer),
            Some(error) => {
                assert!(error.server_is_busy.is_some(), "{error:?}");
                busy += 1;
            }
        }
    }
    assert!(!taken.is_empty() && busy > 0, "{} answered, {busy} refused", taken.len());
    assert!(budget.answer_bytes() <= LEAST_ANSWER_BYTES);

    // Large values of single keys count as well.
    let get = RawGetRequest { context: context(LEFT), key: "a".into(), ..Default::default() };
    for _ in 0..40 {
        taken.push(store.serving.call(Asked::RawGet(get.clone())).await);
    }
    let Some(Response::RawGet(last)) = taken.last() else { panic!() };
    assert!(last.region_error.as_ref().unwrap().server_is_busy.is_some());
    assert!(budget.answer_bytes() <= LEAST_ANSWER_BYTES);

    drop(taken);
    assert_eq!(budget.answer_bytes(), 0);
    let Response::RawScan(found) = store.serving.call(scan()).await else { panic!() };
    assert_eq!((found.region_error, found.kvs.len()), (None, 4));
}
