//! Merges regions in placement's name, where placement does not plan: looks at both as their leaders
//! have them, and orders one step.
//!
//! It keeps to what placement owes the stores (ADR 40): nobody is taken in before all have the
//! source's log, neither region takes part in another merge meanwhile, and a merge is over only when
//! the source is gone, or serves at a newer epoch. Otherwise it is as bad as can be: it changes its
//! mind, and offers whatever any store has of the target as a proof.

use std::sync::Arc;

use quorate_proto::wire::placement::order::Step;
use quorate_proto::wire::placement::{
    CommitMergeStep, PrepareMergeStep, RefuseMergeStep, RollbackMergeStep,
};
use quorate_proto::{Epoch, Region, RegionId, StoreId};
use quorate_store::core::LocalRegion;
use quorate_store::core::directory::Merging;

use super::World;
use crate::sim::agenda::MS;
use crate::sim::chance::{Concern, Span};
use crate::sim::messages::Event;

/// Between two looks.
const LOOK: Span = (20 * MS, 400 * MS);
/// A source that is not stopped by then is moved on.
const PATIENCE: u64 = 2_000 * MS;
/// Merges at once.
const MOST: usize = 2;

/// A merge under way.
#[derive(Debug, Clone)]
pub(crate) struct Plot {
    source: RegionId,
    /// Of the source when it was to stop.
    at: Epoch,
    target: RegionId,
    target_epoch: Epoch,
    since: u64,
}

impl World {
    /// One look.
    pub(super) fn merge_regions(&mut self) {
        if self.cx.knobs.planned || self.cx.knobs.deeds.merge == 0 {
            return;
        }
        let next = self.cx.within(Concern::Merger, LOOK);
        self.cx.after(next, Event::Merge);
        for plot in std::mem::take(&mut self.plots) {
            if self.pursue(&plot) {
                self.plots.push(plot);
            }
        }
        let weight = self.cx.knobs.deeds.merge as f64;
        let begins = self.cx.net.bad && self.cx.chance(Concern::Merger, weight * 0.04);
        if begins && self.plots.len() < MOST {
            self.begin_merge();
        }
    }

    fn begin_merge(&mut self) {
        let mut all: Vec<Arc<Region>> = self.cx.checks.regions().cloned().collect();
        all.sort_by_key(|region| region.range.start.clone());
        let pairs: Vec<_> = all.windows(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        if pairs.is_empty() {
            return;
        }
        let (left, right) = pairs[self.cx.one_of(Concern::Merger, pairs.len())].clone();
        let turned = self.cx.chance(Concern::Merger, 0.5);
        let (source, target) = if turned { (right, left) } else { (left, right) };
        let busy = |id: RegionId| self.plots.iter().any(|it| it.source == id || it.target == id);
        if busy(source.id) || busy(target.id) {
            return;
        }
        let since = self.cx.now();
        self.plots.push(Plot {
            source: source.id,
            at: source.epoch,
            target: target.id,
            target_epoch: target.epoch,
            since,
        });
    }

    /// The next step of a merge; false where it is over.
    fn pursue(&mut self, plot: &Plot) -> bool {
        if self.cx.checks.is_gone(plot.source) {
            return false;
        }
        let Some((store, local)) = self.local_at_leader(plot.source) else { return true };
        if let Some((region, merging)) = local.merging() {
            self.pursue_stopped(store, &local, &region, merging);
            return true;
        }
        let Some(region) = local.region() else { return true };
        if plot.at.is_stale_against(region.epoch) {
            return false;
        }
        let (region_id, epoch) = (region.id.0, Some(region.epoch.into()));
        if self.cx.now() >= plot.since + PATIENCE {
            self.order(store, Step::RefuseMerge(RefuseMergeStep { region_id, epoch }));
        } else {
            let (target_id, target_epoch) = (plot.target.0, Some(plot.target_epoch.into()));
            let step = PrepareMergeStep { region_id, epoch, target_id, target_epoch };
            self.order(store, Step::PrepareMerge(step));
        }
        true
    }

    fn pursue_stopped(
        &mut self,
        store: StoreId,
        source: &LocalRegion,
        region: &Region,
        merging: Merging,
    ) {
        let wild = self.cx.net.bad;
        if wild && self.cx.chance(Concern::Merger, 0.1) {
            self.offer_any_proof(store, region, merging);
        }
        let Some((at, target)) = self.local_at_leader(merging.target) else { return };
        let Some(target) = target.replicated() else { return };
        let (region_id, epoch) = (target.id.0, Some(target.epoch.into()));
        if target.epoch != merging.target_epoch {
            self.roll_back(store, region, merging, &target);
        } else if wild && self.cx.chance(Concern::Merger, 0.1) {
            self.order(at, Step::RefuseMerge(RefuseMergeStep { region_id, epoch }));
        } else if source.view().everywhere() >= merging.frozen {
            let (source, frozen_index) = (Some(region.into()), merging.frozen.0);
            let step = CommitMergeStep { region_id, epoch, source, frozen_index };
            self.order(at, Step::CommitMerge(step));
        }
    }

    /// What some store has of the target, old or new, is no proof unless it is one.
    fn offer_any_proof(&mut self, store: StoreId, region: &Region, merging: Merging) {
        let mut known = Vec::new();
        for process in self.processes.values() {
            let Some(other) = process.up.as_ref().and_then(|up| up.role.store()) else { continue };
            let local = other.directory.get(merging.target);
            known.extend(local.and_then(|local| local.replicated()));
        }
        if !known.is_empty() {
            let target = known[self.cx.one_of(Concern::Merger, known.len())].clone();
            self.roll_back(store, region, merging, &target);
        }
    }

    fn roll_back(&mut self, store: StoreId, region: &Region, merging: Merging, target: &Region) {
        let step = RollbackMergeStep {
            region_id: region.id.0,
            epoch: Some(region.epoch.into()),
            frozen_index: merging.frozen.0,
            target: Some(target.into()),
        };
        self.order(store, Step::RollbackMerge(step));
    }

    fn local_at_leader(&self, id: RegionId) -> Option<(StoreId, Arc<LocalRegion>)> {
        let leader = self.leader_of(id)?;
        let store = self.processes.get(&leader)?.up.as_ref()?.role.store()?;
        Some((leader.into(), store.directory.get(id)?))
    }
}
