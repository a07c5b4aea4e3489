//! The services that every member offers, whether it takes part in Raft yet or not.

use std::sync::Arc;
use std::time::Duration;

use quorate_proto::limits::MAX_FRAME_BYTES;
use quorate_proto::wire::health::health_server::HealthServer;
use quorate_proto::wire::pdpb::pd_server::PdServer;
use quorate_proto::wire::placement::admin_server::AdminServer;
use quorate_proto::wire::placement::founding_server::FoundingServer;
use quorate_proto::wire::placement::placement_server::PlacementServer;
use tonic::transport::server::Router;

use super::cluster::Cluster;
use super::founding::FoundingService;
use super::{admin, control, health, pd};
use crate::config::PlacementConfig;

/// How often connections are asked whether somebody is still there, and how long that may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(10));

/// All services but that of Raft.
pub(crate) fn router(
    config: &PlacementConfig,
    cluster: &Arc<Cluster>,
    founding: FoundingService,
) -> Router {
    let pd = PdServer::new(pd::PdService(Arc::clone(cluster)));
    let placement = PlacementServer::new(admin::PlacementService(Arc::clone(cluster)))
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .max_encoding_message_size(MAX_FRAME_BYTES);
    let admin = AdminServer::new(control::AdminService(Arc::clone(cluster)))
        .max_encoding_message_size(MAX_FRAME_BYTES);
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(config.limits.streams_per_connection)
        .add_service(pd)
        .add_service(placement)
        .add_service(admin)
        .add_service(FoundingServer::new(founding))
        .add_service(HealthServer::new(health::HealthService(Arc::clone(cluster))))
}

/// Resolves once the services shall end.
pub(crate) fn told_to_stop(cluster: &Cluster) -> impl Future<Output = ()> + Send + use<> {
    let mut stopping = cluster.stopping.subscribe();
    async move {
        // The sender lives as long as the cluster, which outlives the server; without it: stop.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}
