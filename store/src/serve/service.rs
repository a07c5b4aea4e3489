//! The gRPC service of clients: single calls, and batched streams.

use std::sync::Arc;

use quorate_proto::wire::kvrpcpb::{
    RawBatchDeleteRequest, RawBatchDeleteResponse, RawBatchGetRequest, RawBatchGetResponse,
    RawBatchPutRequest, RawBatchPutResponse, RawBatchScanRequest, RawBatchScanResponse,
    RawDeleteRangeRequest, RawDeleteRangeResponse, RawDeleteRequest, RawDeleteResponse,
    RawGetRequest, RawGetResponse, RawPutRequest, RawPutResponse, RawScanRequest, RawScanResponse,
};
use quorate_proto::wire::tikvpb::BatchCommandsRequest;
use quorate_proto::wire::tikvpb::batch_commands_request::request::Cmd as Asked;
use quorate_proto::wire::tikvpb::batch_commands_response::response::Cmd as Response;
use quorate_proto::wire::tikvpb::tikv_server::Tikv;
use tonic::{Request, Response as Reply, Status, Streaming};

use super::Serving;
use super::stream::BatchStream;

/// What clients call.
#[derive(Clone)]
pub(crate) struct TikvService {
    serving: Arc<Serving>,
}

impl TikvService {
    /// The service of a store.
    pub(crate) fn new(serving: Arc<Serving>) -> Self {
        Self { serving }
    }
}

/// One call: the request's own answer is taken out of the answer of any request.
macro_rules! call {
    ($self:ident, $request:ident, $kind:ident) => {
        match $self.serving.call(Asked::$kind($request.into_inner())).await {
            Response::$kind(answer) => Ok(Reply::new(answer)),
            // Every request is answered in its own kind.
            _ => Err(Status::internal("a request was answered as another kind; report this")),
        }
    };
}

#[tonic::async_trait]
impl Tikv for TikvService {
    type BatchCommandsStream = BatchStream;

    async fn raw_get(
        &self,
        request: Request<RawGetRequest>,
    ) -> Result<Reply<RawGetResponse>, Status> {
        call!(self, request, RawGet)
    }
    async fn raw_batch_get(
        &self,
        request: Request<RawBatchGetRequest>,
    ) -> Result<Reply<RawBatchGetResponse>, Status> {
        call!(self, request, RawBatchGet)
    }
    async fn raw_put(
        &self,
        request: Request<RawPutRequest>,
    ) -> Result<Reply<RawPutResponse>, Status> {
        call!(self, request, RawPut)
    }
    async fn raw_batch_put(
        &self,
        request: Request<RawBatchPutRequest>,
    ) -> Result<Reply<RawBatchPutResponse>, Status> {
        call!(self, request, RawBatchPut)
    }
    async fn raw_delete(
        &self,
        request: Request<RawDeleteRequest>,
    ) -> Result<Reply<RawDeleteResponse>, Status> {
        call!(self, request, RawDelete)
    }
    async fn raw_batch_delete(
        &self,
        request: Request<RawBatchDeleteRequest>,
    ) -> Result<Reply<RawBatchDeleteResponse>, Status> {
        call!(self, request, RawBatchDelete)
    }
    async fn raw_scan(
        &self,
        request: Request<RawScanRequest>,
    ) -> Result<Reply<RawScanResponse>, Status> {
        call!(self, request, RawScan)
    }
    async fn raw_delete_range(
        &self,
        request: Request<RawDeleteRangeRequest>,
    ) -> Result<Reply<RawDeleteRangeResponse>, Status> {
        call!(self, request, RawDeleteRange)
    }
    async fn raw_batch_scan(
        &self,
        request: Request<RawBatchScanRequest>,
    ) -> Result<Reply<RawBatchScanResponse>, Status> {
        call!(self, request, RawBatchScan)
    }
    async fn batch_commands(
        &self,
        request: Request<Streaming<BatchCommandsRequest>>,
    ) -> Result<Reply<BatchStream>, Status> {
        let stream = BatchStream::new(Arc::clone(&self.serving), request.into_inner());
        Ok(Reply::new(stream))
    }
}
