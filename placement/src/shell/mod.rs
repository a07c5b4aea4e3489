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
mod follow;
mod founding;
mod health;
mod joining;
mod machine;
mod membership;
mod metrics;
mod orders;
mod pages;
mod pd;
mod raft;
mod roster;
mod server;
mod stalls;
mod start;
mod status;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use quorate_consensus::engine::{Engine, RocksEngine};
use quorate_consensus::node::listen::{self, Bounds, Incoming};
use quorate_consensus::node::{MAILBOX_BYTES, Node, NodeOptions, SnapshotOptions};
use quorate_consensus::shard::{NewGroup, RaftOptions};
use quorate_consensus::view::GroupView;
use quorate_proto::PeerId;
use tokio::sync::watch;

use crate::config::{OPEN_FILES, PlacementConfig};
use crate::core::command::Member;
use crate::core::state::State;
use crate::error::PlacementError;
use cluster::Cluster;
use founding::{FoundingService, Sockets};
use machine::{GROUP, StateMachine, Token};
use raft::Listener;
use roster::Roster;
use start::Start;

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
    listen::reserve_descriptors(config.limits.connections, OPEN_FILES)
        .map_err(PlacementError::Config)?;
    let (serving, bound) = listen::bind("listen", &config.listen)?;
    let pages = match config.status_address.as_str() {
        "" => None,
        address => Some(listen::bind("status_address", address)?.0),
    };
    let sockets = Sockets { serving, pages };
    let engine: Arc<dyn Engine> =
        Arc::new(RocksEngine::open(&config.data, &config.engine.options())?);
    let start = tokio::select! {
        start = start::start(&config, &engine, bound, &sockets) => start?,
        // Still waiting for an answer to its wish to join, or for the others to found the group.
        () = &mut shutdown => return Ok(()),
    };
    let Start { me, applied, state, fingerprint, told, data_id, folders } = start;
    let Sockets { serving, pages: status_socket } = sockets;
    let incoming = Incoming::new(serving, Bounds::serving(config.limits.connections))
        .map_err(|error| PlacementError::System { what: "watch the listen address", error })?;
    let answers = FoundingService::founded(me.id, fingerprint, &folders);
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
        mailbox_bytes: MAILBOX_BYTES,
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
                if let Err(error) = pages::serve(socket, pages, std::future::pending()).await {
                    tracing::error!(%error, "the status pages are gone; the member goes on");
                }
            }
            None => std::future::pending().await,
        }
    });
    let server = server::router(&config, &cluster, answers)
        .add_service(node.peer_service())
        .serve_with_incoming_shutdown(incoming, server::told_to_stop(&cluster));
    let ended = serve(&config, &cluster, &node, (server, data_id), shutdown).await;
    if let Err(PlacementError::Engine(_)) = &ended {
        // Nothing is worth waiting for: what was acknowledged is durable, and the worker may be inside
        // of a write that never returns.
        return ended;
    }
    for task in [duties, pages] {
        task.abort();
        // Ends with the news that it was aborted.
        let _ = task.await;
    }
    let stopped = tokio::task::spawn_blocking(move || node.shutdown());
    match tokio::time::timeout(Duration::from_secs(config.shutdown_secs) / 2, stopped).await {
        Ok(stopped) => {
            stopped.map_err(|error| PlacementError::Node(error.to_string()))?;
            // What was acknowledged is synced already; this spares the next start a replay.
            engine.sync()?;
        }
        // What was acknowledged is durable; the process ends under it.
        Err(_) => tracing::warn!("the raft worker did not stop within shutdown_secs"),
    }
    ended
}

/// Serves until told to end, the engine fails, or the server does.
async fn serve(
    config: &PlacementConfig,
    cluster: &Arc<Cluster>,
    node: &Arc<Node<Token>>,
    (server, data_id): (impl Future<Output = Result<(), tonic::transport::Error>>, u64),
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), PlacementError> {
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
        words = membership::announce(cluster, data_id) => {
            return Err(PlacementError::MoveRefused(words));
        }
        () = shutdown => {}
    }
    // The other half is kept for the raft worker.
    let limit = Duration::from_secs(config.shutdown_secs) / 2;
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
