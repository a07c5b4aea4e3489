//! The HTTP side of a member: `/health`, `/ready` and `/metrics`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use quorate_consensus::engine::Engine;
use quorate_consensus::node::clock;
use quorate_consensus::node::listen::{Bounds, Connection, Incoming};
use quorate_consensus::time::Instant;
use serde_json::{Value, json};

use super::cluster::Cluster;
use crate::core::leader::Leader;
use crate::core::lifecycle;
use crate::core::state;
use crate::core::stores::StoreState;

/// What the pages tell of.
#[derive(Clone)]
pub(crate) struct Pages {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) engine: Arc<dyn Engine>,
}

/// Serves the pages until `stop` resolves, or the future is dropped.
///
/// # Errors
/// The runtime cannot watch the socket.
pub(crate) async fn serve(
    listener: std::net::TcpListener,
    pages: Pages,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = Listener(Incoming::new(listener, Bounds::pages())?);
    let router = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(pages);
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}

/// Bounded, and closed where nobody speaks.
struct Listener(Incoming);

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        self.0.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

async fn health(State(pages): State<Pages>) -> Response {
    Json(pages.health()).into_response()
}

async fn ready(State(pages): State<Pages>) -> Response {
    match pages.ready() {
        Ok(()) => (StatusCode::OK, "ready\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(pages): State<Pages>) -> Response {
    ([("content-type", "text/plain; version=0.0.4")], pages.metrics()).into_response()
}

impl Pages {
    fn health(&self) -> Value {
        let cluster = &self.cluster;
        let view = &cluster.view;
        let leader = cluster.known_leader();
        let role = match (view.is_leader(), &leader) {
            (true, _) => "leader",
            (false, Some(_)) => "follower",
            (false, None) => "looking for a leader",
        };
        let (stores, missing_stores, bootstrapped, saved) = {
            let state = cluster.state.read();
            let stores: Vec<Value> = state
                .stores()
                .values()
                .map(|store| json!({ "id": store.id.0, "address": store.address }))
                .collect();
            let bootstrapped = state.initial_regions().is_some();
            (stores, state.missing_stores(), bootstrapped, state.saved_regions().len())
        };
        let mut page = json!({
            "id": cluster.me.id.0,
            "name": cluster.me.name,
            "address": cluster.me.address,
            "cluster_id": cluster.cluster_id(),
            "role": role,
            "leader": leader.map(|leader| json!({
                "id": leader.id.0, "name": leader.name, "address": leader.address,
            })),
            "term": view.term().0,
            "committed": view.committed().0,
            "applied": view.applied().0,
            "lease": cluster.holds_lease(),
            "bootstrapped": bootstrapped,
            "missing_stores": missing_stores,
            "stores": stores,
            "regions": saved,
        });
        let now = clock::now();
        let led = cluster.with_session(*cluster.leading().borrow(), |session, state| {
            let counts = session.leader.counts(state, now);
            let states = state.stores().values().map(|store| {
                let word = session.leader.stores().state(store, now).name();
                (store.id.0.to_string(), Value::from(word))
            });
            let states: serde_json::Map<String, Value> = states.collect();
            (counts, states, session.leader.operators().iter().count())
        });
        if let (Some((counts, states, operators)), Some(page)) = (led, page.as_object_mut()) {
            page.insert("regions".to_owned(), counts.regions.into());
            page.insert("under_replicated".to_owned(), counts.under_replicated.into());
            page.insert("leaderless".to_owned(), counts.leaderless.into());
            page.insert("unreported".to_owned(), counts.unreported.into());
            page.insert("reported_stores".to_owned(), counts.reported_stores.into());
            page.insert("reporting_stores".to_owned(), counts.reporting_stores.into());
            page.insert("store_states".to_owned(), Value::Object(states));
            page.insert("operators".to_owned(), operators.into());
        }
        page
    }

    fn ready(&self) -> Result<(), String> {
        let cluster = &self.cluster;
        if *cluster.stopping.borrow() {
            return Err("stopping".to_owned());
        }
        if cluster.raft().is_err() {
            return Err(
                "the first start of a placement group waits for all of its members; later \
                        a majority is enough"
                    .to_owned(),
            );
        }
        if cluster.known_leader().is_none() {
            return Err("no placement leader is known; a majority of the members must be up".into());
        }
        if cluster.cluster_id() == 0 {
            return Err("the first placement leader is setting up the cluster".to_owned());
        }
        if cluster.view.is_leader() && *cluster.leading().borrow() != cluster.view.term() {
            return Err("this member is taking over the leadership".to_owned());
        }
        Ok(())
    }

    /// What only the leader knows.
    fn leader_metrics(&self, leader: &Leader, state: &state::State, now: Instant) {
        let metrics = &self.cluster.metrics;
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let counts = leader.counts(state, now);
        metrics.regions.set(gauge(counts.regions));
        metrics.under_replicated.set(gauge(counts.under_replicated));
        metrics.leaderless.set(gauge(counts.leaderless));
        metrics.partitions.set(gauge(counts.partitions));
        metrics.unreported.set(gauge(counts.unreported));
        metrics.without_quorum.set(gauge(leader.without_quorum() as u64));
        // One that is 0 is shown, so that an alert on it does not wait for its first.
        for name in StoreState::NAMES {
            metrics.store_states.with_label_values(&[name]).set(0);
        }
        for store in state.stores().values() {
            let name = leader.stores().state(store, now).name();
            metrics.store_states.with_label_values(&[name]).inc();
        }
        for name in lifecycle::State::NAMES {
            metrics.member_states.with_label_values(&[name]).set(0);
        }
        for (_, record) in leader.members().iter() {
            metrics.member_states.with_label_values(&[record.state.name()]).inc();
        }
        metrics.operator_kinds.reset();
        for operator in leader.operators().iter() {
            metrics.operator_kinds.with_label_values(&[operator.goal.kind()]).inc();
        }
        for (name, count) in leader.operators().ends() {
            metrics.operators_ended.with_label_values(&[name]).set(gauge(*count));
        }
    }

    fn metrics(&self) -> String {
        let (cluster, metrics) = (&self.cluster, &self.cluster.metrics);
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.term.set(gauge(cluster.view.term().0));
        metrics.committed.set(gauge(cluster.view.committed().0));
        metrics.applied.set(gauge(cluster.view.applied().0));
        {
            let state = cluster.state.read();
            metrics.stores.set(gauge(state.stores().len() as u64));
            metrics.regions.set(gauge(state.saved_regions().len() as u64));
            metrics.count_events(state.events());
            metrics.events.set(gauge(state.events().last()));
        }
        let now = clock::now();
        let operators = cluster.with_session(*cluster.leading().borrow(), |session, state| {
            self.leader_metrics(&session.leader, state, now);
            session.leader.operators().iter().count()
        });
        metrics.operators.set(gauge(operators.unwrap_or_default() as u64));
        metrics.streams.set(gauge(cluster.streams.lock().len() as u64));
        let engine = self.engine.stats();
        metrics.log_bytes.set(gauge(engine.wal_bytes));
        metrics.syncs.set(gauge(engine.syncs));
        metrics.text()
    }
}
