//! One Raft group's local peer: raft-rs's state machine with what it leaves to its user.
//!
//! [`Group`] owns the lease, the read queue, hibernation, staggered elections, the vote promise
//! and truncation. It never sends, writes or applies: [`Group::collect`] hands out what is to be
//! done, and one write at most is under way between two calls of it.
//!
//! Deliberately absent: automatic leaving of joint configurations, raft-rs's own lease reads, and
//! any clock (see `docs/ARCHITECTURE.md`).

mod collect;
mod lease;
mod log;
mod message;
mod reads;
pub(crate) mod records;
mod sleep;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{LogIndex, NodeId, PeerId, RegionId, Role, Term};
use raft::eraftpb::MessageType;
use raft::{RawNode, StateRole};

use crate::engine::{Engine, EngineError};
use crate::shard::{Effects, Member, NewGroup, Nodes, RaftOptions, Refusal, Reply, conf_of};
use crate::time::Instant;
use crate::view::GroupView;
use lease::LeaseClock;
use log::GroupLog;
pub(crate) use message::{HIBERNATE, HIBERNATE_ACK};
use reads::ReadQueue;
use sleep::Sleep;

/// Peers that one without members remembers.
const MAX_CALLERS: usize = 32;

/// What a group needs to know of its shard.
pub(crate) struct GroupContext<'a> {
    pub(crate) options: &'a RaftOptions,
    pub(crate) now: Instant,
    /// Which processes are alive.
    pub(crate) nodes: &'a Nodes,
    /// No votes and no campaigns before then: the process has just started and may have promised.
    pub(crate) votes_from: Instant,
}

/// A command waiting to be proposed.
struct Queued<T> {
    command: Bytes,
    token: T,
    suspends_lease: bool,
}

/// An entry this peer proposed and that is not applied yet.
struct Proposed<T> {
    index: u64,
    term: u64,
    since: Instant,
    tokens: Vec<T>,
}

/// What a group does while a snapshot is being installed: nothing, but it remembers.
struct Installing {
    index: u64,
    term: u64,
    ready: u64,
    held: Vec<Envelope>,
}

pub(crate) struct Group<T> {
    id: RegionId,
    peer: PeerId,
    members: Vec<Member>,
    /// While the members are not known (a peer that waits for its first snapshot): who has spoken
    /// to it, and from where.
    callers: BTreeMap<u64, NodeId>,
    node: RawNode<GroupLog>,
    view: Arc<GroupView>,
    queue: Vec<Queued<T>>,
    proposed: VecDeque<Proposed<T>>,
    reads: ReadQueue<T>,
    lease: LeaseClock,
    sleep: Sleep,
    /// The leader last heard of (kept while there is none), and when.
    last_leader: u64,
    contact: Instant,
    /// Members whose process was silent when the group fell asleep.
    missed: bool,
    installing: Option<Box<Installing>>,
    incoming: Option<(String, Bytes)>,
    /// Messages that must wait for the write under way, and the number of its `Ready`.
    held: Vec<Envelope>,
    writing: Option<u64>,
    /// From the leader: every member has the log up to here.
    safe_truncate: u64,
    suspended_until: u64,
    known_term: u64,
    known_leader: u64,
    pub(crate) touched: bool,
}

impl<T> Group<T> {
    pub(crate) fn open(
        new: &NewGroup,
        engine: Arc<dyn Engine>,
        incarnation: u64,
        logger: &slog::Logger,
        context: &GroupContext<'_>,
    ) -> Result<Self, EngineError> {
        let options = context.options;
        let applied = (new.applied.0.0, new.applied.1.0);
        let log = GroupLog::load(
            engine,
            new.group,
            applied,
            message::unpack_conf(conf_of(&new.members)),
        )?;
        let config = raft::Config {
            id: new.peer.0,
            election_tick: options.election_ticks,
            heartbeat_tick: options.heartbeat_ticks,
            applied: applied.0,
            max_size_per_msg: options.max_append_bytes,
            max_inflight_msgs: options.max_inflight,
            check_quorum: true,
            pre_vote: true,
            min_election_tick: options.election_ticks,
            max_election_tick: options.election_ticks + options.election_stagger_ticks * 64 + 1,
            skip_bcast_commit: true,
            // raft-rs 0.7 appends entries to a waiting *empty* append without looking at its index:
            // after a rejected probe the follower then acknowledges entries it never got.
            batch_append: false,
            max_uncommitted_size: options.max_uncommitted_bytes,
            max_committed_size_per_ready: options.max_append_bytes * 4,
            ..raft::Config::default()
        };
        let node = RawNode::new(&config, log, logger).map_err(|error| EngineError::Corrupt {
            what: format!("raft state of {}", new.group),
            reason: error.to_string(),
        })?;
        let mut group = Self {
            id: new.group,
            peer: new.peer,
            members: new.members.clone(),
            callers: BTreeMap::new(),
            node,
            view: new.view.clone(),
            queue: Vec::new(),
            proposed: VecDeque::new(),
            reads: ReadQueue::new(incarnation),
            lease: LeaseClock::new(options.lease()),
            sleep: Sleep::Awake { idle_ticks: 0 },
            last_leader: 0,
            contact: Instant::default(),
            missed: false,
            installing: None,
            incoming: None,
            held: Vec::new(),
            writing: None,
            safe_truncate: 0,
            suspended_until: 0,
            known_term: 0,
            known_leader: 0,
            touched: false,
        };
        group.view.set_applied(new.applied.0);
        group.stagger(options);
        if new.campaign || group.is_only_voter() {
            group.campaign(context);
        }
        group.publish_leader();
        Ok(group)
    }

    pub(crate) fn id(&self) -> RegionId {
        self.id
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    pub(crate) fn is_asleep(&self) -> bool {
        self.sleep.is_asleep()
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().filter(|m| m.peer != self.peer).map(|member| member.node)
    }

    pub(crate) fn node_of(&self, peer: u64) -> Option<NodeId> {
        let member = self.members.iter().find(|member| member.peer.0 == peer);
        member.map(|member| member.node).or_else(|| self.callers.get(&peer).copied())
    }

    /// A peer without members learns where to answer.
    pub(crate) fn meet(&mut self, peer: u64, node: NodeId) {
        if self.members.is_empty() && self.callers.len() < MAX_CALLERS {
            self.callers.insert(peer, node);
        }
    }

    pub(crate) fn is_local(&self, peer: PeerId) -> bool {
        self.peer == peer
    }

    /// False while it waits for its first snapshot.
    pub(crate) fn is_initialised(&self) -> bool {
        !self.members.is_empty()
    }

    fn leader(&self) -> Option<PeerId> {
        match self.node.raft.leader_id {
            0 => None,
            leader => Some(PeerId(leader)),
        }
    }

    /// The process that led this group when it was last heard of.
    pub(crate) fn leader_node(&self) -> Option<NodeId> {
        self.node_of(self.last_leader)
    }

    fn is_only_voter(&self) -> bool {
        let mut voters = self.members.iter().filter(|m| m.role != Role::Learner);
        voters.next().is_some_and(|m| m.peer == self.peer) && voters.next().is_none()
    }

    /// Sets the election timeout of this peer by its rank among the voters that could follow the
    /// leader last known: rank k campaigns k staggers after rank 0, so that they do not split the
    /// vote. The order starts at another voter for each group, so that a fresh cluster's leaders
    /// do not all land on one process. raft-rs draws its own timeout at every reset; ours is put
    /// in its place.
    fn stagger(&mut self, options: &RaftOptions) {
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
        let ticks = options.election_ticks + rank.min(63) * options.election_stagger_ticks;
        if self.node.raft.randomized_election_timeout() != ticks {
            self.node.raft.set_randomized_election_timeout(ticks);
        }
    }

    fn may_vote(&self, context: &GroupContext<'_>) -> bool {
        context.now >= context.votes_from
            && (self.contact == Instant::default()
                || context.now.since(self.contact) >= context.options.vote_promise())
    }

    /// Campaigns if no promise forbids it.
    pub(crate) fn campaign(&mut self, context: &GroupContext<'_>) {
        if self.is_only_voter() || self.may_vote(context) {
            let _ = self.node.campaign();
        }
        self.stagger(context.options);
        self.wake();
    }

    /// One tick. Returns true where there may be something to collect.
    pub(crate) fn tick(&mut self, context: &GroupContext<'_>, effects: &mut Effects<T>) -> bool {
        if self.sleep.is_asleep() {
            return false;
        }
        self.stagger(context.options);
        if self.ask_to_sleep(context, effects) {
            return true;
        }
        if self.installing.is_none() {
            let waits = !self.is_leader() && !self.is_only_voter() && !self.may_vote(context);
            if waits && self.node.raft.election_elapsed + 1 >= self.election_timeout() {
                // The tick would campaign, which the promise forbids: hold it back.
                return !self.reads.is_idle();
            }
            self.node.tick();
        }
        true
    }

    fn election_timeout(&self) -> usize {
        self.node.raft.randomized_election_timeout()
    }

    /// Work has come: ticks go on.
    pub(crate) fn wake(&mut self) {
        if self.sleep.is_asleep() {
            self.view.set_asleep(false);
            if self.is_leader() {
                self.node.raft.election_elapsed = 0;
            }
        }
        self.sleep = Sleep::Awake { idle_ticks: 0 };
    }

    /// The beats of the leader's process vouched for the group until `contact`; now they do not
    /// any more, so the election clock starts as if it had run since then.
    pub(crate) fn wake_orphaned(&mut self, contact: Instant, context: &GroupContext<'_>) {
        if !self.sleep.is_asleep() || self.is_leader() {
            return;
        }
        self.contact = self.contact.max(contact);
        self.wake();
        let tick = context.options.tick_ms.max(1) * 1_000_000;
        let elapsed = context.now.since(self.contact).as_nanos() as u64 / tick;
        let least = context.options.election_ticks.saturating_sub(1);
        self.node.raft.election_elapsed = (elapsed as usize).min(least);
    }

    /// Wakes a leader whose sleeping group has a member on a process that is back.
    pub(crate) fn wake_for_return(&mut self) -> bool {
        if self.sleep.is_asleep() && self.is_leader() {
            self.missed = false;
            self.wake();
            self.node.ping();
            return true;
        }
        false
    }

    /// True where it fell asleep without a member whose process was silent.
    pub(crate) fn missed_someone(&self) -> bool {
        self.missed
    }

    /// A message from a peer of the group.
    pub(crate) fn step(
        &mut self,
        envelope: Envelope,
        context: &GroupContext<'_>,
        effects: &mut Effects<T>,
    ) {
        if envelope.to_peer != self.peer.0 {
            tracing::debug!(group = %self.id, to = envelope.to_peer, "dropped a message to another peer");
            return;
        }
        match envelope.kind {
            HIBERNATE => return self.asked_to_sleep(envelope, context, effects),
            HIBERNATE_ACK => return self.sleep_acknowledged(envelope),
            _ => {}
        }
        let snapshot = envelope.snapshot.as_ref().map(|meta| (meta.id.clone(), meta.state.clone()));
        let (kind, term, safe) = (envelope.kind, envelope.term, envelope.safe_truncate);
        if self.sleep.is_asleep()
            && let Some(beat) = self.leader_node().and_then(|node| context.nodes.last_beat(node))
        {
            // While asleep, the beats of the leader's process are as good as word from the leader.
            self.contact = self.contact.max(beat);
        }
        let is_vote = kind == MessageType::MsgRequestVote as u32
            || kind == MessageType::MsgRequestPreVote as u32;
        if is_vote && envelope.context.is_empty() && !self.may_vote(context) {
            return;
        }
        let from_leader = kind == MessageType::MsgAppend as u32
            || kind == MessageType::MsgHeartbeat as u32
            || kind == MessageType::MsgSnapshot as u32;
        if from_leader && term >= self.node.raft.term {
            self.contact = context.now;
            self.last_leader = envelope.from_peer;
            self.safe_truncate = self.safe_truncate.max(safe);
        }
        if self.installing.is_some() {
            effects.discards.extend(snapshot.map(|(id, _)| id));
            return;
        }
        let is_answer = kind == MessageType::MsgHeartbeatResponse as u32;
        let quiet = kind == MessageType::MsgHeartbeat as u32 || is_answer;
        if is_answer && self.sleep.is_asleep() && term <= self.node.raft.term {
            // Answered before its sender agreed to sleep: no reason to wake up again.
            return;
        }
        let message = match message::unpack(envelope) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(group = %self.id, %error, "dropped a message");
                return;
            }
        };
        if self.sleep.is_asleep() || !quiet {
            self.wake();
        }
        if let Some((id, state)) = snapshot.clone() {
            self.incoming = Some((id, state));
        }
        if let Err(error) = self.node.step(message) {
            tracing::debug!(group = %self.id, %error, "raft refused a message");
        }
        if let Some((id, _)) = snapshot
            && self.node.raft.raft_log.unstable_snapshot().is_none()
        {
            self.incoming = None;
            effects.discards.push(id);
        }
        self.stagger(context.options);
    }

    /// Queues a command; it is proposed when the shard collects.
    pub(crate) fn propose(
        &mut self,
        command: Bytes,
        token: T,
        suspends_lease: bool,
        context: &GroupContext<'_>,
        effects: &mut Effects<T>,
    ) {
        let refusal = if !self.is_leader() {
            Refusal::NotLeader { leader: self.leader() }
        } else if command.len() > quorate_proto::limits::MAX_ENTRY_BYTES {
            Refusal::TooLarge { bytes: command.len() }
        } else if self.queue.len() + self.proposed.len() >= context.options.max_pending {
            Refusal::Busy { reason: "too many writes of this region are waiting" }
        } else {
            self.wake();
            self.queue.push(Queued { command, token, suspends_lease });
            return;
        };
        effects.replies.push((token, Reply::Refused(refusal)));
    }

    /// Queues a linearizable read.
    pub(crate) fn read(&mut self, token: T, context: &GroupContext<'_>, effects: &mut Effects<T>) {
        if self.reads.len() >= context.options.max_pending {
            let refusal = Refusal::Busy { reason: "too many reads of this region are waiting" };
            effects.replies.push((token, Reply::Refused(refusal)));
            return;
        }
        self.wake();
        self.reads.push(token, context.now);
    }

    /// The lease is used and about to lapse.
    pub(crate) fn renew_lease(&mut self) {
        if self.is_leader() {
            self.wake();
            self.reads.renew();
        }
    }

    /// Offers leadership to the member on `node`.
    pub(crate) fn transfer(&mut self, node: NodeId) {
        let to = self.members.iter().find(|m| m.node == node && m.role == Role::Voter);
        if let Some(to) = to.map(|member| member.peer.0)
            && self.is_leader()
        {
            self.wake();
            self.node.transfer_leader(to);
        }
    }

    /// The state machine has applied up to `index`.
    pub(crate) fn applied(&mut self, index: u64, term: u64) {
        if index <= self.node.store().applied_index() {
            return;
        }
        self.node.mut_store().set_applied(index, term);
        self.node.advance_apply_to(index);
        self.view.set_applied(LogIndex(index));
        if self.suspended_until != 0 && index >= self.suspended_until {
            self.suspended_until = 0;
            self.node.skip_bcast_commit(true);
        }
    }

    /// A snapshot for `to` was delivered, or lost.
    pub(crate) fn snapshot_sent(&mut self, to: PeerId, delivered: bool) {
        let status =
            if delivered { raft::SnapshotStatus::Finish } else { raft::SnapshotStatus::Failure };
        self.node.report_snapshot(to.0, status);
    }

    /// The snapshot under way is installed.
    pub(crate) fn installed(&mut self, index: u64, members: Vec<Member>, effects: &mut Effects<T>) {
        let Some(installing) = self.installing.take_if(|installing| installing.index == index)
        else {
            return;
        };
        self.members = members;
        self.callers.clear();
        self.node.mut_store().set_applied(index, installing.term);
        self.node.on_persist_ready(installing.ready);
        self.node.advance_apply_to(index);
        self.view.set_applied(LogIndex(index));
        self.view.set_committed(LogIndex(index));
        for envelope in installing.held {
            self.send(envelope, effects);
        }
        for proposed in self.proposed.drain(..) {
            for token in proposed.tokens {
                effects.replies.push((token, Reply::Refused(Refusal::Undetermined)));
            }
        }
    }

    /// Messages to `node` were lost.
    pub(crate) fn unreachable(&mut self, node: NodeId) {
        if self.is_leader() {
            for member in self.members.iter().filter(|member| member.node == node) {
                self.node.report_unreachable(member.peer.0);
            }
        }
    }

    /// The group goes away: whoever waits is told.
    pub(crate) fn close(&mut self, effects: &mut Effects<T>) {
        self.view.revoke();
        self.view.set_leader(Term(self.node.raft.term), None);
        for queued in self.queue.drain(..) {
            effects.replies.push((queued.token, Reply::Refused(Refusal::NoGroup)));
        }
        for token in self.proposed.drain(..).flat_map(|proposed| proposed.tokens) {
            effects.replies.push((token, Reply::Refused(Refusal::Undetermined)));
        }
        self.reads.drain(|token| effects.replies.push((token, Reply::Refused(Refusal::NoGroup))));
    }

    /// An engine error that raft-rs met.
    pub(crate) fn take_failure(&self) -> Option<EngineError> {
        self.node.store().take_failure()
    }
}
