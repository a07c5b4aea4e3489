//! Placement's own group grows from one member to three, and members take each other's place: on
//! request, or because one is lost for good.

use quorate_proto::{NodeId, Role};

use super::World;
use super::deeds::Deed;
use super::leaver::{MOST_ARRIVALS, odd};
use crate::sim::agenda::MS;
use crate::sim::chance::Span;
use crate::sim::messages::Ask;
use crate::sim::placement::joining_member;

/// Members that placement shall have.
const WANTED: usize = 3;
/// When the first ones ask, after the bad times have begun.
const FIRST: Span = (0, 2_000 * MS);
/// Between two attempts to join.
const JOIN_AGAIN: u64 = 300 * MS;

impl World {
    /// Two processes are going to join.
    pub(super) fn begin_growth(&mut self) {
        if self.cx.knobs.growth {
            for _ in 1..WANTED {
                let after = self.draw(FIRST);
                self.add_a_member(after);
            }
        }
    }

    /// A process begins to ask to become a member.
    fn add_a_member(&mut self, after: u64) {
        let data_id = self.next_arrival();
        self.candidates.insert(data_id);
        self.plan(after, Deed::JoinMember { data_id });
    }

    /// It asks again until it is answered.
    pub(super) fn ask_to_be_a_member(&mut self, data_id: u64) {
        if self.candidates.contains(&data_id) {
            self.ask_placement(&Ask::JoinMember(joining_member(None, 0, data_id)));
            self.plan(JOIN_AGAIN, Deed::JoinMember { data_id });
        }
    }

    /// Placement knows a process that asked: it starts, and waits for the group's state.
    pub(super) fn member_has_joined(&mut self, member: NodeId, data_id: u64) {
        if self.candidates.remove(&data_id) {
            self.cx.note(format_args!("{member} is going to be a member of placement"));
            self.cx.grown.insert(member, data_id);
            self.cx.members.push(member);
            self.add(member, 200 * MS);
        }
    }

    /// The members of placement as its leader has them.
    fn own_members(&self) -> Vec<(NodeId, Role)> {
        let members = self.placement_state().into_iter().flat_map(|state| state.members().values());
        members.map(|member| (member.id, member.role)).collect()
    }

    /// A member is lost for good and another one comes, or another one comes and takes the place of
    /// one on request.
    pub(super) fn replace_a_member(&mut self) {
        let members = self.own_members();
        let having = |wanted: Role| -> Vec<NodeId> {
            members.iter().filter(|(_, role)| *role == wanted).map(|(node, _)| *node).collect()
        };
        let (voters, learners) = (having(Role::Voter), having(Role::Learner));
        let is_up = |(node, _): &(NodeId, Role)| {
            self.processes.get(node).is_some_and(|process| process.up.is_some())
        };
        // Never the last majority, and one at a time.
        let is_whole = voters.len() == WANTED && members.iter().all(is_up);
        if !is_whole || !self.candidates.is_empty() || self.arrivals >= MOST_ARRIVALS {
            return;
        }
        let node = self.one_of(&voters);
        match learners.first() {
            Some(with) => {
                self.ask_placement(&Ask::ReplaceMember { member: node, with: *with });
            }
            None => {
                if self.draw((0, 1)) == 0 {
                    self.lose(node);
                }
                self.add_a_member(0);
            }
        }
    }

    /// Where members are missing, and nobody comes, another process joins.
    pub(super) fn tend_members(&mut self) {
        let members = self.own_members();
        let is_lost = |node: &NodeId| self.cx.checks.lives.is_lost(*node);
        let there = members.iter().filter(|(node, _)| !is_lost(node)).count();
        let lost = members.len() - there;
        let stand_by = |(node, role): &&(NodeId, Role)| *role == Role::Learner && !is_lost(node);
        let stand_by = members.iter().filter(stand_by).count();
        let is_coming = |node: &&NodeId| {
            self.processes.contains_key(*node)
                && !self.cx.checks.lives.is_retired(**node)
                && members.iter().all(|(member, _)| member != *node)
        };
        let comes = self.candidates.len() + self.cx.grown.keys().filter(is_coming).count();
        let knows = self.cx.knobs.growth && !members.is_empty();
        let wanted = there + comes < WANTED || stand_by + comes < lost;
        if knows && wanted && self.arrivals < MOST_ARRIVALS {
            self.add_a_member(0);
        }
    }

    /// Why placement's group is not as it shall be.
    pub(super) fn ungrown(&self) -> Option<String> {
        if !self.cx.knobs.growth {
            return None;
        }
        if let Some(data_id) = self.candidates.first() {
            return Some(format!("the process with data id {data_id} has not joined placement"));
        }
        let members = self.own_members();
        let gone = members.iter().find(|(node, _)| !self.processes.contains_key(node));
        if let Some((node, role)) = gone {
            return Some(format!("placement has {node} as {role:?}, which is lost"));
        }
        let other = self.processes.keys().find(|node| {
            self.cx.is_member(**node) && members.iter().all(|(member, _)| member != *node)
        });
        if let Some(node) = other {
            return Some(format!("{node} is no member of placement, and runs"));
        }
        let voters = members.iter().filter(|(_, role)| *role == Role::Voter).count();
        let settled = members.iter().all(|(_, role)| matches!(role, Role::Voter | Role::Learner));
        let as_wanted = settled && voters >= WANTED && voters == odd(members.len());
        (!as_wanted).then(|| format!("placement has the members {members:?}"))
    }

    /// Members of placement that joined while it ran, and vote.
    pub(super) fn grown_voters(&self) -> u64 {
        let votes = |(node, role): &&(NodeId, Role)| {
            self.cx.grown.contains_key(node) && *role == Role::Voter
        };
        self.own_members().iter().filter(votes).count() as u64
    }
}
