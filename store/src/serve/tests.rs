//! Requests from the wire to their answer, on batched streams and as single calls.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use quorate_consensus::shard::{MembersRefusal, Refusal};
use quorate_consensus::view::LostQuorum;
use quorate_proto::limits::{MAX_ANSWER_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES};
use quorate_proto::wire::kvrpcpb::*;
use quorate_proto::wire::tikvpb::batch_commands_request::Request;
use quorate_proto::wire::tikvpb::batch_commands_request::request::Cmd as Asked;
use quorate_proto::wire::tikvpb::batch_commands_response::response::Cmd as Response;
use quorate_proto::wire::tikvpb::{
    BatchCommandsEmptyRequest, BatchCommandsRequest, BatchCommandsResponse,
};
use quorate_proto::{NodeId, PeerId, StoreId};
use tonic::{Code, Status};

use super::Ending;
use super::stream::BatchStream;
use crate::config::LimitsConfig;
use crate::testing::{Held, LEFT, RIGHT, TestStore, context};

fn put(key: &str, value: &str) -> Asked {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    Asked::RawPut(RawPutRequest { context: context(LEFT), key, value, ..Default::default() })
}

fn get(key: &str) -> Asked {
    let key = key.to_owned().into();
    Asked::RawGet(RawGetRequest { context: context(LEFT), key, ..Default::default() })
}

/// A client's end of a stream.
struct Client {
    requests: futures::channel::mpsc::Sender<Result<BatchCommandsRequest, Status>>,
    answers: BatchStream,
}

impl Client {
    fn new(store: &TestStore) -> Self {
        let (requests, inbound) = futures::channel::mpsc::channel(64);
        Self { requests, answers: BatchStream::new(store.serving.clone(), inbound) }
    }

    async fn send(&mut self, requests: Vec<(u64, Asked)>) {
        let (request_ids, requests) =
            requests.into_iter().map(|(id, cmd)| (id, Request { cmd: Some(cmd) })).unzip();
        self.requests.send(Ok(BatchCommandsRequest { requests, request_ids })).await.unwrap();
    }

    async fn next(&mut self) -> BatchCommandsResponse {
        self.answers.next().await.unwrap().unwrap()
    }

    /// Whatever is ready; `None` where nothing is.
    fn poll(&mut self) -> Option<BatchCommandsResponse> {
        use futures::FutureExt;
        self.answers.next().now_or_never().map(|message| message.unwrap().unwrap())
    }
}

fn value(message: &BatchCommandsResponse, at: usize) -> &RawGetResponse {
    match message.responses[at].cmd.as_ref().unwrap() {
        Response::RawGet(answer) => answer,
        other => panic!("not the answer to a get: {other:?}"),
    }
}

fn written(message: &BatchCommandsResponse, at: usize) -> &RawPutResponse {
    match message.responses[at].cmd.as_ref().unwrap() {
        Response::RawPut(answer) => answer,
        other => panic!("not the answer to a put: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_ready_leaves_in_one_message() {
    let store = TestStore::new(LimitsConfig::default());
    let mut client = Client::new(&store);
    client.send(vec![(7, put("a", "1")), (8, put("b", "2"))]).await;
    let message = client.next().await;
    assert_eq!(message.request_ids, [7, 8]);
    assert_eq!(written(&message, 0), &RawPutResponse::default());

    // Two messages in, one message out.
    client.send(vec![(9, get("a"))]).await;
    client.send(vec![(10, get("b")), (11, get("c"))]).await;
    let message = client.next().await;
    assert_eq!(message.request_ids, [9, 10, 11]);
    assert_eq!(value(&message, 0).value, "1");
    assert_eq!(value(&message, 1).value, "2");
    assert!(value(&message, 2).not_found);
    assert!(client.poll().is_none(), "nothing else is ready");
}

#[tokio::test]
async fn a_read_without_a_lease_waits_for_its_index_and_nobody_else_does() {
    let store = TestStore::new(LimitsConfig::default());
    let mut client = Client::new(&store);
    client.send(vec![(1, put("a", "1"))]).await;
    client.next().await;
    store.revoke(LEFT);
    store.raft.hold();
    let mut right = RawGetRequest { context: context(RIGHT), ..Default::default() };
    right.key = "z".into();
    client.send(vec![(2, get("a")), (3, Asked::RawGet(right))]).await;
    let message = client.next().await;
    assert_eq!(message.request_ids, [3], "the region with a lease answers at once");
    assert!(client.poll().is_none());

    let mut held = store.raft.held();
    assert!(matches!(held[..], [Held::Read(LEFT, _)]));
    store.raft.finish(held.remove(0));
    let message = client.next().await;
    assert_eq!(message.request_ids, [2]);
    assert_eq!(value(&message, 0).value, "1");
}

#[tokio::test]
async fn every_refusal_says_what_to_do() {
    let store = TestStore::new(LimitsConfig::default());
    store.revoke(LEFT);
    let leader = Some(PeerId(12));
    for refusal in [
        Refusal::NotLeader { leader },
        Refusal::NotLeader { leader: None },
        Refusal::NoGroup,
        Refusal::NoQuorum(LostQuorum { voters: 3, silent: vec![NodeId(2), NodeId(3)] }),
        Refusal::Busy { reason: "full" },
        Refusal::TooLarge { bytes: 9 },
        Refusal::Members(MembersRefusal::Joint),
        Refusal::ReadTimedOut,
        Refusal::Undetermined,
    ] {
        *store.raft.refusal.lock() = Some(refusal.clone());
        let Response::RawPut(put) = store.serving.call(put("a", "1")).await else { panic!() };
        let Response::RawGet(get) = store.serving.call(get("a")).await else { panic!() };
        let (put, get) = (put.region_error.unwrap(), get.region_error.unwrap());
        assert!(!put.message.is_empty() && !get.message.is_empty());
        match refusal {
            Refusal::NotLeader { leader: Some(_) } => {
                let hint = put.not_leader.unwrap().leader.unwrap();
                assert_eq!((hint.id, hint.store_id), (12, 2));
            }
            Refusal::NotLeader { leader: None } => {
                assert_eq!(put.not_leader.unwrap().leader, None);
            }
            Refusal::NoGroup => assert_eq!(put.region_not_found.unwrap().region_id, 1),
            Refusal::NoQuorum(_) => {
                let (busy, lost) = (put.server_is_busy.unwrap(), put.no_quorum.unwrap());
                assert!(busy.reason.contains("2 of its 3 voters are silent (s2, s3)"), "{busy:?}");
                assert_eq!((lost.region_id, lost.silent_store_ids), (1, vec![2, 3]));
                assert!(busy.backoff_ms >= 500 && get.no_quorum.is_some());
            }
            Refusal::Busy { .. } => assert_eq!(put.server_is_busy.unwrap().reason, "full"),
            Refusal::Members(_) => assert!(put.server_is_busy.is_some()),
            Refusal::TooLarge { .. } => {
                assert_eq!(put.raft_entry_too_large.unwrap().entry_size, 9);
            }
            Refusal::ReadTimedOut => assert!(get.read_index_not_ready.is_some()),
            Refusal::Undetermined => {
                assert!(put.stale_command.is_some() && put.message.contains("nobody can say"));
                assert!(get.stale_command.is_none(), "a read changes nothing");
            }
        }
    }
}

#[tokio::test]
async fn without_a_quorum_writers_and_readers_are_told_at_once() {
    let store = TestStore::new(LimitsConfig::default());
    store.follow(LEFT, StoreId(3));
    let local = store.directory.get(LEFT).unwrap();
    local
        .view()
        .set_lost_quorum(Some(LostQuorum { voters: 3, silent: vec![NodeId(2), NodeId(3)] }));
    let Response::RawPut(answer) = store.serving.call(put("a", "2")).await else { panic!() };
    assert_eq!(answer.region_error.unwrap().no_quorum.unwrap().region_id, LEFT.0);
    local.view().set_lost_quorum(None);
    let Response::RawPut(answer) = store.serving.call(put("a", "2")).await else { panic!() };
    assert!(answer.region_error.unwrap().not_leader.is_some());
}

#[tokio::test]
async fn a_follower_sends_writers_to_the_leader_and_serves_readers_of_replicas() {
    let store = TestStore::new(LimitsConfig::default());
    store.serving.call(put("a", "1")).await;
    store.follow(LEFT, StoreId(3));
    let Response::RawPut(answer) = store.serving.call(put("a", "2")).await else { panic!() };
    let hint = answer.region_error.unwrap().not_leader.unwrap().leader.unwrap();
    assert_eq!(hint.store_id, 3);
    let Response::RawGet(answer) = store.serving.call(get("a")).await else { panic!() };
    assert!(answer.region_error.unwrap().not_leader.is_some());

    let mut context = context(LEFT).unwrap();
    context.replica_read = true;
    let ask = RawGetRequest { context: Some(context), key: "a".into(), ..Default::default() };
    let Response::RawGet(answer) = store.serving.call(Asked::RawGet(ask)).await else { panic!() };
    assert_eq!((answer.region_error, answer.value), (None, "1".into()));
}

#[tokio::test]
async fn bad_requests_get_a_sentence() {
    let store = TestStore::new(LimitsConfig::default());
    let put = RawPutRequest { context: context(LEFT), key: "a".into(), ..Default::default() };
    let with = |change: &dyn Fn(&mut RawPutRequest)| {
        let mut put = put.clone();
        change(&mut put);
        put
    };
    for (bad, word) in [
        (with(&|put| put.key.clear()), "empty key"),
        (with(&|put| put.key = vec![b'a'; MAX_KEY_BYTES + 1].into()), "over the limit"),
        (with(&|put| put.value = vec![0; MAX_VALUE_BYTES + 1].into()), "over the limit"),
        (with(&|put| put.cf = "write".into()), "column family"),
        (with(&|put| put.ttl = 1), "ttl"),
        (with(&|put| put.context.as_mut().unwrap().api_version = 2), "api_version"),
    ] {
        let Response::RawPut(answer) = store.serving.call(Asked::RawPut(bad)).await else {
            panic!()
        };
        assert_eq!(answer.region_error, None);
        assert!(answer.error.contains(word), "{:?} does not say {word:?}", answer.error);
    }
    // Where there is no text for it, the first pair carries the error.
    let scan = RawScanRequest { context: context(LEFT), cf: "write".into(), ..Default::default() };
    let Response::RawScan(answer) = store.serving.call(Asked::RawScan(scan)).await else {
        panic!()
    };
    assert!(answer.kvs[0].error.as_ref().unwrap().abort.contains("column family"));
    // A request without a context names no store.
    let stray = RawPutRequest { key: "a".into(), ..Default::default() };
    let Response::RawPut(answer) = store.serving.call(Asked::RawPut(stray)).await else { panic!() };
    assert_eq!(answer.region_error.unwrap().store_not_match.unwrap().actual_store_id, 1);
}

#[tokio::test]
async fn all_kinds_of_requests_are_served() {
    let store = TestStore::new(LimitsConfig::default());
    let key = |key: &'static str| bytes::Bytes::from_static(key.as_bytes());
    let pair = |name, value| KvPair { error: None, key: key(name), value: key(value) };
    let keys = |pairs: &[KvPair]| -> Vec<String> {
        pairs.iter().map(|pair| String::from_utf8(pair.key.to_vec()).unwrap()).collect()
    };
    let batch_put = RawBatchPutRequest {
        context: context(LEFT),
        pairs: vec![pair("a", "1"), pair("b", "2"), pair("c", "3"), pair("d", "4")],
        ..Default::default()
    };
    let done = store.serving.call(Asked::RawBatchPut(batch_put)).await;
    assert_eq!(done, Response::RawBatchPut(RawBatchPutResponse::default()));

    let batch_get = RawBatchGetRequest {
        context: context(LEFT),
        keys: vec![key("d"), key("gone"), key("a")],
        ..Default::default()
    };
    let Response::RawBatchGet(found) = store.serving.call(Asked::RawBatchGet(batch_get)).await
    else {
        panic!()
    };
    assert_eq!(found.pairs, [pair("d", "4"), pair("a", "1")]);

    let scan = RawScanRequest {
        context: context(LEFT),
        start_key: key("b"),
        limit: 2,
        ..Default::default()
    };
    let Response::RawScan(found) = store.serving.call(Asked::RawScan(scan)).await else { panic!() };
    assert_eq!(found.kvs, [pair("b", "2"), pair("c", "3")]);

    let reverse = RawScanRequest {
        context: context(LEFT),
        start_key: key("d"),
        end_key: key("b"),
        limit: 10,
        key_only: true,
        reverse: true,
        ..Default::default()
    };
    let Response::RawScan(found) = store.serving.call(Asked::RawScan(reverse)).await else {
        panic!()
    };
    assert_eq!(found.kvs, [pair("c", ""), pair("b", "")]);

    let batch_scan = RawBatchScanRequest {
        context: context(LEFT),
        ranges: vec![
            KeyRange { start_key: key("a"), end_key: key("b") },
            KeyRange { start_key: key("c"), end_key: key("e") },
        ],
        each_limit: 10,
        ..Default::default()
    };
    let Response::RawBatchScan(found) = store.serving.call(Asked::RawBatchScan(batch_scan)).await
    else {
        panic!()
    };
    assert_eq!(keys(&found.kvs), ["a", "c", "d"]);

    let delete = RawDeleteRequest { context: context(LEFT), key: key("a"), ..Default::default() };
    let done = store.serving.call(Asked::RawDelete(delete)).await;
    assert_eq!(done, Response::RawDelete(RawDeleteResponse::default()));
    let batch_delete = RawBatchDeleteRequest {
        context: context(LEFT),
        keys: vec![key("b"), key("gone")],
        ..Default::default()
    };
    let done = store.serving.call(Asked::RawBatchDelete(batch_delete)).await;
    assert_eq!(done, Response::RawBatchDelete(RawBatchDeleteResponse::default()));
    let delete_range = RawDeleteRangeRequest {
        context: context(LEFT),
        start_key: key("a"),
        end_key: key("d"),
        ..Default::default()
    };
    let done = store.serving.call(Asked::RawDeleteRange(delete_range)).await;
    assert_eq!(done, Response::RawDeleteRange(RawDeleteRangeResponse::default()));
    let scan = RawScanRequest { context: context(LEFT), limit: 10, ..Default::default() };
    let Response::RawScan(found) = store.serving.call(Asked::RawScan(scan)).await else { panic!() };
    assert_eq!(keys(&found.kvs), ["d"]);
}

#[tokio::test]
async fn a_stream_with_too_much_under_way_is_not_read() {
    let limits = LimitsConfig { requests_per_stream: 2, ..LimitsConfig::default() };
    let store = TestStore::new(limits);
    store.raft.hold();
    let mut client = Client::new(&store);
    client.send(vec![(1, put("a", "1")), (2, put("b", "1")), (3, put("c", "1"))]).await;
    client.send(vec![(4, put("d", "1"))]).await;
    assert!(client.poll().is_none());
    assert_eq!(store.raft.count(), 2, "the rest waits");

    let mut held = store.raft.held();
    store.raft.finish(held.remove(0));
    assert_eq!(client.next().await.request_ids, [1]);
    assert!(client.poll().is_none());
    assert_eq!(store.raft.count(), 1, "one place, one request");
    held.extend(store.raft.held());
    held.into_iter().for_each(|held| store.raft.finish(held));
    let mut seen = client.next().await.request_ids;
    assert!(client.poll().is_none());
    store.raft.held().into_iter().for_each(|held| store.raft.finish(held));
    seen.extend(client.next().await.request_ids);
    seen.sort_unstable();
    assert_eq!(seen, [2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_answered_in_time_is_given_up_on() {
    // The stream's own clock is the real one; only the timer of the runtime is paused.
    let limits = LimitsConfig { request_timeout_ms: 1, ..LimitsConfig::default() };
    let store = TestStore::new(limits);
    store.raft.hold();
    store.revoke(LEFT);
    let mut client = Client::new(&store);
    client.send(vec![(1, put("a", "1")), (2, get("a"))]).await;
    let mut answers = Vec::new();
    while answers.len() < 2 {
        let message = client.next().await;
        answers.extend(message.request_ids.into_iter().zip(message.responses));
    }
    answers.sort_by_key(|(id, _)| *id);
    let (Some(Response::RawPut(write)), Some(Response::RawGet(read))) =
        (&answers[0].1.cmd, &answers[1].1.cmd)
    else {
        panic!("{answers:?}")
    };
    assert!(write.region_error.as_ref().unwrap().stale_command.is_some());
    assert!(read.region_error.as_ref().unwrap().read_index_not_ready.is_some());

    // The answers that come too late find nobody, and the stream goes on.
    store.raft.held().into_iter().for_each(|held| store.raft.finish(held));
    store.lead(LEFT);
    client.send(vec![(3, get("a"))]).await;
    let message = client.next().await;
    assert_eq!(message.request_ids, [3]);
    assert_eq!(value(&message, 0).value, "1", "the late write did happen");
}

#[tokio::test]
async fn a_dropped_request_answers_for_itself() {
    let store = TestStore::new(LimitsConfig::default());
    store.raft.hold();
    let mut client = Client::new(&store);
    client.send(vec![(1, put("a", "1"))]).await;
    assert!(client.poll().is_none());
    assert_eq!(store.serving.budget().requests(), 1);
    drop(store.raft.held());
    let message = client.next().await;
    assert!(written(&message, 0).region_error.as_ref().unwrap().stale_command.is_some());
    assert_eq!(store.serving.budget().requests(), 0);
}

#[tokio::test]
async fn no_message_is_larger_than_clients_decode() {
    let store = TestStore::new(LimitsConfig::default());
    let big = "x".repeat(MAX_VALUE_BYTES);
    store.serving.call(put("a", &big)).await;
    let mut client = Client::new(&store);
    client.send((0..20).map(|id| (id, get("a"))).collect()).await;
    let mut seen = Vec::new();
    while seen.len() < 20 {
        let message = client.next().await;
        let bytes: usize =
            (0..message.responses.len()).map(|at| value(&message, at).value.len()).sum();
        assert!(bytes <= MAX_ANSWER_BYTES, "{bytes}");
        seen.extend(message.request_ids);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..20).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_large_scan_leaves_the_network_thread() {
    let limits = LimitsConfig { inline_scan_pairs: 1, ..LimitsConfig::default() };
    let store = TestStore::new(limits);
    store.serving.call(put("a", "1")).await;
    store.serving.call(put("b", "2")).await;
    let scan = |limit| {
        Asked::RawScan(RawScanRequest { context: context(LEFT), limit, ..Default::default() })
    };
    let mut client = Client::new(&store);
    client.send(vec![(1, scan(10)), (2, scan(1))]).await;
    let first = client.next().await;
    assert_eq!(first.request_ids, [2], "the small one is answered right away");
    let second = client.next().await;
    let Some(Response::RawScan(found)) = &second.responses[0].cmd else { panic!() };
    assert_eq!((second.request_ids[0], found.kvs.len()), (1, 2));

    // And the same without a lease, by way of a read index.
    store.revoke(LEFT);
    let Response::RawScan(found) = store.serving.call(scan(10)).await else { panic!() };
    assert_eq!(found.kvs.len(), 2);
    client.send(vec![(3, scan(10))]).await;
    let third = client.next().await;
    let Some(Response::RawScan(found)) = &third.responses[0].cmd else { panic!() };
    assert_eq!(found.kvs.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stopping_store_answers_what_it_has_taken_and_ends_the_stream() {
    let store = TestStore::new(LimitsConfig::default());
    store.raft.hold();
    let mut client = Client::new(&store);
    client.send(vec![(1, put("a", "1"))]).await;
    assert!(client.poll().is_none());
    store.serving.end_streams(Ending::All);
    client.send(vec![(2, put("b", "1"))]).await;
    assert!(client.poll().is_none());
    store.raft.held().into_iter().for_each(|held| store.raft.finish(held));
    assert_eq!(client.next().await.request_ids, [1]);
    assert!(client.answers.next().await.is_none(), "the second was never taken");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_still_sends_is_told_where_to_go_before_its_stream_ends() {
    let store = TestStore::new(LimitsConfig::default());
    let mut client = Client::new(&store);
    client.send(vec![(1, put("a", "1"))]).await;
    client.next().await;
    store.follow(LEFT, StoreId(2));
    store.serving.end_streams(Ending::Quiet);
    assert!(client.poll().is_none(), "the stream is quiet, but only just");
    tokio::time::advance(Duration::from_millis(90)).await;
    client.send(vec![(2, put("a", "2"))]).await;
    let message = client.next().await;
    let error = written(&message, 0).region_error.as_ref().unwrap();
    assert!(error.not_leader.is_some(), "definitely not done");
    tokio::time::advance(Duration::from_millis(90)).await;
    assert!(client.poll().is_none(), "the quiet counts from the last request");
    assert!(client.answers.next().await.is_none());
}

#[tokio::test]
async fn a_malformed_message_ends_the_stream_and_a_strange_one_does_not() {
    let store = TestStore::new(LimitsConfig::default());
    let mut client = Client::new(&store);
    let empty = Asked::Empty(BatchCommandsEmptyRequest { test_id: 5, delay_time: 0 });
    client.send(vec![(1, empty)]).await;
    let unknown =
        BatchCommandsRequest { requests: vec![Request { cmd: None }], request_ids: vec![2] };
    client.requests.send(Ok(unknown)).await.unwrap();
    let message = client.next().await;
    assert_eq!(message.request_ids, [1, 2]);
    assert!(
        matches!(&message.responses[0].cmd, Some(Response::Empty(empty)) if empty.test_id == 5)
    );
    assert_eq!(message.responses[1].cmd, None);

    let lame = BatchCommandsRequest { requests: Vec::new(), request_ids: vec![3] };
    client.requests.send(Ok(lame)).await.unwrap();
    let status = client.answers.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(client.answers.next().await.is_none());
}

#[tokio::test]
async fn a_call_beyond_the_budget_is_told_to_come_back() {
    let limits = LimitsConfig { requests: 1, ..LimitsConfig::default() };
    let store = TestStore::new(limits);
    store.raft.hold();
    let waiting = tokio::spawn({
        let serving = store.serving.clone();
        async move { serving.call(put("a", "1")).await }
    });
    while store.raft.count() == 0 {
        tokio::task::yield_now().await;
    }
    let Response::RawPut(answer) = store.serving.call(put("b", "1")).await else { panic!() };
    assert!(answer.region_error.unwrap().server_is_busy.is_some());
    store.raft.held().into_iter().for_each(|held| store.raft.finish(held));
    let answer = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert_eq!(answer, Response::RawPut(RawPutResponse::default()));
}
