//! Members, clients and stores for the tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use quorate_placement::{PlacementConfig, PlacementError, run};
use quorate_proto::wire::metapb;
use quorate_proto::wire::pdpb::{self, pd_client::PdClient};
use quorate_proto::wire::placement::{self as wire, placement_client::PlacementClient};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A free address on the loopback, which no outgoing connection takes meanwhile.
pub fn free_address() -> String {
    format!("127.0.0.1:{}", super::ports::free_port())
}

/// A member that runs in this process.
pub struct Member {
    pub address: String,
    pub status_address: String,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), PlacementError>>,
}

/// Settings of a lone member in that folder.
pub fn alone(folder: &Path) -> PlacementConfig {
    PlacementConfig {
        listen: free_address(),
        status_address: free_address(),
        data: folder.join("placement"),
        initial_stores: 1,
        save_interval_ms: 50,
        ..PlacementConfig::default()
    }
}

/// Settings of `count` members of one group.
pub fn group(folder: &Path, count: u64) -> Vec<PlacementConfig> {
    let addresses: Vec<String> = (0..count).map(|_| free_address()).collect();
    let list = addresses.iter().enumerate();
    let members: Vec<String> =
        list.map(|(number, address)| format!("{}={address}", number + 1)).collect();
    let one = |(number, listen): (usize, &String)| PlacementConfig {
        id: number as u64 + 1,
        listen: listen.clone(),
        status_address: free_address(),
        data: folder.join(format!("placement-{}", number + 1)),
        members: members.clone(),
        initial_stores: 1,
        save_interval_ms: 50,
        ..PlacementConfig::default()
    };
    addresses.iter().enumerate().map(one).collect()
}

impl Member {
    pub fn start(config: PlacementConfig) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (address, status_address) = (config.listen.clone(), config.status_address.clone());
        let running = tokio::spawn(run(config, async move {
            let _ = stopped.await;
        }));
        Self { address, status_address, stop: Some(stop), running }
    }

    /// The graceful way.
    pub async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.running).await.unwrap().unwrap().unwrap();
    }

    /// How it ends by itself.
    pub async fn ended(self) -> Result<(), PlacementError> {
        self.running.await.unwrap()
    }

    pub fn pd(&self) -> PdClient<Channel> {
        PdClient::new(channel(&self.address))
    }

    pub fn placement(&self) -> PlacementClient<Channel> {
        PlacementClient::new(channel(&self.address))
    }

    /// Waits until the member answers `/ready`.
    pub async fn ready(&self) {
        eventually("the member is ready", async || {
            assert!(!self.running.is_finished(), "{} ended before it was ready", self.address);
            page(&self.status_address, "/ready").await.is_some_and(|(status, _)| status == 200)
        })
        .await;
    }
}

pub fn channel(address: &str) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

/// Asks again until it is so.
pub async fn eventually(what: &str, check: impl AsyncFnMut() -> bool) {
    within(PATIENCE, what, check).await;
}

/// [`eventually`] for what takes long.
pub async fn within(patience: Duration, what: &str, mut check: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !check().await {
        assert!(start.elapsed() < patience, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Status and text of a page.
pub async fn page(address: &str, path: &str) -> Option<(u16, String)> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    let status = text.split(' ').nth(1)?.parse().ok()?;
    Some((status, text.split_once("\r\n\r\n")?.1.to_owned()))
}

pub fn header(cluster_id: u64) -> Option<pdpb::RequestHeader> {
    Some(pdpb::RequestHeader { cluster_id })
}

pub async fn cluster_id(pd: &mut PdClient<Channel>) -> u64 {
    let members = pd.get_members(pdpb::GetMembersRequest { header: None }).await.unwrap();
    members.into_inner().header.unwrap().cluster_id
}

/// A store with that number joins for the first time.
pub fn join_request(number: u64) -> wire::JoinRequest {
    wire::JoinRequest {
        address: format!("127.0.0.1:{}", 20_000 + number),
        status_address: format!("127.0.0.1:{}", 21_000 + number),
        version: "0.1.0".to_owned(),
        incarnation: 7,
        data_id: 1_000 + number,
        ..wire::JoinRequest::default()
    }
}

/// A store that does what it is told, without having any data.
pub struct FakeStore {
    pub joined: wire::JoinResponse,
    pub regions: BTreeMap<u64, (metapb::Region, u64)>,
    /// Those that are stopped for a merge.
    pub merging: BTreeMap<u64, wire::MergingReport>,
    client: PlacementClient<Channel>,
    reports: mpsc::Sender<wire::StoreReport>,
    pub orders: Streaming<wire::StoreOrders>,
    sequence: u64,
}

impl FakeStore {
    /// Joins, leads all its initial regions if it is to, and reports.
    pub async fn start(
        mut client: PlacementClient<Channel>,
        request: wire::JoinRequest,
        leads: bool,
    ) -> Self {
        let joined = client.join(request).await.unwrap().into_inner();
        let regions = joined.initial_regions.iter().filter(|_| leads);
        let regions = regions.map(|region| (region.id, (region.clone(), 6))).collect();
        Self::connect(client, joined, regions).await
    }

    /// Opens a stream and reports everything.
    pub async fn connect(
        mut client: PlacementClient<Channel>,
        joined: wire::JoinResponse,
        regions: BTreeMap<u64, (metapb::Region, u64)>,
    ) -> Self {
        let (reports, receiver) = mpsc::channel(8);
        let first = report(&joined, regions.values(), &BTreeMap::new(), true, 1);
        reports.send(first).await.unwrap();
        let orders = client.heartbeat(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        let merging = BTreeMap::new();
        let mut store = Self { joined, regions, merging, client, reports, orders, sequence: 1 };
        let answer = store.next().await.unwrap();
        assert_eq!(answer.sequence, 1);
        assert!(answer.time_ms > 0);
        assert!(!answer.stores.is_empty(), "the first answer names the stores");
        store
    }

    pub async fn next(&mut self) -> Result<wire::StoreOrders, Status> {
        let next = tokio::time::timeout(PATIENCE, self.orders.message()).await.unwrap();
        next.map(|orders| orders.expect("the stream goes on"))
    }

    pub async fn report(&mut self, ids: &[u64]) {
        self.sequence += 1;
        let led = ids.iter().map(|id| &self.regions[id]);
        let report = report(&self.joined, led, &self.merging, false, self.sequence);
        self.reports.send(report).await.unwrap();
    }

    /// Reads answers until one carries an order, and carries that out.
    pub async fn obey(&mut self) -> wire::order::Step {
        loop {
            let orders = self.next().await.unwrap().orders;
            let Some(order) = orders.into_iter().next() else { continue };
            assert!(!order.reason.is_empty());
            let step = order.step.unwrap();
            match &step {
                wire::order::Step::Split(split) => self.split(split).await,
                wire::order::Step::TransferLeader(transfer) => {
                    self.regions.remove(&transfer.region_id).unwrap();
                }
                wire::order::Step::PrepareMerge(step) => self.stop(step).await,
                wire::order::Step::CommitMerge(step) => self.take_in(step).await,
                wire::order::Step::ChangePeers(_)
                | wire::order::Step::DestroyPeer(_)
                | wire::order::Step::RollbackMerge(_)
                | wire::order::Step::RefuseMerge(_) => panic!("nobody asked for {step:?}"),
            }
            return step;
        }
    }

    async fn stop(&mut self, step: &wire::PrepareMergeStep) {
        let (source, _) = self.regions.get_mut(&step.region_id).unwrap();
        assert_eq!(step.epoch, source.region_epoch);
        let (epoch, target_epoch) = (source.region_epoch.unwrap(), step.target_epoch.unwrap());
        source.region_epoch = Some(metapb::RegionEpoch {
            conf_ver: epoch.conf_ver + 1,
            version: epoch.version.max(target_epoch.version) + 65_536,
        });
        let merging = wire::MergingReport {
            target_id: step.target_id,
            target_epoch: Some(target_epoch),
            frozen_index: 9,
            everywhere: true,
        };
        self.merging.insert(step.region_id, merging);
        self.report(&[step.region_id]).await;
    }

    async fn take_in(&mut self, step: &wire::CommitMergeStep) {
        let (source, _) = self.regions.remove(&step.source.as_ref().unwrap().id).unwrap();
        assert_eq!(step.source, Some(source.clone()));
        assert!(self.merging.remove(&source.id).is_some());
        let (target, _) = self.regions.get_mut(&step.region_id).unwrap();
        assert_eq!((step.epoch, step.frozen_index), (target.region_epoch, 9));
        match target.end_key == source.start_key {
            true => target.end_key = source.end_key,
            false => target.start_key = source.start_key,
        }
        let (ours, theirs) = (target.region_epoch.unwrap(), source.region_epoch.unwrap());
        let version = ours.version.max(theirs.version) + 1;
        target.region_epoch = Some(metapb::RegionEpoch { version, ..ours });
        self.report(&[step.region_id]).await;
    }

    async fn split(&mut self, step: &wire::SplitStep) {
        let (parent, term) = self.regions[&step.region_id].clone();
        assert_eq!(step.epoch, parent.region_epoch);
        let ask = wire::AskSplitRequest {
            cluster_id: self.joined.cluster_id,
            region: Some(parent.clone()),
            count: u32::try_from(step.keys.len().max(1)).unwrap(),
        };
        let ids = self.client.ask_split(ask).await.unwrap().into_inner().ids;
        let keys = if step.keys.is_empty() { vec!["half".into()] } else { step.keys.clone() };
        assert_eq!(ids.len(), keys.len());
        let mut epoch = parent.region_epoch.unwrap();
        epoch.version += keys.len() as u64;
        let mut changed = vec![parent.id];
        let ends = keys.iter().skip(1).cloned().chain([parent.end_key.clone()]);
        for ((key, end), ids) in keys.iter().zip(ends).zip(ids) {
            assert_eq!(ids.peer_ids.len(), parent.peers.len());
            let peers = parent.peers.iter().zip(&ids.peer_ids);
            let peers = peers.map(|(peer, id)| metapb::Peer { id: *id, ..*peer }).collect();
            let child = metapb::Region {
                id: ids.region_id,
                start_key: key.clone(),
                end_key: end,
                region_epoch: Some(epoch),
                peers,
            };
            changed.push(child.id);
            self.regions.insert(child.id, (child, 6));
        }
        let left = metapb::Region { end_key: keys[0].clone(), region_epoch: Some(epoch), ..parent };
        self.regions.insert(left.id, (left, term));
        self.report(&changed).await;
    }
}

fn report<'a>(
    joined: &wire::JoinResponse,
    regions: impl Iterator<Item = &'a (metapb::Region, u64)>,
    merging: &BTreeMap<u64, wire::MergingReport>,
    full: bool,
    sequence: u64,
) -> wire::StoreReport {
    let led = |(region, term): &(metapb::Region, u64)| wire::RegionReport {
        region: Some(region.clone()),
        leader: region.peers.iter().find(|peer| peer.store_id == joined.store_id).copied(),
        term: *term,
        merging: merging.get(&region.id).copied(),
        ..wire::RegionReport::default()
    };
    wire::StoreReport {
        cluster_id: joined.cluster_id,
        store_id: joined.store_id,
        incarnation: 7,
        known_version: 5,
        regions: regions.map(led).collect(),
        full,
        sequence,
        ..wire::StoreReport::default()
    }
}
