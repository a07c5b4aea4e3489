//! The production shell: one placement member as a process runs it.
//!
//! One port serves clients, stores and the other members; a second one the status pages. The
//! order of starting: settings, sockets (so that a port in use stops nothing else), the folder,
//! the Raft node, the services. The order of stopping: hand leadership over, end the streams,
//! let calls finish, stop the Raft node.

mod admin;
mod cluster;
mod control;
mod convert;
mod disk;
mod duties;
mod explain;
mod health;
mod joining;
mod listener;
mod machine;
mod membership;
mod metrics;
mod orders;
mod pages;
mod pd;
mod raft;
mod roster;
mod start;
mod status;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use quorate_consensus::engine::{Engine, RocksEngine};
use quorate_consensus::node::{Node, NodeOptions, SnapshotOptions};
use quorate_consensus::shard::{NewGroup, RaftOptions};
use quorate_consensus::view::GroupView;
use quorate_proto::PeerId;
use quorate_proto::limits::MAX_FRAME_BYTES;
use quorate_proto::wire::health::health_server::HealthServer;
use quorate_proto::wire::pdpb::pd_server::PdServer;
use quorate_proto::wire::placement::admin_server::AdminServer;
use quorate_proto::wire::placement::placement_server::PlacementServer;
use tokio::sync::watch;

use crate::config::PlacementConfig;
use crate::core::command::Member;
use crate::core::state::State;
use crate::error::PlacementError;
use cluster::Cluster;
use machine::{GROUP, StateMachine, Token};
use raft::Listener;
use roster::Roster;
use start::Start;

/// How often connections are asked whether somebody is still there, and how long that may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(10));

/// Runs a placement member until `shutdown` resolves, then hands over, drains and returns.
///
/// Needs a tokio runtime with time and network. Uses threads of its own for the Raft group.
///
/// # Errors
/// Bad settings, a folder or a port that cannot be used; later a failed disk or server.
pub async fn run(
    config: PlacementConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), PlacementError> {
    start(config, Box::pin(shutdown)).await
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Boxed, so that all of it is compiled here, not again in each caller.
fn start(config: PlacementConfig, shutdown: Boxed<()>) -> Boxed<Result<(), PlacementError>> {
    Box::pin(member(config, shutdown))
}

async fn member(config: PlacementConfig, mut shutdown: Boxed<()>) -> Result<(), PlacementError> {
    config.check().map_err(PlacementError::Config)?;
    let (socket, bound) = listener::bind("listen", &config.listen)?;
    let status_socket = match config.status_address.as_str() {
        "" => None,
        address => Some(listener::bind("status_address", address)?.0),
    };
    let engine: Arc<dyn Engine> =
        Arc::new(RocksEngine::open(&config.data, &config.engine.options())?);
    let start = tokio::select! {
        start = start::start(&config, &engine, bound) => start?,
        // Still waiting for an answer to its wish to join.
        () = &mut shutdown => return Ok(()),
    };
    let Start { me, applied, state, fingerprint, told, data_id } = start;
    check_initial_stores(&config, &state)?;

    let state = Arc::new(RwLock::new(state));
    let roster = Arc::new(Roster::new(applied.members.clone(), told));
    let (node, peer) = (me.id, PeerId(me.id.0));
    let view = GroupView::new(GROUP, peer);
    let (changes, leader) = watch::channel(None);
    let cluster = Arc::new(Cluster::new(
        me,
        Arc::clone(&roster),
        fingerprint,
        Arc::clone(&state),
        Arc::clone(&view),
        leader,
        Duration::from_millis(config.request_timeout_ms),
    ));
    let new_group = NewGroup {
        group: GROUP,
        peer,
        members: applied.members.iter().map(Member::raft).collect(),
        applied: (applied.index, applied.term),
        view,
        campaign: false,
    };
    let options = NodeOptions {
        node,
        cluster_id: fingerprint,
        incarnation: rand::random::<u64>().max(1),
        workers: 1,
        raft: RaftOptions { tick_ms: config.raft.tick_ms, ..RaftOptions::default() },
        snapshots: SnapshotOptions::default(),
    };
    options.raft.validate().map_err(PlacementError::Config)?;
    let node = Node::<Token>::start(
        options,
        Arc::clone(&engine),
        StateMachine::new(Arc::clone(&engine), state, Arc::clone(&roster), applied),
        Arc::new(Listener { leader: changes }),
        Arc::clone(&roster) as Arc<dyn quorate_consensus::node::Addresses>,
        vec![new_group],
        tokio::runtime::Handle::current(),
    )
    .map_err(|error| PlacementError::System { what: "start the raft threads", error })?;
    cluster.attach(Arc::clone(&node) as Arc<dyn raft::Raft>);
    tracing::info!(
        member = %cluster.me.name, address = %cluster.me.address, members = roster.list().len(),
        "placement member started"
    );

    let founding = duties::Founding {
        initial_stores: config.initial_stores,
        replicas: config.replicas,
        save_every: Duration::from_millis(config.save_interval_ms),
    };
    let duties = tokio::spawn(duties::run(Arc::clone(&cluster), founding));
    let pages = pages::Pages { cluster: Arc::clone(&cluster), engine: Arc::clone(&engine) };
    let pages = tokio::spawn(async move {
        match status_socket {
            Some(socket) => {
                if let Err(error) = pages::serve(socket, pages).await {
                    tracing::error!(%error, "the status pages are gone; the member goes on");
                }
            }
            None => std::future::pending().await,
        }
    });
    let ended = serve(&config, &cluster, &node, (socket, data_id), shutdown).await;
    for task in [duties, pages] {
        task.abort();
        // Ends with the news that it was aborted.
        let _ = task.await;
    }
    let stopped = tokio::task::spawn_blocking(move || node.shutdown()).await;
    stopped.map_err(|error| PlacementError::Node(error.to_string()))?;
    // What was acknowledged is synced already; this spares the next start a replay.
    engine.sync()?;
    ended
}

/// Serves until told to end, the engine fails, or the server does.
async fn serve(
    config: &PlacementConfig,
    cluster: &Arc<Cluster>,
    node: &Arc<Node<Token>>,
    (socket, data_id): (std::net::TcpListener, u64),
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), PlacementError> {
    let incoming = listener::Incoming::new(socket, config.limits.connections)
        .map_err(|error| PlacementError::System { what: "watch the listen address", error })?;
    let pd = PdServer::new(pd::PdService(Arc::clone(cluster)));
    let placement = PlacementServer::new(admin::PlacementService(Arc::clone(cluster)))
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .max_encoding_message_size(MAX_FRAME_BYTES);
    let admin = AdminServer::new(control::AdminService(Arc::clone(cluster)))
        .max_encoding_message_size(MAX_FRAME_BYTES);
    let mut stopping = cluster.stopping.subscribe();
    let server = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(config.limits.streams_per_connection)
        .add_service(pd)
        .add_service(placement)
        .add_service(admin)
        .add_service(HealthServer::new(health::HealthService(Arc::clone(cluster))))
        .add_service(node.peer_service())
        .serve_with_incoming_shutdown(incoming, async move {
            // The sender lives as long as the cluster, which outlives the server.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        });
    let mut server = std::pin::pin!(server);
    tokio::select! {
        ended = &mut server => {
            let words = ended.map_or_else(|error| error.to_string(), |()| "it ended".to_owned());
            return Err(PlacementError::Server(words));
        }
        error = node.failed() => return Err(PlacementError::Engine((*error).clone())),
        () = cluster.roster.left() => {
            let words = format!("{} was taken out of its placement group", cluster.me.name);
            return Err(PlacementError::Left(words));
        }
        words = membership::taken_out(cluster, data_id) => {
            return Err(PlacementError::Left(words));
        }
        () = shutdown => {}
    }
    let limit = Duration::from_secs(config.shutdown_secs);
    let hand_over = async {
        let voters = cluster.roster.list().iter().filter(|member| member.votes()).count();
        if cluster.view.is_leader() && voters > 1 {
            match admin::transfer(cluster, None).await {
                Ok(to) => tracing::info!(to = to.0, "handed leadership over"),
                Err(status) => tracing::warn!(
                    reason = status.message(),
                    "leadership was not handed over; the others elect a leader by themselves"
                ),
            }
        }
    };
    // Answers to the others are needed to hand over, so the server goes on meanwhile. What is not
    // handed over in time is the others' to elect.
    tokio::select! {
        _ = tokio::time::timeout(limit, hand_over) => {}
        ended = &mut server => {
            return ended.map_err(|error| PlacementError::Server(error.to_string()));
        }
    }
    cluster.stopping.send_replace(true);
    // Peers keep their streams open for good, so an end of all connections is not waited for
    // any longer than calls may take.
    let grace = limit.min(Duration::from_millis(500));
    match tokio::time::timeout(grace, server).await {
        Ok(Ok(())) | Err(_) => Ok(()),
        Ok(Err(error)) => Err(PlacementError::Server(error.to_string())),
    }
}

fn check_initial_stores(config: &PlacementConfig, state: &State) -> Result<(), PlacementError> {
    match state.cluster() {
        Some(cluster)
            if config.initial_stores != 0 && config.initial_stores != cluster.initial_stores =>
        {
            let (first, now) = (cluster.initial_stores, config.initial_stores);
            Err(PlacementError::InitialStoresChanged { first, now })
        }
        Some(_) | None => Ok(()),
    }
}
