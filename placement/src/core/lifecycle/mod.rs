//! How a member joins a Raft group, becomes a voter, waits, or leaves.
//!
//! One machine for both kinds of group: the replicas of a region on stores, and the members of
//! placement itself. Members are named by node and peer; nothing here knows a store.
//!
//! ```text
//! Joining → Syncing → Ready ─┬─ analytics → KeepAsLearner
//!                            ├─ target odd → Promoting → Active
//!                            ├─ needs a partner → Pairing ─┬─ partner ready → Promoting → Active
//!                            │                             └─ in vain → StandbyLearner
//!                            └─ promotion window over → StandbyLearner
//! StandbyLearner → Promoting   when a partner is ready, a voter is lost, or an operator asks
//! before Active, without contact → Zombie → Removed
//! ```
//!
//! [`step`] takes the group **as reported** (an applied configuration, never what was proposed),
//! the [`Record`]s of its members on their way, and the time; it returns the records afterwards,
//! the next primitive step or what is waited for, and what happened, in words. It is called again
//! and again; a step that was ordered and not yet seen is simply derived again. So it can be
//! repeated, lost, or taken over by the next leader of placement.
//!
//! Invariants:
//! * A step is ordered only where both sides of every configuration it leads to have an odd number
//!   of voters and a live majority ([`proof`]).
//! * A joint configuration is completed forward before anything else.
//! * A configuration older than what is known of its members decides nothing: after a failover the
//!   next leader of placement may see one, and so may anybody who believes a deposed leader.
//! * Without a leader that reports nothing is decided, and nobody's state changes: the next leader
//!   of placement begins with routes that were saved some time ago.
//! * Nothing that a member says of itself makes it ready: only what the group's leader measured. How
//!   far it has applied only the member knows; that can keep it from being ready.
//! * A healthy learner is never removed for want of a partner.
//!
//! Absent on purpose: where a replica should be (the schedulers choose), and who carries a step to
//! the group's leader (the controller does).

mod batch;
mod cancel;
mod change;
mod group;
mod limits;
mod next;
mod observe;
mod pace;
mod partners;
mod proof;
mod step;
mod wish;

use std::fmt;

use quorate_proto::{NodeId, PeerId};

pub use batch::{choose, safe_batch};
pub use cancel::cancel;
pub use change::{Change, Next, Severity, Stepped, Transition};
pub use group::{Group, Member, name, title};
pub use limits::{Limits, MAX_LAG};
pub use pace::Pace;
pub use partners::partners;
pub use proof::{NoProof, proof};
pub use step::step;
pub use wish::{CannotBe, Wish, wish};

/// What a member is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReplicaRole {
    /// It shall become a voter.
    Standard,
    /// It stays a learner: reads, analytics, a copy far away.
    Analytics,
}

impl ReplicaRole {
    /// The word that people read.
    pub const fn name(self) -> &'static str {
        match self {
            ReplicaRole::Standard => "standard",
            ReplicaRole::Analytics => "analytics",
        }
    }
}

/// Where a member is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// It shall vote.
    Vote {
        /// In place of this voter, in one joint change; otherwise it is growth, in pairs.
        replacing: Option<NodeId>,
    },
    /// It shall replicate without a vote.
    Learn,
    /// It shall go.
    Leave {
        /// Once this one is in its place; otherwise at once.
        replaced_by: Option<NodeId>,
    },
}

/// How far a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// To be added as a learner; not seen in the configuration yet.
    Joining {
        /// When waiting ends and the applied configuration decides.
        deadline_ms: u64,
    },
    /// A learner that catches up.
    Syncing,
    /// Caught up, measured over a stable window.
    Ready {
        /// Since when: the promotion window runs from here.
        ready_ms: u64,
    },
    /// Ready, and waits for a partner, so that the number of voters stays odd.
    Pairing {
        /// Since when it is ready.
        ready_ms: u64,
        /// When waiting ends.
        deadline_ms: u64,
    },
    /// Chosen for a joint change that is not seen completed yet.
    Promoting {
        /// Since when it is ready.
        ready_ms: u64,
    },
    /// A learner that waits for its time, and keeps replicating.
    StandbyLearner,
    /// A learner for good.
    KeepAsLearner,
    /// A voter.
    Active,
    /// Without contact for too long; to be removed.
    Zombie,
    /// Not in the configuration any more.
    Removed,
}

impl State {
    /// The word that people read.
    pub const fn name(self) -> &'static str {
        match self {
            State::Joining { .. } => "Joining",
            State::Syncing => "Syncing",
            State::Ready { .. } => "Ready",
            State::Pairing { .. } => "Pairing",
            State::Promoting { .. } => "Promoting",
            State::StandbyLearner => "StandbyLearner",
            State::KeepAsLearner => "KeepAsLearner",
            State::Active => "Active",
            State::Zombie => "Zombie",
            State::Removed => "Removed",
        }
    }

    /// All names, in the order of a life.
    pub const NAMES: [&'static str; 10] = [
        "Joining",
        "Syncing",
        "Ready",
        "Pairing",
        "Promoting",
        "StandbyLearner",
        "KeepAsLearner",
        "Active",
        "Zombie",
        "Removed",
    ];

    /// When this state ends by itself; 0 where it does not.
    pub fn deadline_ms(self, limits: &Limits) -> u64 {
        match self {
            State::Joining { deadline_ms } | State::Pairing { deadline_ms, .. } => deadline_ms,
            State::Ready { ready_ms } | State::Promoting { ready_ms } => {
                ready_ms + limits.promotion_ms
            }
            State::Syncing
            | State::StandbyLearner
            | State::KeepAsLearner
            | State::Active
            | State::Zombie
            | State::Removed => 0,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A member on its way. Durable, but for its [`Pace`].
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its process.
    pub node: NodeId,
    /// Its peer; 0 until an id was set aside for it.
    pub peer: PeerId,
    /// Where it is going.
    pub aim: Aim,
    /// How far it is.
    pub state: State,
    /// Since when it is in this state.
    pub since_ms: u64,
    /// When it began to join: the stall clock runs from here, and the order of arrival is this.
    pub joined_ms: u64,
    /// Where it was going before somebody asked for its promotion: it goes on so where that is
    /// cancelled.
    pub former: Option<Aim>,
    /// Behind, and without progress for too long: nobody counts on it until it gets on again.
    pub stale: bool,
    /// It was ready since the first, until the second: it may be so again soon.
    pub was_ready_ms: Option<(u64, u64)>,
    /// An operator keeps it as it is: not promoted, not given up.
    pub held: bool,
    /// Why it is in this state, or what stands in its way.
    pub reason: String,
    /// The operator that brought it here; 0 for none, or once that one has ended.
    pub operator: u64,
    /// The version of the first configuration in which it was seen; 0 for none. Only a later one
    /// without it shows that it was removed: an earlier one is merely old.
    pub seen: u64,
    /// How it gets on, as this leader of placement measured it.
    pub pace: Pace,
}

impl Record {
    /// A member that begins to join.
    pub fn joining(node: NodeId, aim: Aim, limits: &Limits, now_ms: u64) -> Self {
        let deadline_ms = now_ms + limits.join_ms;
        Self {
            node,
            peer: PeerId(0),
            aim,
            state: State::Joining { deadline_ms },
            since_ms: now_ms,
            joined_ms: now_ms,
            former: None,
            stale: false,
            was_ready_ms: None,
            held: false,
            reason: String::new(),
            operator: 0,
            seen: 0,
            pace: Pace::new(now_ms),
        }
    }

    /// A member of the configuration that had no record.
    pub fn found(group: &Group, member: &Member, aim: Aim, state: State, now_ms: u64) -> Self {
        Self {
            node: member.node,
            peer: member.peer,
            aim,
            state,
            since_ms: now_ms,
            joined_ms: now_ms,
            former: None,
            stale: false,
            was_ready_ms: None,
            held: false,
            reason: String::new(),
            operator: 0,
            seen: group.conf_ver,
            pace: Pace::new(now_ms),
        }
    }

    /// What it is for.
    pub fn role(&self) -> ReplicaRole {
        match self.aim {
            Aim::Learn => ReplicaRole::Analytics,
            Aim::Vote { .. } | Aim::Leave { .. } => ReplicaRole::Standard,
        }
    }

    /// True where something is about to happen; false for one that waits for good.
    pub fn is_on_its_way(&self) -> bool {
        match self.state {
            State::Joining { .. }
            | State::Syncing
            | State::Ready { .. }
            | State::Pairing { .. }
            | State::Promoting { .. }
            | State::Active
            | State::Zombie => true,
            State::StandbyLearner | State::KeepAsLearner => {
                matches!(self.aim, Aim::Leave { .. } | Aim::Vote { replacing: Some(_) })
            }
            State::Removed => false,
        }
    }

    /// True where nothing that has to be durable differs: the pace is measured anew, and a reason
    /// alone is not worth an entry of the log.
    pub fn is_same(&self, other: &Record) -> bool {
        let Record {
            node,
            peer,
            aim,
            state,
            since_ms,
            joined_ms,
            former,
            stale,
            // Changes with the state alone, and some clusters are too old to keep it.
            was_ready_ms: _,
            held,
            reason: _,
            operator,
            seen,
            pace: _,
        } = self;
        *node == other.node
            && *peer == other.peer
            && *aim == other.aim
            && *state == other.state
            && *since_ms == other.since_ms
            && *joined_ms == other.joined_ms
            && *former == other.former
            && *stale == other.stale
            && *held == other.held
            && *operator == other.operator
            && *seen == other.seen
    }

    /// For how long its member was not heard of. What was before it came in does not count: its
    /// process and the leader's may have shared no group.
    fn silent_ms(&self, member: &Member, now_ms: u64) -> u64 {
        match self.state {
            State::Syncing => member.silent_ms.min(now_ms.saturating_sub(self.since_ms)),
            State::Joining { .. }
            | State::Ready { .. }
            | State::Pairing { .. }
            | State::Promoting { .. }
            | State::StandbyLearner
            | State::KeepAsLearner
            | State::Active
            | State::Zombie
            | State::Removed => member.silent_ms,
        }
    }

    /// It was ready since `ready_ms` and is not any more.
    fn lapsed(&mut self, ready_ms: u64, now_ms: u64) {
        self.was_ready_ms = Some((ready_ms, now_ms));
    }

    /// It is ready again, or for the first time: since when. A lapse shorter than the stall limit
    /// does not count, or whoever lapses again and again would never be told to stand by.
    fn ready_since(&mut self, limits: &Limits, now_ms: u64) -> u64 {
        let before = self.was_ready_ms.take();
        let short =
            before.filter(|(_, lapsed_ms)| now_ms.saturating_sub(*lapsed_ms) < limits.stall_ms);
        short.map_or(now_ms, |(ready_ms, _)| ready_ms)
    }

    fn enter(&mut self, state: State, reason: impl Into<String>, now_ms: u64) {
        if self.state != state {
            self.state = state;
            self.since_ms = now_ms;
        }
        self.reason = reason.into();
    }
}
