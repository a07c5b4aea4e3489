//! Watches a store on its way out, until it has left.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_client::PlacementClient;
use quorate_client::placement::RegionInfo;
use quorate_proto::StoreId;
use quorate_proto::wire::placement::OperatorStatus;

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
    let mut screen = Screen::new();
    let mut watcher = Watcher::new(store, total);
    let mut failures = 0;
    loop {
        match watcher.look(placement).await {
            Ok(None) => {
                screen.clear();
                screen.say(&format!("{store} has left: its process can be stopped for good"));
                return Ok(());
            }
            Ok(Some(rows)) => {
                failures = 0;
                screen.rows(rows);
            }
            Err(failure) if failures >= PATIENCE => return Err(failure),
            Err(_) => failures += 1,
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Looks at one store again and again.
pub(crate) struct Watcher {
    store: StoreId,
    begun: Instant,
    leaving: Leaving,
}

impl Watcher {
    /// So many replicas have to go.
    pub(crate) fn new(store: StoreId, total: u64) -> Self {
        Self { store, begun: Instant::now(), leaving: Leaving::new(total) }
    }

    /// How far it is, in rows; `None` where the store has left.
    ///
    /// # Errors
    /// Placement does not answer, or the store is in again.
    pub(crate) async fn look(
        &mut self,
        placement: &PlacementClient,
    ) -> Outcome<Option<Vec<String>>> {
        let store = self.store;
        let status = placement.status().await?;
        let mut entries = status.stores.iter();
        let entry =
            entries.find(|entry| entry.store.as_ref().is_some_and(|known| known.id == store.get()));
        match entry.map_or("Left", |entry| entry.state.as_str()) {
            "Left" => return Ok(None),
            state @ ("Up" | "Joining") => {
                return Err(Failure::error(format!(
                    "{store} is {} again: somebody took it back in",
                    state.to_lowercase()
                )));
            }
            _ => {}
        }
        let regions = placement.scan_regions(Bytes::new(), Bytes::new(), REGIONS).await?;
        let hosted: Vec<&RegionInfo> = regions.iter().filter(|info| hosts(info, store)).collect();
        let leads =
            hosted.iter().filter(|info| info.leader.is_some_and(|peer| peer.store == store));
        self.leaving.look(Look {
            at: self.begun.elapsed(),
            left: hosted.len() as u64,
            leaders: leads.count() as u64,
        });
        let mut rows = vec![self.leaving.line()];
        match entry.filter(|_| hosted.is_empty()) {
            Some(entry) if entry.not_left_because.is_empty() => {}
            Some(entry) => {
                rows.push(format!("{store} has not left yet: {}", entry.not_left_because));
            }
            None => rows.extend(self.who_waits(placement, &hosted).await?),
        }
        Ok(Some(rows))
    }

    /// The region that waits, and why; where nothing says so, the last decision about one that
    /// does not move.
    async fn who_waits(
        &self,
        placement: &PlacementClient,
        hosted: &[&RegionInfo],
    ) -> Outcome<Option<String>> {
        let operators = placement.operators(0, false).await?;
        let is_of = |operator: &&OperatorStatus, info: &RegionInfo| {
            operator.region_id == info.region.id.get()
        };
        let concerned: Vec<&OperatorStatus> = operators
            .iter()
            .filter(|operator| hosted.iter().any(|info| is_of(operator, info)))
            .collect();
        if let Some(words) = longest_wait(&concerned) {
            return Ok(Some(words));
        }
        let mut idle = hosted.iter().filter(|info| !concerned.iter().any(|one| is_of(one, info)));
        match idle.next().filter(|_| self.leaving.still_for() >= STILL) {
            Some(info) => reason(placement, info).await.map(Some),
            None => Ok(None),
        }
    }
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
