//! Changes of a group's members: the leader's checks, what raft-rs is told, and what follows here.
//!
//! raft-rs makes an empty entry of a change that it does not like and says nothing. So everything
//! it would object to is checked before, and more; and only what the state machine has applied
//! counts. The change that raft-rs is given then is derived again from the members before and
//! after: what travels in the entry's data is for the leader's raft-rs only, and is never parsed
//! from the network.
//!
//! A configuration is in force from its application on, not from its place in the log. That is
//! safe because nobody proposes the next one before it has applied this one, and nobody campaigns
//! while it knows of a committed one that it has not applied. It must not forget that by a restart:
//! the commit index is persisted with every entry that changes members (see [`super::ready`]).

use bytes::Bytes;
use quorate_proto::{NodeId, PeerId};
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, EntryType,
};

use super::{Group, GroupContext, UNCOMMITTED, message};
pub(super) use crate::shard::MAX_BEHIND;
use crate::shard::members::{Step, replaces_only_voter, step_between};
use crate::shard::{Effects, Member, MembersRefusal, Refusal, Reply, Side, conf_of};

/// Peers outside of the members that one remembers.
const MAX_CALLERS: usize = 32;

/// What the leader knows of its members.
pub(super) trait Standing {
    /// Whether the member's process can be heard.
    fn is_live(&self, member: &Member) -> bool;
    /// Entries that a peer lacks; `None` where only a snapshot helps.
    fn behind(&self, peer: PeerId) -> Option<u64>;
    /// Committed entries that a peer has not applied yet; 0 where it does not say.
    fn unapplied(&self, peer: PeerId) -> u64;
}

/// Whether the step may be proposed by `leader`: it keeps its vote, or gives it to the one that comes
/// in its place as the only voter; both configurations have a majority that can be heard, and whoever
/// is promoted is close enough, in its log and in applying.
pub(super) fn check_step(
    step: &Step,
    (present, wanted): (&[Member], &[Member]),
    leader: PeerId,
    standing: &impl Standing,
) -> Result<(), MembersRefusal> {
    let keeps = |member: &Member| member.peer == leader && member.is_incoming();
    if !wanted.iter().any(keeps) && !replaces_only_voter(present, wanted) {
        return Err(MembersRefusal::LeaderDemoted);
    }
    check_quorum(Side::Present, present, leader, standing)?;
    check_quorum(Side::Next, wanted, leader, standing)?;
    match step {
        Step::EnterJoint { promote, .. } => {
            let promoted = |member: &&Member| promote.contains(&member.peer);
            for member in wanted.iter().filter(promoted) {
                let peer = member.peer;
                if !standing.is_live(member) {
                    return Err(MembersRefusal::Silent(peer));
                }
                let behind = standing.behind(peer).ok_or(MembersRefusal::NoData(peer))?;
                if behind > MAX_BEHIND {
                    return Err(MembersRefusal::Behind { peer, behind });
                }
                let behind = standing.unapplied(peer);
                if behind > MAX_BEHIND {
                    return Err(MembersRefusal::Applying { peer, behind });
                }
            }
        }
        Step::AddLearner(_) | Step::RemoveLearner(_) | Step::LeaveJoint => {}
    }
    Ok(())
}

/// Majorities are counted by what the members are, on each side of the configuration.
fn check_quorum(
    side: Side,
    members: &[Member],
    leader: PeerId,
    standing: &impl Standing,
) -> Result<(), MembersRefusal> {
    let has_majority = |votes: fn(&Member) -> bool| {
        let voters: Vec<&Member> = members.iter().filter(|member| votes(member)).collect();
        let live = |member: &&&Member| member.peer == leader || standing.is_live(member);
        voters.iter().filter(live).count() > voters.len() / 2
    };
    if has_majority(Member::is_incoming) && has_majority(Member::is_outgoing) {
        Ok(())
    } else {
        Err(MembersRefusal::NoQuorum(side))
    }
}

/// The step in the words of raft-rs; joint configurations are always explicit.
pub(super) fn conf_change(step: &Step) -> ConfChangeV2 {
    let single = |kind: ConfChangeType, peer: &PeerId| {
        let mut single = ConfChangeSingle { node_id: peer.0, ..ConfChangeSingle::default() };
        single.set_change_type(kind);
        single
    };
    let mut change = ConfChangeV2::default();
    match step {
        Step::AddLearner(peer) => {
            change.changes = vec![single(ConfChangeType::AddLearnerNode, peer)].into();
        }
        Step::RemoveLearner(peer) => {
            change.changes = vec![single(ConfChangeType::RemoveNode, peer)].into();
        }
        Step::EnterJoint { promote, demote } => {
            let promoted = promote.iter().map(|peer| single(ConfChangeType::AddNode, peer));
            let demoted = demote.iter().map(|peer| single(ConfChangeType::AddLearnerNode, peer));
            change.changes = promoted.chain(demoted).collect::<Vec<_>>().into();
            change.set_transition(ConfChangeTransition::Explicit);
        }
        // raft-rs takes the empty change for leaving.
        Step::LeaveJoint => {}
    }
    change
}

/// The leader's knowledge, taken from a group.
struct Known<'a, T> {
    group: &'a Group<T>,
    context: &'a GroupContext<'a>,
}

impl<T> Standing for Known<'_, T> {
    fn is_live(&self, member: &Member) -> bool {
        !self.context.nodes.is_silent(member.node)
    }
    fn behind(&self, peer: PeerId) -> Option<u64> {
        self.group.behind(peer)
    }
    fn unapplied(&self, peer: PeerId) -> u64 {
        self.group.unapplied(peer)
    }
}

impl<T> Group<T> {
    /// Proposes a change of members; answers at once where a rule stands in the way.
    pub(crate) fn change_members(
        &mut self,
        members: &[Member],
        command: Bytes,
        token: T,
        context: &GroupContext<'_>,
        effects: &mut Effects<T>,
    ) {
        self.wake();
        match self.propose_members(members, command, context) {
            Ok(index) => {
                let term = self.node.raft.term;
                self.proposals.proposed(index, term, context.now, vec![vec![token]]);
                self.lease.proposed(index, context.now);
            }
            Err(refusal) => effects.replies.push((token, Reply::Refused(refusal))),
        }
    }

    fn propose_members(
        &mut self,
        members: &[Member],
        command: Bytes,
        context: &GroupContext<'_>,
    ) -> Result<u64, Refusal> {
        if !self.is_leader() {
            return Err(Refusal::NotLeader { leader: self.leader() });
        }
        let raft = &self.node.raft;
        if raft.lead_transferee.is_some() {
            return Err(MembersRefusal::HandingOver.into());
        }
        if !raft.apply_to_current_term() {
            return Err(MembersRefusal::FreshLeader.into());
        }
        if raft.has_pending_conf() {
            return Err(MembersRefusal::Pending.into());
        }
        let step = step_between(&self.members, members)?;
        let known = Known { group: &*self, context };
        check_step(&step, (&self.members, members), self.peer, &known)?;

        let change = conf_change(&step);
        if self.node.propose_conf_change(command.to_vec(), change).is_err() {
            return Err(UNCOMMITTED);
        }
        let log = &self.node.raft.raft_log;
        match log.unstable_entries().last() {
            Some(entry) if entry.entry_type == EntryType::EntryConfChangeV2 => Ok(entry.index),
            // It became an empty entry, which says nothing to anybody.
            Some(_) | None => Err(MembersRefusal::Dropped.into()),
        }
    }

    /// The state machine has applied a change of members. Returns false where the local peer is
    /// none of them any more.
    pub(crate) fn reconfigured(&mut self, members: Vec<Member>) -> bool {
        if !members.iter().any(|member| member.peer == self.peer) {
            return false;
        }
        if self.is_installing() {
            // Raft has taken a snapshot since the entry was handed out: its configuration is a
            // later one already, and what the members are then comes with the installation.
            return true;
        }
        let step = match step_between(&self.members, &members) {
            Ok(step) => step,
            Err(error) => panic!(
                "the state machine of {} agreed to members that are no step: {error}; {:?} to \
                 {members:?}",
                self.id, self.members
            ),
        };
        let wanted = message::unpack_conf(conf_of(&members));
        match self.node.apply_conf_change(&conf_change(&step)) {
            Ok(conf) => assert!(
                message::same_conf(&conf, &wanted),
                "raft's configuration of {} is {conf:?} instead of {wanted:?}",
                self.id
            ),
            Err(error) => panic!("raft refuses {step:?} of {}: {error}", self.id),
        }
        self.node.mut_store().conf = wanted;
        self.members = members;
        self.offered = None;
        let members = &self.members;
        let is_member = |peer: &u64| members.iter().any(|member| member.peer.0 == *peer);
        self.callers.retain(|peer, _| !is_member(peer));
        self.applied_there.retain(|peer, _| is_member(peer));
        self.set_timeout();
        self.wake();
        true
    }

    /// A peer learns where to answer one that is not among the members it knows of: it has none
    /// yet, or it has not applied the change that brought the other one in. Without an answer a
    /// new voter could not win the votes of those that lag.
    pub(crate) fn meet(&mut self, peer: u64, node: NodeId) {
        let is_member = self.members.iter().any(|member| member.peer.0 == peer);
        if !is_member && (self.callers.len() < MAX_CALLERS || self.callers.contains_key(&peer)) {
            self.callers.insert(peer, node);
        }
    }
}

#[cfg(test)]
#[path = "members_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
