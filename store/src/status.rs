//! The HTTP side of a process: `/health`, `/ready` and `/metrics`.
//!
//! Everything that is particular to a store comes through [`Pages`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use quorate_consensus::node::listen::{Bounds, Connection, Incoming};
use serde::Deserialize;

/// What a process tells about itself. Called in the network thread: must be quick.
pub(crate) trait Pages: Send + Sync + 'static {
    /// All there is to know, `regions` with each region.
    fn health(&self, regions: bool) -> serde_json::Value;
    /// Whether requests are served.
    ///
    /// # Errors
    /// Why not, for a person.
    fn ready(&self) -> Result<(), String>;
    /// Counters in Prometheus's text format.
    fn metrics(&self) -> String;
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Options {
    regions: u8,
}

type Shared = Arc<dyn Pages>;

/// Serves the pages until the future is dropped.
///
/// # Errors
/// The runtime cannot watch the socket.
pub(crate) async fn serve(
    listener: std::net::TcpListener,
    pages: Arc<dyn Pages>,
) -> io::Result<()> {
    let listener = Listener(Incoming::new(listener, Bounds::pages())?);
    let router = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(pages);
    axum::serve(listener, router).await
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

async fn health(State(pages): State<Shared>, Query(options): Query<Options>) -> Response {
    Json(pages.health(options.regions != 0)).into_response()
}

async fn ready(State(pages): State<Shared>) -> Response {
    match pages.ready() {
        Ok(()) => (StatusCode::OK, "ready\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(pages): State<Shared>) -> Response {
    ([("content-type", "text/plain; version=0.0.4")], pages.metrics()).into_response()
}
