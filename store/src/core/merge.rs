//! Placement's four steps of a merge, made into commands for the logs of source and target.
//!
//! Each is checked here against what this store has, before it is proposed; the state machine
//! checks again what all replicas see alike. What only the leader can see is checked here alone:
//! that every replica of the source is in step before it stops, that every replica of the target
//! has data before it takes the source in (one that came empty could get a snapshot of before the
//! merge, on a store that has no source any more), and that the target is past the merge before the
//! source goes on.
//!
//! **The proof.** A region that stops is lifted to a version [`MERGE_LEAP`] above its own and the
//! target's. Whoever takes it in goes one higher, and no version ever falls: so a target that is
//! newer than it was to be, and not above the stopped source, has not taken it in and never will. A
//! glance at its range would not do: it may have taken the source in and split off its keys since.
//! What may lift a target by itself so far is another merge; none is begun with it meanwhile.

use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::shard::{MAX_BEHIND, is_joint};
use quorate_proto::limits::INITIAL_INDEX;
use quorate_proto::wire::metapb::RegionEpoch;
use quorate_proto::wire::placement::{
    CommitMergeStep, PrepareMergeStep, RefuseMergeStep, RollbackMergeStep,
};
use quorate_proto::{Epoch, KeyRange, LogIndex, Region, RegionId};
use thiserror::Error;

use super::command::{self, CommandError, Stamp};
use super::directory::{Directory, LocalRegion, Merging, members};
use super::error::RegionError;
use super::split::is_sentinel;

/// How far a region that stops is lifted above the target: more than the target can move by splits
/// and changes while the source waits.
pub const MERGE_LEAP: u64 = 1 << 16;

/// Why a step is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MergeError {
    /// A rule stands in the way.
    #[error("{region} cannot be merged like that: {reason}")]
    Rule {
        /// The region whose log the step is for.
        region: RegionId,
        /// Which.
        reason: String,
    },
    /// Soon, perhaps: this store lags.
    #[error("{region} cannot be merged yet: {reason}")]
    NotYet {
        /// The region whose log the step is for.
        region: RegionId,
        /// What is missing.
        reason: &'static str,
    },
    /// The region changed meanwhile, or is led elsewhere.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The command is out of bounds.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// What two regions are together: the target, one version above both.
///
/// # Errors
/// The source is no neighbour that can be taken in.
pub(super) fn union(target: &Region, source: &Region) -> Result<Region, &'static str> {
    check_pair(target, source)?;
    let (left, right) = ordered(target, source);
    let range = KeyRange::new(left.range.start.clone(), right.range.end.clone());
    let version = target.epoch.version.max(source.epoch.version).checked_add(1);
    let version = version.ok_or("its version cannot be")?;
    let epoch = Epoch { version, ..target.epoch };
    Ok(Region { id: target.id, range, epoch, peers: target.peers.clone() })
}

fn ordered<'a>(one: &'a Region, other: &'a Region) -> (&'a Region, &'a Region) {
    if one.range.start < other.range.start { (one, other) } else { (other, one) }
}

/// Whether two regions may become one.
fn check_pair(target: &Region, source: &Region) -> Result<(), &'static str> {
    let (left, right) = ordered(target, source);
    if source.id == target.id {
        return Err("a region cannot take itself in");
    }
    if left.range.end.is_empty() || left.range.end != right.range.start {
        return Err("source and target are no neighbours");
    }
    if is_sentinel(target) || is_sentinel(source) {
        return Err("the sentinel last region is never merged");
    }
    if is_joint(&members(target)) || is_joint(&members(source)) {
        return Err("the replicas of source or target are changing");
    }
    let together = source.peers.iter().all(|peer| target.peer_on(peer.store).is_some());
    if !together || source.peers.len() != target.peers.len() {
        return Err("the replicas of source and target are not on the same stores");
    }
    Ok(())
}

/// The command that stops the source. Propose it with `suspends_lease`.
///
/// # Errors
/// Which rule stands in the way; nothing is to be proposed.
pub fn prepare(
    directory: &Directory,
    source: &LocalRegion,
    step: &PrepareMergeStep,
    time_ms: u64,
) -> Result<Bytes, MergeError> {
    let region = source.region().ok_or(RegionError::Merging(source.id()))?;
    let id = region.id;
    let rule = |reason: &str| MergeError::Rule { region: id, reason: reason.to_owned() };
    check_leader(source)?;
    check_epoch(&region, step.epoch)?;
    let target = RegionId(step.target_id);
    let target_epoch = Epoch::from(step.target_epoch.ok_or_else(|| rule("it names no epoch"))?);
    let here = directory.get(target).and_then(|target| target.region());
    let here = here.ok_or_else(|| rule("the target is not here, or does not serve"))?;
    if here.epoch != target_epoch {
        let reason = "the target is at another epoch here";
        return Err(MergeError::NotYet { region: id, reason });
    }
    check_pair(&here, &region).map_err(rule)?;
    if waiting_for(directory, id).is_some() {
        return Err(rule("another region waits to be taken in by it"));
    }
    if waiting_for(directory, target).is_some() {
        return Err(rule("another region waits to be taken in by the target"));
    }
    check_in_step(source).map_err(rule)?;
    Ok(command::prepare_merge(stamp(&region, time_ms), target, target_epoch)?)
}

/// Every replica has answered the leader in its term, none is silent, and none lags by far.
fn check_in_step(local: &LocalRegion) -> Result<(), &'static str> {
    let view = local.view();
    let (everywhere, committed) = (view.everywhere().0, view.committed().0);
    if everywhere == 0 || everywhere + MAX_BEHIND < committed {
        return Err("a replica of it lags behind, or its leader does not know");
    }
    let peers = view.replication().map(|replication| replication.peers).unwrap_or_default();
    match peers.iter().any(|peer| peer.snapshot || peer.silent_since.is_some()) {
        true => Err("a replica of it is silent, or gets a snapshot"),
        false => Ok(()),
    }
}

/// A region on this store that waits for this one, as it is now, to take it in.
fn waiting_for(directory: &Directory, target: RegionId) -> Option<RegionId> {
    let at = directory.get(target)?.replicated()?.epoch;
    let all = directory.all();
    let waits = |local: &LocalRegion| {
        local.merging().is_some_and(|(_, it)| it.target == target && it.target_epoch == at)
    };
    all.iter().find(|local| waits(local)).map(|local| local.id())
}

/// The command by which the target takes the source in. Propose it with `suspends_lease`, so that
/// all replicas hear of it at once.
///
/// # Errors
/// Which rule stands in the way; nothing is to be proposed.
pub fn commit(
    directory: &Directory,
    target: &LocalRegion,
    step: &CommitMergeStep,
    time_ms: u64,
) -> Result<Bytes, MergeError> {
    let region = target.region().ok_or(RegionError::Merging(target.id()))?;
    let id = region.id;
    let rule = |reason: &str| MergeError::Rule { region: id, reason: reason.to_owned() };
    check_leader(target)?;
    check_epoch(&region, step.epoch)?;
    let asked = Region::try_from(step.source.clone().unwrap_or_default());
    let asked = asked.map_err(|error| rule(&error.to_string()))?;
    let frozen = LogIndex(step.frozen_index);
    let expected = Merging { target: id, target_epoch: region.epoch, frozen };
    let here = directory.get(asked.id).and_then(|source| source.merging());
    let Some((source, merging)) = here else {
        let reason = "the source is not stopped on this store";
        return Err(MergeError::NotYet { region: id, reason });
    };
    if merging != expected || *source != asked {
        return Err(rule("the source is stopped for another target, or by another entry"));
    }
    union(&region, &source).map_err(rule)?;
    if target.view().everywhere().0 < INITIAL_INDEX {
        let reason = "a replica of the target has no data yet, or its leader does not know";
        return Err(MergeError::NotYet { region: id, reason });
    }
    Ok(command::commit_merge(stamp(&region, time_ms), &source, frozen)?)
}

/// The command that lets a stopped source go on.
///
/// # Errors
/// Which rule stands in the way; nothing is to be proposed.
pub fn rollback(
    source: &LocalRegion,
    step: &RollbackMergeStep,
    time_ms: u64,
) -> Result<Bytes, MergeError> {
    let id = source.id();
    let rule = |reason: &str| MergeError::Rule { region: id, reason: reason.to_owned() };
    let (region, merging) = source.merging().ok_or_else(|| rule("it is not stopped"))?;
    check_leader(source)?;
    check_epoch(&region, step.epoch)?;
    if merging.frozen.0 != step.frozen_index {
        return Err(rule("it is stopped by another entry"));
    }
    let target = Region::try_from(step.target.clone().unwrap_or_default());
    let target = target.map_err(|error| rule(&error.to_string()))?;
    if target.id != merging.target {
        return Err(rule("only the target itself can prove that it never takes the region in"));
    }
    check_proof(&region, &merging, target.epoch).map_err(rule)?;
    Ok(command::rollback_merge(stamp(&region, time_ms), merging.frozen, target.epoch)?)
}

/// Whether the target's epoch, as it was seen, proves that it has not taken the source in and never
/// will.
///
/// # Errors
/// Why it does not.
pub(super) fn check_proof(
    source: &Region,
    merging: &Merging,
    seen: Epoch,
) -> Result<(), &'static str> {
    if seen == merging.target_epoch || seen.is_stale_against(merging.target_epoch) {
        return Err("the target may still take it in: refuse the merge there first");
    }
    if seen.version >= source.epoch.version {
        return Err("the target may have taken it in: its version is not below");
    }
    Ok(())
}

/// The command by which a region moves on, so that nothing planned before can apply: taking a source
/// in, or being stopped.
///
/// # Errors
/// The region changed meanwhile, or is led elsewhere.
pub fn refuse(
    target: &LocalRegion,
    step: &RefuseMergeStep,
    time_ms: u64,
) -> Result<Bytes, MergeError> {
    let region = target.region().ok_or(RegionError::Merging(target.id()))?;
    check_leader(target)?;
    check_epoch(&region, step.epoch)?;
    Ok(command::refuse_merge(stamp(&region, time_ms))?)
}

fn check_leader(local: &LocalRegion) -> Result<(), RegionError> {
    if local.view().is_leader() {
        return Ok(());
    }
    Err(RegionError::NotLeader { region: local.id(), leader: local.leader() })
}

fn check_epoch(region: &Arc<Region>, seen: Option<RegionEpoch>) -> Result<(), RegionError> {
    if seen.map(Epoch::from) == Some(region.epoch) {
        return Ok(());
    }
    Err(RegionError::EpochNotMatch { current: vec![Arc::clone(region)] })
}

fn stamp(region: &Region, time_ms: u64) -> Stamp {
    let Epoch { conf_ver, version } = region.epoch;
    Stamp { version, conf_ver, time_ms }
}
