//! The scheduler *balance-leader*: spreads region leaders over stores by count.
//!
//! Abstract problem: stores hold leaders; a leader may move to a store that holds an up-to-date
//! voter of its region. Wanted: counts that differ by no more than a tolerance, in few moves.
//!
//! Each move goes from a store that expects more leaders to one that expects fewer, and only where
//! they differ by more than the tolerance (never less than one). So every move lowers the sum of
//! the squared counts, no move can be undone by the next plan, and planning ends. "Expects" counts
//! what is under way, so that a plan made twice does not move twice.
//!
//! Hot regions count, but only hot-region moves them; colder ones make up for them.

use std::collections::{BTreeMap, BTreeSet};

use quorate_proto::StoreId;

use super::sheet::{MAX_TRANSFERS, Sheet, spread};
use crate::core::operators::Goal;
use crate::core::policy::Tolerances;
use crate::core::tree::RegionInfo;

/// The scheduler's name.
pub const NAME: &str = "balance-leader";
/// How much more is tolerated while replicas are on the move.
const WHILE_MOVING: f64 = 2.0;

/// Drafts moves; what it did, or why it did nothing.
pub(super) fn plan(sheet: &mut Sheet<'_>) -> String {
    let mut counts: BTreeMap<StoreId, usize> =
        sheet.leading_stores().map(|id| (id, sheet.tallies.of(id).leaders)).collect();
    if counts.len() < 2 {
        return "fewer than two stores are up and have told what they lead".to_owned();
    }
    let mean = counts.values().sum::<usize>() as f64 / counts.len() as f64;
    let part = sheet.view.policy.balance.leaders;
    // While replicas are on the move, leaders will find new places: only what is clear already.
    let part = if sheet.moves_anything() { part * WHILE_MOVING } else { part };
    let tolerated = Tolerances::counts(part, mean);
    let mut blocked = BTreeSet::new();
    let mut moved = 0;
    while sheet.transfers_left(MAX_TRANSFERS) > 0 {
        let Some((from, to, info)) = best_move(sheet, &counts, tolerated, &mut blocked) else {
            break;
        };
        let (has, gets) = (counts[&from], counts[&to]);
        let reason = format!("{from} leads {has} regions, {to} leads {gets}");
        sheet.draft(NAME, info, Goal::TransferLeader { from, to }, reason);
        counts.insert(from, has - 1);
        counts.insert(to, gets + 1);
        moved += 1;
    }
    let least = counts.values().min().copied().unwrap_or_default();
    let most = counts.values().max().copied().unwrap_or_default();
    let spread = format!("stores lead {least} to {most} regions, {tolerated} apart is even");
    if moved > 0 {
        format!("moves {moved} leaders; then {spread}")
    } else if most - least <= tolerated {
        spread
    } else if sheet.transfers_left(MAX_TRANSFERS) == 0 {
        format!("{spread}; waits for the transfers under way")
    } else {
        format!("{spread}; no leader may move: no voter that is up to date stands where it would")
    }
}

/// A possible move between the two stores that differ most. Pairs without one are remembered.
fn best_move<'a>(
    sheet: &Sheet<'a>,
    counts: &BTreeMap<StoreId, usize>,
    tolerated: usize,
    blocked: &mut BTreeSet<(StoreId, StoreId)>,
) -> Option<(StoreId, StoreId, &'a RegionInfo)> {
    let mut order: Vec<(usize, StoreId)> = counts.iter().map(|(id, count)| (*count, *id)).collect();
    order.sort_unstable();
    for (has, from) in order.iter().rev() {
        for (gets, to) in &order {
            if has.saturating_sub(*gets) <= tolerated {
                break;
            }
            if blocked.contains(&(*from, *to)) {
                continue;
            }
            let leads = &sheet.view.stores[from].leads;
            let led =
                spread(leads.len()).map(|at| sheet.view.regions[leads[at] as usize].info.as_ref());
            let mut movable = led.filter(|info| sheet.is_movable(info) && info.can_lead_on(*to));
            let mut spared = None;
            let fresh = movable.find(|info| {
                let lately = sheet.lately.contains_key(&info.region.id);
                if lately {
                    spared.get_or_insert(*info);
                }
                !lately
            });
            if let Some(info) = fresh.or(spared) {
                return Some((*from, *to, info));
            }
            blocked.insert((*from, *to));
        }
    }
    None
}
