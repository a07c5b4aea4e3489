//! The batched stream of a TiKV client, as the Go client uses it for everything: up to 128
//! requests of mixed kinds in a message, answers in any order and any number of messages.

#![allow(missing_docs)]

use std::collections::BTreeMap;

use prost::{Message, Oneof};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::{
    Context, KvPair, RawDeleteRequest, RawDeleteResponse, RawGetRequest, RawGetResponse,
    RawPutRequest, RawPutResponse, RawScanRequest, RawScanResponse, RegionError, Wire,
};

/// Most requests that the Go client puts into one message.
pub const MOST: usize = 128;

messages! {
    RawBatchGetRequest {
        #[prost(message, optional, tag = "1")] context: Option<Context>,
        #[prost(bytes = "vec", repeated, tag = "2")] keys: Vec<Vec<u8>>,
        #[prost(string, tag = "3")] cf: String,
    }
    RawBatchGetResponse {
        #[prost(message, optional, tag = "1")] region_error: Option<RegionError>,
        #[prost(message, repeated, tag = "2")] pairs: Vec<KvPair>,
    }
    RawBatchPutRequest {
        #[prost(message, optional, tag = "1")] context: Option<Context>,
        #[prost(message, repeated, tag = "2")] pairs: Vec<KvPair>,
        #[prost(string, tag = "3")] cf: String,
    }
    RawBatchDeleteRequest {
        #[prost(message, optional, tag = "1")] context: Option<Context>,
        #[prost(bytes = "vec", repeated, tag = "2")] keys: Vec<Vec<u8>>,
        #[prost(string, tag = "3")] cf: String,
    }
    RawDeleteRangeRequest {
        #[prost(message, optional, tag = "1")] context: Option<Context>,
        #[prost(bytes = "vec", tag = "2")] start_key: Vec<u8>,
        #[prost(bytes = "vec", tag = "3")] end_key: Vec<u8>,
        #[prost(string, tag = "4")] cf: String,
    }
    KeyRange {
        #[prost(bytes = "vec", tag = "1")] start_key: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")] end_key: Vec<u8>,
    }
    RawBatchScanRequest {
        #[prost(message, optional, tag = "1")] context: Option<Context>,
        #[prost(message, repeated, tag = "2")] ranges: Vec<KeyRange>,
        #[prost(uint32, tag = "3")] each_limit: u32,
    }
    Empty { #[prost(uint64, tag = "1")] test_id: u64, }
    BatchRequest {
        #[prost(oneof = "Ask", tags = "13, 14, 15, 16, 17, 18, 19, 20, 21, 255")] cmd: Option<Ask>,
    }
    BatchCommandsRequest {
        #[prost(message, repeated, tag = "1")] requests: Vec<BatchRequest>,
        #[prost(uint64, repeated, tag = "2")] request_ids: Vec<u64>,
    }
    BatchResponse {
        #[prost(oneof = "Answer", tags = "13, 14, 15, 16, 17, 18, 19, 20, 21, 255")]
        cmd: Option<Answer>,
    }
    BatchCommandsResponse {
        #[prost(message, repeated, tag = "1")] responses: Vec<BatchResponse>,
        #[prost(uint64, repeated, tag = "2")] request_ids: Vec<u64>,
    }
}

/// One request of a message.
#[derive(Clone, PartialEq, Oneof)]
pub enum Ask {
    #[prost(message, tag = "13")]
    Get(RawGetRequest),
    #[prost(message, tag = "14")]
    BatchGet(RawBatchGetRequest),
    #[prost(message, tag = "15")]
    Put(RawPutRequest),
    #[prost(message, tag = "16")]
    BatchPut(RawBatchPutRequest),
    #[prost(message, tag = "17")]
    Delete(RawDeleteRequest),
    #[prost(message, tag = "18")]
    BatchDelete(RawBatchDeleteRequest),
    #[prost(message, tag = "19")]
    Scan(RawScanRequest),
    #[prost(message, tag = "20")]
    DeleteRange(RawDeleteRangeRequest),
    #[prost(message, tag = "21")]
    BatchScan(RawBatchScanRequest),
    #[prost(message, tag = "255")]
    Empty(Empty),
}

/// One answer. Those of the writes have one shape, and so have those of the scans.
#[derive(Clone, PartialEq, Oneof)]
pub enum Answer {
    #[prost(message, tag = "13")]
    Get(RawGetResponse),
    #[prost(message, tag = "14")]
    BatchGet(RawBatchGetResponse),
    #[prost(message, tag = "15")]
    Put(RawPutResponse),
    #[prost(message, tag = "16")]
    BatchPut(RawPutResponse),
    #[prost(message, tag = "17")]
    Delete(RawDeleteResponse),
    #[prost(message, tag = "18")]
    BatchDelete(RawDeleteResponse),
    #[prost(message, tag = "19")]
    Scan(RawScanResponse),
    #[prost(message, tag = "20")]
    DeleteRange(RawDeleteResponse),
    #[prost(message, tag = "21")]
    BatchScan(RawScanResponse),
    #[prost(message, tag = "255")]
    Empty(Empty),
}

/// A batched stream to one store.
pub struct Batches {
    sender: futures::channel::mpsc::UnboundedSender<BatchCommandsRequest>,
    answers: Streaming<BatchCommandsResponse>,
    next: u64,
    sent: BTreeMap<u64, &'static str>,
}

impl Wire {
    /// Opens a batched stream.
    ///
    /// # Errors
    /// The server's status.
    pub async fn batches(&mut self) -> Result<Batches, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static("/tikvpb.Tikv/BatchCommands");
        let codec = ProstCodec::<BatchCommandsRequest, BatchCommandsResponse>::default();
        let (sender, requests) = futures::channel::mpsc::unbounded();
        let answer = self.grpc.streaming(Request::new(requests), path, codec).await?;
        Ok(Batches { sender, answers: answer.into_inner(), next: 1, sent: BTreeMap::new() })
    }
}

impl Batches {
    /// Sends one message; the ids of its requests, in order.
    ///
    /// # Panics
    /// With more requests than such a client sends, or where the stream is gone.
    pub fn send(&mut self, asks: Vec<Ask>) -> Vec<u64> {
        assert!(asks.len() <= MOST, "{} requests in one message", asks.len());
        let ids: Vec<u64> = (self.next..).take(asks.len()).collect();
        self.next += asks.len() as u64;
        self.sent.extend(ids.iter().copied().zip(asks.iter().map(Ask::kind)));
        let requests = asks.into_iter().map(|ask| BatchRequest { cmd: Some(ask) }).collect();
        let message = BatchCommandsRequest { requests, request_ids: ids.clone() };
        self.sender.unbounded_send(message).unwrap_or_else(|error| panic!("{error}"));
        ids
    }

    /// Waits for the answers of all requests that were sent. Each is answered once, and as the
    /// kind that was asked.
    ///
    /// # Errors
    /// The stream's status.
    ///
    /// # Panics
    /// When an answer is none, or belongs to nothing.
    pub async fn answers(&mut self) -> Result<BTreeMap<u64, Answer>, Status> {
        let mut found = BTreeMap::new();
        while !self.sent.is_empty() {
            let message = self.answers.message().await?;
            let message = message.ok_or_else(|| Status::cancelled("the stream has ended"))?;
            assert_eq!(message.responses.len(), message.request_ids.len(), "answers have ids");
            for (id, response) in message.request_ids.into_iter().zip(message.responses) {
                let answer = response.cmd.unwrap_or_else(|| panic!("no answer to {id}"));
                let asked = self.sent.remove(&id);
                let asked = asked.unwrap_or_else(|| panic!("{id} is answered twice: {answer:?}"));
                assert_eq!(asked, answer.kind(), "the answer to {id}");
                found.insert(id, answer);
            }
        }
        Ok(found)
    }
}

impl Ask {
    fn kind(&self) -> &'static str {
        match self {
            Ask::Get(_) => "get",
            Ask::BatchGet(_) => "batch get",
            Ask::Put(_) => "put",
            Ask::BatchPut(_) => "batch put",
            Ask::Delete(_) => "delete",
            Ask::BatchDelete(_) => "batch delete",
            Ask::Scan(_) => "scan",
            Ask::DeleteRange(_) => "delete range",
            Ask::BatchScan(_) => "batch scan",
            Ask::Empty(_) => "empty",
        }
    }
}

impl Answer {
    fn kind(&self) -> &'static str {
        match self {
            Answer::Get(_) => "get",
            Answer::BatchGet(_) => "batch get",
            Answer::Put(_) => "put",
            Answer::BatchPut(_) => "batch put",
            Answer::Delete(_) => "delete",
            Answer::BatchDelete(_) => "batch delete",
            Answer::Scan(_) => "scan",
            Answer::DeleteRange(_) => "delete range",
            Answer::BatchScan(_) => "batch scan",
            Answer::Empty(_) => "empty",
        }
    }
}
