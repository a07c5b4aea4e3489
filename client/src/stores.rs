//! Stores: where each one listens, and the lanes to it.
//!
//! Addresses come from placement and are believed for a while (`moka`); while placement is away,
//! the last one that was known is used. A store that cannot be dialled is left alone for a short,
//! growing time: requests to it fail at once instead of queueing behind a dead address.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use moka::sync::Cache;
use parking_lot::{Mutex, RwLock};
use quorate_proto::{StoreId, wire::metapb};
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint};
use tracing::debug;

use crate::{ClientOptions, PlacementClient, lane::Lane, router::Router};

/// Waits before a store is dialled again after the first failure, and at most.
const REDIAL_FIRST: Duration = Duration::from_millis(20);
const REDIAL_MOST: Duration = Duration::from_millis(500);
/// Stores whose addresses are remembered.
const MAX_STORES: u64 = 10_000;

/// What the tasks behind the lanes share: addresses, who is down, how to dial.
pub(crate) struct Directory {
    options: ClientOptions,
    placement: PlacementClient,
    router: Arc<RwLock<Router>>,
    runtime: Handle,
    fresh: Cache<StoreId, Arc<str>>,
    last_known: Mutex<BTreeMap<StoreId, Arc<str>>>,
    resting: Mutex<BTreeMap<StoreId, Rest>>,
}

/// A store that could not be dialled.
struct Rest {
    failures: u32,
    until: Instant,
}

impl Directory {
    pub(crate) fn new(
        options: ClientOptions,
        placement: PlacementClient,
        router: Arc<RwLock<Router>>,
        runtime: Handle,
    ) -> Self {
        let fresh =
            Cache::builder().max_capacity(MAX_STORES).time_to_live(options.address_ttl).build();
        Self {
            options,
            placement,
            router,
            runtime,
            fresh,
            last_known: Mutex::default(),
            resting: Mutex::default(),
        }
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.options
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Where `store` listens: HOST:PORT.
    ///
    /// # Errors
    /// In words, where nobody knows.
    pub(crate) async fn address(&self, store: StoreId) -> Result<Arc<str>, String> {
        if let Some(address) = self.fresh.get(&store) {
            return Ok(address);
        }
        let deadline = Instant::now() + self.options.connect_timeout;
        match self.placement.store_until(store, deadline).await {
            Ok(found) if found.state() == metapb::StoreState::Tombstone => {
                Err(format!("{store} was removed from the cluster"))
            }
            Ok(found) => {
                let address: Arc<str> = Arc::from(bare(&found.address));
                self.fresh.insert(store, Arc::clone(&address));
                self.last_known.lock().insert(store, Arc::clone(&address));
                Ok(address)
            }
            Err(error) => self
                .last_known
                .lock()
                .get(&store)
                .cloned()
                .ok_or_else(|| format!("the address of {store} is not known: {error}")),
        }
    }

    /// Opens a connection.
    pub(crate) async fn dial(&self, store: StoreId) -> Result<Channel, String> {
        let address = self.address(store).await?;
        let endpoint = endpoint(&address, self.options.connect_timeout, self.options.keepalive)
            .map_err(|why| format!("{store} has a bad address, {address}: {why}"))?;
        let dialled = tokio::time::timeout(self.options.connect_timeout, endpoint.connect()).await;
        match dialled {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(format!("{store} at {address}: {}", chain(&error))),
            Err(_) => Err(format!(
                "{store} at {address}: no connection within {:?}",
                self.options.connect_timeout
            )),
        }
    }

    /// A stream to `store` is open.
    pub(crate) fn opened(&self, store: StoreId) {
        if self.resting.lock().remove(&store).is_some() {
            self.router.write().store_up(store);
        }
    }

    /// A stream to `store` could not be opened: it rests.
    pub(crate) fn failed(&self, store: StoreId) {
        self.fresh.invalidate(&store);
        let now = Instant::now();
        let first = {
            let mut resting = self.resting.lock();
            let rest = resting.entry(store).or_insert(Rest { failures: 0, until: now });
            rest.until = now + (REDIAL_FIRST * (1 << rest.failures.min(5))).min(REDIAL_MOST);
            rest.failures += 1;
            rest.failures == 1
        };
        if first {
            debug!(%store, "store is down");
            self.router.write().store_down(store);
        }
    }

    /// Another store answers at the address of `store`: ask placement again.
    pub(crate) fn forget_address(&self, store: StoreId) {
        self.fresh.invalidate(&store);
    }

    fn rests(&self, store: StoreId) -> bool {
        self.resting.lock().get(&store).is_some_and(|rest| Instant::now() < rest.until)
    }
}

/// All lanes of a client.
pub(crate) struct Stores {
    directory: Arc<Directory>,
    stores: ArcSwap<BTreeMap<StoreId, Arc<Lanes>>>,
}

/// The lanes to one store.
struct Lanes {
    slots: Vec<ArcSwapOption<Lane>>,
    next: AtomicUsize,
    opening: Mutex<()>,
}

impl Stores {
    pub(crate) fn new(directory: Arc<Directory>) -> Self {
        Self { directory, stores: ArcSwap::default() }
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// A lane to `store`, opened where there is none; none while the store rests.
    pub(crate) fn lane(&self, store: StoreId) -> Option<Arc<Lane>> {
        if let Some(lanes) = self.stores.load().get(&store) {
            return lanes.lane(store, &self.directory);
        }
        let slots = self.directory.options.connections_per_store.clamp(1, 64);
        let added = Arc::new(Lanes {
            slots: (0..slots).map(|_| ArcSwapOption::empty()).collect(),
            next: AtomicUsize::new(0),
            opening: Mutex::new(()),
        });
        self.stores.rcu(|stores| {
            let mut stores = BTreeMap::clone(stores);
            stores.entry(store).or_insert_with(|| Arc::clone(&added));
            stores
        });
        self.stores.load().get(&store)?.lane(store, &self.directory)
    }

    /// Closes the lanes to `store`: it is not the store it was taken for.
    pub(crate) fn drop_lanes(&self, store: StoreId) {
        self.directory.forget_address(store);
        if let Some(lanes) = self.stores.load().get(&store) {
            lanes.close("another store answers at that address");
        }
    }
}

impl Drop for Stores {
    fn drop(&mut self) {
        for lanes in self.stores.load().values() {
            lanes.close("the client was dropped");
        }
    }
}

impl Lanes {
    fn lane(&self, store: StoreId, directory: &Arc<Directory>) -> Option<Arc<Lane>> {
        let slot = match self.slots.as_slice() {
            [only] => only,
            slots => &slots[self.next.fetch_add(1, Ordering::Relaxed) % slots.len()],
        };
        let usable = |lane: Option<Arc<Lane>>| lane.filter(|lane| !lane.is_closed());
        if let Some(lane) = usable(slot.load_full()) {
            return Some(lane);
        }
        let _opening = self.opening.lock();
        if let Some(lane) = usable(slot.load_full()) {
            return Some(lane);
        }
        if directory.rests(store) {
            return None;
        }
        let lane = Lane::open(store, Arc::clone(directory));
        slot.store(Some(Arc::clone(&lane)));
        Some(lane)
    }

    fn close(&self, reason: &str) {
        for lane in self.slots.iter().filter_map(|slot| slot.swap(None)) {
            lane.close(reason);
        }
    }
}

/// An address without its scheme.
pub(crate) fn bare(address: &str) -> &str {
    address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/')
}

/// How every connection of this client is set up: no delay, windows that large answers fit into,
/// probes that find a dead peer.
pub(crate) fn endpoint(
    address: &str,
    connect_timeout: Duration,
    keepalive: Duration,
) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(format!("http://{}", bare(address)))?
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(8 * 1024 * 1024)
        .initial_connection_window_size(16 * 1024 * 1024)
        .max_frame_size(256 * 1024)
        .http2_keep_alive_interval(keepalive)
        .keep_alive_timeout(keepalive)
        .keep_alive_while_idle(true))
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words = format!("{words}: {cause_words}");
        }
        source = cause.source();
    }
    words
}
