//! A cluster in one process that does as it is told: what the servers of [`crate::store`] and
//! [`crate::placement`] share, and how a test changes it.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use quorate_client::{Client, ClientOptions};
use quorate_proto::{
    Epoch, KeyRange, Peer, PeerId, Region, RegionId, Role, StoreId, wire::errorpb,
};
use tokio::runtime::{Builder, Runtime};

use crate::{placement, store};

/// The cluster id of every world, unless a test says otherwise.
pub(crate) const CLUSTER: u64 = 77;

/// What a store does with the next request instead of serving it.
pub(crate) enum Move {
    /// Refuse it.
    Refuse(errorpb::Error),
    /// Never answer it.
    Swallow,
    /// Apply it, then break the stream instead of answering.
    ApplyAndReset,
    /// Break the stream without applying it.
    Reset,
    /// Fail it in words.
    Fail(&'static str),
}

/// A region and who leads it.
pub(crate) struct Led {
    pub(crate) region: Region,
    /// None while nobody leads.
    pub(crate) leader: Option<StoreId>,
}

/// What the servers share.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) cluster_id: u64,
    pub(crate) regions: Vec<Led>,
    pub(crate) addresses: BTreeMap<StoreId, String>,
    pub(crate) data: BTreeMap<Bytes, Bytes>,
    /// Moves by store, used up one by one.
    pub(crate) moves: BTreeMap<StoreId, VecDeque<Move>>,
    /// Requests that each store has served as a replica.
    pub(crate) replica_reads: BTreeMap<StoreId, usize>,
    /// How old each store's replicas are, in milliseconds, unless they lead; others are up to date.
    pub(crate) ages: BTreeMap<StoreId, u64>,
    /// Stale reads that each store has served.
    pub(crate) stale_reads: BTreeMap<StoreId, usize>,
    /// Writes applied.
    pub(crate) applied: usize,
    /// Requests seen by any store, and the messages they came in.
    pub(crate) requests: usize,
    pub(crate) messages: usize,
    /// Questions to placement about regions.
    pub(crate) region_questions: usize,
    /// Stores answer batched streams with Unimplemented.
    pub(crate) unary_only: bool,
    /// Placement: who leads, by position, and their addresses.
    pub(crate) members: Vec<String>,
    pub(crate) member_leads: usize,
    pub(crate) timestamp: u64,
    /// What placement knows is older than what the stores know.
    pub(crate) placement_is_behind: Option<Vec<(Region, Option<StoreId>)>>,
}

/// The state, shared.
pub(crate) type Shared = Arc<Mutex<State>>;

/// One server with a runtime of its own, so that killing it breaks its connections at once.
pub(crate) struct Server {
    runtime: Option<Runtime>,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts what `serve` makes of a listener.
    pub(crate) fn start<F>(serve: impl FnOnce(tokio::net::TcpListener) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_on("127.0.0.1:0", serve)
    }

    pub(crate) fn start_on<F>(
        address: &str,
        serve: impl FnOnce(tokio::net::TcpListener) -> F,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let _entered = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        runtime.spawn(serve(listener));
        Self { runtime: Some(runtime), address }
    }

    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The servers and their state.
pub(crate) struct World {
    pub(crate) state: Shared,
    pub(crate) stores: BTreeMap<StoreId, Server>,
    pub(crate) members: Vec<Server>,
}

impl World {
    /// Three stores, one placement member, and regions cut at `cuts`, each led by s1, s2, s3 in
    /// turn.
    pub(crate) fn new(cuts: &[&str]) -> Self {
        Self::with_members(cuts, 1)
    }

    pub(crate) fn with_members(cuts: &[&str], members: usize) -> Self {
        let state = Shared::default();
        let starts = [""].iter().chain(cuts);
        let ends = cuts.iter().chain([""].iter());
        for (at, (start, end)) in starts.zip(ends).enumerate() {
            let at = at as u64;
            let leader = Some(StoreId(1 + at % 3));
            let range = KeyRange::new((*start).to_owned(), (*end).to_owned());
            state.lock().unwrap().regions.push(Led { region: region(at + 1, range, 1), leader });
        }
        state.lock().unwrap().cluster_id = CLUSTER;
        let mut stores = BTreeMap::new();
        for id in (1..=3).map(StoreId) {
            let server = Server::start(|listener| store::serve(id, Arc::clone(&state), listener));
            state.lock().unwrap().addresses.insert(id, server.address.to_string());
            stores.insert(id, server);
        }
        let members: Vec<Server> = (0..members)
            .map(|at| Server::start(|l| placement::serve(at, Arc::clone(&state), l)))
            .collect();
        state.lock().unwrap().members =
            members.iter().map(|server| server.address.to_string()).collect();
        Self { state, stores, members }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        self.client_with(ClientOptions::default()).await
    }

    pub(crate) async fn client_with(&self, options: ClientOptions) -> Client {
        Client::connect(&self.endpoints(), options).await.unwrap()
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|server| server.address.to_string()).collect()
    }

    /// The next requests at `store` meet these moves.
    pub(crate) fn next(&self, store: u64, moves: impl IntoIterator<Item = Move>) {
        self.state().moves.entry(StoreId(store)).or_default().extend(moves);
    }

    pub(crate) fn lead(&self, region: u64, store: Option<u64>) {
        let mut state = self.state();
        let led = state.regions.iter_mut().find(|led| led.region.id.0 == region).unwrap();
        led.leader = store.map(StoreId);
    }

    pub(crate) fn kill(&mut self, store: u64) {
        self.stores.get_mut(&StoreId(store)).unwrap().kill();
    }
}

impl State {
    /// Splits the region that holds `key` there; the new region takes the upper part.
    pub(crate) fn split(&mut self, key: &str) {
        let id = self.regions.iter().map(|led| led.region.id.0).max().unwrap() + 1;
        let parent = self
            .regions
            .iter_mut()
            .find(|led| led.region.range.can_split_at(key.as_bytes()))
            .unwrap();
        let version = parent.region.epoch.version + 1;
        let upper = KeyRange::new(key.to_owned(), parent.region.range.end.clone());
        parent.region.range.end = Bytes::from(key.to_owned());
        parent.region.epoch.version = version;
        let leader = parent.leader;
        self.regions.push(Led { region: region(id, upper, version), leader });
        self.regions.sort_by(|a, b| a.region.range.start.cmp(&b.region.range.start));
    }

    /// The region that begins at `key` takes in the one before it, as stores merge them.
    pub(crate) fn merge(&mut self, key: &str) {
        let at = self.regions.iter().position(|led| led.region.range.start == key).unwrap();
        let source = self.regions.remove(at - 1).region;
        let target = &mut self.regions[at - 1].region;
        target.range.start = source.range.start;
        let version = target.epoch.version.max(source.epoch.version) + 65_536;
        target.epoch.version = version + 1;
    }

    /// What placement would answer.
    pub(crate) fn known_regions(&self) -> Vec<(Region, Option<StoreId>)> {
        let now = || self.regions.iter().map(|led| (led.region.clone(), led.leader)).collect();
        self.placement_is_behind.clone().unwrap_or_else(now)
    }
}

fn region(id: u64, range: KeyRange, version: u64) -> Region {
    let peer =
        |store| Peer { id: PeerId(id * 10 + store), store: StoreId(store), role: Role::Voter };
    Region {
        id: RegionId(id),
        range,
        epoch: Epoch { conf_ver: 1, version },
        peers: vec![peer(1), peer(2), peer(3)],
    }
}
