//! Two neighbours become one: four commands, of which `CommitMerge` does the work.
//!
//! The log of the target is the judge (see ADR 40): whatever changes its epoch first counts. By the
//! time `CommitMerge` may be in that log, every replica of the source has its own log up to the
//! entry that stopped it, durably. So each store applies what it still lacks of the source from
//! there, whatever the source's group knows to be committed, and then one batch makes the source a
//! part of the target. A store where that is not so has lost something: it must not go on.
//!
//! A region that stops is lifted to a version far above the target's: one that has taken it in is
//! above that version for good, and one that has not is below. That is the proof by which the source
//! may go on, or its replica may go (see [`crate::core::merge`] and
//! [`crate::core::directory`]).

use std::sync::Arc;

use quorate_consensus::engine::{Cf, EngineError, WriteBatch};
use quorate_consensus::node::Outcome;
use quorate_consensus::shard::{durable_entries, is_joint};
use quorate_proto::wire::command::{CommitMerge, PrepareMerge, RollbackMerge};
use quorate_proto::{Epoch, LogIndex, Region, RegionId, StoreId};

use super::{Applier, BATCH_BYTES, Change, Slot, Work};
use crate::core::directory::{Directory, Gone, LocalRegion, Merging, members};
use crate::core::error::RegionError;
use crate::core::keys::{self, corrupt};
use crate::core::merge::{MERGE_LEAP, check_proof, union};
use crate::core::snapshot::tombstone;
use crate::core::split::is_sentinel;

/// A region remembers so many regions that it took in, for stores that were away meanwhile.
const REMEMBERED: usize = 32;

/// A merge whose batch is being written.
pub(super) struct Union {
    after: Arc<Region>,
    source: Arc<LocalRegion>,
}

impl Union {
    /// The batch is written: everybody may know.
    pub(super) fn publish(self, slot: &Slot, directory: &Directory, outcome: &mut Outcome) {
        let Self { after, source } = self;
        outcome.merged.push((source.id(), source.peer()));
        outcome.changed.push(after.id);
        directory.merge(&slot.local, after, &source);
    }
}

impl<T> Work<T> {
    pub(super) fn prepare_merge(
        &mut self,
        slot: &mut Slot,
        conf_ver: u64,
        prepare: PrepareMerge,
    ) -> Result<(), RegionError> {
        check_conf(&slot.region, conf_ver)?;
        let bad = |reason| RegionError::BadMerge { region: slot.region.id, reason };
        let target = RegionId(prepare.target_id);
        let target_epoch = match prepare.target_epoch.map(Epoch::from) {
            Some(epoch) if target.0 != 0 && target != slot.region.id => epoch,
            Some(_) | None => return Err(bad("it names no other region, or no epoch of it")),
        };
        if is_sentinel(&slot.region) {
            return Err(bad("it is the sentinel last region, which is never merged"));
        }
        if is_joint(&members(&slot.region)) {
            return Err(bad("its replicas are changing"));
        }
        let before = slot.region.epoch;
        let above = before.version.max(target_epoch.version).checked_add(MERGE_LEAP);
        let version = above.ok_or_else(|| bad("the target's version cannot be"))?;
        let epoch = Epoch { version, conf_ver: before.conf_ver + 1 };
        let merging = Merging { target, target_epoch, frozen: slot.index };
        self.set_epoch(slot, epoch, Some(merging));
        Ok(())
    }

    pub(super) fn rollback_merge(
        &mut self,
        slot: &mut Slot,
        rollback: RollbackMerge,
    ) -> Result<(), RegionError> {
        let frozen = LogIndex(rollback.frozen_index);
        let bad = |reason| RegionError::BadMerge { region: slot.region.id, reason };
        let merging = slot.merging.filter(|merging| merging.frozen == frozen);
        let merging = merging.ok_or_else(|| bad("it is not stopped by that entry"))?;
        let seen = rollback.target_epoch.ok_or_else(|| bad("it comes without a proof"))?;
        check_proof(&slot.region, &merging, seen.into()).map_err(bad)?;
        self.set_epoch(slot, next_version(&slot.region), None);
        Ok(())
    }

    pub(super) fn refuse_merge(
        &mut self,
        slot: &mut Slot,
        conf_ver: u64,
    ) -> Result<(), RegionError> {
        check_conf(&slot.region, conf_ver)?;
        self.set_epoch(slot, next_version(&slot.region), None);
        Ok(())
    }

    fn set_epoch(&mut self, slot: &mut Slot, epoch: Epoch, merging: Option<Merging>) {
        let region = Arc::new(Region { epoch, ..slot.region.as_ref().clone() });
        slot.region = Arc::clone(&region);
        slot.merging = merging;
        keys::put_region_state(&mut self.batch, region.id, &slot.state());
        self.changes.push(Change::Epoch(region, merging));
    }

    pub(super) fn commit_merge(
        &mut self,
        slot: &mut Slot,
        applier: &mut Applier,
        conf_ver: u64,
        commit: CommitMerge,
        outcome: &mut Outcome,
    ) -> Result<Result<(), RegionError>, EngineError> {
        if let Err(refused) = check_conf(&slot.region, conf_ver) {
            return Ok(Err(refused));
        }
        let source = commit.source.unwrap_or_default();
        let parts = Region::try_from(source)
            .map_err(|_| "it does not describe the source")
            .and_then(|source| Ok((union(&slot.region, &source)?, source)));
        let (after, source) = match parts {
            Ok(parts) => parts,
            Err(reason) => {
                return Ok(Err(RegionError::BadMerge { region: slot.region.id, reason }));
            }
        };
        let (target, frozen) = (&slot.region, LogIndex(commit.frozen_index));
        let merging = Merging { target: target.id, target_epoch: target.epoch, frozen };
        // What was gathered before may be the source's own, from an earlier task of the same call:
        // it stays ahead of what the source has yet to write.
        let gathered = std::mem::take(&mut self.batch);
        let (taken, batch) = applier.catch_up::<T>(&source, merging, gathered, outcome)?;
        self.batch = batch;
        let peer = taken.local.peer();
        let region = Arc::clone(&taken.region);
        let gone = Gone { into: target.id, region };
        let state = tombstone(None, peer, Some(&gone));
        keys::put_region_state(&mut self.batch, source.id, &state);
        self.batch.delete(Cf::Meta, keys::apply_state(source.id));
        let after = Arc::new(after);
        slot.time_ms = slot.time_ms.max(taken.time_ms);
        slot.region = Arc::clone(&after);
        slot.taken_in.extend(taken.taken_in);
        slot.taken_in.push(source.id);
        let surplus = slot.taken_in.len().saturating_sub(REMEMBERED);
        slot.taken_in.drain(..surplus);
        keys::put_region_state(&mut self.batch, after.id, &slot.state());
        self.changes.push(Change::Union(Union { after, source: taken.local }));
        Ok(Ok(()))
    }
}

impl Applier {
    /// Takes the local replica of a region out of its slot and applies, from its own log, what it
    /// lacks up to the entry that stopped it, behind what was gathered before. What is not written
    /// yet comes back as a batch. Half of the entry of the region that takes it in may be written
    /// ahead of the rest: its index is not, so it is applied again as a whole.
    fn catch_up<T>(
        &mut self,
        source: &Region,
        merging: Merging,
        gathered: WriteBatch,
        outcome: &mut Outcome,
    ) -> Result<(Slot, WriteBatch), EngineError> {
        let (id, store) = (source.id, self.directory.store());
        let mut slot = self
            .slots
            .remove(&id)
            .filter(|slot| source.peer_on(store).is_some_and(|peer| peer.id == slot.local.peer()))
            .ok_or_else(|| lost(id, store, "no replica of it with data is here"))?;
        let mut work: Work<T> = Work::new(0, gathered);
        let mut answers = Vec::new();
        while slot.index < merging.frozen {
            let (engine, from) = (Arc::clone(&self.engine), slot.index);
            let entries = durable_entries(engine.as_ref(), id, from, merging.frozen, BATCH_BYTES)?;
            if !self.run(&mut slot, entries, &mut work, &mut answers, outcome)? {
                return Err(lost(id, store, "the replica here was removed from it"));
            }
        }
        if slot.merging != Some(merging) || slot.region.as_ref() != source {
            let is = format!("it is {:?} at entry {}, {:?}", slot.region, slot.index, slot.merging);
            return Err(lost(id, store, &is));
        }
        Ok((slot, work.batch))
    }
}

/// A promise that others rely on is broken here.
fn lost(source: RegionId, store: StoreId, what: &str) -> EngineError {
    corrupt(
        &format!("the state of {source}"),
        &format!("its neighbour takes it in, and {what}; {store} has lost data: replace the store"),
    )
}

fn next_version(region: &Region) -> Epoch {
    Epoch { version: region.epoch.version + 1, ..region.epoch }
}

fn check_conf(region: &Arc<Region>, conf_ver: u64) -> Result<(), RegionError> {
    if conf_ver == region.epoch.conf_ver {
        return Ok(());
    }
    Err(RegionError::EpochNotMatch { current: vec![Arc::clone(region)] })
}
