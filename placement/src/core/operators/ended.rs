//! How operators end, and what is kept of them.

use std::fmt;

use bytes::Bytes;

use super::{Goal, Operator, REST_AFTER_FAILURE, millis};

/// Most bytes that are kept of a text.
const MAX_WORDS: usize = 256;
/// Most bytes that are kept of a key, and most keys of a split.
const MAX_KEY: usize = 64;
const MAX_KEYS: usize = 16;

/// What became of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A report showed it done.
    Done,
    /// The region changed otherwise meanwhile.
    Overtaken,
    /// It was not seen done in time.
    TimedOut,
    /// Somebody asked for that.
    Cancelled,
    /// The store refused it, for this reason.
    Refused(String),
    /// It cannot be done any more, for this reason.
    Failed(String),
}

impl End {
    /// One word, for counting.
    pub const fn name(&self) -> &'static str {
        match self {
            End::Done => "done",
            End::Overtaken => "overtaken",
            End::TimedOut => "timed-out",
            End::Cancelled => "cancelled",
            End::Refused(_) => "refused",
            End::Failed(_) => "failed",
        }
    }

    /// True where it did not come about although nobody wanted that.
    pub const fn is_failure(&self) -> bool {
        match self {
            End::Done | End::Overtaken | End::Cancelled => false,
            End::TimedOut | End::Refused(_) | End::Failed(_) => true,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Done => f.write_str("done"),
            End::Overtaken => f.write_str("overtaken"),
            End::TimedOut => f.write_str("timed out"),
            End::Cancelled => f.write_str("cancelled"),
            End::Refused(why) => write!(f, "refused: {why}"),
            End::Failed(why) => write!(f, "given up: {why}"),
        }
    }
}

/// An operator that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The operator.
    pub operator: Operator,
    /// What became of it.
    pub end: End,
    /// When, in placement time.
    pub at_ms: u64,
}

impl Ended {
    /// Itself with no more text than is worth keeping.
    pub(super) fn brief(self) -> Self {
        let Self { mut operator, end, at_ms } = self;
        operator.reason = cut(operator.reason);
        match &mut operator.goal {
            Goal::Split { keys } => {
                keys.truncate(MAX_KEYS);
                keys.iter_mut().for_each(cut_key);
            }
            Goal::MergeInto { start, .. } | Goal::RollBackMerge { start, .. } => cut_key(start),
            Goal::TransferLeader { .. }
            | Goal::AddReplica { .. }
            | Goal::MoveReplica { .. }
            | Goal::RemoveReplica { .. }
            | Goal::Promote { .. }
            | Goal::Demote { .. }
            | Goal::LeaveJoint => {}
        }
        let end = match end {
            End::Refused(why) => End::Refused(cut(why)),
            End::Failed(why) => End::Failed(cut(why)),
            end @ (End::Done | End::Overtaken | End::TimedOut | End::Cancelled) => end,
        };
        Self { operator, end, at_ms }
    }

    /// Until when its region is left alone, in placement time; `None` where it did not fail.
    pub(super) fn rests_until_ms(&self) -> Option<u64> {
        self.end.is_failure().then(|| self.at_ms + millis(REST_AFTER_FAILURE))
    }
}

fn cut(mut words: String) -> String {
    if words.len() > MAX_WORDS {
        let end = (0..=MAX_WORDS).rev().find(|end| words.is_char_boundary(*end));
        words.truncate(end.unwrap_or(0));
        words.push('…');
    }
    words
}

fn cut_key(key: &mut Bytes) {
    if key.len() > MAX_KEY {
        // A copy, so that the rest of it does not stay in memory.
        *key = Bytes::copy_from_slice(&key[..MAX_KEY]);
    }
}
