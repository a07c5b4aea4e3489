//! Hibernation of one group.
//!
//! A leader that has been idle for a while, whose members on live processes all hold the same
//! log, asks them to sleep. Each agrees only if its own term, last, committed and applied index
//! are what the leader said. Once all have agreed the leader sleeps too: no ticks, no heartbeats.
//! From then on the beats of the leader's process vouch for it. Whatever message or request
//! arrives wakes a peer; a follower that slept while its leader was awake is woken by the next
//! heartbeat. A group that its state machine wants kept awake does not sleep, and does not agree to.

use std::collections::BTreeSet;

use quorate_proto::wire::peer::Envelope;
use quorate_proto::{PeerId, Role};

use super::message::{self, HIBERNATE, HIBERNATE_ACK};
use super::{Group, GroupContext};
use crate::shard::{Effects, Member};
use crate::sleepers::Mark;
use crate::time::Instant;
use crate::view::Slept;

/// Ticks a leader waits for its members to agree to sleep; it sends no heartbeats meanwhile.
const ASK_TICKS: u32 = 3;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sleep {
    /// Ticking. Counts the ticks without work.
    Awake { idle_ticks: u32 },
    /// A leader waits for these to agree to sleep at (term, last).
    Asking { term: u64, last: u64, missing: BTreeSet<PeerId>, ticks: u32, since: Instant },
    /// Costs nothing. Counted among the sleepers of the process, where its leader's is known.
    Asleep(Option<Mark>),
}

impl Sleep {
    pub(crate) fn is_asleep(&self) -> bool {
        matches!(self, Sleep::Asleep(_))
    }

    /// An acknowledgement arrived; true where it was the last one missing.
    pub(crate) fn acknowledged(&mut self, peer: PeerId, at: (u64, u64)) -> bool {
        match self {
            Sleep::Asking { term, last, missing, .. } if (*term, *last) == at => {
                missing.remove(&peer);
                missing.is_empty()
            }
            Sleep::Asking { .. } | Sleep::Awake { .. } | Sleep::Asleep(_) => false,
        }
    }
}

impl<T> Group<T> {
    /// Counts idle ticks of a leader and asks the members to sleep. Returns true where the tick
    /// must not reach raft-rs, because the members have been asked.
    pub(super) fn ask_to_sleep(
        &mut self,
        context: &GroupContext<'_>,
        effects: &mut Effects<T>,
    ) -> bool {
        let stays_awake = self.view.is_kept_awake();
        if !self.is_leader() || context.options.sleep_after_ticks == 0 || stays_awake {
            return false;
        }
        let busy = !self.proposals.is_idle() || !self.reads.is_idle();
        match &mut self.sleep {
            Sleep::Asleep(_) => return false,
            Sleep::Asking { ticks, .. } if *ticks < ASK_TICKS && !busy => {
                *ticks += 1;
                return true;
            }
            Sleep::Asking { .. } => {
                self.sleep = Sleep::Awake { idle_ticks: 0 };
                return false;
            }
            Sleep::Awake { idle_ticks } => {
                *idle_ticks = if busy { 0 } else { *idle_ticks + 1 };
                if *idle_ticks < context.options.sleep_after_ticks {
                    return false;
                }
                *idle_ticks = 0;
            }
        }
        let raft = &self.node.raft;
        let last = raft.raft_log.last_index();
        let joint = self
            .members
            .iter()
            .any(|m| matches!(m.role, Role::IncomingVoter | Role::DemotingVoter));
        let settled = raft.raft_log.committed == last
            && self.node.store().applied_index() == last
            && raft.raft_log.persisted == last
            && raft.lead_transferee.is_none()
            && !joint;
        let (silent, live): (Vec<&Member>, Vec<&Member>) =
            self.others().partition(|member| context.nodes.is_silent(member.node));
        let voters = self.members.iter().filter(|m| m.role == Role::Voter).count();
        let live_voters = live.iter().filter(|m| m.role == Role::Voter).count();
        let live_voters = live_voters + usize::from(self.votes());
        if !settled || !self.is_level(context) || live_voters <= voters / 2 {
            return false;
        }
        let missing: BTreeSet<PeerId> = live.iter().map(|member| member.peer).collect();
        self.missed = !silent.is_empty();
        let term = raft.term;
        for to in &missing {
            let envelope = message::own(self.id, HIBERNATE, self.peer, *to, term, last);
            self.send(envelope, effects);
        }
        if missing.is_empty() {
            self.fall_asleep();
        } else {
            self.sleep = Sleep::Asking { term, last, missing, ticks: 0, since: context.now };
        }
        true
    }

    /// All members on live processes have the whole log.
    fn is_level(&self, context: &GroupContext<'_>) -> bool {
        let raft = &self.node.raft;
        let last = raft.raft_log.last_index();
        let mut live = self.members.iter().filter(|member| !context.nodes.is_silent(member.node));
        live.all(|member| raft.prs().get(member.peer.0).is_some_and(|p| p.matched == last))
    }

    fn fall_asleep(&mut self) {
        // Asked again by a leader that has woken up unnoticed.
        self.leave_sleepers();
        let (term, last) = (self.node.raft.term, self.node.raft.raft_log.last_index());
        let mark = if self.is_leader() {
            // Not of those that are no members and speak to it all the same: they are awake.
            let others = self.others().map(|member| member.node).collect();
            Some(Mark::led(self.id, term, last, others))
        } else {
            self.leader_node().map(|leader| Mark::followed(self.id, term, last, leader))
        };
        let since = mark.as_ref().map_or(u64::MAX, |mark| self.sleepers.enter(mark));
        self.sleep = Sleep::Asleep(mark);
        let leader = self.leader_node().unwrap_or_default();
        self.view.set_slept(Slept { leader, since, until: u64::MAX });
        let applied = self.node.store().applied_index();
        self.node.mut_store().shrink_tail(applied);
        self.node.raft.maybe_free_inflight_buffers();
        self.proposals.shrink();
        self.held = Vec::new();
        // Everybody who agreed has applied everything.
        self.applied_there.clear();
    }

    pub(super) fn asked_to_sleep(
        &mut self,
        envelope: Envelope,
        context: &GroupContext<'_>,
        effects: &mut Effects<T>,
    ) {
        let raft = &self.node.raft;
        let log = self.node.store();
        let agrees = raft.term == envelope.term
            && raft.leader_id == envelope.from_peer
            && !self.is_leader()
            && !self.view.is_kept_awake()
            && raft.raft_log.last_index() == envelope.index
            && raft.raft_log.committed == envelope.index
            && log.applied_index() == envelope.index
            && self.reads.is_idle()
            && self.writing.is_none()
            && !self.is_installing();
        if !agrees {
            return;
        }
        let (term, index) = (envelope.term, envelope.index);
        let from = PeerId(envelope.from_peer);
        self.contact = Some(context.now);
        self.end_silence();
        self.fall_asleep();
        let answer = message::own(self.id, HIBERNATE_ACK, self.peer, from, term, index);
        self.send(answer, effects);
    }

    /// The group is awake, or goes: it is not counted any more.
    pub(super) fn leave_sleepers(&mut self) {
        if let Sleep::Asleep(mark) = &mut self.sleep {
            let until = mark.take().map_or(0, |mark| self.sleepers.leave(&mark));
            let (_, slept) = self.view.age();
            self.view.set_slept(Slept { until, ..slept });
        }
    }

    /// Those who agree keep their vote for a while. Only within that time their word proves that
    /// nobody else leads, which those who sleep are vouched for (see [`Vigil`]).
    ///
    /// [`Vigil`]: crate::vigil::Vigil
    pub(super) fn sleep_acknowledged(&mut self, envelope: Envelope, context: &GroupContext<'_>) {
        let at = (envelope.term, envelope.index);
        if let Sleep::Asking { since, .. } = &self.sleep
            && context.now.since(*since) >= context.options.lease()
        {
            self.sleep = Sleep::Awake { idle_ticks: 0 };
        }
        if self.is_leader()
            && self.node.raft.term == envelope.term
            && self.node.raft.raft_log.last_index() == envelope.index
            && self.sleep.acknowledged(PeerId(envelope.from_peer), at)
        {
            // A process that was silent when the members were asked may be back: nobody would say
            // so again, and its replica would be left behind.
            if self.is_level(context) {
                self.fall_asleep();
            } else {
                self.wake();
            }
        }
    }

    /// The leader sleeps, and hears of a member that may not.
    pub(super) fn ask_again_to_sleep(&self, to: PeerId, effects: &mut Effects<T>) {
        let raft = &self.node.raft;
        let (term, last) = (raft.term, raft.raft_log.last_index());
        if self.is_leader() && raft.prs().get(to.0).is_some_and(|p| p.matched == last) {
            let envelope = message::own(self.id, HIBERNATE, self.peer, to, term, last);
            self.send(envelope, effects);
        }
    }

    /// While asleep, the beats of the leader's process are as good as word from the leader.
    pub(super) fn count_beats(&mut self, context: &GroupContext<'_>) {
        if self.sleep.is_asleep()
            && let Some(beat) = self.leader_node().and_then(|node| context.nodes.last_beat(node))
        {
            self.contact = self.contact.max(Some(beat));
        }
    }

    /// Work has come: ticks go on.
    pub(crate) fn wake(&mut self) {
        if self.sleep.is_asleep() {
            self.leave_sleepers();
            self.quiet.clear();
            if self.is_leader() {
                self.node.raft.election_elapsed = 0;
            }
        }
        self.sleep = Sleep::Awake { idle_ticks: 0 };
    }

    /// Wakes a leader whose sleeping group has a member on a process that is back.
    pub(crate) fn wake_for_return(&mut self) {
        if self.sleep.is_asleep() && self.is_leader() {
            self.missed = false;
            self.wake();
            self.node.ping();
        }
    }

    /// True where it fell asleep without a member whose process was silent.
    pub(crate) fn missed_someone(&self) -> bool {
        self.missed
    }
}
