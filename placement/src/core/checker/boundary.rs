//! The split checker: a region lies under the same placement rules with all its keys.
//!
//! Where rules change inside a region, it follows those at its first key; this checker has it split
//! at the change, so that both parts get what their rules want. Splits by size and load are the
//! stores' matter: they know the sizes.

use super::Verdict;
use crate::core::operators::{Draft, Goal};
use crate::core::split::MAX_KEYS_PER_SPLIT;
use crate::core::tree::RegionInfo;
use crate::core::view::ClusterView;

/// As people know it.
pub const NAME: &str = "split-checker";

/// Checks a region.
pub fn check(view: &ClusterView, info: &RegionInfo) -> Verdict {
    if info.is_sentinel() || !info.led {
        return Verdict::Fine;
    }
    let mut keys = view.policy.rules.split_keys(&info.region.range);
    // The rest follows once these are done.
    keys.truncate(MAX_KEYS_PER_SPLIT);
    if keys.is_empty() {
        return Verdict::Fine;
    }
    Verdict::Repair(Draft {
        region: info.region.id,
        epoch: info.region.epoch,
        goal: Goal::Split { keys },
        by: NAME,
        reason: "other placement rules begin inside it".to_owned(),
    })
}
