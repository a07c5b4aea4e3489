//! A replica without a vote that hears no leader asks whether its group is still there.
//!
//! It cannot campaign, so nobody else would ever notice it. Its leader may sleep without it, or may
//! have removed it and forgotten it; or the group is gone, taken in by another one. A sleeping
//! leader that is asked by a member wakes up, and all go back to sleep together; a process whose
//! group is gone says so (see [`Stranger`](crate::shard::Stranger)); one whose group goes on without
//! the asker is silent: there placement removes the replica.

use std::hash::BuildHasher as _;
use std::time::Duration;

use quorate_proto::{PeerId, Role};

use super::message::WAKE;
use super::{Group, GroupContext, message};
use crate::hash::FixedState;
use crate::shard::Effects;

/// Silence of the leader before the others are asked. They are asked again whenever it has lasted
/// twice as long, and at least once a minute.
const ASK_AFTER: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// Groups that lost one leader together do not ask together: each waits up to as much longer.
const SPREAD: Duration = Duration::from_secs(5);

impl<T> Group<T> {
    /// To be called once a tick.
    pub(super) fn ask_around(&mut self, context: &GroupContext<'_>, effects: &mut Effects<T>) {
        if self.votes() || self.is_leader() {
            return;
        }
        let heard = self.contact.unwrap_or(self.opened);
        let before = self.asked.since(heard);
        let part = FixedState.hash_one(self.id) >> 56;
        let first = ASK_AFTER + SPREAD * part as u32 / 256;
        if context.now.since(heard) < (before * 2).min(before + ASK_AGAIN).max(first) {
            return;
        }
        self.asked = context.now;
        // Those that are silent as well: a process that shares no group with this one sends no beats.
        let raft = &self.node.raft;
        let (term, last) = (raft.term, raft.raft_log.last_index());
        for to in self.others() {
            self.send(message::own(self.id, WAKE, self.peer, to.peer, term, last), effects);
        }
    }

    /// A peer asks its leader. Whoever is no member asks in vain; so does one whose process is silent
    /// here: the group slept without it, and wakes when it is back. Followers sleep on: awake without
    /// their leader, they would soon elect another one.
    pub(crate) fn is_asked(&mut self, from: PeerId, context: &GroupContext<'_>) {
        let asker = self.members.iter().find(|member| member.peer == from);
        let heard = asker.is_some_and(|asker| !context.nodes.is_silent(asker.node));
        if heard && self.is_leader() && self.sleep.is_asleep() {
            self.wake();
            self.node.ping();
        }
    }

    /// True where it counts for a majority.
    pub(super) fn votes(&self) -> bool {
        let me = self.members.iter().find(|member| member.peer == self.peer);
        me.is_some_and(|me| me.role != Role::Learner)
    }
}
