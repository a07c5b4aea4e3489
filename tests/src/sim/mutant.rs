//! Bugs that are put back on purpose, to see whether the simulator notices.
//!
//! All of them sit in the simulator's own interpreter: what a careless shell around the cores
//! would do. The cores know nothing of them.

/// One bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A group is told that its write is durable before it is.
    PersistedBeforeSync,
    /// Every fifth sync is skipped, and a crash loses what it stood for.
    SkippedSync,
    /// A write is answered when it is proposed.
    AnsweredBeforeApplied,
    /// A lease read is answered without looking at lease and region again.
    UnconfirmedRead,
    /// A follower answers from what it has, without asking its leader for the index.
    FollowerWithoutIndex,
    /// Restarted processes vote at once, whatever they promised before.
    ForgottenPromise,
    /// What was applied is forgotten by a restart, but not that it was applied.
    AppliedWithoutData,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 7] = [
        Mutant::PersistedBeforeSync,
        Mutant::SkippedSync,
        Mutant::AnsweredBeforeApplied,
        Mutant::UnconfirmedRead,
        Mutant::FollowerWithoutIndex,
        Mutant::ForgottenPromise,
        Mutant::AppliedWithoutData,
    ];
}
