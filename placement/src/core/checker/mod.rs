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
use super::schedule::SchedulerStatus;
use super::tree::RegionInfo;

/// The checkers in the order in which they look at a region; the first that finds something has its
/// way. A new one is a variant here, and a line in [`Checker::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checker {
    /// [`replica`].
    Replica,
    /// [`boundary`].
    Boundary,
    /// [`merge`].
    Merge,
}

impl Checker {
    /// All of them.
    pub const ALL: [Checker; 3] = [Checker::Replica, Checker::Boundary, Checker::Merge];

    /// The name that people know.
    pub const fn name(self) -> &'static str {
        match self {
            Checker::Replica => replica::NAME,
            Checker::Boundary => boundary::NAME,
            Checker::Merge => merge::NAME,
        }
    }

    /// Checks a region; without `merging`, not for a merge.
    fn check(
        self,
        around: replica::Surroundings<'_>,
        merging: Option<merge::Surroundings<'_>>,
        info: &RegionInfo,
    ) -> Verdict {
        match self {
            Checker::Replica => replica::check(around, info),
            Checker::Boundary => boundary::check(around.view, info),
            Checker::Merge => match merging.map(|around| merge::check(around, info)) {
                Some(Verdict::Repair(draft)) => Verdict::Repair(draft),
                // Why it cannot be merged is told to who asks: there may be thousands of them.
                Some(Verdict::Fine | Verdict::Stuck(_)) | None => Verdict::Fine,
            },
        }
    }
}

/// How the checkers are doing.
#[derive(Debug)]
pub struct Checkers {
    status: [SchedulerStatus; Checker::ALL.len()],
}

impl Default for Checkers {
    fn default() -> Self {
        Self {
            status: Checker::ALL.map(|checker| SchedulerStatus {
                last: "has found nothing to do yet".to_owned(),
                ..SchedulerStatus::new(checker.name())
            }),
        }
    }
}

impl Checkers {
    /// All of them, in their order.
    pub fn list(&self) -> &[SchedulerStatus] {
        &self.status
    }

    /// Those that are paused check nothing.
    pub fn set_paused(&mut self, is_paused: impl Fn(&str) -> bool) {
        for status in &mut self.status {
            status.paused = is_paused(status.name);
            if status.paused {
                "is paused".clone_into(&mut status.last);
            }
        }
    }

    /// Asks those that are not paused about a region; who found something, and what.
    pub fn check(
        &self,
        around: replica::Surroundings<'_>,
        merging: Option<merge::Surroundings<'_>>,
        info: &RegionInfo,
    ) -> Option<(Checker, Verdict)> {
        for (checker, status) in Checker::ALL.into_iter().zip(&self.status) {
            if status.paused {
                continue;
            }
            match checker.check(around, merging, info) {
                Verdict::Fine => {}
                verdict => return Some((checker, verdict)),
            }
        }
        None
    }

    /// What a checker did last.
    pub fn did(&mut self, checker: Checker, what: String, begun: bool) {
        let status = &mut self.status[checker as usize];
        status.last = what;
        status.begun += u64::from(begun);
    }
}

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
