//! Which stores could not take a replica of which region, so that the next one goes elsewhere.
//!
//! Not replicated itself: the next leader of placement makes it anew from the operators that ended
//! last. What lies before those is forgotten, and tried once more. Bounded: beyond [`MAX_FAILURES`] the
//! one that is free again first is forgotten.

use std::collections::BTreeMap;

use quorate_proto::{RegionId, StoreId};

use super::{End, Ended, Goal, REST_AFTER_FAILURE, millis};

/// The longest rest, in milliseconds.
const LONGEST_REST_MS: u64 = 600_000;
/// Failures that are remembered.
const MAX_FAILURES: usize = 4_096;

/// How often a store has failed a region, and until when it is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failed {
    times: u32,
    until_ms: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Failures(BTreeMap<(RegionId, StoreId), Failed>);

impl Failures {
    /// Takes note of what became of an operator. The rest doubles with each failure in a row.
    pub(super) fn ended(&mut self, over: &Ended) {
        let Ended { operator, end, at_ms: now_ms } = over;
        let to = match &operator.goal {
            Goal::AddReplica { to, .. } | Goal::MoveReplica { to, .. } => *to,
            Goal::TransferLeader { .. }
            | Goal::Split { .. }
            | Goal::RemoveReplica { .. }
            | Goal::Promote { .. }
            | Goal::Demote { .. }
            | Goal::LeaveJoint
            | Goal::MergeInto { .. }
            | Goal::RollBackMerge { .. } => return,
        };
        let key = (operator.region, to);
        match end {
            End::Done => {
                self.0.remove(&key);
            }
            End::Overtaken | End::Cancelled => {}
            End::TimedOut | End::Refused(_) | End::Failed(_) => {
                let before = self.0.get(&key).map_or(0, |failed| failed.times);
                let rest_ms = millis(REST_AFTER_FAILURE) << before.min(10);
                let until_ms = *now_ms + rest_ms.min(LONGEST_REST_MS);
                self.0.insert(key, Failed { times: before.saturating_add(1), until_ms });
                self.forget(*now_ms);
            }
        }
    }

    /// One that has been free for as long as the longest rest counts as a first again.
    fn forget(&mut self, now_ms: u64) {
        self.0.retain(|_, failed| now_ms < failed.until_ms + LONGEST_REST_MS);
        if self.0.len() > MAX_FAILURES {
            let first = self.0.iter().min_by_key(|(_, failed)| failed.until_ms);
            if let Some(key) = first.map(|(key, _)| *key) {
                self.0.remove(&key);
            }
        }
    }

    /// Those that are left alone now: how often each has failed, and for how many milliseconds more.
    pub(super) fn resting(&self, now_ms: u64) -> BTreeMap<(RegionId, StoreId), (u32, u64)> {
        let rest = |failed: &Failed| failed.until_ms.checked_sub(now_ms).filter(|rest| *rest > 0);
        let resting = self.0.iter().filter_map(|(key, failed)| {
            rest(failed).map(|rest_ms| (*key, (failed.times, rest_ms)))
        });
        resting.collect()
    }
}
