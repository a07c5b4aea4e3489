//! Proof before proposal: what a joint change leads to, simulated.

use quorate_proto::{PeerId, Role};
use thiserror::Error;

use super::group::{Group, Member};

/// Why a change must not be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoProof {
    /// One at a time.
    #[error("a joint configuration is in force; it is completed first")]
    Joint,
    /// Nobody of that name, or in another role.
    #[error("{0} is not a {1} of this group")]
    NotThat(PeerId, &'static str),
    /// The leader does not step down by itself. The only voter does, in the joint configuration.
    #[error("the leader itself is demoted: leadership is transferred first")]
    Leader,
    /// 1, 3, 5, 7 only.
    #[error("{0} voters would be an even number: it survives no more failures than one less")]
    Even(usize),
    /// Nobody could commit the change.
    #[error("only {alive} of {voters} voters are alive: no majority can agree on a change")]
    OldQuorum {
        /// Alive now.
        alive: usize,
        /// Of so many.
        voters: usize,
    },
    /// Nobody could commit anything afterwards.
    #[error("only {alive} of the {voters} voters afterwards are alive: the quorum would be lost")]
    NewQuorum {
        /// Alive afterwards.
        alive: usize,
        /// Of so many.
        voters: usize,
    },
    /// Fewer failures would be survived.
    #[error(
        "the group would survive {after} more failures, it survives {before} now: replace the \
         dead voters first"
    )]
    Worse {
        /// Failures survived now.
        before: usize,
        /// Afterwards.
        after: usize,
    },
}

/// Simulates a joint change from a plain configuration: an odd number of voters and a live
/// majority before and after, and no change that leaves dead voters and less to spare than before.
/// The leader is demoted by none, but where it is the only voter: then there is nobody to lead before
/// the joint configuration, in which both vote and leadership goes over.
///
/// # Errors
/// The rule that stands in the way.
pub fn proof(group: &Group, promote: &[PeerId], demote: &[PeerId]) -> Result<(), NoProof> {
    if group.is_joint() {
        return Err(NoProof::Joint);
    }
    for peer in promote {
        if group.peer(*peer).is_none_or(|member| member.role != Role::Learner) {
            return Err(NoProof::NotThat(*peer, "learner"));
        }
    }
    for peer in demote {
        if group.peer(*peer).is_none_or(|member| member.role != Role::Voter) {
            return Err(NoProof::NotThat(*peer, "voter"));
        }
    }
    let before: Vec<&Member> =
        group.members.iter().filter(|member| member.role == Role::Voter).collect();
    let replaces_only_voter = before.len() == 1 && promote.len() == 1 && demote.len() == 1;
    if group.leader.is_some_and(|leader| demote.contains(&leader)) && !replaces_only_voter {
        return Err(NoProof::Leader);
    }
    let after: Vec<&Member> = group
        .members
        .iter()
        .filter(|member| match member.role {
            Role::Voter => !demote.contains(&member.peer),
            Role::Learner => promote.contains(&member.peer),
            Role::IncomingVoter | Role::DemotingVoter => false,
        })
        .collect();
    if after.len().is_multiple_of(2) {
        return Err(NoProof::Even(after.len()));
    }
    let (alive, voters) = (living(&before), before.len());
    let spare_before =
        alive.checked_sub(majority(voters)).ok_or(NoProof::OldQuorum { alive, voters })?;
    let (alive, voters) = (living(&after), after.len());
    let spare_after =
        alive.checked_sub(majority(voters)).ok_or(NoProof::NewQuorum { alive, voters })?;
    if alive < voters && spare_after < spare_before {
        return Err(NoProof::Worse { before: spare_before, after: spare_after });
    }
    Ok(())
}

/// Whether both sides of the configuration in force have a live majority, so that an entry can be
/// committed.
///
/// # Errors
/// The side that has none.
pub(super) fn can_commit(group: &Group) -> Result<(), NoProof> {
    let (old, new): (Vec<&Member>, Vec<&Member>) =
        (group.outgoing().collect(), group.voters().collect());
    let (alive, voters) = (living(&old), old.len());
    if alive < majority(voters) {
        return Err(NoProof::OldQuorum { alive, voters });
    }
    let (alive, voters) = (living(&new), new.len());
    if alive < majority(voters) {
        return Err(NoProof::NewQuorum { alive, voters });
    }
    Ok(())
}

fn living(members: &[&Member]) -> usize {
    members.iter().filter(|member| member.alive).count()
}

fn majority(voters: usize) -> usize {
    voters / 2 + 1
}
