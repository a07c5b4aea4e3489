//! Whether a group has lost its quorum, which is more than an election under way.
//!
//! Raft itself cannot tell the two apart: in both there is no leader. So the beats of the voters'
//! processes are asked as well, and only silence that outlasts any election counts. Requests are
//! then refused at once and in words, instead of waiting for what cannot come.
//!
//! What is said here is a refusal at most and nothing is decided by it: where it is wrong for a
//! moment, because this process was paused and has yet to read the beats that came meanwhile, the
//! client looks again.

use quorate_proto::NodeId;

use super::progress::LEADER_SILENCE;
use super::{Group, GroupContext};
use crate::shard::Member;
use crate::view::LostQuorum;

/// Ticks in a row before it is published: a process that was paused has read its mail by then.
const CONFIRM_TICKS: u32 = 3;

impl<T> Group<T> {
    /// To be called once a tick.
    pub(super) fn publish_quorum(&mut self, context: &GroupContext<'_>) {
        let lost = self.without_quorum(context);
        if lost.is_none() {
            if std::mem::take(&mut self.lost_ticks) >= CONFIRM_TICKS {
                self.view.set_lost_quorum(None);
            }
            return;
        }
        self.lost_ticks = self.lost_ticks.saturating_add(1);
        if self.lost_ticks >= CONFIRM_TICKS {
            self.view.set_lost_quorum(lost);
        }
    }

    /// Why nothing can be committed, where that is so: no word of a leader and of a majority for
    /// longer than any election takes.
    pub(super) fn without_quorum(&self, context: &GroupContext<'_>) -> Option<LostQuorum> {
        if context.nodes.are_all_heard() {
            return None;
        }
        let since = self.contact.unwrap_or(self.opened);
        if !self.is_leader() && context.now.since(since) < LEADER_SILENCE {
            return None;
        }
        self.lacks_majority(Member::is_incoming, context)
            .or_else(|| self.lacks_majority(Member::is_outgoing, context))
    }

    fn lacks_majority(
        &self,
        votes: fn(&Member) -> bool,
        context: &GroupContext<'_>,
    ) -> Option<LostQuorum> {
        let is_silent = |node: NodeId| {
            context.nodes.is_silent(node)
                && context
                    .nodes
                    .last_beat(node)
                    .is_none_or(|last| context.now.since(last) >= LEADER_SILENCE)
        };
        let voters = self.members.iter().filter(|member| votes(member));
        let others = voters.clone().filter(|member| member.peer != self.peer);
        let silent: Vec<NodeId> =
            others.map(|member| member.node).filter(|node| is_silent(*node)).collect();
        let voters = voters.count();
        (voters > 0 && silent.len() * 2 >= voters).then_some(LostQuorum { voters, silent })
    }
}
