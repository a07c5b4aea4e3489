//! A placement of one member that keeps everything in memory: enough for one store.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use parking_lot::Mutex;
use quorate_proto::wire::metapb;
use quorate_proto::wire::pdpb::pd_server::{Pd, PdServer};
use quorate_proto::wire::pdpb::*;
use quorate_proto::wire::placement::placement_server::{Placement, PlacementServer};
use quorate_proto::wire::placement::*;
use tokio::sync::{broadcast, oneshot};
use tonic::{Request, Response, Status, Streaming};

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the placement knows.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) joins: Vec<JoinRequest>,
    pub(crate) reports: Vec<StoreReport>,
    /// Joins that are still told to wait for another store.
    pub(crate) missing: u32,
    last_id: u64,
}

/// The placement, and how to end it.
pub(crate) struct FakePlacement {
    pub(crate) address: String,
    pub(crate) known: Arc<Mutex<Known>>,
    orders: broadcast::Sender<Order>,
    stop: Option<oneshot::Sender<()>>,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Member {
    address: String,
    cluster_id: u64,
    known: Arc<Mutex<Known>>,
    orders: broadcast::Sender<Order>,
}

impl FakePlacement {
    pub(crate) async fn start(cluster_id: u64, missing: u32) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let bound: SocketAddr = listener.local_addr().unwrap();
        let known = Arc::new(Mutex::new(Known { missing, last_id: 100, ..Known::default() }));
        let (orders, _) = broadcast::channel(16);
        let address = bound.to_string();
        let (known_too, orders_too) = (Arc::clone(&known), orders.clone());
        let member =
            Member { address: address.clone(), cluster_id, known: known_too, orders: orders_too };
        let (stop, stopped) = oneshot::channel::<()>();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(
            tokio::net::TcpListener::from_std(listener).unwrap(),
        );
        let server = tokio::spawn(async move {
            let server = tonic::transport::Server::builder()
                .add_service(PdServer::new(member.clone()))
                .add_service(PlacementServer::new(member))
                .serve_with_incoming(incoming);
            tokio::select! {
                ended = server => ended.unwrap(),
                _ = stopped => {}
            }
        });
        Self { address, known, orders, stop: Some(stop), server }
    }

    /// Sends an order down the streams that are open.
    pub(crate) fn order(&self, order: Order) {
        self.orders.send(order).expect("a store is connected");
    }

    /// Waits until what is known fits.
    pub(crate) async fn until<T>(&self, what: &str, look: impl Fn(&Known) -> Option<T>) -> T {
        let patience = async {
            loop {
                if let Some(found) = look(&self.known.lock()) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(30), patience).await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain until {what}"),
        }
    }

    /// Breaks all connections.
    pub(crate) async fn kill(mut self) {
        drop(self.stop.take());
        self.server.await.unwrap();
    }
}

impl Known {
    /// The regions that the last words about each of them name, by start key.
    pub(crate) fn regions(&self) -> Vec<metapb::Region> {
        let mut regions = std::collections::BTreeMap::new();
        for report in self.reports.iter().flat_map(|report| &report.regions) {
            let region = report.region.clone().unwrap();
            regions.insert(region.id, region);
        }
        let mut regions: Vec<_> = regions.into_values().collect();
        regions.sort_by(|left, right| left.start_key.cmp(&right.start_key));
        regions
    }
}

#[tonic::async_trait]
impl Placement for Member {
    async fn join_placement(
        &self,
        _: Request<quorate_proto::wire::placement::JoinPlacementRequest>,
    ) -> Answer<quorate_proto::wire::placement::JoinPlacementResponse> {
        Err(Status::unimplemented("a store does not ask for it"))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Answer<JoinResponse> {
        let request = request.into_inner();
        let mut known = self.known.lock();
        known.joins.push(request.clone());
        let store = metapb::Store { id: 1, address: request.address, ..metapb::Store::default() };
        let missing_stores = known.missing;
        known.missing = missing_stores.saturating_sub(1);
        let peer = metapb::Peer { id: 3, store_id: 1, role: 0 };
        let region = metapb::Region {
            id: 2,
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
            peers: vec![peer],
            ..metapb::Region::default()
        };
        let bootstrapped = missing_stores == 0;
        Ok(Response::new(JoinResponse {
            cluster_id: self.cluster_id,
            store_id: 1,
            bootstrapped,
            initial_regions: if bootstrapped { vec![region] } else { Vec::new() },
            missing_stores,
            stores: vec![store],
        }))
    }

    type HeartbeatStream = Answers<StoreOrders>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<StoreReport>>,
    ) -> Answer<Self::HeartbeatStream> {
        let state = (request.into_inner(), self.orders.subscribe(), Arc::clone(&self.known));
        let stream =
            futures::stream::unfold(state, |(mut reports, mut orders, known)| async move {
                let mut answer = StoreOrders { time_ms: 1_000_000, ..StoreOrders::default() };
                tokio::select! {
                    report = reports.message() => {
                        let report = report.ok()??;
                        answer.sequence = report.sequence;
                        known.lock().reports.push(report);
                    }
                    order = orders.recv() => answer.orders.push(order.ok()?),
                }
                Some((Ok(answer), (reports, orders, known)))
            });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn ask_split(&self, request: Request<AskSplitRequest>) -> Answer<AskSplitResponse> {
        let request = request.into_inner();
        let peers = request.region.unwrap().peers.len();
        let mut known = self.known.lock();
        let mut next = || {
            known.last_id += 1;
            known.last_id
        };
        let ids = (0..request.count)
            .map(|_| SplitIds { region_id: next(), peer_ids: (0..peers).map(|_| next()).collect() })
            .collect();
        Ok(Response::new(AskSplitResponse { ids }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        Err(unused())
    }
    async fn split_region(&self, _: Request<SplitRegionRequest>) -> Answer<SplitRegionResponse> {
        Err(unused())
    }
    async fn transfer_leader(
        &self,
        _: Request<TransferLeaderRequest>,
    ) -> Answer<TransferLeaderResponse> {
        Err(unused())
    }
    async fn transfer_placement_leader(
        &self,
        _: Request<TransferPlacementLeaderRequest>,
    ) -> Answer<TransferPlacementLeaderResponse> {
        Err(unused())
    }
}

fn unused() -> Status {
    Status::unimplemented("no store asks for this")
}

#[tonic::async_trait]
impl Pd for Member {
    async fn get_members(&self, _: Request<GetMembersRequest>) -> Answer<GetMembersResponse> {
        let urls = vec![format!("http://{}", self.address)];
        let member = quorate_proto::wire::pdpb::Member {
            name: "placement-1".to_owned(),
            member_id: 1,
            peer_urls: urls.clone(),
            client_urls: urls,
        };
        Ok(Response::new(GetMembersResponse {
            header: Some(ResponseHeader { cluster_id: self.cluster_id, error: None }),
            members: vec![member.clone()],
            leader: Some(member),
            etcd_leader: None,
        }))
    }

    type TsoStream = Answers<TsoResponse>;

    async fn tso(&self, _: Request<Streaming<TsoRequest>>) -> Answer<Self::TsoStream> {
        Err(unused())
    }
    async fn get_region(&self, _: Request<GetRegionRequest>) -> Answer<GetRegionResponse> {
        Err(unused())
    }
    async fn get_prev_region(&self, _: Request<GetRegionRequest>) -> Answer<GetRegionResponse> {
        Err(unused())
    }
    async fn get_region_by_id(
        &self,
        _: Request<GetRegionByIdRequest>,
    ) -> Answer<GetRegionResponse> {
        Err(unused())
    }
    async fn scan_regions(&self, _: Request<ScanRegionsRequest>) -> Answer<ScanRegionsResponse> {
        Err(unused())
    }
    async fn batch_scan_regions(
        &self,
        _: Request<BatchScanRegionsRequest>,
    ) -> Answer<BatchScanRegionsResponse> {
        Err(unused())
    }
    async fn get_store(&self, _: Request<GetStoreRequest>) -> Answer<GetStoreResponse> {
        Err(unused())
    }
    async fn get_all_stores(
        &self,
        _: Request<GetAllStoresRequest>,
    ) -> Answer<GetAllStoresResponse> {
        Err(unused())
    }
    async fn update_gc_safe_point(
        &self,
        _: Request<UpdateGcSafePointRequest>,
    ) -> Answer<UpdateGcSafePointResponse> {
        Err(unused())
    }
    async fn get_gc_state(&self, _: Request<GetGcStateRequest>) -> Answer<GetGcStateResponse> {
        Err(unused())
    }
}
