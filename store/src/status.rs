//! The HTTP side of a process: `/health`, `/ready` and `/metrics`.
//!
//! Everything that is particular to a store comes through [`Pages`].

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
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
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let router = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(pages);
    axum::serve(listener, router).await
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
