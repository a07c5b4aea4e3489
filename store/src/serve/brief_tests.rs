//! Scans over much that is deleted leave the network thread.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use quorate_consensus::engine::{RocksEngine, RocksOptions};
use quorate_proto::wire::kvrpcpb::{
    KvPair, RawBatchDeleteRequest, RawBatchPutRequest, RawScanRequest,
};
use quorate_proto::wire::tikvpb::BatchCommandsRequest;
use quorate_proto::wire::tikvpb::batch_commands_request::Request;
use quorate_proto::wire::tikvpb::batch_commands_request::request::Cmd as Asked;
use quorate_proto::wire::tikvpb::batch_commands_response::response::Cmd as Response;
use tonic::Status;

use super::stream::BatchStream;
use crate::config::LimitsConfig;
use crate::testing::{LEFT, TestStore, context};

/// Many more than a brief scan passes over.
const DELETED: usize = 5_000;

fn scan(start: &'static str) -> Request {
    let scan = RawScanRequest {
        context: context(LEFT),
        start_key: start.into(),
        limit: 1,
        ..Default::default()
    };
    Request { cmd: Some(Asked::RawScan(scan)) }
}

#[tokio::test]
async fn a_scan_over_many_deleted_keys_leaves_the_network_thread_and_no_other_does() {
    let folder = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(folder.path(), &RocksOptions::default()).unwrap();
    let store = TestStore::on(Arc::new(engine), LimitsConfig::default());
    let keys: Vec<bytes::Bytes> =
        (0..DELETED).map(|number| format!("a{number:06}").into()).collect();
    let last = [bytes::Bytes::from("b")];
    let pairs = keys.iter().chain(&last);
    let pairs =
        pairs.map(|key| KvPair { key: key.clone(), value: "v".into(), ..Default::default() });
    let put =
        RawBatchPutRequest { context: context(LEFT), pairs: pairs.collect(), ..Default::default() };
    let Response::RawBatchPut(put) = store.serving.call(Asked::RawBatchPut(put)).await else {
        panic!()
    };
    assert_eq!((put.region_error, put.error.as_str()), (None, ""));
    let delete = RawBatchDeleteRequest { context: context(LEFT), keys, ..Default::default() };
    let Response::RawBatchDelete(gone) = store.serving.call(Asked::RawBatchDelete(delete)).await
    else {
        panic!()
    };
    assert_eq!((gone.region_error, gone.error.as_str()), (None, ""));

    let message =
        BatchCommandsRequest { requests: vec![scan("a"), scan("b")], request_ids: vec![1, 2] };
    let inbound = futures::stream::iter([Ok::<_, Status>(message)]);
    let inbound = inbound.chain(futures::stream::pending());
    let mut stream = BatchStream::new(store.serving.clone(), inbound);
    let first = stream.next().now_or_never().unwrap().unwrap().unwrap();
    assert_eq!(first.request_ids, [2], "only the short one is answered at once");
    let second = stream.next().await.unwrap().unwrap();
    assert_eq!(second.request_ids, [1]);
    let Some(Response::RawScan(found)) = &second.responses[0].cmd else { panic!() };
    assert_eq!(found.kvs.iter().map(|pair| &*pair.key).collect::<Vec<_>>(), [b"b"]);
}
