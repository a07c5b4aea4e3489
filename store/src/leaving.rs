//! A graceful end: leaders go elsewhere first, then what is under way is answered.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_proto::{NodeId, RegionId, StoreId};
use tokio::time::Instant;

use crate::core::{Directory, peers};
use crate::metrics::Metrics;
use crate::raft::Raft;
use crate::serve::{Ending, Serving};

/// How long one transfer may take before the next peer is asked.
const TRANSFER: Duration = Duration::from_secs(1);
/// How many peers are asked. Where all stores stop at once, nobody can take over: they would pass
/// leaders around.
const ROUNDS: usize = 3;
/// How long clients are told where to go before their streams end.
const QUIETING: Duration = Duration::from_secs(2);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Hands every leader over, spread evenly over the other voters; returns how many are left after
/// a few rounds, or when `deadline` comes. Regions whose only voter is here are left from the
/// beginning.
pub(crate) async fn hand_over(directory: &Directory, raft: &dyn Raft, deadline: Instant) -> usize {
    for round in 0..ROUNDS {
        let chosen = targets(directory, round);
        if chosen.is_empty() || Instant::now() >= deadline {
            break;
        }
        for (region, to) in &chosen {
            raft.transfer_leader(*region, *to);
        }
        let until = (Instant::now() + TRANSFER).min(deadline);
        while Instant::now() < until && !targets(directory, round).is_empty() {
            tokio::time::sleep(LOOK).await;
        }
    }
    leaders(directory)
}

/// Ends the batched streams, quiet ones first, and waits until nothing is under way any more;
/// false where the deadline came first.
pub(crate) async fn drain(serving: &Serving, metrics: &Metrics, deadline: Instant) -> bool {
    serving.end_streams(Ending::Quiet);
    if drained(serving, metrics, deadline.min(Instant::now() + QUIETING)).await {
        return true;
    }
    serving.end_streams(Ending::All);
    drained(serving, metrics, deadline).await
}

async fn drained(serving: &Serving, metrics: &Metrics, deadline: Instant) -> bool {
    loop {
        let streams = metrics.streams.load(Ordering::Relaxed);
        if streams == 0 && serving.budget().requests() == 0 {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn leaders(directory: &Directory) -> usize {
    directory.all().iter().filter(|local| local.view().is_leader()).count()
}

/// Who should lead each region that is led from here: the voter elsewhere with the least to take
/// over; another one in each round, in case that one is away.
fn targets(directory: &Directory, round: usize) -> Vec<(RegionId, NodeId)> {
    let here = directory.store();
    let mut load: BTreeMap<StoreId, usize> = BTreeMap::new();
    let mut chosen = Vec::new();
    for local in directory.all().iter().filter(|local| local.view().is_leader()) {
        let Some(region) = local.replicated() else { continue };
        let mut others: Vec<StoreId> = region
            .peers
            .iter()
            .filter(|peer| peer.store != here)
            .filter(|peer| peers::check_successor(&region, local.view(), peer).is_ok())
            .map(|peer| peer.store)
            .collect();
        if others.is_empty() {
            continue;
        }
        others.sort_unstable();
        let turn = round % others.len();
        others.rotate_left(turn);
        others.sort_by_key(|store| load.get(store).copied().unwrap_or(0));
        let store = others[0];
        *load.entry(store).or_default() += 1;
        chosen.push((region.id, store.into()));
    }
    chosen
}

#[cfg(test)]
#[path = "leaving_tests.rs"]
mod tests;
