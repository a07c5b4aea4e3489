//! Signatures; bodies follow.
use bytes::Bytes;
use quorate_proto::{Peer, Region};

use crate::{ClientOptions, PlacementClient, ReadOptions, Result};

pub type KvPair = (Bytes, Bytes);

#[derive(Clone, Debug)]
pub struct RegionRoute {
    pub region: Region,
    pub leader: Peer,
    /// HOST:PORT of the leader's store.
    pub address: String,
}

#[derive(Clone)]
pub struct Client {}

impl Client {
    pub async fn connect(placement: &[String], options: ClientOptions) -> Result<Client> { todo!() }
    pub async fn with_placement(placement: PlacementClient, options: ClientOptions) -> Result<Client> { todo!() }
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>> { todo!() }
    pub async fn get_with(&self, key: impl Into<Bytes>, options: ReadOptions) -> Result<Option<Bytes>> { todo!() }
    /// In the order of the keys.
    pub async fn batch_get(&self, keys: Vec<Bytes>) -> Result<Vec<(Bytes, Option<Bytes>)>> { todo!() }
    pub async fn batch_get_with(&self, keys: Vec<Bytes>, options: ReadOptions) -> Result<Vec<(Bytes, Option<Bytes>)>> { todo!() }
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> { todo!() }
    pub async fn batch_put(&self, pairs: Vec<KvPair>) -> Result<()> { todo!() }
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<()> { todo!() }
    pub async fn batch_delete(&self, keys: Vec<Bytes>) -> Result<()> { todo!() }
    pub async fn delete_range(&self, start: impl Into<Bytes>, end: impl Into<Bytes>) -> Result<()> { todo!() }
    pub async fn scan(&self, start: impl Into<Bytes>, end: impl Into<Bytes>, limit: usize) -> Result<Vec<KvPair>> { todo!() }
    pub async fn scan_with(&self, start: impl Into<Bytes>, end: impl Into<Bytes>, limit: usize, options: ReadOptions) -> Result<Vec<KvPair>> { todo!() }
    /// The last `limit` pairs of [start, end), largest key first.
    pub async fn reverse_scan(&self, start: impl Into<Bytes>, end: impl Into<Bytes>, limit: usize) -> Result<Vec<KvPair>> { todo!() }
    pub async fn reverse_scan_with(&self, start: impl Into<Bytes>, end: impl Into<Bytes>, limit: usize, options: ReadOptions) -> Result<Vec<KvPair>> { todo!() }
    pub async fn scan_keys(&self, start: impl Into<Bytes>, end: impl Into<Bytes>, limit: usize) -> Result<Vec<Bytes>> { todo!() }
    /// Each range in turn, at most `each_limit` pairs from each.
    pub async fn batch_scan(&self, ranges: Vec<(Bytes, Bytes)>, each_limit: usize) -> Result<Vec<Vec<KvPair>>> { todo!() }
    pub async fn locate(&self, key: impl Into<Bytes>) -> Result<RegionRoute> { todo!() }
    pub fn placement(&self) -> &PlacementClient { todo!() }
    pub fn cluster_id(&self) -> u64 { todo!() }
}
