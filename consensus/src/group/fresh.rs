//! How fresh a replica is: up to which moment it has all that was acknowledged.
//!
//! A leader that holds its lease claims, on appends and heartbeats: "whoever has applied index `c`
//! has everything that was acknowledged at time `t`", `t` being placement's clock and `c` what is
//! committed. Under the lease nobody else can have acknowledged anything, so the claim is true
//! whatever becomes of the leader later. It counts here once `c` is applied.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Group, GroupContext};
use crate::time::Instant;

/// Claims that wait for their index. A replica that lags keeps the oldest ones.
const KEPT: usize = 16;
/// A leader that is awake renews its lease, and its claim, that often though nobody needs it.
const AT_LEAST: Duration = Duration::from_secs(1);
/// Claims closer than this are one.
const APART_MS: u64 = 50;

/// What a leader has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Claim {
    /// Placement's clock, in milliseconds since the Unix epoch; 0: nothing is claimed.
    pub(crate) time_ms: u64,
    /// What must be applied.
    pub(crate) commit: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Freshness {
    /// What this peer claims as the leader.
    claim: Claim,
    waiting: VecDeque<(Claim, Instant)>,
}

impl Freshness {
    /// A claim was heard.
    pub(super) fn heard(&mut self, claim: Claim, now: Instant) {
        if claim.time_ms == 0 {
            return;
        }
        match self.waiting.back_mut() {
            // Old news, by another way.
            Some((last, _)) if claim.time_ms <= last.time_ms => {}
            Some((last, heard)) if claim.commit <= last.commit => {
                last.time_ms = claim.time_ms;
                *heard = now;
            }
            Some((last, _)) if claim.time_ms < last.time_ms + APART_MS => {}
            Some(_) | None => {
                if self.waiting.len() < KEPT {
                    self.waiting.push_back((claim, now));
                }
            }
        }
    }

    /// So much is applied: the newest claim that counts now, and when it was heard.
    pub(super) fn applied(&mut self, index: u64) -> Option<(u64, Instant)> {
        let mut newest = None;
        while let Some((claim, heard)) = self.waiting.front()
            && claim.commit <= index
        {
            newest = Some((claim.time_ms, *heard));
            self.waiting.pop_front();
        }
        newest
    }
}

impl<T> Group<T> {
    /// What may be claimed now, as the leader: to be called before anything leaves.
    pub(super) fn make_claim(&mut self, context: &GroupContext<'_>) {
        let applied = self.node.store().applied_index();
        let holds = self.is_leader()
            && self.node.raft.apply_to_current_term()
            && self.lease.valid_until(applied).is_some_and(|until| until > context.now);
        self.fresh.claim = Claim::default();
        if holds && context.time_ms > 0 {
            let commit = self.node.raft.raft_log.committed;
            let claim = Claim { time_ms: context.time_ms, commit };
            self.fresh.claim = claim;
            self.heard_claim(claim, context.now);
        }
    }

    /// What goes out with appends and heartbeats.
    pub(super) fn claim(&self) -> Claim {
        self.fresh.claim
    }

    pub(super) fn heard_claim(&mut self, claim: Claim, now: Instant) {
        self.fresh.heard(claim, now);
        self.note_fresh();
    }

    /// Something was heard or applied.
    pub(super) fn note_fresh(&mut self) {
        let applied = self.node.store().applied_index();
        if let Some((time_ms, heard)) = self.fresh.applied(applied) {
            self.view.set_fresh(time_ms, heard);
        }
    }

    /// Once a tick: a leader that is awake and has not shown for a while that it leads does so.
    pub(super) fn keep_fresh(&mut self, context: &GroupContext<'_>) {
        let stale = context.now.since(self.view.fresh().heard) >= AT_LEAST;
        if stale && context.time_ms > 0 && self.is_leader() && !self.sleep.is_asleep() {
            self.reads.renew();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn claim(time_ms: u64, commit: u64) -> Claim {
        Claim { time_ms, commit }
    }

    #[test]
    fn a_claim_counts_once_its_index_is_applied() {
        let mut fresh = Freshness::default();
        fresh.heard(claim(1_000, 7), at(1));
        assert_eq!(fresh.applied(6), None);
        fresh.heard(claim(1_100, 9), at(2));
        fresh.heard(claim(1_200, 12), at(3));
        assert_eq!(fresh.applied(9), Some((1_100, at(2))));
        assert_eq!(fresh.applied(11), None);
        assert_eq!(fresh.applied(12), Some((1_200, at(3))));
        assert_eq!(fresh.applied(20), None, "each is told once");
    }

    #[test]
    fn where_nothing_is_written_the_time_moves_on() {
        let mut fresh = Freshness::default();
        fresh.heard(claim(1_000, 7), at(1));
        fresh.heard(claim(1_010, 7), at(2));
        assert_eq!(fresh.applied(7), Some((1_010, at(2))));
        fresh.heard(claim(1_020, 7), at(3));
        assert_eq!(fresh.applied(7), Some((1_020, at(3))));
        fresh.heard(claim(0, 7), at(4));
        assert_eq!(fresh.applied(7), None, "a leader without a lease claims nothing");
    }

    #[test]
    fn old_news_change_nothing() {
        let mut fresh = Freshness::default();
        fresh.heard(claim(1_000, 7), at(1));
        fresh.heard(claim(900, 9), at(2));
        fresh.heard(claim(1_000, 3), at(3));
        assert_eq!(fresh.applied(8), Some((1_000, at(1))));
        assert_eq!(fresh.applied(9), None);
    }

    #[test]
    fn one_that_lags_catches_up_step_by_step() {
        let mut fresh = Freshness::default();
        // Ten seconds of claims, while nothing is applied.
        for step in 0..1_000 {
            fresh.heard(claim(1_000 + step * 10, 10 + step), at(step));
        }
        let mut seen = Vec::new();
        for index in 10..1_010 {
            seen.extend(fresh.applied(index).map(|(time, _)| time));
        }
        assert_eq!(seen.len(), KEPT);
        assert_eq!(seen[..3], [1_000, 1_050, 1_100]);
        fresh.heard(claim(20_000, 1_009), at(5_000));
        assert_eq!(fresh.applied(1_009), Some((20_000, at(5_000))));
    }
}
