//! Timestamps that strictly increase, across failovers and whatever the wall clock does.
//!
//! A timestamp is (physical milliseconds, logical counter of 18 bits), as TiKV's clients compute
//! it: `physical << 18 | logical`. The replicated state keeps a **ceiling**: no timestamp at or
//! above it has been handed out by anybody. A leader raises the ceiling some seconds ahead through
//! the log and hands out timestamps below it; the next leader starts at the ceiling it finds. So
//! two leaders never give the same timestamp, even if one does not know that it is none any more;
//! that answers also come in the order of real time is the leader lease's part, which the shell
//! checks (before and after).
//!
//! The wall clock is an input and only ever a hint: where it jumps back, the physical part stays;
//! where it runs beyond the ceiling, the physical part waits for the ceiling to be raised.
//!
//! Absent on purpose: waiting. [`Oracle::allocate`] answers at once or says what is missing.

use thiserror::Error;

/// Bits of the logical part.
pub const LOGICAL_BITS: u32 = 18;
/// Logical values of one millisecond. The greatest `count` of one request is one less.
pub const LOGICAL_PER_MS: u64 = 1 << LOGICAL_BITS;
/// How far ahead of the clock the ceiling is raised, in milliseconds: what a failover may skip,
/// and PD's own default.
pub const CEILING_AHEAD_MS: u64 = 3_000;

/// The highest of the timestamps that one request got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Milliseconds since the Unix epoch, roughly.
    pub physical_ms: u64,
    /// Below [`LOGICAL_PER_MS`].
    pub logical: u64,
}

impl Timestamp {
    /// As one number, the way clients compose it.
    pub fn composed(self) -> u64 {
        (self.physical_ms << LOGICAL_BITS) | self.logical
    }
}

/// Why there is no timestamp now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoTimestamp {
    /// The ceiling has been reached: raise it (see [`Oracle::wants`]), then ask again.
    #[error("timestamps wait for their ceiling to be raised; try again")]
    Ceiling,
    /// The request is beyond bounds.
    #[error("a request for timestamps asks for 1 to {max} of them, not {0}", max = LOGICAL_PER_MS - 1)]
    Count(u64),
}

/// Hands out timestamps for one term of leadership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oracle {
    /// The last timestamp given lies in this millisecond, or none was given at or after it.
    physical_ms: u64,
    /// Next logical value of that millisecond.
    logical: u64,
    /// Exclusive bound of the physical part.
    ceiling_ms: u64,
}

impl Oracle {
    /// For a leader whose first raise of the ceiling, in its own term, went from `previous_ms` to
    /// `ceiling_ms`. Everything below `previous_ms` may have been handed out.
    pub fn new(previous_ms: u64, ceiling_ms: u64, wall_ms: u64) -> Self {
        let mut oracle = Self { physical_ms: previous_ms, logical: 0, ceiling_ms };
        oracle.advance(wall_ms);
        oracle
    }

    /// The ceiling a leader without an oracle proposes at `wall_ms`.
    pub fn first_ceiling(known_ceiling_ms: u64, wall_ms: u64) -> u64 {
        known_ceiling_ms.max(wall_ms) + CEILING_AHEAD_MS
    }

    /// `count` timestamps: those up to the returned one, all in its millisecond.
    ///
    /// # Errors
    /// [`NoTimestamp::Ceiling`] until the ceiling is raised, [`NoTimestamp::Count`] for a count
    /// that is 0 or does not fit into a millisecond.
    pub fn allocate(&mut self, count: u64, wall_ms: u64) -> Result<Timestamp, NoTimestamp> {
        if count == 0 || count >= LOGICAL_PER_MS {
            return Err(NoTimestamp::Count(count));
        }
        self.advance(wall_ms);
        if self.logical + count > LOGICAL_PER_MS {
            self.physical_ms += 1;
            self.logical = 0;
        }
        if self.physical_ms >= self.ceiling_ms {
            return Err(NoTimestamp::Ceiling);
        }
        self.logical += count;
        Ok(Timestamp { physical_ms: self.physical_ms, logical: self.logical - 1 })
    }

    /// The clock that stores are told, in milliseconds since the Unix epoch: never backwards, also
    /// across leaders.
    pub fn clock_ms(&mut self, wall_ms: u64) -> u64 {
        self.advance(wall_ms);
        self.physical_ms
    }

    /// The ceiling to propose now, if it is time for that: once half of what lay ahead is used.
    pub fn wants(&self, wall_ms: u64) -> Option<u64> {
        let now = self.physical_ms.max(wall_ms);
        (now + CEILING_AHEAD_MS / 2 >= self.ceiling_ms).then_some(now + CEILING_AHEAD_MS)
    }

    /// The ceiling was raised through the log.
    pub fn raised(&mut self, ceiling_ms: u64) {
        self.ceiling_ms = self.ceiling_ms.max(ceiling_ms);
    }

    fn advance(&mut self, wall_ms: u64) {
        let allowed = wall_ms.min(self.ceiling_ms.saturating_sub(1));
        if allowed > self.physical_ms {
            self.physical_ms = allowed;
            self.logical = 0;
        }
    }
}
