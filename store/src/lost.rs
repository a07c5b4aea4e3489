//! Replicas that nobody speaks to any more.
//!
//! A replica that was away while its region went on without it never hears of its removal from the
//! others: they have forgotten it. After a long silence of its leader it asks placement; where the
//! region has a newer configuration without it, it is removed. Peer ids are never used again, so
//! what was removed once never comes back. Where placement does not know the region, it is told: its
//! leader may have been lost before it ever reported (docs/adr/0041-replicas-tell-of-themselves.md).
//!
//! A replica that sleeps hears no silence; it is told to placement in its turn
//! ([`Reporter`](crate::core::Reporter)).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_client::PlacementClient;
use quorate_consensus::node::clock;
use quorate_consensus::time::Instant;
use quorate_proto::RegionId;
use tokio::time::MissedTickBehavior;

use crate::core::{Directory, LocalRegion, peers};
use crate::placement::Nudge;
use crate::raft::Raft;

/// How long a leader must be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// Between two questions about the same replica.
const AGAIN: Duration = Duration::from_secs(10);
/// Between two looks at all replicas.
const LOOK: Duration = Duration::from_secs(2);
/// Questions in one look.
const QUESTIONS: usize = 64;

/// Looks after the replicas of a store for as long as the process lives.
pub(crate) async fn watch(
    placement: PlacementClient,
    directory: Arc<Directory>,
    raft: Arc<dyn Raft>,
    nudge: Arc<Nudge>,
) {
    let mut asked = BTreeMap::new();
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for local in due(&directory, &mut asked, clock::now()) {
            let id = local.id();
            match placement.get_region_by_id(id).await {
                Ok(Some(info)) if peers::is_removed(&local, &info.region) => {
                    let (peer, epoch) = (local.peer(), info.region.epoch);
                    tracing::info!(region = %id, %peer, ?epoch, "the region goes on without us");
                    raft.destroy(id, peer);
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    tracing::debug!(region = %id, "placement does not know a region without leader");
                    nudge.add(id);
                }
                Err(error) => {
                    tracing::debug!(region = %id, %error, "cannot look up a region without leader");
                    break;
                }
            }
        }
    }
}

/// The replicas to ask for now: their leaders are silent, and they were not asked for lately.
fn due(
    directory: &Directory,
    asked: &mut BTreeMap<RegionId, Instant>,
    now: Instant,
) -> Vec<Arc<LocalRegion>> {
    asked.retain(|_, at| now.since(*at) < AGAIN);
    let silent = |local: &Arc<LocalRegion>| {
        local.view().silent_since().is_some_and(|since| now.since(since) >= SILENCE)
    };
    let mut due: Vec<Arc<LocalRegion>> = directory
        .hosted()
        .into_iter()
        .filter(|local| silent(local) && !asked.contains_key(&local.id()))
        .collect();
    due.truncate(QUESTIONS);
    asked.extend(due.iter().map(|local| (local.id(), now)));
    due
}

#[cfg(test)]
#[path = "lost_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
