//! How a learner gets on, from what the leader of its group says at one time and another.

use quorate_proto::LogIndex;

use super::group::{Group, Member};
use super::limits::Limits;

/// Weight of the newest measurement in the rate.
const NEWEST: f64 = 0.5;

/// Measured progress. Soft: the next leader of placement measures anew, which takes a stable window and
/// gives a learner that stands still its whole time again. It could go on with what another one has
/// measured only where it knew what happened in between, and that nobody has seen. How long a member
/// was ready is no measurement: that is in its record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    matched: LogIndex,
    applied: LogIndex,
    snapshot_bytes: u64,
    /// Of the queue in which the snapshot waits for its turn.
    queue: u64,
    /// False before anything was reported: what is told first is no movement.
    observed: bool,
    /// When `matched` was last seen to grow, for the rate.
    sampled_ms: u64,
    /// Entries a millisecond.
    rate: f64,
    /// When anything was last seen to advance; from joining on.
    progressed_ms: u64,
    /// When anything was last seen to advance, or nothing was lacking: the stall clock runs from
    /// here. One that has everything cannot advance.
    moved_ms: u64,
    /// True where the last look saw it move, or lack nothing.
    moves: bool,
    /// Since when everything that makes it ready holds.
    fit_since_ms: Option<u64>,
}

impl Pace {
    /// Of a member that nothing is known of; the stall clock runs from `now_ms`.
    pub fn new(now_ms: u64) -> Self {
        Self {
            matched: LogIndex(0),
            applied: LogIndex(0),
            snapshot_bytes: 0,
            queue: 0,
            observed: false,
            sampled_ms: now_ms,
            rate: 0.0,
            progressed_ms: now_ms,
            moved_ms: now_ms,
            moves: false,
            fit_since_ms: None,
        }
    }

    /// Last entry known to be durable there.
    pub fn matched(&self) -> LogIndex {
        self.matched
    }

    /// When anything was last seen to advance.
    pub fn progressed_ms(&self) -> u64 {
        self.progressed_ms
    }

    /// The stall clock runs anew: the member is asked to catch up from now on.
    pub(super) fn restart(&mut self, now_ms: u64) {
        self.progressed_ms = now_ms;
        self.moved_ms = now_ms;
    }

    /// When anything was last seen to advance, or nothing was lacking.
    pub(super) fn moved_ms(&self) -> u64 {
        self.moved_ms
    }

    /// True where the last look saw it move, or lack nothing.
    pub(super) fn moves(&self) -> bool {
        self.moves
    }

    /// Takes in what the leader says now.
    pub(super) fn observe(&mut self, member: &Member, group: &Group, limits: &Limits, now_ms: u64) {
        let matched = member.matched.unwrap_or(self.matched);
        if matched > self.matched {
            // From nothing to a snapshot's index is no rate.
            if self.matched.0 > 0 {
                let millis = now_ms.saturating_sub(self.sampled_ms).max(1);
                let measured = (matched.0 - self.matched.0) as f64 / millis as f64;
                self.rate = match self.rate {
                    0.0 => measured,
                    rate => rate * (1.0 - NEWEST) + measured * NEWEST,
                };
            }
            self.sampled_ms = now_ms;
        }
        let sent = member.snapshot.map_or(0, |(sent, _)| sent);
        // One that waits for its turn gets on with the queue.
        let waits = member.snapshot.is_some_and(|(sent, _)| sent == 0);
        let applied = member.applied.unwrap_or(self.applied);
        let unapplied = group.unapplied(member);
        // One that applies nothing stands still, whatever its log does meanwhile.
        let gets_on = match unapplied > limits.max_lag {
            true => applied > self.applied,
            false => matched > self.matched || applied > self.applied,
        };
        let advances = gets_on
            || sent > self.snapshot_bytes
            || (waits && self.observed && member.queue != self.queue);
        let is_level = matched.0 > 0
            && matched >= group.last_index
            && unapplied == 0
            && member.snapshot.is_none();
        self.moves = is_level || (self.observed && advances);
        if advances {
            self.progressed_ms = now_ms;
        }
        if advances || is_level {
            self.moved_ms = now_ms;
        }
        self.matched = matched;
        self.applied = applied;
        self.snapshot_bytes = sent;
        self.queue = member.queue;
        self.observed = true;
        match self.not_fit(member, group, limits, now_ms) {
            None => {
                self.fit_since_ms.get_or_insert(now_ms);
            }
            Some(_) => self.fit_since_ms = None,
        }
    }

    /// What keeps it from being ready, in words; `None` where nothing does at this moment.
    fn not_fit(
        &self,
        member: &Member,
        group: &Group,
        limits: &Limits,
        now_ms: u64,
    ) -> Option<String> {
        let (matched, last) = (self.matched.0, group.last_index.0);
        if member.silent_ms > limits.contact_ms {
            return Some(format!("not heard of for {} ms", member.silent_ms));
        }
        if let Some((sent, total)) = member.snapshot {
            return Some(format!("gets a snapshot, {sent} of {total} bytes"));
        }
        if matched == 0 || last == 0 {
            return Some("its progress is not reported yet".to_owned());
        }
        let lag = last.saturating_sub(matched);
        if lag == 0 {
            return group.lags_in_applying(member, limits.max_lag);
        }
        let syncing = format!("match {matched} of {last}");
        if lag > limits.max_lag {
            return Some(syncing);
        }
        let stands_still = now_ms.saturating_sub(self.moved_ms) > limits.contact_ms;
        if self.rate <= 0.0 || stands_still {
            return Some(syncing);
        }
        let catch_up_ms = lag as f64 / self.rate;
        if catch_up_ms >= limits.catch_up_ms as f64 {
            return Some(format!("{syncing}, needs {catch_up_ms:.0} ms at its rate"));
        }
        group.lags_in_applying(member, limits.max_lag)
    }

    /// Whether it counts as ready.
    ///
    /// # Errors
    /// What is still missing, in words.
    pub(super) fn ready(
        &self,
        member: &Member,
        group: &Group,
        limits: &Limits,
        now_ms: u64,
    ) -> Result<(), String> {
        if let Some(why) = self.not_fit(member, group, limits, now_ms) {
            return Err(why);
        }
        let steady = self.fit_since_ms.map_or(0, |since| now_ms.saturating_sub(since));
        if self.fit_since_ms.is_none() || steady < limits.stable_ms {
            return Err(format!("caught up for {steady} ms of {} ms", limits.stable_ms));
        }
        Ok(())
    }

    /// True where it is behind, in its log or in applying, and nothing has advanced for too long.
    pub(super) fn is_stalled(
        &self,
        member: &Member,
        group: &Group,
        limits: &Limits,
        now_ms: u64,
    ) -> bool {
        let lacks = self.matched.0 == 0 || self.matched < group.last_index;
        let behind = lacks || group.unapplied(member) > 0;
        behind && now_ms.saturating_sub(self.moved_ms) >= limits.stall_ms
    }
}
