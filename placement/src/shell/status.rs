//! How the cluster is doing, as the leader sees it.

use std::time::Duration;

use futures::future::join_all;
use quorate_consensus::node::clock;
use quorate_proto::wire::health::health_client::HealthClient;
use quorate_proto::wire::health::{HealthCheckRequest, health_check_response::ServingStatus};
use quorate_proto::wire::placement as wire;
use tonic::Status;
use tonic::transport::Endpoint;

use super::cluster::Cluster;
use super::convert;
use crate::core::command::Member;
use crate::core::stores::Heard;

/// How long another member may take to say that it is well.
const PATIENCE: Duration = Duration::from_millis(500);

/// The answer to a request for the status.
///
/// # Errors
/// This member does not lead.
pub(crate) async fn status(cluster: &Cluster) -> Result<wire::StatusResponse, Status> {
    let now = clock::now();
    let mut status = cluster
        .read(|session, state| {
            let leader = &session.leader;
            let stores = state.stores().values().map(|store| wire::StoreStatus {
                store: Some(convert::store(store)),
                state: leader.stores().state(store, now).name().to_owned(),
                last: leader.stores().last(store.id).map(|heard| last(store.id.0, heard)),
                silent_ms: millis(leader.stores().silence(store.id, now)),
                not_left_because: leader.not_left_because(state, store, now).unwrap_or_default(),
            });
            let counts = leader.counts(state, now);
            let about = state.cluster();
            wire::StatusResponse {
                cluster_id: about.map_or(0, |about| about.id),
                bootstrapped: state.initial_regions().is_some(),
                cluster_version: about.map_or(0, |about| about.version),
                members: Vec::new(),
                stores: stores.collect(),
                regions: counts.regions,
                under_replicated: counts.under_replicated,
                leaderless: counts.leaderless,
                unreported: counts.unreported,
                reported_stores: counts.reported_stores,
                reporting_stores: counts.reporting_stores,
                replicas: about.map_or(0, |about| about.replicas),
                operators: u32::try_from(leader.operators().iter().count()).unwrap_or(u32::MAX),
                missing_stores: state.missing_stores(),
                operations_per_second: counts.operations_per_second,
                stopped: counts.stopped,
            }
        })
        .await?;
    let members = cluster.roster.list();
    let members = members.iter().map(|member| member_status(cluster, member));
    status.members = join_all(members).await;
    Ok(status)
}

async fn member_status(cluster: &Cluster, member: &Member) -> wire::MemberStatus {
    let leader = member.id == cluster.me.id;
    wire::MemberStatus {
        id: member.id.0,
        name: member.name.clone(),
        address: member.address.clone(),
        leader,
        learner: !member.votes(),
        healthy: leader
            || (!cluster.roster.is_stalled(member.id) && is_healthy(&member.address).await),
    }
}

/// Asks a member whether it is well.
pub(super) async fn is_healthy(address: &str) -> bool {
    let ask = async {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        let channel = endpoint.connect_timeout(PATIENCE).connect().await.ok()?;
        let request = HealthCheckRequest { service: String::new() };
        let answer = HealthClient::new(channel).check(request).await.ok()?;
        Some(answer.into_inner().status() == ServingStatus::Serving)
    };
    tokio::time::timeout(PATIENCE, ask).await.ok().flatten().unwrap_or(false)
}

fn last(store_id: u64, heard: &Heard) -> wire::StoreReport {
    wire::StoreReport {
        store_id,
        incarnation: heard.incarnation,
        capacity_bytes: heard.stats.capacity_bytes,
        available_bytes: heard.stats.available_bytes,
        used_bytes: heard.stats.used_bytes,
        region_count: heard.stats.regions,
        leader_count: heard.stats.leaders,
        operations: heard.stats.operations,
        stopping: heard.stats.stopping,
        ..wire::StoreReport::default()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
