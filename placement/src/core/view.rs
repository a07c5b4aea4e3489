//! An immutable picture of the cluster, for planning.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_proto::{RegionId, StoreId};

use super::operators::{Goal, Operator};
use super::state::Store;
use super::stores::{StoreState, Stores};
use super::tree::{RegionInfo, RegionTree};
use quorate_consensus::time::Instant;

/// A store, as a scheduler sees it.
#[derive(Clone, Debug)]
pub struct StoreView {
    /// How it is doing.
    pub state: StoreState,
    /// True once it has told all it leads: before that its leaders cannot be counted.
    pub complete: bool,
    /// True while it gives its leaders away by itself.
    pub stopping: bool,
    /// The regions it leads, the sentinel left out.
    pub leads: Vec<Arc<RegionInfo>>,
    /// Leaders on their way here.
    pub arriving: usize,
    /// Leaders on their way elsewhere.
    pub departing: usize,
}

impl StoreView {
    /// True where leaders may be moved to and from this store.
    pub fn is_eligible(&self) -> bool {
        self.state == StoreState::Up && self.complete && !self.stopping
    }

    /// Leaders once everything under way is done.
    pub fn expected_leaders(&self) -> usize {
        (self.leads.len() + self.arriving).saturating_sub(self.departing)
    }
}

/// The picture.
#[derive(Clone, Debug, Default)]
pub struct ClusterView {
    /// All stores.
    pub stores: BTreeMap<StoreId, StoreView>,
    /// Regions that must be left alone: an operator is under way, or one has just failed.
    pub busy: BTreeSet<RegionId>,
}

impl ClusterView {
    /// Takes the picture: linear in the number of regions, without copying any.
    pub fn of<'a>(
        tree: &RegionTree,
        known: &BTreeMap<StoreId, Arc<Store>>,
        alive: &Stores,
        under_way: impl Iterator<Item = &'a Operator>,
        busy: BTreeSet<RegionId>,
        now: Instant,
    ) -> Self {
        let mut view = ClusterView { busy, ..ClusterView::default() };
        for store in known.values() {
            let heard = alive.last(store.id);
            view.stores.insert(
                store.id,
                StoreView {
                    state: alive.state(store, now),
                    complete: heard.is_some_and(|heard| heard.complete),
                    stopping: heard.is_some_and(|heard| heard.stats.stopping),
                    leads: Vec::new(),
                    arriving: 0,
                    departing: 0,
                },
            );
        }
        for info in tree.iter().filter(|info| info.led && !info.is_sentinel()) {
            let leader = info.leader.and_then(|leader| view.stores.get_mut(&leader.store));
            if let Some(store) = leader {
                store.leads.push(Arc::clone(info));
            }
        }
        for operator in under_way {
            match &operator.goal {
                Goal::TransferLeader { from, to } => {
                    if let Some(store) = view.stores.get_mut(from) {
                        store.departing += 1;
                    }
                    if let Some(store) = view.stores.get_mut(to) {
                        store.arriving += 1;
                    }
                }
                Goal::Split { .. }
                | Goal::AddReplica { .. }
                | Goal::MoveReplica { .. }
                | Goal::RemoveReplica { .. }
                | Goal::Promote { .. }
                | Goal::Demote { .. }
                | Goal::LeaveJoint => {}
            }
        }
        view
    }
}
