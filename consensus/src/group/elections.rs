//! Elections of one group: who campaigns when, and who may vote.
//!
//! Two rules on top of raft-rs's. Campaigns are staggered by the rank of the voter instead of
//! being left to chance, so that voters do not split the vote. And a peer that heard from its
//! leader less than [`RaftOptions::vote_promise`](crate::shard::RaftOptions) ago neither votes
//! nor campaigns, leadership transfers excepted: the lease rests on that promise. It holds across
//! restarts, because a process that has just started votes for nobody either.

use raft::{CAMPAIGN_TRANSFER, StateRole};

use quorate_proto::wire::peer::Envelope;
use quorate_proto::{LogIndex, NodeId, PeerId, Role, Term};

use super::members::MAX_BEHIND;
use super::{Group, GroupContext, message};
use crate::shard::{Effects, LeaderChange, Member, Refusal, Reply};
use crate::time::Instant;

/// Ranks beyond this one campaign together.
pub(super) const RANKS: usize = 64;

impl<T> Group<T> {
    pub(super) fn is_only_voter(&self) -> bool {
        let mut voters = self.members.iter().filter(|m| m.role != Role::Learner);
        voters.next().is_some_and(|m| m.peer == self.peer) && voters.next().is_none()
    }

    /// Finds the election timeout of this peer by its rank among the voters that could follow the
    /// leader last known: rank k campaigns k staggers after rank 0. The order starts at another
    /// voter for each group, so that a fresh cluster's leaders do not all land on one process. To
    /// be called whenever the members or the leader last known have changed.
    pub(super) fn set_timeout(&mut self) {
        let leader = self.last_leader;
        let mut voters: Vec<u64> = self
            .members
            .iter()
            .filter(|m| m.role != Role::Learner && (m.peer.0 != leader || m.peer == self.peer))
            .map(|m| m.peer.0)
            .collect();
        voters.sort_unstable();
        let rank = match voters.iter().position(|peer| *peer == self.peer.0) {
            Some(at) => (at + voters.len() - self.id.0 as usize % voters.len()) % voters.len(),
            None => 0,
        };
        let (ticks, stagger) = self.election_ticks;
        self.timeout = ticks + rank.min(RANKS - 1) * stagger;
        self.stagger();
    }

    /// raft-rs draws an election timeout of its own at every reset; puts ours in its place.
    pub(super) fn stagger(&mut self) {
        let timeout = self.timeout + self.apart();
        if self.node.raft.randomized_election_timeout() != timeout {
            self.node.raft.set_randomized_election_timeout(timeout);
        }
    }

    /// Two that know of different leaders, or members, may have the same rank and split every
    /// vote. Where an election was lost, a voter waits for up to as many ticks more as there are
    /// others: not as many as the other, and in the next term not as many as in this one.
    fn apart(&self) -> usize {
        // Voted for itself, and nobody was elected.
        let raft = &self.node.raft;
        if raft.vote != self.peer.0 || raft.leader_id != 0 {
            return 0;
        }
        let voters = self.members.iter().filter(|member| member.role != Role::Learner);
        let before = voters.clone().filter(|member| member.peer < self.peer).count();
        (before + raft.term as usize) % voters.count().max(1)
    }

    pub(super) fn may_vote(&self, context: &GroupContext<'_>) -> bool {
        let promise = context.options.vote_promise();
        context.now >= context.votes_from
            && self.contact.is_none_or(|contact| context.now.since(contact) >= promise)
    }

    /// Campaigns if no promise forbids it.
    pub(super) fn campaign(&mut self, context: &GroupContext<'_>) {
        if self.is_only_voter() || self.may_vote(context) {
            let _ = self.node.campaign();
        }
        self.stagger();
        self.wake();
    }

    /// One tick. Returns true where there may be something to collect.
    pub(crate) fn tick(&mut self, context: &GroupContext<'_>, effects: &mut Effects<T>) -> bool {
        if self.sleep.is_asleep() || self.is_installing() {
            return false;
        }
        self.abdicate(context);
        self.ask_around(context, effects);
        if self.ask_to_sleep(context, effects) {
            return true;
        }
        let waits = !self.is_leader() && !self.is_only_voter() && !self.may_vote(context);
        if waits && self.node.raft.election_elapsed + 1 >= self.timeout {
            // The tick would campaign, which the promise forbids: hold it back.
            return !self.reads.is_idle();
        }
        self.node.tick();
        self.stagger();
        if let Some(node) = self.offered.take() {
            self.transfer(node, context);
        }
        self.keep_fresh(context);
        true
    }

    /// False for a request for a vote that a promise forbids to give. Otherwise the promise is
    /// the only word: raft-rs would refuse on its own until it has counted as many ticks, which
    /// may be fewer than the time that has passed (a sleeping group does not count at all).
    pub(super) fn may_answer(&mut self, envelope: &Envelope, context: &GroupContext<'_>) -> bool {
        let asks = message::asks_for_vote(envelope.kind);
        if !asks || envelope.context == CAMPAIGN_TRANSFER || self.is_leader() {
            return true;
        }
        if !self.may_vote(context) {
            return false;
        }
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Follower {
            raft.election_elapsed = raft.election_elapsed.max(self.election_ticks.0);
        }
        true
    }

    /// The beats of the leader's process vouched for the group until `contact`; now they do not
    /// any more, so the election clock starts as if it had run since then.
    pub(crate) fn wake_orphaned(&mut self, contact: Instant, context: &GroupContext<'_>) {
        if !self.sleep.is_asleep() || self.is_leader() {
            return;
        }
        self.contact = self.contact.max(Some(contact));
        self.wake();
        let tick = context.options.tick_ms.max(1) * 1_000_000;
        let elapsed = context.now.since(contact).as_nanos() as u64 / tick;
        let least = self.election_ticks.0.saturating_sub(1);
        self.node.raft.election_elapsed = (elapsed as usize).min(least);
    }

    pub(super) fn publish_leader(&mut self) {
        self.view.set_leader(Term(self.node.raft.term), self.leader());
    }

    /// Publishes and reports a change of term or leader.
    pub(super) fn note_leader(&mut self, effects: &mut Effects<T>) {
        let (term, leader) = (self.node.raft.term, self.node.raft.leader_id);
        if (term, leader) == self.known {
            return;
        }
        if term != self.known.0 || !self.is_leader() {
            self.lease.reset();
            self.view.revoke();
            // What the members of another term had says nothing about the log of this one.
            self.view.set_everywhere(LogIndex(0));
            self.node.skip_bcast_commit(true);
        }
        self.known = (term, leader);
        if leader != 0 && leader != self.last_leader {
            self.last_leader = leader;
            self.set_timeout();
        }
        if self.is_leader() {
            self.end_silence();
            self.safe_truncate = 0;
            self.applied_there.clear();
            let (log, leader) = (&self.node.raft.raft_log, self.leader());
            let is_logged = |index, term| log.match_term(index, term);
            self.proposals.keep_logged(is_logged, |token| {
                let refusal = Refusal::NotLeader { leader };
                effects.replies.push((token, Reply::Refused(refusal)));
            });
        }
        self.publish_leader();
        effects.leaders.push(LeaderChange {
            group: self.id,
            term: Term(term),
            leader: self.leader(),
            is_local: self.is_leader(),
        });
    }

    pub(super) fn leader(&self) -> Option<PeerId> {
        match self.node.raft.leader_id {
            0 => None,
            leader => Some(PeerId(leader)),
        }
    }

    /// Offers leadership to the member on `node`, if it votes and will go on to do so, can be heard
    /// and is not far behind, in its log or in applying: commands wait until it has taken over, or an
    /// election timeout. One that has just come in and may not have heard of that yet is told, and
    /// gets the offer then: before, it would not campaign, and commands would wait for nothing.
    pub(crate) fn transfer(&mut self, node: NodeId, context: &GroupContext<'_>) {
        let to = self.members.iter().find(|m| m.node == node && m.is_incoming()).copied();
        if let Some(to) = to
            && self.is_leader()
            && self.may_take_over(&to, context)
        {
            self.wake();
            if self.knows_its_vote(&to) {
                self.node.transfer_leader(to.peer.0);
            } else {
                self.offered = Some(node);
                self.node.ping();
            }
        }
    }

    /// A leader without a vote hands over: it was elected while it was being demoted, and its
    /// predecessor had proposed to complete that. raft-rs would let it lead on, though nobody else
    /// could reach it with a request for a vote.
    fn abdicate(&mut self, context: &GroupContext<'_>) {
        if !self.is_leader() || self.votes() || self.node.raft.lead_transferee.is_some() {
            return;
        }
        let voters = self.members.iter().filter(|member| member.role == Role::Voter);
        let able = voters.filter(|member| self.may_take_over(member, context));
        let behind = |member: &&Member| (self.behind(member.peer), self.unapplied(member.peer));
        if let Some(node) = able.min_by_key(behind).map(|member| member.node) {
            self.transfer(node, context);
        }
    }

    /// True for one that can be heard and is not far behind, in its log or in applying.
    fn may_take_over(&self, member: &Member, context: &GroupContext<'_>) -> bool {
        !context.nodes.is_silent(member.node)
            && self.behind(member.peer).is_some_and(|behind| behind <= MAX_BEHIND)
            && self.unapplied(member.peer) <= MAX_BEHIND
    }

    /// True for a voter that has the commit index of the entry which made it one, as far as its
    /// leader knows: what a peer knows to be committed it applies before it takes in more.
    fn knows_its_vote(&self, member: &Member) -> bool {
        let raft = &self.node.raft;
        match member.role {
            Role::Voter => true,
            Role::IncomingVoter => raft
                .prs()
                .get(member.peer.0)
                .is_some_and(|progress| progress.committed_index >= raft.pending_conf_index),
            Role::Learner | Role::DemotingVoter => false,
        }
    }
}
