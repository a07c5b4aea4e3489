//! Checkers: each looks at one region and says what it lacks, as a draft with a reason.
//!
//! * [`replica`]: voters on lost or leaving stores, missing ones, surplus ones, misplaced ones.
//! * [`boundary`]: regions that reach over a change of the placement rules.
//! * [`merge`]: small regions beside others.
//! * Learners (stale, zombies, without a partner, left over) and joint configurations are the
//!   lifecycle machine's; what it wants done without an operator becomes one in the leader.
//!
//! They read and never act.

pub mod boundary;
pub mod merge;
pub mod replica;

use super::operators::Draft;

/// What a checker says of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is wrong.
    Fine,
    /// Something is wrong and nothing can be done about it now, for this reason.
    Stuck(String),
    /// This would help.
    Repair(Draft),
}
