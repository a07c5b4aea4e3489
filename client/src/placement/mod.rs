//! Signatures; bodies follow.
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use quorate_proto::{Peer, Region, RegionId, StoreId};
use quorate_proto::wire::{metapb, pdpb, placement as wire};

use crate::Result;

#[derive(Clone, Debug)]
pub struct PlacementOptions {
    /// For each call in all. Default 10 s.
    pub deadline: Duration,
    pub connect_timeout: Duration,
    pub keepalive: Duration,
}

/// A region as placement knows it.
#[derive(Clone, Debug)]
pub struct RegionInfo {
    pub region: Region,
    /// The last known leader, if any.
    pub leader: Option<Peer>,
}

/// Strictly increasing over the cluster's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    pub physical_ms: u64,
    pub logical: u64,
}

#[derive(Clone)]
pub struct PlacementClient {}

impl PlacementClient {
    /// HOST:PORT each; one that answers is enough.
    pub async fn connect(endpoints: &[String], options: PlacementOptions) -> Result<Self> { todo!() }
    pub fn cluster_id(&self) -> u64 { todo!() }
    pub async fn members(&self) -> Result<pdpb::GetMembersResponse> { todo!() }
    pub async fn get_region(&self, key: impl Into<Bytes>) -> Result<RegionInfo> { todo!() }
    pub async fn get_region_by_id(&self, id: RegionId) -> Result<Option<RegionInfo>> { todo!() }
    /// limit 0: no bound of the caller's; pages by itself.
    pub async fn scan_regions(&self, start: impl Into<Bytes>, end: impl Into<Bytes>, limit: usize) -> Result<Vec<RegionInfo>> { todo!() }
    pub async fn get_store(&self, id: StoreId) -> Result<metapb::Store> { todo!() }
    pub async fn get_all_stores(&self) -> Result<Vec<metapb::Store>> { todo!() }
    pub async fn timestamp(&self) -> Result<Timestamp> { todo!() }
    pub async fn join(&self, request: wire::JoinRequest) -> Result<wire::JoinResponse> { todo!() }
    /// One attempt at the leader known now. After an error the leader has been looked up anew:
    /// call again with a fresh stream, after a pause of your own.
    pub async fn heartbeat(&self, reports: impl Stream<Item = wire::StoreReport> + Send + 'static) -> Result<tonic::Streaming<wire::StoreOrders>> { todo!() }
    pub async fn ask_split(&self, request: wire::AskSplitRequest) -> Result<wire::AskSplitResponse> { todo!() }
    pub async fn status(&self) -> Result<wire::StatusResponse> { todo!() }
    pub async fn split_region(&self, request: wire::SplitRegionRequest) -> Result<Vec<Region>> { todo!() }
    pub async fn transfer_leader(&self, region: RegionId, to: StoreId) -> Result<()> { todo!() }
    /// `to_member` 0: placement chooses. Returns the new leader's member id.
    pub async fn transfer_placement_leader(&self, to_member: u64) -> Result<u64> { todo!() }
}
