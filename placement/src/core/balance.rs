//! The scheduler *balance-leader*: spreads region leaders over stores by count.
//!
//! Abstract problem: stores hold leaders; a leader may move to a store that holds an up-to-date
//! voter of its region. Wanted: counts that differ by no more than a tolerance, in few moves.
//!
//! Each move goes from a store that expects more leaders to one that expects fewer, and only where
//! they differ by more than the tolerance (never less than one). So every move lowers the sum of
//! the squared counts, no move can be undone by the next plan, and planning ends. "Expects" counts
//! what is under way, so that a plan made twice does not move twice.

use std::collections::BTreeMap;

use quorate_proto::StoreId;

use super::operators::{Draft, Goal};
use super::tree::RegionInfo;
use super::view::ClusterView;

/// When leaders are uneven enough to move one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BalanceLeader {
    /// Part of the mean count that two stores may differ by.
    pub tolerance: f64,
}

impl Default for BalanceLeader {
    /// 4 %: a quarter of the 10 % within which benchmarks want their leaders, rounded up.
    fn default() -> Self {
        Self { tolerance: 0.04 }
    }
}

impl BalanceLeader {
    /// At most `limit` moves that even out the leaders of the view.
    pub fn plan(&self, view: &ClusterView, limit: usize) -> Vec<Draft> {
        let mut counts: BTreeMap<StoreId, usize> = view
            .stores
            .iter()
            .filter(|(_, store)| store.is_eligible())
            .map(|(id, store)| (*id, store.expected_leaders()))
            .collect();
        if counts.len() < 2 {
            return Vec::new();
        }
        let mean = counts.values().sum::<usize>() as f64 / counts.len() as f64;
        let tolerated = ((mean * self.tolerance) as usize).max(1);
        let mut taken = std::collections::BTreeSet::new();
        let mut drafts = Vec::new();
        while drafts.len() < limit {
            let movable = |info: &RegionInfo| {
                !view.busy.contains(&info.region.id) && !taken.contains(&info.region.id)
            };
            let Some((from, to, region)) = best_move(view, &counts, tolerated, movable) else {
                break;
            };
            let (has, gets) = (counts[&from], counts[&to]);
            drafts.push(Draft {
                region: region.region.id,
                epoch: region.region.epoch,
                goal: Goal::TransferLeader { from, to },
                by: "balance-leader",
                reason: format!("{from} leads {has} regions, {to} leads {gets}"),
            });
            taken.insert(region.region.id);
            counts.insert(from, has - 1);
            counts.insert(to, gets + 1);
        }
        drafts
    }
}

/// The first possible move between the two stores that differ most.
fn best_move<'a>(
    view: &'a ClusterView,
    counts: &BTreeMap<StoreId, usize>,
    tolerated: usize,
    movable: impl Fn(&RegionInfo) -> bool,
) -> Option<(StoreId, StoreId, &'a RegionInfo)> {
    let mut order: Vec<(usize, StoreId)> = counts.iter().map(|(id, count)| (*count, *id)).collect();
    order.sort_unstable();
    for (has, from) in order.iter().rev() {
        for (gets, to) in &order {
            if has.saturating_sub(*gets) <= tolerated {
                break;
            }
            let mut led = view.stores[from].leads.iter();
            if let Some(info) = led.find(|info| movable(info) && info.can_lead_on(*to)) {
                return Some((*from, *to, info));
            }
        }
    }
    None
}
