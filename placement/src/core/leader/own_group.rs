//! The placement group as a group of the lifecycle, and its changes as lists of members.

use quorate_consensus::shard::MAX_BEHIND;
use quorate_consensus::view::unapplied;
use quorate_proto::{NodeId, PeerId, Role};

use super::own::{MAX_VOTERS, OWN};
use super::standing::Standing;
use crate::core::command::Member;
use crate::core::lifecycle::{self, Aim, Change, Group, Limits, Record, State as Life};
use crate::core::state::State;

/// The group from the replicated list and from what its leader knows of the others.
pub(super) fn group(
    state: &State,
    standing: &Standing,
    records: &[Record],
    limits: &Limits,
) -> Group {
    let members = state.members().values().map(|member| {
        let leads = member.id == standing.me;
        let other = standing.others.iter().find(|other| other.member == member.id);
        let silent_ms = other.map_or(0, |other| other.silent_ms);
        let alive = leads || silent_ms < limits.contact_ms;
        let close = other.is_none_or(|other| {
            other.snapshot.is_none()
                && other.matched.0 + MAX_BEHIND >= standing.last.0
                && unapplied(standing.committed, other.applied) <= MAX_BEHIND
        });
        let host = member.address.rsplit_once(':').map_or("", |(host, _)| host);
        lifecycle::Member {
            node: member.id,
            peer: PeerId(member.id.0),
            role: member.role,
            matched: match leads {
                true => Some(standing.last),
                false => other.map(|other| other.matched),
            },
            applied: other.and_then(|other| other.applied),
            snapshot: other.and_then(|other| other.snapshot),
            // One that waits for its turn behind the others of the same group waits briefly.
            queue: 0,
            silent_ms,
            alive,
            can_lead: alive && close && member.votes(),
            leaves: false,
            leaders: 0,
            domain: vec![format!("host={host}")],
        }
    });
    let members: Vec<lifecycle::Member> = members.collect();
    Group {
        id: OWN,
        // Counted from 1: 0 stands for never seen.
        conf_ver: state.counters().members_version + 1,
        leader: Some(PeerId(standing.me.0)),
        last_index: standing.last,
        committed: standing.committed,
        target: target(&members, records),
        members,
    }
}

/// Wanted voters: see the module.
fn target(members: &[lifecycle::Member], records: &[Record]) -> usize {
    let aim = |node: NodeId| {
        let record = records.iter().find(|record| record.node == node);
        record.map(|record| (record.aim, record.state))
    };
    let stays = members.iter().filter(|member| match (aim(member.node), member.role) {
        (_, Role::DemotingVoter) => false,
        (Some((Aim::Leave { .. } | Aim::Learn, _)), _) => false,
        (Some((Aim::Vote { .. }, state)), _) => state != Life::Zombie,
        (None, Role::Voter | Role::IncomingVoter) => true,
        (None, Role::Learner) => false,
    });
    let comes = records.iter().filter(|record| {
        matches!(record.aim, Aim::Vote { .. })
            && matches!(record.state, Life::Joining { .. })
            && members.iter().all(|member| member.node != record.node)
    });
    let wanted = (stays.count() + comes.count()).clamp(1, MAX_VOTERS);
    if wanted.is_multiple_of(2) { wanted + 1 } else { wanted }
}

/// The members once the change is applied.
pub(super) fn members_after(state: &State, change: &Change) -> Vec<(NodeId, Role)> {
    let is = |peers: &[PeerId], member: &Member| peers.contains(&PeerId(member.id.0));
    let mut after: Vec<(NodeId, Role)> = Vec::new();
    for member in state.members().values() {
        let role = match (change, member.role) {
            (Change::EnterJoint { promote, .. }, Role::Learner) if is(promote, member) => {
                Role::IncomingVoter
            }
            (Change::EnterJoint { demote, .. }, Role::Voter) if is(demote, member) => {
                Role::DemotingVoter
            }
            (Change::LeaveJoint, Role::IncomingVoter) => Role::Voter,
            (Change::LeaveJoint, Role::DemotingVoter) => Role::Learner,
            (Change::RemoveLearner { peer }, Role::Learner) if is(&[*peer], member) => continue,
            (
                Change::AddLearner { .. }
                | Change::EnterJoint { .. }
                | Change::LeaveJoint
                | Change::RemoveLearner { .. },
                role,
            ) => role,
        };
        after.push((member.id, role));
    }
    if let Change::AddLearner { node, .. } = change {
        after.push((*node, Role::Learner));
    }
    after
}

/// What a change does, in words.
pub(super) fn words(group: &Group, change: &Change) -> String {
    let names = |peers: &[PeerId]| group.names(peers.iter().map(|peer| NodeId(peer.0)));
    match change {
        Change::AddLearner { node, .. } => format!("add {} as a learner", group.name(*node)),
        Change::EnterJoint { promote, demote } if demote.is_empty() => {
            format!("promote {}", names(promote))
        }
        Change::EnterJoint { promote, demote } if promote.is_empty() => {
            format!("demote {}", names(demote))
        }
        Change::EnterJoint { promote, demote } => {
            format!("promote {} in place of {}", names(promote), names(demote))
        }
        Change::LeaveJoint => "leave the joint configuration".to_owned(),
        Change::RemoveLearner { peer } => format!("remove {}", names(&[*peer])),
    }
}
