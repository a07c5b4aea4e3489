//! Which regions are to take others in: the operators of merges, found by their targets.

use std::collections::{BTreeMap, BTreeSet};

use quorate_proto::RegionId;

use super::Operator;

/// The sources of each target, of merges and of their roll-backs.
#[derive(Debug, Default)]
pub(super) struct Pairs(BTreeMap<RegionId, BTreeSet<RegionId>>);

impl Pairs {
    pub(super) fn add(&mut self, operator: &Operator) {
        if let Some(target) = operator.goal.merges_with() {
            self.0.entry(target).or_default().insert(operator.region);
        }
    }

    pub(super) fn remove(&mut self, operator: &Operator) {
        let Some(target) = operator.goal.merges_with() else { return };
        if let Some(sources) = self.0.get_mut(&target) {
            sources.remove(&operator.region);
            if sources.is_empty() {
                self.0.remove(&target);
            }
        }
    }

    pub(super) fn sources(&self, target: RegionId) -> impl Iterator<Item = RegionId> {
        self.0.get(&target).into_iter().flatten().copied()
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = RegionId> {
        self.0.keys().copied()
    }
}
