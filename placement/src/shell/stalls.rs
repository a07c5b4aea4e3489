//! Which members of the group stand still while they lag: their processes may well say that they
//! are healthy. A plain value.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_consensus::time::Instant;
use quorate_proto::{LogIndex, NodeId};

use crate::core::leader::Standing;

/// So long without a step forward is a standstill.
const STANDSTILL: Duration = Duration::from_secs(5);

/// How far one is: last entry known to be durable there, bytes of a snapshot sent to it.
type Progress = (LogIndex, u64);

/// How far those who lag were, and since when.
#[derive(Debug, Default)]
pub(super) struct Stalls(BTreeMap<NodeId, (Progress, Instant)>);

impl Stalls {
    /// Those who stand still, after a look at `now`.
    pub(super) fn look(&mut self, standing: &Standing, now: Instant) -> BTreeSet<NodeId> {
        let lagging = standing.others.iter().filter(|other| other.matched < standing.last);
        let seen = lagging.map(|other| {
            let progress = (other.matched, other.snapshot.map_or(0, |(sent, _)| sent));
            let known = self.0.get(&other.member).filter(|(known, _)| *known == progress);
            (other.member, known.copied().unwrap_or((progress, now)))
        });
        self.0 = seen.collect();
        let stands = self.0.iter().filter(|(_, (_, since))| now.since(*since) >= STANDSTILL);
        stands.map(|(member, _)| *member).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::leader::Other;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(1_000 * seconds)
    }

    fn standing(last: u64, matched: u64, snapshot: Option<(u64, u64)>) -> Standing {
        let (member, matched) = (NodeId(2), LogIndex(matched));
        let others = vec![Other { member, matched, snapshot, applied: None, silent_ms: 0 }];
        let last = LogIndex(last);
        Standing { me: NodeId(1), last, committed: last, others }
    }

    #[test]
    fn one_that_lags_and_does_not_move_is_found_and_forgotten_once_it_moves() {
        let (mut stalls, none) = (Stalls::default(), BTreeSet::new());
        assert_eq!(stalls.look(&standing(10, 7, None), at(1)), none);
        assert_eq!(stalls.look(&standing(12, 8, None), at(4)), none, "it moved");
        assert_eq!(stalls.look(&standing(14, 8, None), at(8)), none);
        assert_eq!(stalls.look(&standing(15, 8, None), at(9)), BTreeSet::from([NodeId(2)]));
        assert_eq!(stalls.look(&standing(15, 15, None), at(10)), none, "it has all");
        assert_eq!(stalls.look(&standing(20, 15, Some((1, 9))), at(11)), none);
        assert_eq!(stalls.look(&standing(20, 15, Some((5, 9))), at(17)), none, "a snapshot moves");
    }
}
