//! What a leader does without being asked: takes over, keeps the ceiling of timestamps ahead,
//! makes the first regions, writes routes behind, plans, changes its own group.

use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::node::clock;
use quorate_proto::{StoreId, Term};
use tokio::time::{MissedTickBehavior, interval};
use tonic::Status;

use super::cluster::Cluster;
use super::{membership, orders};
use crate::config::DEFAULT_INITIAL_STORES;
use crate::core::command::{Answer, CLUSTER_VERSION, Command, MAX_SAVED_REGIONS};
use crate::core::oracle::Oracle;

/// How often time is let pass for operators and the ceiling.
const BEAT: Duration = Duration::from_millis(50);
/// How often plans and news are gathered for the log.
const REPLICATE: Duration = Duration::from_millis(20);
/// Pause after a proposal that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Settings that a new cluster starts with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Founding {
    /// 0: the default.
    pub(crate) initial_stores: u32,
    /// Wanted voters of a region.
    pub(crate) replicas: u32,
    /// Between two writes of changed routes.
    pub(crate) save_every: Duration,
}

/// Leads whenever this member is elected. Never ends by itself.
pub(crate) async fn run(cluster: Arc<Cluster>, founding: Founding) {
    let mut leader = cluster.leader.clone();
    loop {
        let local = leader.borrow_and_update().filter(|change| change.is_local);
        let Some(change) = local else {
            if leader.changed().await.is_err() {
                return;
            }
            continue;
        };
        let term = change.term;
        tokio::select! {
            () = lead(&cluster, founding, term) => {}
            ended = deposed(leader.clone(), term) => {
                tracing::info!(%term, leader = ?ended, "leads no more");
            }
        }
        cluster.end_session();
        cluster.metrics.leading.set(0);
        // The same change must not be answered by leading again.
        while leader.borrow_and_update().is_some_and(|now| now.is_local && now.term == term) {
            if leader.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Resolves once `term` is not this member's leadership any more.
async fn deposed(
    mut leader: tokio::sync::watch::Receiver<Option<quorate_consensus::shard::LeaderChange>>,
    term: Term,
) -> Option<quorate_proto::PeerId> {
    loop {
        let now = *leader.borrow_and_update();
        if now.is_none_or(|now| !now.is_local || now.term != term) {
            return now.and_then(|now| now.leader);
        }
        if leader.changed().await.is_err() {
            return None;
        }
    }
}

async fn lead(cluster: &Arc<Cluster>, founding: Founding, term: Term) {
    let oracle = take_over(cluster, founding).await;
    cluster.begin_session(term, oracle, clock::now());
    cluster.metrics.leading.set(1);
    tracing::info!(%term, member = %cluster.me.name, "leads placement");
    tokio::join!(
        keep_time(cluster, term),
        save_routes(cluster, term, founding.save_every),
        plan(cluster, term),
        replicate(cluster, term),
        membership::drive(cluster, term),
    );
}

/// Proposes until it is applied. Only gives up with the leadership, which ends the caller.
async fn insist(cluster: &Cluster, command: &Command) -> Answer {
    loop {
        match cluster.propose(command).await {
            Ok(answer) => return answer,
            Err(status) => {
                tracing::debug!(error = status.message(), "a proposal of the leader failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The first entries of a leader's term: the cluster, if there is none, and the ceiling from
/// which its timestamps start.
async fn take_over(cluster: &Cluster, founding: Founding) -> Oracle {
    if cluster.state.read().cluster().is_none() {
        let initial_stores = match founding.initial_stores {
            0 => DEFAULT_INITIAL_STORES,
            stores => stores,
        };
        let command = Command::Initialize {
            // 53 bits, so that every JSON reader can hold it; never 0.
            cluster_id: (rand::random::<u64>() >> 11).max(1),
            members: cluster.roster.list(),
            initial_stores,
            replicas: founding.replicas,
            version: CLUSTER_VERSION,
        };
        if let Answer::Initialized(cluster_id) = insist(cluster, &command).await {
            tracing::info!(cluster_id, initial_stores, "the cluster has its id");
        }
    }
    loop {
        let known = cluster.state.read().counters().time_ceiling_ms;
        let ceiling_ms = Oracle::first_ceiling(known, Cluster::wall_ms());
        if let Answer::Time { previous_ms, ceiling_ms } =
            insist(cluster, &Command::ExtendTime { ceiling_ms }).await
        {
            return Oracle::new(previous_ms, ceiling_ms, Cluster::wall_ms());
        }
    }
}

async fn keep_time(cluster: &Cluster, term: Term) {
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        beat.tick().await;
        let wall = Cluster::wall_ms();
        let wanted = cluster.with_session(term, |session, _| session.oracle.wants(wall));
        let Some(Some(ceiling_ms)) = wanted else { continue };
        if let Answer::Time { ceiling_ms, .. } =
            insist(cluster, &Command::ExtendTime { ceiling_ms }).await
        {
            cluster.raised(term, ceiling_ms);
        }
    }
}

async fn save_routes(cluster: &Cluster, term: Term, every: Duration) {
    let mut beat = interval(every);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        beat.tick().await;
        let regions = cluster
            .with_session(term, |session, _| session.leader.to_save(MAX_SAVED_REGIONS))
            .unwrap_or_default();
        if regions.is_empty() {
            continue;
        }
        let command = Command::SaveRegions(regions);
        if let Err(status) = cluster.propose(&command).await {
            tracing::debug!(error = status.message(), "routes were not saved; trying again");
            if let Command::SaveRegions(regions) = command {
                cluster.with_session(term, |session, _| session.leader.not_saved(&regions));
            }
        }
    }
}

/// Writes plans and news into the log as they come.
async fn replicate(cluster: &Cluster, term: Term) {
    let mut beat = interval(REPLICATE);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        beat.tick().await;
        let now = clock::now();
        let commands = cluster
            .with_session(term, |session, state| session.leader.to_propose(state, now))
            .unwrap_or_default();
        for command in commands {
            match cluster.propose(&command).await {
                Ok(Answer::Refused(reason)) => {
                    tracing::warn!(reason, "a store's change was refused by the state");
                }
                Ok(_) => {}
                Err(status) => {
                    tracing::debug!(error = status.message(), "plans were not replicated yet");
                    cluster.with_session(term, |session, _| session.leader.not_proposed());
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Makes the first regions once enough stores have joined.
///
/// # Errors
/// As a proposal; it is tried again.
pub(crate) async fn bootstrap(cluster: &Cluster) -> Result<(), Status> {
    let due = {
        let state = cluster.state.read();
        let founded = state.cluster().is_some();
        founded && state.initial_regions().is_none() && state.missing_stores() == 0
    };
    if !due {
        return Ok(());
    }
    if let Answer::Bootstrapped(true) = cluster.propose(&Command::Bootstrap).await? {
        let stores = cluster.state.read().stores().len();
        tracing::info!(stores, "the cluster has its first regions");
        cluster.routes_changed();
    }
    Ok(())
}

async fn plan(cluster: &Arc<Cluster>, term: Term) {
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        beat.tick().await;
        if let Err(status) = bootstrap(cluster).await {
            tracing::debug!(error = status.message(), "the first regions were not made yet");
        }
        let now = clock::now();
        let due = cluster
            .with_session(term, |session, state| session.leader.tick(state, now))
            .unwrap_or_default();
        for store in due {
            orders::push(cluster, term, store);
        }
    }
}

/// Notes in the log of the group that a store has reported.
pub(crate) async fn activate(cluster: Arc<Cluster>, store: StoreId) {
    match cluster.propose(&Command::ActivateStore(store)).await {
        Ok(_) => tracing::info!(%store, "is up"),
        // Its next report asks again.
        Err(status) => tracing::debug!(%store, error = status.message(), "not activated yet"),
    }
}
