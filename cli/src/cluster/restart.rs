//! `quorate rolling-restart`: every process of the local cluster, one after the other.
//!
//! A process is told to end, hands its leaders over, and is started again; the next one's turn
//! comes when the cluster is whole: every process ready, every region with all its replicas and a
//! leader, every replica caught up. Where that is not so, ending one more could cost a quorum, so
//! the command stops and says what is missing. Placement members come last: stores that leave need
//! placement.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_client::{PlacementClient, PlacementOptions};
use quorate_proto::wire::placement::ReplicaStatus;

use super::description::Role;
use super::end;
use super::find;
use super::local::Local;
use super::probe;
use super::spawn::Bond;
use crate::admin::health;
use crate::exit::{Code, Failure, Outcome};
use crate::output;

/// Between two looks at whether a process has caught up.
const POLL: Duration = Duration::from_millis(200);
/// How far behind a replica may be to count as caught up, in log entries: what is on its way.
const BEHIND: u64 = 1_000;
/// Most regions that are looked at.
const REGIONS: usize = 1_000_000;

/// Restarts every process, one after the other.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RestartArgs {
    /// The data folder given to `quorate up` [default: the nearest data/dev, or the last one]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Only the stores, or only the placement members
    #[arg(long, value_name = "ROLE")]
    only: Option<Only>,
    /// Seconds to wait for each process until the cluster is whole again
    #[arg(long, value_name = "SECONDS", default_value_t = 120,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait: u64,
}

/// A part of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Only {
    /// The stores.
    Stores,
    /// The placement members.
    Placement,
}

/// Runs the command.
///
/// # Errors
/// The cluster is not whole, or a process does not end or come back in time.
pub(crate) async fn restart(args: &RestartArgs) -> Outcome {
    let folder = find::folder(args.data.as_deref())?;
    let mut local = Local::open(&folder, Bond::None)?;
    let begun = Instant::now();
    if local.cluster().of(Role::Placement).all(|member| member.running().is_none()) {
        return Err(Failure::unavailable("the cluster does not run: start it with `quorate up`"));
    }
    local.forget_left(begun + Duration::from_secs(args.wait)).await?;
    let names: Vec<String> = [Role::Store, Role::Placement]
        .into_iter()
        .filter(|role| match args.only {
            Some(Only::Stores) => *role == Role::Store,
            Some(Only::Placement) => *role == Role::Placement,
            None => true,
        })
        .flat_map(|role| local.cluster().of(role).map(|member| member.name()).collect::<Vec<_>>())
        .collect();
    for (number, name) in (1..).zip(&names) {
        let deadline = Instant::now() + Duration::from_secs(args.wait);
        whole(&local, name, deadline).await?;
        let took = one(&mut local, name, deadline).await?;
        output::note(&format!("{number} of {}: {name}, {took}", names.len()));
    }
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    local.healthy(deadline).await?;
    output::emit(&format!(
        "restarted {} in {}\n",
        output::plural(names.len() as u64, "process").replace("processs", "processes"),
        output::time(begun.elapsed())
    ))
}

/// Ends one and starts it again; how long each took, in words.
async fn one(local: &mut Local, name: &str, deadline: Instant) -> Outcome<String> {
    let begun = Instant::now();
    let member = local.member(name)?.clone();
    if member.role == Role::Placement {
        step_down(local, &member.address, deadline).await?;
    }
    let left = end::stop(&[&member], false)?;
    if !left.is_empty() {
        return Err(Failure::error(format!(
            "{name} does not end; see its log, and go on with `quorate down --force` and `quorate \
             up`"
        )));
    }
    let ended = begun.elapsed();
    local.start(name)?;
    local.ready(|other| other.name() == name, deadline)?;
    Ok(format!(
        "handed over and ended in {}, ready again after {}",
        output::time(ended),
        output::time(begun.elapsed())
    ))
}

/// Lets another placement member lead, where this one does.
async fn step_down(local: &Local, address: &str, deadline: Instant) -> Outcome {
    let status = local.status(deadline).await?;
    let others = status.members.len() > 1;
    let leads = status.members.iter().any(|member| member.leader && member.address == address);
    if leads && others {
        client(local, deadline).await?.transfer_placement_leader(0).await?;
    }
    Ok(())
}

async fn client(local: &Local, deadline: Instant) -> Outcome<PlacementClient> {
    let deadline = deadline.saturating_duration_since(Instant::now()).max(POLL);
    let options = PlacementOptions { deadline, ..PlacementOptions::default() };
    Ok(PlacementClient::connect(&local.cluster().placement(), options).await?)
}

/// Waits until one more process may be ended without harm.
async fn whole(local: &Local, next: &str, deadline: Instant) -> Outcome {
    loop {
        let Some(why) = in_the_way(local, deadline).await? else { return Ok(()) };
        if Instant::now() >= deadline {
            return Err(Failure {
                code: Code::Degraded,
                words: format!(
                    "stopped before {next}: {why}; ending one more process could cost a quorum. \
                     Repair that (see `quorate status`), then run this again"
                ),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Why no process may be ended now, in words; `None` where one may.
async fn in_the_way(local: &Local, deadline: Instant) -> Outcome<Option<String>> {
    // Placement believes in a store for a while after its last word: look at the processes first.
    let members = &local.cluster().members;
    if let Some(away) = members.iter().find(|member| member.running().is_none()) {
        return Ok(Some(format!("{} does not run", away.name())));
    }
    let is_ready = |address: &str| probe::page(address, "/ready").is_ok_and(|p| p.status == 200);
    if let Some(busy) = members.iter().find(|member| !is_ready(&member.status_address)) {
        return Ok(Some(format!("{} is not ready", busy.name())));
    }
    let health = health::judge(&local.status(deadline).await?);
    if health.is_healthy() {
        return behind(local, deadline).await;
    }
    Ok(Some(health.troubles.first().cloned().unwrap_or_else(|| health.level.to_string())))
}

/// A replica that has not caught up, in words. Only regions with a replica that is away or behind
/// are reported with their progress, so that others need no look.
async fn behind(local: &Local, deadline: Instant) -> Outcome<Option<String>> {
    let placement = client(local, deadline).await?;
    let regions = placement.scan_regions(Bytes::new(), Bytes::new(), REGIONS).await?;
    for info in &regions {
        let told = match placement.explain_region(info.region.id).await {
            Ok(told) => told,
            // It was merged or split since the look.
            Err(quorate_client::Error::Refused { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let lagging = told.replicas.iter().find(|replica| lags(replica, told.last_index));
        if let Some(peer) = lagging.and_then(|replica| replica.peer) {
            return Ok(Some(format!("{} has not caught up on s{}", info.region.id, peer.store_id)));
        }
    }
    Ok(None)
}

/// Nothing is reported of one that has caught up. One that needs a snapshot has no match either,
/// after a change of the leader: it is pending.
fn lags(replica: &ReplicaStatus, last_index: u64) -> bool {
    let match_index = replica.match_index;
    replica.pending || (match_index > 0 && match_index + BEHIND < last_index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_needs_a_snapshot_has_not_caught_up() {
        let caught_up = ReplicaStatus::default();
        assert!(!lags(&caught_up, 50_000));
        let near = ReplicaStatus { match_index: 49_500, ..caught_up.clone() };
        assert!(!lags(&near, 50_000));
        assert!(lags(&ReplicaStatus { match_index: 40_000, ..caught_up.clone() }, 50_000));
        assert!(lags(&ReplicaStatus { pending: true, ..caught_up }, 50_000), "its match is 0");
    }
}
