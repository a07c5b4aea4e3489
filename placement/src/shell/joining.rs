//! A process that asks the placement group: to become a member, or whether it still is one.
//!
//! Any address will do to begin with; a member that does not lead names the one that does.

use std::collections::VecDeque;
use std::time::Duration;

use quorate_proto::wire::placement::{
    JoinPlacementRequest, JoinPlacementResponse, placement_client::PlacementClient,
};
use tonic::Code;
use tonic::transport::Endpoint;

use super::cluster::LEADER_HINT;
use crate::core::command::Member;

/// How long one member may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(500);
/// Members asked in one round at most: hints may lead in circles.
const MAX_HOPS: usize = 16;

/// How a round of asking ended.
pub(crate) enum Asked {
    /// The leader's answer.
    Answered(JoinPlacementResponse),
    /// The leader's refusal.
    Refused(Code, String),
    /// Nobody could say.
    Nobody(String),
}

/// What a member says of itself.
pub(crate) fn about(me: &Member, cluster_id: u64, data_id: u64) -> JoinPlacementRequest {
    let (name, address) = (me.name.clone(), me.address.clone());
    JoinPlacementRequest { cluster_id, member_id: me.id.0, name, address, data_id }
}

/// Asks until the leader answers.
///
/// # Errors
/// Its refusal, in words.
pub(crate) async fn join(
    seeds: &[String],
    request: &JoinPlacementRequest,
) -> Result<JoinPlacementResponse, String> {
    let mut told = String::new();
    loop {
        match ask(seeds, request).await {
            Asked::Answered(answer) => return Ok(answer),
            Asked::Refused(_, words) => return Err(words),
            Asked::Nobody(words) if words != told => {
                tracing::warn!(reason = %words, "the group does not let it in yet; trying again");
                told = words;
            }
            Asked::Nobody(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks one after another, once.
pub(crate) async fn ask(seeds: &[String], request: &JoinPlacementRequest) -> Asked {
    let mut next: VecDeque<String> = seeds.iter().cloned().collect();
    let mut asked: Vec<String> = Vec::new();
    let mut last = "no address to ask".to_owned();
    while let Some(address) = next.pop_front() {
        if asked.contains(&address) {
            continue;
        }
        if asked.len() == MAX_HOPS {
            break;
        }
        asked.push(address.clone());
        let status = match tokio::time::timeout(PATIENCE, call(&address, request)).await {
            Ok(Ok(answer)) => return Asked::Answered(answer),
            Ok(Err(status)) => status,
            Err(_) => {
                last = format!("{address}: no answer in time");
                continue;
            }
        };
        last = format!("{address}: {}", status.message());
        match status.code() {
            Code::Unavailable => {
                let hint = status.metadata().get(LEADER_HINT).and_then(|hint| hint.to_str().ok());
                if let Some(hint) = hint {
                    next.push_front(hint.to_owned());
                }
            }
            Code::FailedPrecondition
            | Code::AlreadyExists
            | Code::InvalidArgument
            | Code::NotFound
            | Code::Unimplemented => {
                return Asked::Refused(status.code(), status.message().to_owned());
            }
            // It may be otherwise in a moment, or elsewhere.
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Internal
            | Code::DataLoss
            | Code::Unauthenticated => {}
        }
    }
    Asked::Nobody(last)
}

async fn call(
    address: &str,
    request: &JoinPlacementRequest,
) -> Result<JoinPlacementResponse, tonic::Status> {
    let unavailable =
        |error: tonic::transport::Error| tonic::Status::unavailable(error.to_string());
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(unavailable)?;
    let channel = endpoint.connect_timeout(PATIENCE).connect().await.map_err(unavailable)?;
    let answer = PlacementClient::new(channel).join_placement(request.clone()).await?;
    Ok(answer.into_inner())
}
