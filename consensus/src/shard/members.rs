//! Who the members of a group are, and how they may change.
//!
//! A group changes its members in four primitive steps, each an entry of its log: a learner is
//! added, a joint configuration is entered, it is left, a learner is removed. A voter is never
//! added or removed directly. Between any two configurations that follow each other, every
//! majority of the one meets every majority of the other, and both voter sets are odd.

use std::collections::BTreeSet;

use quorate_proto::wire::peer::ConfState;
use quorate_proto::{NodeId, PeerId, RegionId, Role};
use thiserror::Error;

/// Most voters of a group.
pub const MAX_VOTERS: usize = 7;
/// A member that lacks more entries than this, or that has them and has not applied more of the
/// committed ones than this, is not promoted, does not take leadership over, and does not count as
/// in step. What it lacks must not take longer than an election timeout; followers apply some ten
/// thousand small entries in that time.
pub const MAX_BEHIND: u64 = 1_024;

/// One member of a group: who votes, and which process hosts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The peer.
    pub peer: PeerId,
    /// The process that hosts it.
    pub node: NodeId,
    /// Its role.
    pub role: Role,
}

impl Member {
    /// Votes in the configuration that is being entered, or in the only one.
    pub fn is_incoming(&self) -> bool {
        matches!(self.role, Role::Voter | Role::IncomingVoter)
    }
    /// Votes in the configuration that is being left, or in the only one.
    pub fn is_outgoing(&self) -> bool {
        matches!(self.role, Role::Voter | Role::DemotingVoter)
    }
}

/// True while any member is on its way in or out.
pub fn is_joint(members: &[Member]) -> bool {
    members.iter().any(|m| matches!(m.role, Role::IncomingVoter | Role::DemotingVoter))
}

/// The configuration that members form, as raft-rs describes it: while any member is on its way in
/// or out it is joint, and plain voters count on both sides.
pub fn conf_of(members: &[Member]) -> ConfState {
    let joint = is_joint(members);
    let mut conf = ConfState::default();
    for member in members {
        let peer = member.peer.0;
        match member.role {
            Role::Voter => {
                conf.voters.push(peer);
                if joint {
                    conf.voters_outgoing.push(peer);
                }
            }
            Role::Learner => conf.learners.push(peer),
            Role::IncomingVoter => conf.voters.push(peer),
            Role::DemotingVoter => {
                conf.voters_outgoing.push(peer);
                conf.learners_next.push(peer);
            }
        }
    }
    conf
}

/// The members of a group after an applied entry that changed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconfigured {
    /// The group.
    pub group: RegionId,
    /// All members from now on; the local peer is missing where it was removed.
    pub members: Vec<Member>,
}

/// Which of two configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one in force, or being left.
    Present,
    /// The one that would follow, or is being entered.
    Next,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Side::Present => "present",
            Side::Next => "next",
        })
    }
}

/// Which rule stands in the way of a change of members. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MembersRefusal {
    /// Not a primitive step.
    #[error(
        "this is no single step: add a learner, enter a joint configuration, leave it, or remove a \
         learner"
    )]
    NoStep,
    /// A peer or a process comes twice.
    #[error("a peer or a store comes twice: each store has one replica at the most")]
    Twice,
    /// A peer that would vote from the start.
    #[error("{0} must join as a learner before it can vote")]
    NotLearner(PeerId),
    /// A voter that would just go.
    #[error("{0} votes: demote it before it is removed")]
    VoterRemoved(PeerId),
    /// Only leaving is possible.
    #[error("a joint configuration is in force: leave it first")]
    Joint,
    /// An even number of voters, or too many.
    #[error("the {side} configuration would have {voters} voters: 1, 3, 5 or 7 are allowed")]
    Voters {
        /// Of which configuration.
        side: Side,
        /// How many there would be.
        voters: usize,
    },
    /// The leader would lose its vote.
    #[error("the leader would lose its vote: hand leadership over first")]
    LeaderDemoted,
    /// Another change comes first.
    #[error("another change of members is not applied yet: wait for it")]
    Pending,
    /// Raft asks for it (Ongaro 2015: single-server changes in a new term).
    #[error("the leader has not applied an entry of its term yet: try again")]
    FreshLeader,
    /// Leadership goes elsewhere.
    #[error("leadership is being handed over: ask the next leader")]
    HandingOver,
    /// The change could not be committed, or nothing after it.
    #[error("the {0} configuration has no majority on stores that can be heard")]
    NoQuorum(Side),
    /// The learner would hold up every commit.
    #[error("{0} cannot be heard, and could not vote")]
    Silent(PeerId),
    /// The learner would hold up every commit.
    #[error("{0} has not got its first snapshot yet, and could not vote")]
    NoData(PeerId),
    /// The learner would hold up every commit.
    #[error("{peer} is {behind} entries behind, too far to vote")]
    Behind {
        /// The learner.
        peer: PeerId,
        /// Entries it lacks.
        behind: u64,
    },
    /// The learner could not lead for a while, and would read old data.
    #[error("{peer} has the log but is {behind} entries behind in applying, too far to vote")]
    Applying {
        /// The learner.
        peer: PeerId,
        /// Committed entries that it has not applied.
        behind: u64,
    },
    /// raft-rs made an empty entry of it.
    #[error("raft did not take the change: try again")]
    Dropped,
}

/// The primitive steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    AddLearner(PeerId),
    RemoveLearner(PeerId),
    EnterJoint { promote: Vec<PeerId>, demote: Vec<PeerId> },
    LeaveJoint,
}

/// Whether `wanted` follows `present` by one legal step. State machines ask it again when a change
/// is applied: what they agree to, raft-rs must be able to do.
///
/// # Errors
/// The rule that stands in the way.
pub fn check_members(present: &[Member], wanted: &[Member]) -> Result<(), MembersRefusal> {
    step_between(present, wanted).map(|_| ())
}

/// True for the step that puts another voter in the place of a group's only one. That one leads, and
/// nobody could take leadership over from it before: it does so in the joint configuration, in which
/// both vote, and which a leader that is on its way out cannot leave.
pub fn replaces_only_voter(present: &[Member], wanted: &[Member]) -> bool {
    let voters = present.iter().filter(|member| member.is_incoming()).count();
    match step_between(present, wanted) {
        Ok(Step::EnterJoint { promote, demote }) => {
            voters == 1 && promote.len() == 1 && demote.len() == 1
        }
        Ok(Step::AddLearner(_) | Step::RemoveLearner(_) | Step::LeaveJoint) | Err(_) => false,
    }
}

/// The step that leads from `present` to `wanted`, in whatever order they are listed.
pub(crate) fn step_between(present: &[Member], wanted: &[Member]) -> Result<Step, MembersRefusal> {
    let peers: BTreeSet<PeerId> = wanted.iter().map(|member| member.peer).collect();
    let nodes: BTreeSet<NodeId> = wanted.iter().map(|member| member.node).collect();
    if peers.len() != wanted.len() || nodes.len() != wanted.len() {
        return Err(MembersRefusal::Twice);
    }
    let removed: Vec<&Member> = present.iter().filter(|old| !peers.contains(&old.peer)).collect();
    let mut added = Vec::new();
    let (mut promote, mut demote, mut left) = (Vec::new(), Vec::new(), false);
    for new in wanted {
        let Some(old) = present.iter().find(|old| old.peer == new.peer) else {
            added.push(new);
            continue;
        };
        if old.node != new.node {
            return Err(MembersRefusal::NoStep);
        }
        match (old.role, new.role) {
            (Role::Learner, Role::Learner)
            | (Role::Voter, Role::Voter)
            | (Role::IncomingVoter, Role::IncomingVoter)
            | (Role::DemotingVoter, Role::DemotingVoter) => {}
            (Role::Learner, Role::IncomingVoter) => promote.push(new.peer),
            (Role::Voter, Role::DemotingVoter) => demote.push(new.peer),
            (Role::IncomingVoter, Role::Voter) | (Role::DemotingVoter, Role::Learner) => {
                left = true;
            }
            (Role::Learner, Role::Voter | Role::DemotingVoter)
            | (Role::Voter, Role::Learner | Role::IncomingVoter)
            | (Role::IncomingVoter, Role::Learner | Role::DemotingVoter)
            | (Role::DemotingVoter, Role::Voter | Role::IncomingVoter) => {
                return Err(MembersRefusal::NoStep);
            }
        }
    }
    let enters = !promote.is_empty() || !demote.is_empty();
    if is_joint(present) && (enters || !added.is_empty() || !removed.is_empty()) {
        return Err(MembersRefusal::Joint);
    }
    match (added.as_slice(), removed.as_slice(), enters, left) {
        ([new], [], false, false) if new.role == Role::Learner => Ok(Step::AddLearner(new.peer)),
        ([new], [], false, false) => Err(MembersRefusal::NotLearner(new.peer)),
        ([], [old], false, false) if old.role == Role::Learner => Ok(Step::RemoveLearner(old.peer)),
        ([], [old], false, false) => Err(MembersRefusal::VoterRemoved(old.peer)),
        ([], [], false, true) if !is_joint(wanted) => Ok(Step::LeaveJoint),
        ([], [], true, false) => {
            check_voters(Side::Present, wanted.iter().filter(|m| m.is_outgoing()).count())?;
            check_voters(Side::Next, wanted.iter().filter(|m| m.is_incoming()).count())?;
            Ok(Step::EnterJoint { promote, demote })
        }
        _ => Err(MembersRefusal::NoStep),
    }
}

fn check_voters(side: Side, voters: usize) -> Result<(), MembersRefusal> {
    if voters % 2 == 1 && voters <= MAX_VOTERS {
        Ok(())
    } else {
        Err(MembersRefusal::Voters { side, voters })
    }
}

#[cfg(test)]
#[path = "members_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
