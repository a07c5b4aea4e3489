//! A store from its start to its end.
//!
//! The order matters: addresses are taken and the folder is opened before anything is said to
//! placement, so that a wrong setting ends the process with one sentence and leaves nothing behind.
//! Then the store learns who it is, finds or creates its regions, and only then opens for service.
//! A store that has its regions does not need placement to start.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use quorate_consensus::engine::{Engine, RocksEngine};
use quorate_consensus::node::listen::{self, Bounds, Incoming};
use quorate_consensus::node::{Addresses, Node, NodeOptions};
use quorate_consensus::shard::{NewGroup, Stranger};
use quorate_proto::Region;
use quorate_proto::limits::MAX_FRAME_BYTES;
use quorate_proto::wire::health::health_server::HealthServer;
use quorate_proto::wire::tikvpb::tikv_server::TikvServer;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tonic::transport::Server;

use crate::addresses::AddressBook;
use crate::answering::Answering;
use crate::config::StoreConfig;
use crate::core::recover::BootstrapError;
use crate::core::{Applier, StoreMachine};
use crate::error::StoreError;
use crate::fatal::Fatal;
use crate::identity::{self, Identity};
use crate::metrics::{Exposition, Metrics};
use crate::pages::{Phase, Running, StorePages};
use crate::placement::{self, Heartbeats, Joiner, Nudge, Orders};
use crate::placement_time::PlacementTime;
use crate::raft::Raft;
use crate::serve::{Applied, HealthService, Parts, Serving, TikvService, Token};
use crate::split::Splitter;
use crate::strangers;
use crate::{leaving, lost, status};

/// Splits that placement may have asked for and that wait for their turn.
const SPLIT_QUEUE: usize = 256;
/// HTTP/2 windows of one stream and of one connection, in bytes.
const WINDOWS: (u32, u32) = (2 << 20, 8 << 20);
/// Largest HTTP/2 frame we send or take, in bytes.
const FRAME: u32 = 64 << 10;
/// Largest list of HTTP/2 headers we take, in bytes.
const HEADERS: u32 = 16 << 10;
/// Silence after which a connection is probed, and how long the probe may stay unanswered.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// Runs a store until `shutdown` is ready, then stops it gracefully. Blocks; brings its own
/// runtime, in which `shutdown` is polled, for the first time when the store has its addresses and
/// its folder for itself.
///
/// # Errors
/// Why the store could not start, or had to stop: one sentence that says what to do. The process
/// should exit with 1.
pub fn run(
    config: StoreConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), StoreError> {
    start(config, Box::pin(shutdown))
}

/// What ends a store, boxed: all of it is compiled here, not again in each caller.
type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

fn start(config: StoreConfig, shutdown: Shutdown) -> Result<(), StoreError> {
    config.check().map_err(StoreError::Config)?;
    listen::reserve_descriptors(config.limits.connections, config.engine.open_files)
        .map_err(StoreError::Config)?;
    let (listener, bound) = listen::bind("listen", &config.listen)?;
    let address = listen::advertised(&config.advertise, bound)?;
    let status_listener = match config.status_address.as_str() {
        "" => None,
        address => Some(listen::bind("status_address", address)?),
    };
    let engine: Arc<dyn Engine> =
        Arc::new(RocksEngine::open(&config.data, &config.engine.options())?);
    let identity = Identity::open(&engine, &config.data)?;
    let runtime = runtime(&config)?;
    let metrics = Arc::new(Metrics::default());
    let pages = StorePages::new(address.clone(), Arc::clone(&engine), Arc::clone(&metrics));
    let status_address = match &status_listener {
        Some((_, bound)) => bound.to_string(),
        None => String::new(),
    };
    let store = Store {
        joiner: Joiner {
            address,
            status_address,
            labels: config.parsed_labels(),
            incarnation: identity::draw(),
            folder: config.data.clone(),
            addresses: AddressBook::open(Arc::clone(&engine))?,
            engine: Arc::clone(&engine),
        },
        config,
        engine,
        identity,
        metrics,
        pages,
        fatal: Fatal::default(),
    };
    let result = runtime.block_on(async move {
        if let Some((listener, _)) = status_listener {
            let pages = Arc::clone(&store.pages);
            tokio::spawn(async move {
                if let Err(error) = status::serve(listener, pages).await {
                    tracing::error!(%error, "the status pages are gone");
                }
            });
        }
        store.run(listener, shutdown).await
    });
    // Blocking reads that still run only read; nobody waits for them.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

fn runtime(config: &StoreConfig) -> Result<Runtime, StoreError> {
    let mut builder = match config.effective_network_threads() {
        1 => Builder::new_current_thread(),
        threads => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(threads);
            builder
        }
    };
    builder
        .thread_name("network")
        .enable_all()
        // Beside scans and reads from disk: measuring for splits, and small writes of the shell.
        .max_blocking_threads(
            config.limits.concurrent_scans + config.limits.concurrent_disk_reads + 2,
        )
        .build()
        .map_err(|error| StoreError::System { what: "start the network threads", error })
}

/// A store that knows its folder and its addresses.
struct Store {
    config: StoreConfig,
    engine: Arc<dyn Engine>,
    identity: Identity,
    joiner: Joiner,
    metrics: Arc<Metrics>,
    pages: Arc<StorePages>,
    fatal: Fatal,
}

/// A store that serves.
struct Service {
    node: Arc<Node<Token>>,
    raft: Arc<dyn Raft>,
    serving: Arc<Serving>,
    nudge: Arc<Nudge>,
    time: Arc<PlacementTime>,
    /// Replicas that are missing here.
    strangers: mpsc::Receiver<Stranger>,
}

impl Store {
    async fn run(
        mut self,
        listener: std::net::TcpListener,
        mut shutdown: Shutdown,
    ) -> Result<(), StoreError> {
        let (client, applier, groups) = tokio::select! {
            prepared = self.prepare() => prepared?,
            () = &mut shutdown => {
                tracing::info!("stopped before the store served");
                return Ok(());
            }
        };
        let mut service = self.start(applier, groups)?;
        self.watch(&service);
        let (healthy, health) = watch::channel(true);
        let incoming = Incoming::new(listener, Bounds::serving(self.config.limits.connections))
            .map_err(|error| StoreError::System { what: "watch the listen address", error })?;
        let connections = incoming.open();
        let (stop_accepting, server) = self.serve(&service, incoming, health);
        self.show(&service, connections);
        self.talk_to_placement(&mut service, client);
        tracing::info!(
            store = %self.identity.store,
            cluster = self.identity.cluster_id,
            address = self.joiner.address,
            regions = service.serving.directory().len(),
            "serving"
        );

        let result = tokio::select! {
            () = &mut shutdown => Ok(()),
            error = self.fatal.wait() => Err(error),
            ended = server => Err(StoreError::Server(match ended {
                Ok(Err(error)) => error.to_string(),
                Ok(Ok(())) | Err(_) => "it ended by itself".to_owned(),
            })),
        };
        healthy.send_replace(false);
        self.pages.set_phase(Phase::Stopping);
        // After a failure nothing is worth waiting for: what was acknowledged is durable.
        result?;
        // One deadline for all of it: a quarter of the time is kept for the workers.
        let (all, now) = (Duration::from_secs(self.config.shutdown_secs), Instant::now());
        tokio::select! {
            () = self.leave(&service, stop_accepting, now + all / 4 * 3) => {}
            error = self.fatal.wait() => return Err(error),
        }
        let node = Arc::clone(&service.node);
        let stopped = tokio::task::spawn_blocking(move || node.shutdown());
        match tokio::time::timeout_at(now + all, stopped).await {
            Ok(Ok(())) => self.engine.sync()?,
            Ok(Err(error)) => tracing::warn!(%error, "the raft workers did not stop cleanly"),
            // What was acknowledged is durable; the process ends under them.
            Err(_) => tracing::warn!("the raft workers did not stop within shutdown_secs"),
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// Finds the store's regions; a store that has none yet joins the cluster first.
    async fn prepare(
        &mut self,
    ) -> Result<(Option<quorate_client::PlacementClient>, Applier, Vec<NewGroup>), StoreError> {
        let known = self.identity.store.0 != 0;
        if known {
            self.pages.set_identity(self.identity.cluster_id, self.identity.store.0);
            let (applier, groups) =
                Applier::recover(Arc::clone(&self.engine), self.identity.store)?;
            if !groups.is_empty() {
                return Ok((None, applier, groups));
            }
        }
        let learnt = self.joiner.addresses.placement();
        let client = placement::connect(&self.config.placement, &learnt).await;
        let pages = Arc::clone(&self.pages);
        let waiting = |missing_stores| pages.set_phase(Phase::Waiting { missing_stores });
        let joined = self.joiner.join(&client, &mut self.identity, waiting).await?;
        self.pages.set_identity(self.identity.cluster_id, self.identity.store.0);
        let (mut applier, mut groups) =
            Applier::recover(Arc::clone(&self.engine), self.identity.store)?;
        groups.extend(bootstrap(&mut applier, joined.initial_regions)?);
        Ok((Some(client), applier, groups))
    }

    /// Starts the Raft groups.
    fn start(&self, applier: Applier, groups: Vec<NewGroup>) -> Result<Service, StoreError> {
        let directory = Arc::clone(applier.directory());
        let (nudge, time) = (Arc::new(Nudge::default()), Arc::new(PlacementTime::default()));
        let (strangers, missing) = mpsc::channel(strangers::QUEUE);
        let options = NodeOptions {
            node: self.identity.store.into(),
            cluster_id: self.identity.cluster_id,
            incarnation: self.joiner.incarnation,
            workers: self.config.effective_raft_workers(),
            mailbox_bytes: self.config.mailbox_bytes(),
            raft: self.config.raft.clone(),
            snapshots: self.config.snapshot.clone(),
        };
        let node = Node::start(
            options,
            Arc::clone(&self.engine),
            StoreMachine::new(applier, Applied::default()),
            Arc::new(Answering {
                nudge: Arc::clone(&nudge),
                strangers,
                directory: Arc::clone(&directory),
                time: Arc::clone(&time),
            }),
            Arc::clone(&self.joiner.addresses) as Arc<dyn Addresses>,
            groups,
            Handle::current(),
        )
        .map_err(|error| StoreError::System { what: "start the raft workers", error })?;
        let raft: Arc<dyn Raft> = Arc::clone(&node) as Arc<dyn Raft>;
        let serving = Serving::new(Parts {
            directory,
            engine: Arc::clone(&self.engine),
            raft: Arc::clone(&raft),
            metrics: Arc::clone(&self.metrics),
            time: Arc::clone(&time),
            fatal: self.fatal.clone(),
            limits: self.config.limits.clone(),
            blocking: Handle::current(),
        });
        Ok(Service { node, raft, serving, nudge, time, strangers: missing })
    }

    /// Opens for clients and other stores. Returns what stops the accepting, and the server.
    fn serve(
        &self,
        service: &Service,
        incoming: Incoming,
        health: watch::Receiver<bool>,
    ) -> (watch::Sender<bool>, tokio::task::JoinHandle<Result<(), tonic::transport::Error>>) {
        let (stop_accepting, mut stopping) = watch::channel(false);
        let server = Server::builder()
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_frame_size(FRAME)
            .http2_max_header_list_size(HEADERS)
            .max_concurrent_streams(self.config.limits.streams_per_connection)
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .add_service(
                TikvServer::new(TikvService::new(Arc::clone(&service.serving)))
                    .max_decoding_message_size(MAX_FRAME_BYTES)
                    .max_encoding_message_size(MAX_FRAME_BYTES),
            )
            .add_service(HealthServer::new(HealthService::new(health)))
            .add_service(service.node.peer_service());
        let server = server.serve_with_incoming_shutdown(incoming, async move {
            // An error means that the sender has gone: stop as well.
            let _ = stopping.wait_for(|stop| *stop).await;
        });
        (stop_accepting, tokio::spawn(server))
    }

    /// A failure of the log's engine ends the process.
    fn watch(&self, service: &Service) {
        let (node, fatal) = (Arc::clone(&service.node), self.fatal.clone());
        tokio::spawn(async move {
            let error = node.failed().await;
            fatal.report(StoreError::Engine(error.as_ref().clone()));
        });
    }

    fn show(&self, service: &Service, connections: Arc<AtomicUsize>) {
        let node = Arc::clone(&service.node);
        self.pages.set_running(Running {
            serving: Arc::clone(&service.serving),
            raft: Box::new(move |page: &mut Exposition| crate::raft::write(&node, page)),
            connections,
        });
    }

    /// Reports and splits from now on, in tasks of their own.
    fn talk_to_placement(
        &self,
        service: &mut Service,
        client: Option<quorate_client::PlacementClient>,
    ) {
        let strangers = std::mem::replace(&mut service.strangers, mpsc::channel(1).1);
        let (directory, node) =
            (Arc::clone(service.serving.directory()), Arc::clone(&service.node));
        let (asked, requests) = mpsc::channel(SPLIT_QUEUE);
        let heartbeats = Heartbeats {
            joiner: self.joiner.clone(),
            identity: self.identity.clone(),
            directory: Arc::clone(service.serving.directory()),
            orders: Orders {
                serving: Arc::clone(&service.serving),
                raft: Arc::clone(&service.raft),
                time: Arc::clone(&service.time),
                nudge: Arc::clone(&service.nudge),
                splits: asked,
            },
            metrics: Arc::clone(&self.metrics),
            time: Arc::clone(&service.time),
            nudge: Arc::clone(&service.nudge),
            split: self.config.split.options(),
            interval: Duration::from_millis(self.config.report_interval_ms),
            fatal: self.fatal.clone(),
        };
        let splitter = Splitter {
            serving: Arc::clone(&service.serving),
            raft: Arc::clone(&service.raft),
            engine: Arc::clone(&self.engine),
            metrics: Arc::clone(&self.metrics),
            time: Arc::clone(&service.time),
            nudge: Arc::clone(&service.nudge),
            fatal: self.fatal.clone(),
            cluster_id: self.identity.cluster_id,
            options: self.config.split.options(),
            interval: Duration::from_millis(self.config.split.check_interval_ms),
            concurrent: self.config.split.concurrent,
        };
        let members = self.config.placement.clone();
        let nudge = Arc::clone(&service.nudge);
        let learnt = self.joiner.addresses.placement();
        tokio::spawn(async move {
            let client = match client {
                Some(client) => client,
                None => placement::connect(&members, &learnt).await,
            };
            tokio::spawn(splitter.run(client.clone(), requests));
            let raft = Arc::clone(&node) as Arc<dyn Raft>;
            tokio::spawn(lost::watch(client.clone(), Arc::clone(&directory), raft, nudge));
            tokio::spawn(strangers::welcome(strangers, client.clone(), directory, node));
            heartbeats.run(client).await;
        });
    }

    /// Leaves gracefully: leaders first, then what is under way.
    async fn leave(
        &self,
        service: &Service,
        stop_accepting: watch::Sender<bool>,
        deadline: Instant,
    ) {
        tracing::info!("stopping: handing leaders over");
        service.nudge.stopping();
        let now = Instant::now();
        let half = now + (deadline - now) / 2;
        let directory = service.serving.directory();
        let left = leaving::hand_over(directory, service.raft.as_ref(), half).await;
        if left > 0 {
            tracing::warn!(leaders = left, "leaders stay here: no other voter took them over");
        }
        stop_accepting.send_replace(true);
        if !leaving::drain(&service.serving, &self.metrics, deadline).await {
            let requests = service.serving.budget().requests();
            tracing::warn!(requests, "stopping with requests under way");
        }
    }
}

/// Creates the first regions of the cluster, where this store does not have them yet.
fn bootstrap(applier: &mut Applier, regions: Vec<Region>) -> Result<Vec<NewGroup>, StoreError> {
    applier.bootstrap(regions).map_err(|error| match error {
        BootstrapError::Engine(error) => StoreError::Engine(error),
        error @ (BootstrapError::Conflict(_) | BootstrapError::NotMember(..)) => {
            StoreError::Refused(error.to_string())
        }
    })
}
