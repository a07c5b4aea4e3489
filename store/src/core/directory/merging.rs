//! What a merge means to the directory: a region that is stopped, one that has gone, and what
//! others say about one that has not gone here yet.
//!
//! Whoever takes a region in is at a greater version from then on than the region ever was, while
//! before that it was at a smaller one (a region that stops is lifted above the one that is to take
//! it in). So a glance at a version tells whether a replica of the target, or a snapshot of it, is
//! from before the merge or from after it.

use std::collections::BTreeSet;
use std::sync::Arc;

use quorate_proto::wire::command as wire;
use quorate_proto::{Epoch, LogIndex, PeerId, Region, RegionId};

use super::{Conflict, Directory, LocalRegion, Order, State, Tombstone};

/// A region waits to be taken in by its neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merging {
    /// The neighbour.
    pub target: RegionId,
    /// It takes the region in at exactly this epoch, or not at all.
    pub target_epoch: Epoch,
    /// The entry that stopped the region.
    pub frozen: LogIndex,
}

impl From<Merging> for wire::Merging {
    fn from(merging: Merging) -> Self {
        Self {
            target_id: merging.target.0,
            target_epoch: Some(merging.target_epoch.into()),
            frozen_index: merging.frozen.0,
        }
    }
}

impl TryFrom<wire::Merging> for Merging {
    type Error = &'static str;

    fn try_from(merging: wire::Merging) -> Result<Self, &'static str> {
        let target_epoch = merging.target_epoch.ok_or("its merge names no epoch of the target")?;
        if merging.target_id == 0 || merging.frozen_index == 0 {
            return Err("its merge names no target, or no entry");
        }
        let (target, frozen) = (RegionId(merging.target_id), LogIndex(merging.frozen_index));
        Ok(Self { target, target_epoch: target_epoch.into(), frozen })
    }
}

/// A region that was taken in: as its tombstone says, or as others say where it is here still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// The region that took it in.
    pub into: RegionId,
    /// Its description when it ended.
    pub region: Arc<Region>,
}

impl Directory {
    /// The region that took this one in, where that has happened on this store.
    pub fn taken_in(&self, region: RegionId) -> Option<Gone> {
        self.order.read().tombstones.get(&region)?.gone.clone()
    }

    /// Puts a stop into effect whose state is written, or the end of one.
    pub(in crate::core) fn set_merging(
        &self,
        local: &LocalRegion,
        region: Arc<Region>,
        merging: Option<Merging>,
    ) {
        let _order = self.order.write();
        local.set(match merging {
            Some(merging) => State::Merging(region, merging),
            None => State::Serving(region),
        });
        // Whoever waits has something to hear, even after the others have gone.
        local.view().keep_awake(merging.is_some());
    }

    /// Puts a merge into effect whose state is written: `target` is `after` from now on, and
    /// `source` is gone.
    pub(in crate::core) fn merge(
        &self,
        target: &Arc<LocalRegion>,
        after: Arc<Region>,
        source: &Arc<LocalRegion>,
    ) {
        let mut order = self.order.write();
        for local in [source, target] {
            if let Some(old) = local.state().region() {
                order.ranges.remove(&old.range.start);
            }
        }
        // The source goes first: a lookup by id never finds two regions with one key.
        let region = source.state().region().cloned();
        let gone = region.map(|region| Gone { into: after.id, region });
        self.bury(&mut order, source, gone);
        let (ours, theirs) = (target.stats(), source.stats());
        ours.estimate((ours.bytes() + theirs.bytes(), ours.keys() + theirs.keys()));
        target.set(State::Serving(Arc::clone(&after)));
        order.ranges.insert(after.range.start.clone(), Arc::clone(target));
    }

    /// Takes note that the local replica of a region has no future: `into` took it in, and
    /// `region` is what it was at last. Returns the replica where nobody here needs it any more.
    pub(in crate::core) fn note_taken_in(
        &self,
        into: RegionId,
        region: Arc<Region>,
    ) -> Option<Arc<LocalRegion>> {
        let local = self.get(region.id)?;
        let _order = self.order.write();
        match &*local.state() {
            State::Serving(_) | State::Merging(..) | State::Installing(_) => {}
            State::Uninitialized { .. } => return Some(Arc::clone(&local)),
            State::Removing(_) | State::Tombstone => return None,
        }
        let version = region.epoch.version;
        let _ = local.taken_in.set(Gone { into, region });
        let waits = self.get(into).is_some_and(|target| {
            let state = target.state();
            state.region().is_some_and(|target| target.epoch.version <= version)
        });
        // Whoever it is stopped for may have taken it in, and have yet to apply that here.
        let needed = local.merging().is_some_and(|(stopped, merging)| {
            let target = self.get(merging.target);
            target
                .and_then(|target| target.state().region().cloned())
                .is_some_and(|target| target.epoch.version <= stopped.epoch.version)
        });
        // The target's log, or a snapshot of it, will end the replica.
        (!waits && !needed).then_some(local)
    }

    /// Nothing but a tombstone is left of a replica, whose range is not listed any more.
    pub(super) fn bury(&self, order: &mut Order, local: &LocalRegion, gone: Option<Gone>) {
        order.waiting.remove(&local.id());
        order.tombstones.insert(local.id(), Tombstone { peer: local.peer(), gone });
        local.set(State::Tombstone);
        self.map(local.id()).write().remove(&local.id());
    }
}

impl LocalRegion {
    /// What others say of it: it was taken in. Here it still is.
    pub(in crate::core) fn known_gone(&self) -> Option<Gone> {
        self.taken_in.get().cloned()
    }

    pub(super) fn know_gone(&self, gone: Gone) {
        // What was said first stays.
        let _ = self.taken_in.set(gone);
    }
}

/// What is remembered of a region that a snapshot of `by` names as taken in, and `old` is what the
/// replica here knew of it. It ended below that version.
pub(super) fn named_gone(by: &Region, old: &Region) -> Gone {
    let version = old.epoch.version.max(by.epoch.version.saturating_sub(1));
    let epoch = Epoch { version, ..old.epoch };
    Gone { into: by.id, region: Arc::new(Region { epoch, ..old.clone() }) }
}

impl Order {
    /// Replicas that nobody here needs any more once a snapshot of `region` is installed: those
    /// that it took in before it was at that version, as the snapshot says (`named`) or others do,
    /// and those that these had taken in.
    fn needless(&self, region: &Region, named: &[RegionId]) -> Vec<Arc<LocalRegion>> {
        let mut known: Vec<(&Arc<LocalRegion>, &Gone)> = Vec::new();
        let mut found = Vec::new();
        for local in self.ranges.values().filter(|local| local.id() != region.id) {
            if named.contains(&local.id()) {
                found.push(Arc::clone(local));
            } else {
                known.extend(local.taken_in.get().map(|gone| (local, gone)));
            }
        }
        let mut into: BTreeSet<RegionId> = found.iter().map(|local| local.id()).collect();
        into.insert(region.id);
        loop {
            let before = found.len();
            known.retain(|(local, gone)| {
                let version = gone.region.epoch.version;
                let is_needed = !into.contains(&gone.into)
                    || (gone.into == region.id && version >= region.epoch.version);
                if !is_needed {
                    into.insert(local.id());
                    found.push(Arc::clone(local));
                }
                is_needed
            });
            if found.len() == before {
                return found;
            }
        }
    }

    /// Whether a snapshot of `region` finds its range free; returns the replicas whose place it
    /// takes.
    pub(super) fn room_for(
        &self,
        region: &Region,
        named: &[RegionId],
    ) -> Result<Vec<Arc<LocalRegion>>, Conflict> {
        let free = self.check_free(region);
        if free.is_ok() && named.is_empty() {
            return Ok(Vec::new());
        }
        let needless = self.needless(region, named);
        let Err(conflict) = free else { return Ok(needless) };
        let here = |local: &&Arc<LocalRegion>| {
            let overlaps = |other: &Arc<Region>| other.range.overlaps(&region.range);
            local.id() != region.id && local.state().region().is_some_and(overlaps)
        };
        let goes = |local: &Arc<LocalRegion>| needless.iter().any(|it| it.id() == local.id());
        match self.ranges.values().filter(here).all(goes) {
            true => Ok(needless),
            false => Err(conflict),
        }
    }

    /// Which removed replica of a region this store remembers.
    pub(super) fn removed(&self, region: RegionId) -> Option<PeerId> {
        self.tombstones.get(&region).map(|tombstone| tombstone.peer)
    }
}
