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
    /// A leader of placement hands out timestamps from its clock, ceiling or not.
    TimestampsByClock,
    /// A member of placement answers without proof that it still leads.
    UnprovenPlacement,
    /// A leader reads under its lease what it has applied, though more is committed.
    LeaseBeforeApplied,
    /// A lease lasts longer than the promise that it rests on.
    LeaseOutlivesPromise,
    /// A leader reads under its lease after it has offered leadership to another peer.
    LeaseThroughTransfer,
    /// Nobody asks about a replica that is spoken to and is not there.
    StrangersIgnored,
    /// A snapshot lacks the last pair of its data.
    SnapshotWithoutAll,
    /// A snapshot made in a joint configuration names the incoming one only.
    SnapshotWithoutJoint,
    /// Raft is not told of configurations that were applied.
    ConfigurationUntold,
    /// A joint configuration is left only by the store that led when it was entered.
    LeaveByWhoEntered,
    /// A removed replica is forgotten by its group, but its data stays.
    RemovedStays,
    /// A removed replica leaves no tombstone.
    DestroyedWithoutTombstone,
    /// Nobody asks whether a replica whose leader is silent is still one.
    LostIgnored,
    /// A target is told to take a source in before all replicas of the source have its log.
    CommitBeforeEverywhere,
    /// A target takes a source in that was stopped for another epoch of it.
    CommitAtAnyEpoch,
    /// A source goes on because nobody has taken it in for a while.
    RollbackWithoutProof,
    /// A store reads from a region that is stopped.
    ServedWhileStopped,
    /// The group of a region that was taken in is not told.
    SourceStaysHosted,
    /// Nobody is told that a region is gone.
    MergedUntold,
    /// Replicas that only ask are not told that their region was taken in.
    AskersIgnored,
    /// Placement is told of the replicas that a store leads, and of no others.
    HostedUntold,
    /// Placement is not told of regions that it does not know.
    UnknownUntold,
    /// It is noted that chunks of a snapshot are durable before they are.
    NotedBeforeStaged,
    /// A snapshot that broke off is gone on with from another picture of the data.
    PictureTakenAnew,
    /// A group is not told at which index the data of a snapshot was read.
    PictureUntold,
    /// A store that leaves is said to have left at once.
    LeftWhileListed,
    /// A store tells placement that it has no replicas, whatever it has.
    EmptyReported,
    /// A member of placement that starts counts learners of its group as voters.
    MemberVotesEarly,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 35] = [
        Mutant::PersistedBeforeSync,
        Mutant::SkippedSync,
        Mutant::AnsweredBeforeApplied,
        Mutant::UnconfirmedRead,
        Mutant::FollowerWithoutIndex,
        Mutant::ForgottenPromise,
        Mutant::AppliedWithoutData,
        Mutant::TimestampsByClock,
        Mutant::UnprovenPlacement,
        Mutant::LeaseBeforeApplied,
        Mutant::LeaseOutlivesPromise,
        Mutant::LeaseThroughTransfer,
        Mutant::StrangersIgnored,
        Mutant::SnapshotWithoutAll,
        Mutant::SnapshotWithoutJoint,
        Mutant::ConfigurationUntold,
        Mutant::LeaveByWhoEntered,
        Mutant::RemovedStays,
        Mutant::DestroyedWithoutTombstone,
        Mutant::LostIgnored,
        Mutant::CommitBeforeEverywhere,
        Mutant::CommitAtAnyEpoch,
        Mutant::RollbackWithoutProof,
        Mutant::ServedWhileStopped,
        Mutant::SourceStaysHosted,
        Mutant::MergedUntold,
        Mutant::AskersIgnored,
        Mutant::HostedUntold,
        Mutant::UnknownUntold,
        Mutant::NotedBeforeStaged,
        Mutant::PictureTakenAnew,
        Mutant::PictureUntold,
        Mutant::LeftWhileListed,
        Mutant::EmptyReported,
        Mutant::MemberVotesEarly,
    ];
}
