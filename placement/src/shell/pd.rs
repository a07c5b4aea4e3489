//! What TiKV's clients ask placement, and ours.
//!
//! `GetMembers` is answered by every member, at any time and without a header; everything else by
//! the leader alone. What is wrong with a request of the right cluster is said in the answer's
//! header, as these clients expect it, never by leaving the header out.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use prost::Message as _;
use quorate_proto::limits::MAX_ANSWER_BYTES;
use quorate_proto::wire::pdpb::{self, pd_server::Pd};
use quorate_proto::{KeyRange, StoreId};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::cluster::Cluster;
use super::convert;
use crate::core::command::{Answer, Command};
use crate::core::tree::{RegionInfo, RegionTree};

/// Most regions that one scan returns.
const MAX_SCANNED: usize = 16_384;
/// Most ranges of one batched scan.
const MAX_RANGES: usize = 1_024;
/// Requests for timestamps that are answered together at most.
const TSO_BATCH: usize = 256;

/// The service.
pub(crate) struct PdService(pub(crate) Arc<Cluster>);

type Answered<T> = Result<Response<T>, Status>;

impl PdService {
    fn header(&self) -> Option<pdpb::ResponseHeader> {
        Some(pdpb::ResponseHeader { cluster_id: self.0.cluster_id(), error: None })
    }

    fn error(&self, kind: pdpb::ErrorType, message: String) -> Option<pdpb::ResponseHeader> {
        let error = Some(pdpb::Error { r#type: kind.into(), message });
        Some(pdpb::ResponseHeader { cluster_id: self.0.cluster_id(), error })
    }

    /// What stands in the way of answering at all: a request for another cluster.
    fn refuse(&self, header: Option<&pdpb::RequestHeader>) -> Option<pdpb::ResponseHeader> {
        let theirs = header.map_or(0, |header| header.cluster_id);
        let ours = self.0.cluster_id();
        if theirs == 0 || theirs == ours {
            return None;
        }
        self.error(pdpb::ErrorType::Unknown, convert::wrong_cluster_words(theirs, ours))
    }

    /// A header that says that there are no regions yet, where there are none.
    fn not_bootstrapped(&self) -> Option<pdpb::ResponseHeader> {
        let (bootstrapped, missing) = {
            let state = self.0.state.read();
            (state.initial_regions().is_some(), state.missing_stores())
        };
        if bootstrapped {
            return None;
        }
        let words = format!("the cluster has no regions yet: it waits for {missing} more stores");
        self.error(pdpb::ErrorType::NotBootstrapped, words)
    }

    async fn look_up(
        &self,
        header: Option<&pdpb::RequestHeader>,
        find: impl Fn(&RegionTree) -> Option<&Arc<RegionInfo>>,
    ) -> Answered<pdpb::GetRegionResponse> {
        self.0.metrics.lookups.inc();
        let found = self.0.read(|session, _| find(session.leader.tree()).map(Arc::clone)).await?;
        // Only now: a member that does not lead may not know the cluster's id yet.
        let refused = self.refuse(header).or_else(|| self.not_bootstrapped());
        let header = refused.clone().or_else(|| self.header());
        let info = found.filter(|_| refused.is_none());
        Ok(Response::new(convert::found(header, info.as_deref())))
    }

    /// Regions of a range, bounded in number and in bytes; twice what is listed fits the answer.
    async fn scan(&self, range: &KeyRange, limit: i32) -> Result<Vec<Arc<RegionInfo>>, Status> {
        self.0.metrics.lookups.inc();
        let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0);
        let limit = limit.unwrap_or(MAX_SCANNED).min(MAX_SCANNED);
        self.0
            .read(|session, _| {
                let found = session.leader.tree().overlapping(range).take(limit);
                found.map(Arc::clone).collect()
            })
            .await
    }
}

/// As many as fit into one answer when each takes `times` its size.
fn fitting(found: &[Arc<RegionInfo>], times: usize) -> Vec<pdpb::Region> {
    let mut bytes = 0;
    let mut listed = Vec::with_capacity(found.len());
    for info in found {
        let region = convert::listed(info);
        bytes += region.encoded_len() * times + 16;
        if bytes > MAX_ANSWER_BYTES && !listed.is_empty() {
            break;
        }
        listed.push(region);
    }
    listed
}

#[tonic::async_trait]
impl Pd for PdService {
    async fn get_members(
        &self,
        request: Request<pdpb::GetMembersRequest>,
    ) -> Answered<pdpb::GetMembersResponse> {
        let header = self.refuse(request.get_ref().header.as_ref()).or_else(|| {
            if self.0.cluster_id() == 0 {
                let words = "the placement group has not elected its first leader yet: a majority \
                             of its members must be up; try again";
                return self.error(pdpb::ErrorType::NotBootstrapped, words.to_owned());
            }
            self.header()
        });
        let leader = self.0.known_leader().as_ref().map(convert::member);
        Ok(Response::new(pdpb::GetMembersResponse {
            header,
            members: self.0.roster.list().iter().map(convert::member).collect(),
            leader: leader.clone(),
            etcd_leader: leader,
        }))
    }

    type TsoStream = Pin<Box<dyn Stream<Item = Result<pdpb::TsoResponse, Status>> + Send>>;

    async fn tso(
        &self,
        request: Request<Streaming<pdpb::TsoRequest>>,
    ) -> Answered<Self::TsoStream> {
        let cluster = Arc::clone(&self.0);
        if !cluster.view.is_leader() {
            return Err(cluster.not_leader());
        }
        let (sender, receiver) = mpsc::channel(TSO_BATCH);
        tokio::spawn(async move {
            let requests = request.into_inner();
            if let Err(status) = serve_tso(&cluster, requests, &sender).await {
                // Nobody may be listening any more.
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn get_region(
        &self,
        request: Request<pdpb::GetRegionRequest>,
    ) -> Answered<pdpb::GetRegionResponse> {
        let request = request.into_inner();
        self.look_up(request.header.as_ref(), |tree| tree.find(&request.region_key)).await
    }

    async fn get_prev_region(
        &self,
        request: Request<pdpb::GetRegionRequest>,
    ) -> Answered<pdpb::GetRegionResponse> {
        let request = request.into_inner();
        self.look_up(request.header.as_ref(), |tree| tree.before(&request.region_key)).await
    }

    async fn get_region_by_id(
        &self,
        request: Request<pdpb::GetRegionByIdRequest>,
    ) -> Answered<pdpb::GetRegionResponse> {
        let request = request.into_inner();
        self.look_up(request.header.as_ref(), |tree| tree.get(request.region_id.into())).await
    }

    async fn scan_regions(
        &self,
        request: Request<pdpb::ScanRegionsRequest>,
    ) -> Answered<pdpb::ScanRegionsResponse> {
        let request = request.into_inner();
        let range = KeyRange::new(request.start_key, request.end_key);
        let found = self.scan(&range, request.limit).await?;
        if let Some(header) =
            self.refuse(request.header.as_ref()).or_else(|| self.not_bootstrapped())
        {
            let header = Some(header);
            return Ok(Response::new(pdpb::ScanRegionsResponse { header, ..Default::default() }));
        }
        let regions = fitting(&found, 2);
        Ok(Response::new(pdpb::ScanRegionsResponse {
            header: self.header(),
            region_metas: regions.iter().filter_map(|region| region.region.clone()).collect(),
            leaders: regions.iter().map(|region| region.leader.unwrap_or_default()).collect(),
            regions,
        }))
    }

    async fn batch_scan_regions(
        &self,
        request: Request<pdpb::BatchScanRegionsRequest>,
    ) -> Answered<pdpb::BatchScanRegionsResponse> {
        let request = request.into_inner();
        let asked = request.ranges.len();
        if asked > MAX_RANGES {
            return Err(Status::invalid_argument(format!(
                "a scan names at most {MAX_RANGES} ranges, not {asked}"
            )));
        }
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
        let limit = limit.unwrap_or(MAX_SCANNED).min(MAX_SCANNED);
        let mut found: Vec<Arc<RegionInfo>> = Vec::new();
        let mut hole = None;
        for range in request.ranges {
            let left = i32::try_from(limit - found.len()).unwrap_or(i32::MAX);
            if left == 0 {
                break;
            }
            let range = KeyRange::new(range.start_key, range.end_key);
            let within = self.scan(&range, left).await?;
            if within.len() < left as usize {
                hole = hole.or_else(|| first_hole(&range, &within));
            }
            for info in within {
                // A region that reaches into the next range is named once.
                if found.last().is_none_or(|last| last.region.id != info.region.id) {
                    found.push(info);
                }
            }
        }
        let mut refused = self.refuse(request.header.as_ref()).or_else(|| self.not_bootstrapped());
        if let (true, Some(key)) = (request.contain_all_key_range && refused.is_none(), hole) {
            let words = format!("no region is known that holds the key {key}; try again");
            refused = self.error(pdpb::ErrorType::RegionNotFound, words);
        }
        if refused.is_some() {
            found.clear();
        }
        let header = refused.or_else(|| self.header());
        let regions = fitting(&found, 1);
        Ok(Response::new(pdpb::BatchScanRegionsResponse { header, regions }))
    }

    async fn get_store(
        &self,
        request: Request<pdpb::GetStoreRequest>,
    ) -> Answered<pdpb::GetStoreResponse> {
        let request = request.into_inner();
        let id = StoreId(request.store_id);
        let (store, stats) = self
            .0
            .read(|session, state| {
                let heard = session.leader.stores().last(id);
                let stats = heard.map(|heard| pdpb::StoreStats {
                    store_id: id.0,
                    capacity: heard.stats.capacity_bytes,
                    available: heard.stats.available_bytes,
                    region_count: heard.stats.regions,
                });
                (state.stores().get(&id).map(|store| convert::store(store)), stats)
            })
            .await?;
        let unknown = || {
            let words = format!("{id} is not known; `quorate store list` shows those that are");
            self.error(pdpb::ErrorType::StoreTombstone, words)
        };
        let header = match (self.refuse(request.header.as_ref()), &store) {
            (Some(refused), _) => Some(refused),
            (None, Some(_)) => self.header(),
            (None, None) => unknown(),
        };
        let store = Some(store.unwrap_or_default());
        Ok(Response::new(pdpb::GetStoreResponse { header, store, stats }))
    }

    async fn get_all_stores(
        &self,
        request: Request<pdpb::GetAllStoresRequest>,
    ) -> Answered<pdpb::GetAllStoresResponse> {
        let stores = self
            .0
            .read(|_, state| state.stores().values().map(|store| convert::store(store)).collect())
            .await?;
        if let Some(header) = self.refuse(request.get_ref().header.as_ref()) {
            let (header, stores) = (Some(header), Vec::new());
            return Ok(Response::new(pdpb::GetAllStoresResponse { header, stores }));
        }
        Ok(Response::new(pdpb::GetAllStoresResponse { header: self.header(), stores }))
    }

    async fn update_gc_safe_point(
        &self,
        request: Request<pdpb::UpdateGcSafePointRequest>,
    ) -> Answered<pdpb::UpdateGcSafePointResponse> {
        let request = request.into_inner();
        // Under proof of leadership, so that the cluster's id is known here.
        let known = self.0.read(|_, state| state.counters().safe_point).await?;
        if let Some(header) = self.refuse(request.header.as_ref()) {
            let header = Some(header);
            return Ok(Response::new(pdpb::UpdateGcSafePointResponse {
                header,
                new_safe_point: 0,
            }));
        }
        let new_safe_point = if request.safe_point <= known {
            known
        } else {
            match self.0.propose(&Command::RaiseSafePoint(request.safe_point)).await? {
                Answer::SafePoint(safe_point) => safe_point,
                other => return Err(Status::internal(format!("unexpected answer {other:?}"))),
            }
        };
        let header = self.header();
        Ok(Response::new(pdpb::UpdateGcSafePointResponse { header, new_safe_point }))
    }

    async fn get_gc_state(
        &self,
        request: Request<pdpb::GetGcStateRequest>,
    ) -> Answered<pdpb::GetGcStateResponse> {
        let request = request.into_inner();
        let safe_point = self.0.read(|_, state| state.counters().safe_point).await?;
        if let Some(header) = self.refuse(request.header.as_ref()) {
            let (header, gc_state) = (Some(header), None);
            return Ok(Response::new(pdpb::GetGcStateResponse { header, gc_state }));
        }
        let gc_state = Some(pdpb::GcState {
            keyspace_scope: request.keyspace_scope,
            is_keyspace_level_gc: false,
            txn_safe_point: safe_point,
            gc_safe_point: safe_point,
        });
        Ok(Response::new(pdpb::GetGcStateResponse { header: self.header(), gc_state }))
    }
}

/// Answers requests for timestamps, those that are there together at once.
async fn serve_tso(
    cluster: &Cluster,
    requests: Streaming<pdpb::TsoRequest>,
    sender: &mpsc::Sender<Result<pdpb::TsoResponse, Status>>,
) -> Result<(), Status> {
    let mut batches = std::pin::pin!(futures::StreamExt::ready_chunks(requests, TSO_BATCH));
    let mut stopping = cluster.stopping.subscribe();
    loop {
        let batch = tokio::select! {
            batch = batches.next() => batch,
            _ = stopping.wait_for(|stopping| *stopping) => return Err(cluster.not_leader()),
            () = sender.closed() => return Ok(()),
        };
        let Some(batch) = batch else { return Ok(()) };
        let batch = batch.into_iter().collect::<Result<Vec<_>, _>>()?;
        let counts: Vec<u64> = batch.iter().map(|request| u64::from(request.count)).collect();
        let timestamps = cluster.timestamps(&counts).await?;
        let cluster_id = cluster.cluster_id();
        cluster.metrics.timestamps.inc_by(counts.iter().sum());
        for (request, timestamp) in batch.into_iter().zip(timestamps) {
            let theirs = request.header.as_ref().map_or(0, |header| header.cluster_id);
            if theirs != 0 && theirs != cluster_id {
                return Err(convert::wrong_cluster(theirs, cluster_id));
            }
            let timestamp = pdpb::Timestamp {
                physical: i64::try_from(timestamp.physical_ms).unwrap_or(i64::MAX),
                logical: i64::try_from(timestamp.logical).unwrap_or(i64::MAX),
            };
            let answer = pdpb::TsoResponse {
                header: Some(pdpb::ResponseHeader { cluster_id, error: None }),
                count: request.count,
                timestamp: Some(timestamp),
            };
            if sender.send(Ok(answer)).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// The first key of the range that no region of the list holds, shown for a person.
fn first_hole(range: &KeyRange, found: &[Arc<RegionInfo>]) -> Option<String> {
    let mut covered = range.start.clone();
    for info in found {
        let region = &info.region.range;
        if region.start > covered {
            break;
        }
        if region.end.is_empty() {
            return None;
        }
        covered = covered.max(region.end.clone());
    }
    let complete = !range.end.is_empty() && covered >= range.end;
    (!complete).then(|| quorate_proto::key::display(&covered))
}
