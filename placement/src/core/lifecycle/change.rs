//! What a look at a group leads to: a step, a wait, and what happened.

use quorate_proto::{NodeId, PeerId, RegionId};

use super::Record;

/// A change of a group's configuration: one step, each a compare-and-set on the region's epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new member without a vote.
    AddLearner {
        /// Its process.
        node: NodeId,
        /// Its peer, never used before.
        peer: PeerId,
    },
    /// Learners become incoming voters, voters demoting ones.
    EnterJoint {
        /// Learners.
        promote: Vec<PeerId>,
        /// Voters.
        demote: Vec<PeerId>,
    },
    /// Incoming voters become voters, demoting ones learners.
    LeaveJoint,
    /// A learner goes.
    RemoveLearner {
        /// Which one.
        peer: PeerId,
    },
}

/// What is to be done to a group now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing, and nothing is waited for.
    Nothing,
    /// Something is waited for, in words.
    Wait(String),
    /// Order this.
    Change(Change),
    /// Leadership goes there first.
    Transfer {
        /// To the voter on this node.
        to: NodeId,
        /// Why, in words.
        why: String,
    },
}

/// How much a transition matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Info,
    /// Somebody should look.
    Warning,
    /// Somebody should look now.
    Critical,
}

impl Severity {
    /// The word that people read.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// Something that happened to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// In which group.
    pub group: RegionId,
    /// To which member; of several that act together, the first.
    pub node: NodeId,
    /// `member-joined`, `member-ready`, `member-promoted`…
    pub kind: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// In words: `r7 s4 joined as learner`.
    pub text: String,
}

/// What one look led to.
#[derive(Clone, Debug, PartialEq)]
pub struct Stepped {
    /// The records afterwards.
    pub records: Vec<Record>,
    /// What is to be done.
    pub next: Next,
    /// What happened, in order.
    pub transitions: Vec<Transition>,
}
