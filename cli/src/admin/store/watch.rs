//! Watches a store on its way out, until it has left.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_client::PlacementClient;
use quorate_client::placement::RegionInfo;
use quorate_proto::StoreId;

use super::leaving::{Leaving, Look, longest_wait};
use crate::exit::{Failure, Outcome};
use crate::screen::Screen;

/// Between two looks.
const POLL: Duration = Duration::from_secs(1);
/// Looks in a row that may fail while placement changes its leader.
const PATIENCE: u32 = 5;
/// Most regions that are counted.
const REGIONS: usize = 1_000_000;
/// After this long without a move, the reasons are asked for.
const STILL: Duration = Duration::from_secs(5);

/// Watches until the store has left.
///
/// # Errors
/// Nobody answers any more, or somebody else took the store back in.
pub(super) async fn watch(placement: &PlacementClient, store: StoreId, total: u64) -> Outcome {
    let begun = Instant::now();
    let mut screen = Screen::new();
    let mut leaving = Leaving::new(total);
    let mut failures = 0;
    loop {
        match look(placement, store, begun, &mut leaving, &mut screen).await {
            Ok(true) => return Ok(()),
            Ok(false) => failures = 0,
            Err(failure) if failures >= PATIENCE => return Err(failure),
            Err(_) => failures += 1,
        }
        tokio::time::sleep(POLL).await;
    }
}

/// One look; true where the store has left.
async fn look(
    placement: &PlacementClient,
    store: StoreId,
    begun: Instant,
    leaving: &mut Leaving,
    screen: &mut Screen,
) -> Outcome<bool> {
    let status = placement.status().await?;
    let is_it = |id: u64| id == store.get();
    let entry =
        status.stores.iter().find(|entry| entry.store.as_ref().is_some_and(|s| is_it(s.id)));
    let state = entry.map_or("Left", |entry| entry.state.as_str());
    match state {
        "Left" => {
            screen.clear();
            screen.say(&format!("{store} has left: its process can be stopped for good"));
            return Ok(true);
        }
        "Up" | "Joining" => {
            return Err(Failure::error(format!(
                "{store} is {} again: somebody took it back in",
                state.to_lowercase()
            )));
        }
        _ => {}
    }
    let regions = placement.scan_regions(Bytes::new(), Bytes::new(), REGIONS).await?;
    let hosted: Vec<&RegionInfo> = regions.iter().filter(|info| hosts(info, store)).collect();
    let leads = hosted.iter().filter(|info| info.leader.is_some_and(|peer| peer.store == store));
    leaving.look(Look {
        at: begun.elapsed(),
        left: hosted.len() as u64,
        leaders: leads.count() as u64,
    });
    let mut rows = vec![leaving.line()];
    let operators = placement.operators(0, false).await?;
    let of_store: Vec<_> = operators
        .iter()
        .filter(|operator| hosted.iter().any(|info| info.region.id.get() == operator.region_id))
        .collect();
    match longest_wait(&of_store) {
        Some(words) => rows.push(words),
        None => {
            let idle = hosted.iter().find(|info| {
                of_store.iter().all(|operator| operator.region_id != info.region.id.get())
            });
            if let Some(info) = idle.filter(|_| leaving.still_for() >= STILL) {
                rows.push(reason(placement, info).await?);
            }
        }
    }
    screen.rows(rows);
    Ok(false)
}

fn hosts(info: &RegionInfo, store: StoreId) -> bool {
    info.region.peers.iter().any(|peer| peer.store == store)
}

/// Why a region does not move: the last decision about it.
async fn reason(placement: &PlacementClient, info: &RegionInfo) -> Outcome<String> {
    let id = info.region.id;
    let told = placement.explain_region(id).await?;
    Ok(match told.decisions.last() {
        Some(decision) => format!("{id} waits: {} ({})", decision.what, decision.by),
        None => format!("{id} waits for its turn"),
    })
}
