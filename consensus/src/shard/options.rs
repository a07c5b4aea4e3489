//! The knobs of Raft groups, with their defaults.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How groups behave. Equal on all processes of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RaftOptions {
    /// Length of a tick, in milliseconds. Elections and heartbeats count in ticks.
    pub tick_ms: u64,
    /// Ticks between heartbeats of a group that is awake.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader after which the first voter campaigns.
    pub election_ticks: usize,
    /// Ticks between the campaigns of one voter and the next, so that they do not split the vote.
    pub election_stagger_ticks: usize,
    /// How long a leader may serve reads after the sending of what a majority answered.
    pub lease_ms: u64,
    /// How long a peer refuses votes after it heard from its leader, and after its start.
    /// Half as long again as the lease, so that clocks may differ in rate.
    pub vote_promise_ms: u64,
    /// Ticks without work after which a group falls asleep; 0: never.
    pub sleep_after_ticks: u32,
    /// How long a process may be silent before the groups it led wake up and elect.
    pub node_silence_ms: u64,
    /// Sleeping groups woken in one tick at the most.
    pub wakes_per_tick: usize,
    /// Largest append message, in bytes.
    pub max_append_bytes: u64,
    /// Append messages in flight to one follower.
    pub max_inflight: usize,
    /// Proposed and not yet committed, per group, in bytes.
    pub max_uncommitted_bytes: u64,
    /// Requests of one group that wait for an answer (writes, and reads that wait for the leader).
    pub max_pending: usize,
    /// Small commands of one group are put into one log entry up to this many bytes.
    pub entry_bytes: usize,
    /// Truncate the log once this many entries are applied and known to all members.
    pub truncate_entries: u64,
    /// Truncate earlier once the log has this many bytes.
    pub truncate_bytes: u64,
    /// For a member that lags, keep up to this many entries (then it gets a snapshot).
    pub max_log_entries: u64,
    /// For a member that lags, keep up to this many bytes of log.
    pub max_log_bytes: u64,
    /// Give up on a request that has no outcome after this long.
    pub request_timeout_ms: u64,
}

impl Default for RaftOptions {
    fn default() -> Self {
        Self {
            tick_ms: 100,
            heartbeat_ticks: 1,
            election_ticks: 6,
            election_stagger_ticks: 2,
            lease_ms: 400,
            vote_promise_ms: 600,
            sleep_after_ticks: 20,
            node_silence_ms: 600,
            wakes_per_tick: 1_000,
            max_append_bytes: 512 * 1024,
            max_inflight: 64,
            max_uncommitted_bytes: 16 * 1024 * 1024,
            max_pending: 16_384,
            entry_bytes: 256 * 1024,
            truncate_entries: 256,
            truncate_bytes: 4 * 1024 * 1024,
            max_log_entries: 16_384,
            max_log_bytes: 16 * 1024 * 1024,
            request_timeout_ms: 5_000,
        }
    }
}

/// Milliseconds, or ticks, beyond which no knob of time makes sense.
const LONGEST: u64 = 3_600_000;

/// What makes reads under a lease safe: while a leader may read without asking, nobody whose answer
/// it counted votes for another one. It holds between any two processes, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// See [`RaftOptions::lease_ms`].
    pub lease_ms: u64,
    /// See [`RaftOptions::vote_promise_ms`].
    pub vote_promise_ms: u64,
}

impl Terms {
    /// Whether the promise outlasts the lease, with half of it to spare for clocks that differ in
    /// rate.
    fn is_safe(self) -> bool {
        self.vote_promise_ms.saturating_mul(2) >= self.lease_ms.saturating_mul(3)
    }

    /// Whether leaders on one process may count on peers on the other, both ways. `theirs` has
    /// zeros where an older version does not say: that had the defaults, or nobody can know.
    ///
    /// # Errors
    /// What to change.
    pub fn agree(self, theirs: Terms) -> Result<(), String> {
        let default = RaftOptions::default().terms();
        let or = |said: u64, default: u64| if said == 0 { default } else { said };
        let theirs = Terms {
            lease_ms: or(theirs.lease_ms, default.lease_ms),
            vote_promise_ms: or(theirs.vote_promise_ms, default.vote_promise_ms),
        };
        let ours_for_them = Terms { lease_ms: theirs.lease_ms, ..self };
        let theirs_for_us = Terms { lease_ms: self.lease_ms, ..theirs };
        if ours_for_them.is_safe() && theirs_for_us.is_safe() {
            return Ok(());
        }
        Err(format!(
            "raft.lease_ms and raft.vote_promise_ms are {} and {} here, {} and {} at the caller: \
             reads could be stale; set them alike on all processes, and to raise them, raise \
             vote_promise_ms everywhere first",
            self.lease_ms, self.vote_promise_ms, theirs.lease_ms, theirs.vote_promise_ms
        ))
    }
}

impl RaftOptions {
    /// What other processes must know of these options.
    pub fn terms(&self) -> Terms {
        Terms { lease_ms: self.lease_ms, vote_promise_ms: self.vote_promise_ms }
    }
    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }
    pub(crate) fn vote_promise(&self) -> Duration {
        Duration::from_millis(self.vote_promise_ms)
    }
    pub(crate) fn node_silence(&self) -> Duration {
        Duration::from_millis(self.node_silence_ms)
    }
    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// Checks what must hold between the knobs.
    ///
    /// # Errors
    /// One sentence that says which knob to change.
    pub fn validate(&self) -> Result<(), String> {
        let longest = [
            ("tick_ms", self.tick_ms),
            ("lease_ms", self.lease_ms),
            ("vote_promise_ms", self.vote_promise_ms),
            ("node_silence_ms", self.node_silence_ms),
            ("request_timeout_ms", self.request_timeout_ms),
            ("election_ticks", self.election_ticks as u64),
        ];
        if let Some((name, value)) = longest.iter().find(|(_, value)| *value > LONGEST) {
            return Err(format!("{name} is {value}; set it to {LONGEST} (an hour) or less"));
        }
        if self.tick_ms == 0 || self.heartbeat_ticks == 0 || self.max_inflight == 0 {
            return Err("tick_ms, heartbeat_ticks and max_inflight must be at least 1".into());
        }
        if self.election_ticks <= self.heartbeat_ticks {
            return Err(format!(
                "election_ticks ({}) must be greater than heartbeat_ticks ({})",
                self.election_ticks, self.heartbeat_ticks
            ));
        }
        if self.max_uncommitted_bytes < self.max_append_bytes {
            return Err(format!(
                "max_uncommitted_bytes ({}) must be at least max_append_bytes ({})",
                self.max_uncommitted_bytes, self.max_append_bytes
            ));
        }
        if !self.terms().is_safe() {
            return Err(format!(
                "vote_promise_ms ({}) must be at least half as long again as lease_ms ({})",
                self.vote_promise_ms, self.lease_ms
            ));
        }
        if self.tick_ms * (self.election_ticks as u64) < self.vote_promise_ms {
            return Err(format!(
                "election_ticks × tick_ms must be at least vote_promise_ms ({})",
                self.vote_promise_ms
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_lease_is_only_counted_on_where_everybody_promises_longer() {
        let terms = |lease_ms, vote_promise_ms| Terms { lease_ms, vote_promise_ms };
        let ours = RaftOptions::default().terms();
        assert_eq!(ours.agree(ours), Ok(()));
        assert_eq!(ours.agree(terms(200, 900)), Ok(()));
        assert_eq!(ours.agree(terms(0, 0)), Ok(()), "an older version");
        let words = ours.agree(terms(100, 300)).unwrap_err();
        assert!(words.contains("vote_promise_ms") && words.contains("300"), "they vote too soon");
        assert!(ours.agree(terms(600, 900)).is_err(), "we vote too soon for their lease");
    }
}
