//! Splits on request: from keys to one split for each region.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_proto::limits::MAX_KEY_BYTES;
use quorate_proto::{RegionId, key};
use thiserror::Error;

use super::operators::{Draft, Goal};
use super::tree::{RegionInfo, RegionTree};

/// Most keys of one request.
pub const MAX_SPLIT_KEYS: usize = 1_024;
/// Most keys of one split: what one region becomes at once. The rest follows.
pub const MAX_KEYS_PER_SPLIT: usize = 64;

/// Why a split cannot be.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SplitRefusal {
    /// Nothing was asked for.
    #[error("name the keys to split at, or one region to halve")]
    Nothing,
    /// Too much was asked for.
    #[error("a request names at most {MAX_SPLIT_KEYS} keys, not {0}")]
    TooManyKeys(usize),
    /// No region begins before the empty key.
    #[error("an empty key splits nothing: every range begins at it")]
    EmptyKey,
    /// Longer than a key may be.
    #[error("a key has at most {MAX_KEY_BYTES} bytes, not {0}")]
    LongKey(usize),
    /// The last region is never split.
    #[error("the key {0} lies in the cluster's last region, which stays empty and whole")]
    Sentinel(String),
    /// A region that is not known.
    #[error("{0} is not known; `quorate region list` shows those that are")]
    UnknownRegion(RegionId),
    /// A hole in the tree.
    #[error("no region is known yet that holds the key {0}; try again in a few seconds")]
    NoRegion(String),
}

/// Checks the keys of a request once, before anything is begun.
///
/// # Errors
/// Why no attempt will help.
pub fn check_keys(keys: &[Bytes]) -> Result<BTreeSet<Bytes>, SplitRefusal> {
    if keys.is_empty() {
        return Err(SplitRefusal::Nothing);
    }
    if keys.len() > MAX_SPLIT_KEYS {
        return Err(SplitRefusal::TooManyKeys(keys.len()));
    }
    for key in keys {
        if key.is_empty() {
            return Err(SplitRefusal::EmptyKey);
        }
        if key.len() > MAX_KEY_BYTES {
            return Err(SplitRefusal::LongKey(key.len()));
        }
    }
    Ok(keys.iter().cloned().collect())
}

/// One split for each region that has to be cut so that every key begins a region; empty once
/// every key does.
///
/// # Errors
/// A key lies in the sentinel region, or in none that is known.
pub fn plan(tree: &RegionTree, keys: &BTreeSet<Bytes>) -> Result<Vec<Draft>, SplitRefusal> {
    let mut cuts: BTreeMap<RegionId, (&RegionInfo, Vec<Bytes>)> = BTreeMap::new();
    for split_key in keys {
        let info =
            tree.find(split_key).ok_or_else(|| SplitRefusal::NoRegion(key::display(split_key)))?;
        if info.region.range.start == *split_key {
            continue;
        }
        if info.is_sentinel() {
            return Err(SplitRefusal::Sentinel(key::display(split_key)));
        }
        let (_, cut) = cuts.entry(info.region.id).or_insert((info, Vec::new()));
        if cut.len() < MAX_KEYS_PER_SPLIT {
            cut.push(split_key.clone());
        }
    }
    let draft = |(info, keys): (&RegionInfo, Vec<Bytes>)| Draft {
        region: info.region.id,
        epoch: info.region.epoch,
        reason: format!("split at {} keys on request", keys.len()),
        goal: Goal::Split { keys },
        by: "request",
    };
    Ok(cuts.into_values().map(draft).collect())
}

/// A split of one region in half by size.
///
/// # Errors
/// The region is not known, or is the sentinel.
pub fn halve(tree: &RegionTree, region: RegionId) -> Result<Draft, SplitRefusal> {
    let info = tree.get(region).ok_or(SplitRefusal::UnknownRegion(region))?;
    if info.is_sentinel() {
        return Err(SplitRefusal::Sentinel(key::display(&info.region.range.start)));
    }
    Ok(Draft {
        region,
        epoch: info.region.epoch,
        goal: Goal::Split { keys: Vec::new() },
        by: "request",
        reason: "split in half on request".to_owned(),
    })
}
