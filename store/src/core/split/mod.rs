//! When a region is split, where, and the command that does it.
//!
//! The leader's store looks at its regions now and then: [`due`] says, from counters alone, which
//! of them may have grown over a bound; [`check`] measures such a region by reading it and plans
//! where to cut. Ids for the new regions come from placement ([`ask`]), then [`command`] makes the
//! proposal. Nothing here is remembered: a plan that comes to nothing is made again.
//!
//! The sentinel last region is never split (see `docs/ARCHITECTURE.md`).

mod plan;

use bytes::Bytes;
use quorate_consensus::engine::{Cf, Engine, EngineError};
use quorate_proto::limits::SENTINEL_START;
use quorate_proto::wire::command::SplitTo;
use quorate_proto::wire::placement::{AskSplitRequest, SplitIds};
use quorate_proto::{Epoch, Region, RegionId, key};
use thiserror::Error;

pub use self::plan::{MAX_PARTS, SplitPlan, plan_half, plan_split};
use super::command::{CommandError, split as split_command};
use super::directory::{Admitted, LocalRegion};
use super::error::RegionError;

/// When regions are split. The defaults are TiKV's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitOptions {
    /// A region with more bytes of keys and values is split.
    pub max_bytes: u64,
    /// A region with more keys is split.
    pub max_keys: u64,
}

impl Default for SplitOptions {
    fn default() -> Self {
        Self { max_bytes: 96 * 1024 * 1024, max_keys: 960_000 }
    }
}

/// Why a split is not proposed.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SplitError {
    /// The sentinel.
    #[error("{0} is the sentinel last region, which is never split")]
    Sentinel(RegionId),
    /// A key that does not cut.
    #[error("{} cannot split {region}: it must lie inside, above the first key", key::display(key))]
    BadKey {
        /// The region.
        region: RegionId,
        /// The key.
        key: Bytes,
    },
    /// Nothing to cut.
    #[error("{0} has too few keys to be split: at least two are needed")]
    TooSmall(RegionId),
    /// The region changed meanwhile, or is led elsewhere.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// Placement's answer does not fit the question.
    #[error("placement sent {got} sets of ids for {wanted} new regions: ask again")]
    Ids {
        /// Asked for.
        wanted: usize,
        /// Received.
        got: usize,
    },
    /// The command is out of bounds.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// True for the sentinel last region.
pub fn is_sentinel(region: &Region) -> bool {
    region.range.start.as_ref() == SENTINEL_START
}

/// Removed keys below which a region that is far below its bound is not measured again for them.
const REMOVED: u64 = 1_024;

/// True where [`check`] is worth its cost: the region was never measured by this process; its
/// estimate is over a bound and an eighth of that bound was written since the last time; or a
/// quarter of its keys may have been removed since, of which the estimate knows nothing.
pub fn due(local: &LocalRegion, options: &SplitOptions) -> bool {
    let stats = local.stats();
    let over = stats.bytes() > options.max_bytes || stats.keys() > options.max_keys;
    let grown = stats.unchecked_bytes() >= options.max_bytes / 8
        || stats.unchecked_keys() >= options.max_keys / 8;
    let least = if stats.bytes() > options.max_bytes / 8 { 1 } else { REMOVED };
    let shrunk = stats.removed_keys() >= least.max(stats.keys() / 4);
    let led = local.view().is_leader();
    led && (!stats.is_measured() || (over && grown) || shrunk)
        && local.region().is_some_and(|region| !is_sentinel(&region))
}

/// Bytes that a key and its value take at least, to guess from a size how many there can be.
const LEAST_PAIR_BYTES: u64 = 16;

/// Measures a region and plans where to cut; `None` where it is within its bounds, or cannot be
/// split. A region that this process has not measured yet is read only where the engine says that
/// it may be large. A plan leaves the region due, until it was split.
///
/// # Errors
/// The engine.
pub fn check(
    engine: &dyn Engine,
    local: &LocalRegion,
    options: &SplitOptions,
) -> Result<Option<SplitPlan>, EngineError> {
    let Some(region) = local.region().filter(|region| !is_sentinel(region)) else {
        return Ok(None);
    };
    let stats = local.stats();
    if !stats.is_measured() {
        let range = &region.range;
        let bytes = engine.approximate_size(Cf::Data, &range.start, &range.end)?;
        // The engine may compress to a quarter.
        let (bytes, small) = (bytes.max(stats.bytes()), options.max_bytes / 4);
        if bytes < small && bytes / LEAST_PAIR_BYTES < options.max_keys {
            stats.measure(bytes, stats.keys());
            return Ok(None);
        }
    }
    let snapshot = engine.snapshot();
    let plan = plan_split(snapshot.as_ref(), &region, options)?;
    if plan.split_keys.is_empty() {
        stats.measure(plan.bytes, plan.keys);
        return Ok(None);
    }
    Ok(Some(plan))
}

/// The keys of a request to split, ready for a command: ascending, each once.
///
/// # Errors
/// A key does not cut the region, or it is the sentinel.
pub fn requested(region: &Region, keys: Vec<Bytes>) -> Result<Vec<Bytes>, SplitError> {
    if is_sentinel(region) {
        return Err(SplitError::Sentinel(region.id));
    }
    let mut keys = keys;
    keys.sort();
    keys.dedup();
    match keys.iter().find(|key| !region.range.can_split_at(key)) {
        Some(key) => Err(SplitError::BadKey { region: region.id, key: key.clone() }),
        None if keys.is_empty() => Err(SplitError::TooSmall(region.id)),
        None => Ok(keys),
    }
}

/// Whether the region is still the one that somebody saw at `epoch`, both parts of it.
///
/// # Errors
/// [`RegionError::EpochNotMatch`].
pub fn check_epoch(admitted: &Admitted, epoch: Epoch) -> Result<(), RegionError> {
    if admitted.region.epoch == epoch {
        return Ok(());
    }
    Err(RegionError::EpochNotMatch { current: vec![admitted.region.clone()] })
}

/// The question to placement for the ids of `count` new regions.
pub fn ask(cluster_id: u64, region: &Region, count: usize) -> AskSplitRequest {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    AskSplitRequest { cluster_id, region: Some(region.into()), count }
}

/// The command that splits `admitted` at `keys`, with the ids that placement gave for it. Propose
/// it with `suspends_lease`. Whatever changes the region before its turn makes it a refusal.
///
/// # Errors
/// The region has changed since, is led elsewhere, or keys and ids do not fit it.
pub fn command(
    admitted: &Admitted,
    keys: Vec<Bytes>,
    ids: Vec<SplitIds>,
    time_ms: u64,
) -> Result<Bytes, SplitError> {
    let keys = requested(&admitted.region, keys)?;
    admitted.check_leader()?;
    if !admitted.unchanged() {
        let current = admitted.local.region().unwrap_or_else(|| admitted.region.clone());
        return Err(RegionError::EpochNotMatch { current: vec![current] }.into());
    }
    let peers = admitted.region.peers.len();
    let fitting = ids.iter().filter(|ids| ids.peer_ids.len() == peers).count();
    if ids.len() != keys.len() || fitting != keys.len() {
        return Err(SplitError::Ids { wanted: keys.len(), got: fitting });
    }
    let child = |(key, ids): (Bytes, SplitIds)| SplitTo {
        key,
        region_id: ids.region_id,
        peer_ids: ids.peer_ids,
    };
    let children = keys.into_iter().zip(ids).map(child).collect();
    Ok(split_command(admitted.stamp(time_ms), children)?)
}
