//! The potential that every draft of a scheduler lowers, computed anew from the truth: who will
//! have what once everything promised is done. See `placement/src/core/schedule/mod.rs`.

use std::collections::{BTreeMap, BTreeSet};

use quorate_placement::core::operators::{Draft, Goal};
use quorate_placement::core::view::ClusterView;
use quorate_proto::{RegionId, StoreId};

use super::model::Model;

/// Who will have a region.
#[derive(Clone, Debug)]
pub struct Promised {
    pub stores: BTreeSet<StoreId>,
    pub leader: Option<StoreId>,
    pub bytes: u64,
}

impl Promised {
    pub fn follow(&mut self, goal: &Goal) {
        match goal {
            Goal::TransferLeader { from, to } => {
                if self.leader == Some(*from) {
                    self.leader = Some(*to);
                }
            }
            Goal::MoveReplica { from, to } => {
                self.stores.remove(from);
                self.stores.insert(*to);
                if self.leader == Some(*from) {
                    self.leader = None;
                }
            }
            goal => panic!("nobody asked for {goal}"),
        }
    }
}

type Plan = BTreeMap<RegionId, Promised>;

/// (Φ, U, B, L) of the module's (E, Φ, U, B, L); the model marks no store.
type Potential = (f64, f64, f64, f64);

fn potential(model: &Model, plan: &Plan, eligible: &BTreeSet<StoreId>) -> Potential {
    let mut sums: BTreeMap<StoreId, [f64; 3]> =
        eligible.iter().map(|store| (*store, [0.0; 3])).collect();
    let mut hot: BTreeMap<StoreId, (f64, f64)> = BTreeMap::new();
    for (id, promised) in plan {
        for store in &promised.stores {
            if let Some(sum) = sums.get_mut(store) {
                sum[0] += 1.0;
                sum[1] += promised.bytes as f64;
            }
        }
        if let Some(sum) = promised.leader.and_then(|leader| sums.get_mut(&leader)) {
            sum[2] += 1.0;
        }
        // Hot ones are those the test made hot, and they are hot by one kind of work.
        let truth = &model.truth[id];
        let load = (truth.writes + truth.reads) as f64;
        if load > 0.0 {
            if let Some(leader) = promised.leader {
                hot.entry(leader).or_default().0 += load;
            }
            for store in &promised.stores {
                hot.entry(*store).or_default().1 += load / promised.stores.len() as f64;
            }
        }
    }
    let squares = |at: usize| sums.values().map(|sum| sum[at] * sum[at]).sum::<f64>();
    let counts: Vec<f64> = sums.values().map(|sum| sum[0]).collect();
    let mean = counts.iter().sum::<f64>() / counts.len().max(1) as f64;
    let tolerated = (mean * model.policy.balance.replicas).floor().max(1.0);
    let most = counts.iter().copied().fold(f64::MIN, f64::max);
    let least = counts.iter().copied().fold(f64::MAX, f64::min);
    let uneven = if most - least <= tolerated { 0.0 } else { squares(0) };
    let phi = hot.values().map(|(lead, replica)| lead * lead + replica * replica).sum();
    (phi, uneven, squares(1), squares(2))
}

/// Each draft lowers the potential, and the replicas of its region stand no closer together.
pub fn assert_falls(model: &Model, view: &ClusterView, drafts: &[Draft]) {
    if drafts.is_empty() {
        return;
    }
    let stores = view.stores.iter().filter(|(_, store)| store.is_eligible());
    let eligible: BTreeSet<StoreId> = stores.map(|(id, _)| *id).collect();
    let mut plan = model.promised();
    let mut before = potential(model, &plan, &eligible);
    // A swap is one step of two drafts.
    for step in drafts.chunk_by(|first, _| first.reason.contains("swapped")) {
        for draft in step {
            let promised = plan.get_mut(&draft.region).unwrap();
            let apart = pairs_apart(model, &promised.stores);
            promised.follow(&draft.goal);
            let then = pairs_apart(model, &promised.stores);
            assert!(then >= apart, "{draft:?} brings replicas from {apart:?} to {then:?}");
        }
        let after = potential(model, &plan, &eligible);
        assert!(falls(before, after), "{step:?} takes the potential from {before:?} to {after:?}");
        before = after;
    }
}

/// Compared from left to right. Sums of shares that differ in their last digits are equal.
fn falls(before: Potential, after: Potential) -> bool {
    let parts =
        [(before.0, after.0), (before.1, after.1), (before.2, after.2), (before.3, after.3)];
    let equal = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0);
    let differs = parts.iter().find(|(before, after)| !equal(*before, *after));
    differs.is_some_and(|(before, after)| after < before)
}

/// Pairs of stores that differ by zone, by rack, by host.
pub fn pairs_apart(model: &Model, stores: &BTreeSet<StoreId>) -> Vec<usize> {
    let labels: Vec<_> = stores.iter().map(|store| &model.stores[store].labels).collect();
    let mut apart = Vec::new();
    for until in 1..=3 {
        let mut count = 0;
        for (index, a) in labels.iter().enumerate() {
            for b in &labels[index + 1..] {
                let levels = &["zone", "rack", "host"][..until];
                let differ = levels.iter().any(|level| match (a.get(*level), b.get(*level)) {
                    (Some(a), Some(b)) => a != b,
                    (_, _) => false,
                });
                count += usize::from(differ);
            }
        }
        apart.push(count);
    }
    apart
}
