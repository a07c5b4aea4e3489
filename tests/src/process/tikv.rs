//! The messages of a TiKV client, written down anew from the names and numbers of its protocol:
//! what such a client sends and understands, and nothing of ours.
//!
//! Field numbers stand beside their fields; docs on them would only repeat the names.

#![allow(missing_docs)]

use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// Declares messages: `Name { number field: kind, … }`.
macro_rules! messages {
    ($($name:ident { $(#[$tag:meta] $field:ident: $kind:ty,)* })*) => {$(
        #[derive(Clone, PartialEq, Message)]
        pub struct $name { $(#[$tag] pub $field: $kind,)* }
    )*};
}

pub mod batch;

messages! {
    RequestHeader { #[prost(uint64, tag = "1")] cluster_id: u64, }
    PdError { #[prost(int32, tag = "1")] kind: i32, #[prost(string, tag = "2")] message: String, }
    ResponseHeader {
        #[prost(uint64, tag = "1")] cluster_id: u64,
        #[prost(message, optional, tag = "2")] error: Option<PdError>,
    }
    GetMembersRequest { #[prost(message, optional, tag = "1")] header: Option<RequestHeader>, }
    Member {
        #[prost(string, tag = "1")] name: String,
        #[prost(uint64, tag = "2")] member_id: u64,
        #[prost(string, repeated, tag = "3")] peer_urls: Vec<String>,
        #[prost(string, repeated, tag = "4")] client_urls: Vec<String>,
    }
    GetMembersResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(message, repeated, tag = "2")] members: Vec<Member>,
        #[prost(message, optional, tag = "3")] leader: Option<Member>,
    }
    TsoRequest {
        #[prost(message, optional, tag = "1")] header: Option<RequestHeader>,
        #[prost(uint32, tag = "2")] count: u32,
    }
    Timestamp { #[prost(int64, tag = "1")] physical: i64, #[prost(int64, tag = "2")] logical: i64, }
    TsoResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(uint32, tag = "2")] count: u32,
        #[prost(message, optional, tag = "3")] timestamp: Option<Timestamp>,
    }
    GetRegionRequest {
        #[prost(message, optional, tag = "1")] header: Option<RequestHeader>,
        #[prost(bytes = "vec", tag = "2")] region_key: Vec<u8>,
    }
    GetRegionByIdRequest {
        #[prost(message, optional, tag = "1")] header: Option<RequestHeader>,
        #[prost(uint64, tag = "2")] region_id: u64,
    }
    RegionEpoch { #[prost(uint64, tag = "1")] conf_ver: u64, #[prost(uint64, tag = "2")] version: u64, }
    Peer {
        #[prost(uint64, tag = "1")] id: u64,
        #[prost(uint64, tag = "2")] store_id: u64,
        #[prost(int32, tag = "3")] role: i32,
    }
    Region {
        #[prost(uint64, tag = "1")] id: u64,
        #[prost(bytes = "vec", tag = "2")] start_key: Vec<u8>,
        #[prost(bytes = "vec", tag = "3")] end_key: Vec<u8>,
        #[prost(message, optional, tag = "4")] region_epoch: Option<RegionEpoch>,
        #[prost(message, repeated, tag = "5")] peers: Vec<Peer>,
    }
    GetRegionResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(message, optional, tag = "2")] region: Option<Region>,
        #[prost(message, optional, tag = "3")] leader: Option<Peer>,
    }
    GetStoreRequest {
        #[prost(message, optional, tag = "1")] header: Option<RequestHeader>,
        #[prost(uint64, tag = "2")] store_id: u64,
    }
    Store {
        #[prost(uint64, tag = "1")] id: u64,
        #[prost(string, tag = "2")] address: String,
        #[prost(int32, tag = "3")] state: i32,
    }
    GetStoreResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(message, optional, tag = "2")] store: Option<Store>,
    }
    Context {
        #[prost(uint64, tag = "1")] region_id: u64,
        #[prost(message, optional, tag = "2")] region_epoch: Option<RegionEpoch>,
        #[prost(message, optional, tag = "3")] peer: Option<Peer>,
        #[prost(uint64, tag = "5")] term: u64,
    }
    NotLeader {
        #[prost(uint64, tag = "1")] region_id: u64,
        #[prost(message, optional, tag = "2")] leader: Option<Peer>,
    }
    EpochNotMatch { #[prost(message, repeated, tag = "1")] current_regions: Vec<Region>, }
    KeyNotInRegion {
        #[prost(bytes = "vec", tag = "1")] key: Vec<u8>,
        #[prost(uint64, tag = "2")] region_id: u64,
    }
    RegionNotFound { #[prost(uint64, tag = "1")] region_id: u64, }
    StoreNotMatch { #[prost(uint64, tag = "1")] request: u64, #[prost(uint64, tag = "2")] actual: u64, }
    RegionError {
        #[prost(string, tag = "1")] message: String,
        #[prost(message, optional, tag = "2")] not_leader: Option<NotLeader>,
        #[prost(message, optional, tag = "3")] region_not_found: Option<RegionNotFound>,
        #[prost(message, optional, tag = "4")] key_not_in_region: Option<KeyNotInRegion>,
        #[prost(message, optional, tag = "5")] epoch_not_match: Option<EpochNotMatch>,
        #[prost(message, optional, tag = "8")] store_not_match: Option<StoreNotMatch>,
    }
    RawGetRequest {
        #[prost(message, optional, tag = "1")] context: Option<Context>,
        #[prost(bytes = "vec", tag = "2")] key: Vec<u8>,
        #[prost(string, tag = "3")] cf: String,
    }
    RawGetResponse {
        #[prost(message, optional, tag = "1")] region_error: Option<RegionError>,
        #[prost(string, tag = "2")] error: String,
        #[prost(bytes = "vec", tag = "3")] value: Vec<u8>,
        #[prost(bool, tag = "4")] not_found: bool,
    }
    RawPutRequest {
        #[prost(message, optional, tag = "1")] context: Option<Context>,
        #[prost(bytes = "vec", tag = "2")] key: Vec<u8>,
        #[prost(bytes = "vec", tag = "3")] value: Vec<u8>,
        #[prost(string, tag = "4")] cf: String,
    }
    RawPutResponse {
        #[prost(message, optional, tag = "1")] region_error: Option<RegionError>,
        #[prost(string, tag = "2")] error: String,
    }
    RawDeleteRequest {
        #[prost(message, optional, tag = "1")] context: Option<Context>,
        #[prost(bytes = "vec", tag = "2")] key: Vec<u8>,
        #[prost(string, tag = "3")] cf: String,
    }
    RawDeleteResponse {
        #[prost(message, optional, tag = "1")] region_error: Option<RegionError>,
        #[prost(string, tag = "2")] error: String,
    }
    RawScanRequest {
        #[prost(message, optional, tag = "1")] context: Option<Context>,
        #[prost(bytes = "vec", tag = "2")] start_key: Vec<u8>,
        #[prost(uint32, tag = "3")] limit: u32,
        #[prost(bool, tag = "4")] key_only: bool,
        #[prost(string, tag = "5")] cf: String,
        #[prost(bool, tag = "6")] reverse: bool,
        #[prost(bytes = "vec", tag = "7")] end_key: Vec<u8>,
    }
    KvPair {
        #[prost(bytes = "vec", tag = "2")] key: Vec<u8>,
        #[prost(bytes = "vec", tag = "3")] value: Vec<u8>,
    }
    RawScanResponse {
        #[prost(message, optional, tag = "1")] region_error: Option<RegionError>,
        #[prost(message, repeated, tag = "2")] kvs: Vec<KvPair>,
    }
}

/// A connection to one server, as a TiKV client holds it.
#[derive(Clone)]
pub struct Wire {
    grpc: Grpc<Channel>,
}

impl Wire {
    /// Connects to `HOST:PORT`, with or without a scheme.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(address: &str) -> Result<Wire, tonic::transport::Error> {
        let bare = address.trim_start_matches("http://");
        let endpoint = Channel::from_shared(format!("http://{bare}"));
        let endpoint = endpoint.unwrap_or_else(|error| panic!("{address}: {error}"));
        Ok(Wire { grpc: Grpc::new(endpoint.connect().await?) })
    }

    /// A unary call of `/pdpb.PD/…`.
    ///
    /// # Errors
    /// The server's status.
    pub async fn pd<Q, A>(&mut self, name: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        self.unary(&format!("/pdpb.PD/{name}"), request).await
    }

    /// A unary call of `/tikvpb.Tikv/…`.
    ///
    /// # Errors
    /// The server's status.
    pub async fn kv<Q, A>(&mut self, name: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        self.unary(&format!("/tikvpb.Tikv/{name}"), request).await
    }

    /// The timestamp stream, with these requests.
    ///
    /// # Errors
    /// The server's status.
    pub async fn tso(
        &mut self,
        requests: Vec<TsoRequest>,
    ) -> Result<Streaming<TsoResponse>, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static("/pdpb.PD/Tso");
        let codec = ProstCodec::<TsoRequest, TsoResponse>::default();
        // The stream stays open behind the last request, as a client's does.
        let requests =
            futures::StreamExt::chain(futures::stream::iter(requests), futures::stream::pending());
        let answer = self.grpc.streaming(Request::new(requests), path, codec).await?;
        Ok(answer.into_inner())
    }

    async fn unary<Q, A>(&mut self, path: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        self.ready().await?;
        let path =
            PathAndQuery::try_from(path).map_err(|error| Status::internal(error.to_string()))?;
        let answer = self.grpc.unary(Request::new(request), path, ProstCodec::<Q, A>::default());
        Ok(answer.await?.into_inner())
    }

    async fn ready(&mut self) -> Result<(), Status> {
        let ready = self.grpc.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))
    }
}
