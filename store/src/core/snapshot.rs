//! What leaves as a snapshot, and what a received one does.
//!
//! Installing goes through these steps, each durable before the next:
//!
//! 1. One synced batch: the log and hard state that go with the snapshot, the region's state as
//!    `Installing` with its new description, and the removal of data that only the old range had.
//!    Replicas of regions that it has taken in leave their tombstones, and what they have beyond.
//! 2. The staged file is ingested over the new range.
//! 3. One synced batch: the region's state as `Serving` (or stopped), and what it has applied.
//! 4. The staged file is discarded.
//!
//! A crash before step 1 is durable leaves everything as it was: the leader sends again. After it,
//! [`Applier::recover`] repeats from step 2; after step 3, it only discards the file. In between,
//! the directory says `Installing`, and a read that began before notices that the region's
//! description is another one.
//!
//! Whether a snapshot may come in at all is decided before its first chunk is taken
//! ([`Directory::admit_snapshot`]), since a group that has accepted one cannot go back. Here the
//! same check is a promise of our own.
//!
//! [`Directory::admit_snapshot`]: super::directory::Directory::admit_snapshot

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use quorate_consensus::engine::{Cf, EngineError, WriteBatch};
use quorate_consensus::node::{Installed, SnapshotSource};
use quorate_consensus::shard::Install;
use quorate_proto::wire::command::{
    ApplyState, PeerState, RegionState, SnapshotRef, SnapshotState,
};
use quorate_proto::{KeyRange, PeerId, Region, RegionId};

use super::applier::{Applier, Slot};
use super::directory::{Gone, LocalRegion, Merging, State, members};
use super::keys::{self, corrupt};

/// The stored state of a region that serves.
pub(super) fn serving(region: &Region, peer: PeerId) -> RegionState {
    RegionState {
        state: PeerState::Serving.into(),
        region: Some(region.into()),
        peer_id: peer.0,
        ..RegionState::default()
    }
}

/// The stored state of a region that is stopped for a merge, or of one that serves.
pub(super) fn replicated(
    region: &Region,
    peer: PeerId,
    merging: Option<Merging>,
    taken_in: &[RegionId],
) -> RegionState {
    let state = if merging.is_some() { PeerState::Merging } else { PeerState::Serving };
    RegionState {
        state: state.into(),
        merging: merging.map(Into::into),
        taken_in: taken_in.iter().map(|region| region.0).collect(),
        ..serving(region, peer)
    }
}

/// The stored state of a removed replica: of one whose region goes on, as it knew it, or of one
/// whose region was taken in, as that was at last.
pub(super) fn tombstone(region: Option<&Region>, peer: PeerId, gone: Option<&Gone>) -> RegionState {
    let region = gone.map(|gone| gone.region.as_ref()).or(region);
    RegionState {
        state: PeerState::Tombstone.into(),
        region: region.map(Into::into),
        peer_id: peer.0,
        merged_into: gone.map_or(0, |gone| gone.into.0),
        ..RegionState::default()
    }
}

/// What a snapshot says about its region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its description.
    pub region: Region,
    /// Its time, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// What it waits for, where it is stopped for a merge.
    pub merging: Option<Merging>,
    /// Regions that it took in: nowhere any more.
    pub taken_in: Vec<RegionId>,
}

/// Reads what a snapshot says about its region.
///
/// # Errors
/// It cannot be parsed: refuse the snapshot.
pub fn parse_state(state: Bytes) -> Result<Described, EngineError> {
    let what = "the description of a snapshot";
    let state = SnapshotState::decode(state).map_err(|error| corrupt(what, &error))?;
    let region = state.region.unwrap_or_default();
    let region = Region::try_from(region).map_err(|error| corrupt(what, &error))?;
    let merging = state.merging.map(Merging::try_from).transpose();
    let merging = merging.map_err(|reason| corrupt(what, &reason))?;
    let taken_in = state.taken_in.into_iter().map(RegionId).collect();
    Ok(Described { region, time_ms: state.time_ms, merging, taken_in })
}

impl Applier {
    /// A picture of a region as applied now; `None` where it has no data here.
    ///
    /// # Errors
    /// None so far; an engine may have some.
    pub fn snapshot(&self, group: RegionId) -> Result<Option<SnapshotSource>, EngineError> {
        let Some(slot) = self.slots.get(&group) else { return Ok(None) };
        let state = SnapshotState {
            region: Some(slot.region.as_ref().into()),
            time_ms: slot.time_ms,
            merging: slot.merging.map(Into::into),
            taken_in: slot.taken_in.iter().map(|region| region.0).collect(),
        };
        Ok(Some(SnapshotSource {
            index: slot.index,
            term: slot.term,
            members: members(&slot.region),
            start: slot.region.range.start.clone(),
            end: slot.region.range.end.clone(),
            state: Bytes::from(state.encode_to_vec()),
            reader: self.engine.snapshot(),
        }))
    }

    /// Replaces a region's data by a received snapshot, and with it replicas of regions that this
    /// one has taken in meanwhile. Durable when it returns. Returns the members it names (none, with
    /// nothing done, where the region is not here any more), and the replicas that are gone.
    ///
    /// # Errors
    /// An error of the engine, or a snapshot that was never admitted: stop the process. It starts
    /// again from the state before or finishes the installation, whichever the disk says.
    pub fn install(&mut self, install: Install) -> Result<Installed, EngineError> {
        let Install { group, id, index, term, state, mut batch } = install;
        let here = |local: &Arc<LocalRegion>| match &*local.state() {
            State::Uninitialized { .. }
            | State::Serving(_)
            | State::Merging(..)
            | State::Installing(_) => true,
            State::Removing(_) | State::Tombstone => false,
        };
        let Some(local) = self.directory.get(group).filter(here) else {
            tracing::warn!(region = %group, "dropped a snapshot of a region that was removed");
            return Ok(Installed::default());
        };
        let Described { region, time_ms, merging, taken_in } = parse_state(state)?;
        let region = Arc::new(region);
        let refused = |reason: &dyn std::fmt::Display| EngineError::Fatal {
            during: format!("installing a snapshot of {group}"),
            reason: reason.to_string(),
        };
        if region.id != group {
            return Err(refused(&format!("it is one of {}", region.id)));
        }
        let old = local.state().region().cloned();
        let begun = self.directory.begin_install(&local, &region, &taken_in);
        let replaced = begun.map_err(|conflict| refused(&conflict))?;
        self.slots.remove(&group);

        let reference = SnapshotRef { id: id.clone(), index: index.0, term: term.0, time_ms };
        let installing = RegionState {
            state: PeerState::Installing.into(),
            installing: Some(reference),
            ..replicated(&region, local.peer(), merging, &taken_in)
        };
        keys::put_region_state(&mut batch, group, &installing);
        if let Some(old) = old {
            delete_outside(&mut batch, &old.range, &region.range);
        }
        let mut merged = Vec::with_capacity(replaced.len());
        for (other, old, gone) in replaced {
            self.slots.remove(&other.id());
            let state = tombstone(None, other.peer(), Some(&gone));
            keys::put_region_state(&mut batch, other.id(), &state);
            batch.delete(Cf::Meta, keys::apply_state(other.id()));
            delete_outside(&mut batch, &old.range, &region.range);
            merged.push((other.id(), other.peer()));
        }
        self.engine.write_synced(batch)?;
        let applied = ApplyState { index: index.0, term: term.0, time_ms };
        self.finish_install(&local, &region, (merging, taken_in), &id, &applied)?;
        self.engine.discard_staged(&id)?;
        Ok(Installed { members: members(&region), merged })
    }

    /// Steps 2 and 3; the directory says `Installing`.
    pub(super) fn finish_install(
        &mut self,
        local: &Arc<LocalRegion>,
        region: &Arc<Region>,
        (merging, taken_in): (Option<Merging>, Vec<RegionId>),
        id: &str,
        applied: &ApplyState,
    ) -> Result<(), EngineError> {
        self.engine.ingest(id, &region.range.start, &region.range.end)?;
        let mut batch = WriteBatch::new();
        let state = replicated(region, local.peer(), merging, &taken_in);
        keys::put_region_state(&mut batch, region.id, &state);
        keys::put_apply_state(&mut batch, region.id, applied);
        self.engine.write_synced(batch)?;
        // The description is a new one, so that whoever read before and in between notices.
        self.directory.set_merging(local, Arc::clone(region), merging);
        let slot = Slot::new(Arc::clone(local), Arc::clone(region), (merging, taken_in), applied);
        self.slots.insert(region.id, slot);
        Ok(())
    }
}

/// Adds the removal of what `old` has and `new` has not.
fn delete_outside(batch: &mut WriteBatch, old: &KeyRange, new: &KeyRange) {
    if !old.overlaps(new) {
        keys::delete_data(batch, old);
        return;
    }
    if old.start < new.start {
        keys::delete_data(batch, &KeyRange::new(old.start.clone(), new.start.clone()));
    }
    if !new.end.is_empty() && (old.end.is_empty() || new.end < old.end) {
        keys::delete_data(batch, &KeyRange::new(new.end.clone(), old.end.clone()));
    }
}
