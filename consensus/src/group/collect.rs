//! What a group wants done: proposals and reads go into raft-rs, its `Ready` comes out.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{LogIndex, PeerId, Role, Term};
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use raft::prelude::Ready;
use raft::{Error, ProgressState, Storage};

use super::message::{self, HIBERNATE, HIBERNATE_ACK};
use super::{Group, GroupContext, Installing, Proposed, Sleep};
use crate::engine::WriteBatch;
use crate::shard::{
    ApplyTask, Committed, Effects, Install, LeaderChange, MakeSnapshot, Member, Outgoing, Plane,
    Refusal, Reply,
};

/// Ticks a leader waits for its members to agree to sleep; it sends no heartbeats meanwhile.
const ASK_TICKS: u32 = 3;
/// A renewal of the lease is asked for when this share of it is left.
const RENEW_SHARE: u32 = 2;

impl<T> Group<T> {
    /// Collects what is to be done. To be called only while no write of the group is under way.
    /// Returns true where the write must be synced.
    pub(crate) fn collect(
        &mut self,
        context: &GroupContext<'_>,
        effects: &mut Effects<T>,
        batch: &mut WriteBatch,
    ) -> bool {
        debug_assert!(self.writing.is_none(), "one write at a time");
        if self.installing.is_some() {
            return false;
        }
        self.propose_queued(context, effects);
        self.begin_reads(context);
        let mut sync = false;
        if self.node.has_ready() {
            let ready = self.node.ready();
            sync = self.handle(ready, context, effects, batch);
        }
        let applied = self.node.store().applied_index();
        self.reads.ready(applied, |token| {
            effects.replies.push((token, Reply::ReadAt(LogIndex(applied))));
        });
        self.publish_lease(context);
        self.truncate(context, batch);
        sync
    }

    /// True where [`Group::collect`] has more to hand out.
    pub(crate) fn has_more(&self) -> bool {
        self.writing.is_none() && self.installing.is_none() && self.node.has_ready()
    }

    /// True where it waits for [`Group::persisted`].
    pub(crate) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// The write under way is durable.
    pub(crate) fn persisted(&mut self, effects: &mut Effects<T>) {
        for envelope in std::mem::take(&mut self.held) {
            self.send(envelope, effects);
        }
        if let Some(number) = self.writing.take() {
            self.node.on_persist_ready(number);
        }
    }

    fn propose_queued(&mut self, context: &GroupContext<'_>, effects: &mut Effects<T>) {
        if self.queue.is_empty() {
            return;
        }
        if !self.is_leader() {
            let leader = self.leader();
            for queued in self.queue.drain(..) {
                let refusal = Refusal::NotLeader { leader };
                effects.replies.push((queued.token, Reply::Refused(refusal)));
            }
            return;
        }
        if self.node.raft.lead_transferee.is_some() {
            // Leadership is being handed over: either it goes, or proposing goes on. Waiting is
            // better than refusing.
            return;
        }
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.peer.0;
        let mut tokens: Vec<Vec<T>> = Vec::new();
        let mut suspends = false;
        let mut data: Vec<Bytes> = Vec::new();
        let mut size = 0;
        for queued in self.queue.drain(..) {
            suspends |= queued.suspends_lease;
            if tokens.is_empty() || size + queued.command.len() > context.options.entry_bytes {
                push_entry(&mut message, &mut data);
                tokens.push(Vec::new());
                size = 0;
            }
            size += queued.command.len();
            data.push(queued.command);
            if let Some(last) = tokens.last_mut() {
                last.push(queued.token);
            }
        }
        push_entry(&mut message, &mut data);
        match self.node.step(message) {
            Ok(()) => {
                let term = self.node.raft.term;
                let last = self.node.raft.raft_log.last_index();
                let first = last + 1 - tokens.len() as u64;
                for (index, tokens) in (first..).zip(tokens) {
                    self.proposed.push_back(Proposed { index, term, since: context.now, tokens });
                }
                self.lease.proposed(last, context.now);
                if suspends {
                    self.lease.suspend(last);
                    self.view.revoke();
                    self.suspended_until = last;
                    self.node.skip_bcast_commit(false);
                }
            }
            Err(error) => {
                let refusal = match error {
                    Error::ProposalDropped if self.is_leader() => {
                        Refusal::Busy { reason: "too much of this region is not committed yet" }
                    }
                    _ => Refusal::NotLeader { leader: self.leader() },
                };
                for token in tokens.into_iter().flatten() {
                    effects.replies.push((token, Reply::Refused(refusal.clone())));
                }
            }
        }
    }

    fn begin_reads(&mut self, context: &GroupContext<'_>) {
        if self.reads.is_idle() {
            return;
        }
        let applied = self.node.store().applied_index();
        if self.is_leader()
            && let Some(until) = self.lease.valid_until(applied)
            && until > context.now
        {
            self.reads.confirm_waiting(self.node.raft.raft_log.committed);
            if until.since(context.now) * RENEW_SHARE < self.lease.length() {
                self.reads.renew();
            }
        }
        let can = if self.is_leader() {
            self.node.raft.commit_to_current_term()
        } else {
            self.node.raft.leader_id != 0
        };
        if can && let Some(round) = self.reads.begin(self.node.raft.term, context.now) {
            self.node.read_index(round);
        }
    }

    fn handle(
        &mut self,
        mut ready: Ready,
        context: &GroupContext<'_>,
        effects: &mut Effects<T>,
        batch: &mut WriteBatch,
    ) -> bool {
        self.note_leader(effects);
        self.stagger(context.options);
        for state in ready.take_read_states() {
            let sent = self.reads.confirm(&state.request_ctx, state.index);
            if let Some(sent) = sent
                && self.is_leader()
            {
                self.lease.confirmed(sent);
            }
        }
        for message in ready.take_messages() {
            if message.msg_type == MessageType::MsgTimeoutNow {
                self.lease.give_up();
                self.view.revoke();
            }
            self.send_raft(message, effects);
        }
        let number = ready.number();
        let sync = ready.must_sync();
        let held = ready.take_persisted_messages();
        if !ready.snapshot().is_empty() {
            self.begin_install(ready, held, effects);
            return false;
        }
        let entries = ready.take_entries();
        let wrote = !entries.is_empty() || sync;
        self.node.mut_store().append(entries, batch);
        if let Some(hard) = ready.hs() {
            self.view.set_committed(LogIndex(hard.commit));
            if sync && ready_changes_vote(self.node.store(), hard) {
                let hard = hard.clone();
                self.node.mut_store().set_hard_state(hard, batch);
            } else {
                self.node.mut_store().note_commit(hard.commit);
            }
        }
        let committed = ready.take_committed_entries();
        self.node.advance_append_async(ready);
        self.apply(committed, effects);
        let held = held.into_iter().map(|message| message::pack(self.id, message));
        if wrote {
            self.held = held.collect();
            self.writing = Some(number);
        } else {
            self.node.on_persist_ready(number);
            let held: Vec<Envelope> = held.collect();
            for envelope in held {
                self.send(envelope, effects);
            }
        }
        sync
    }

    fn apply(&mut self, committed: Vec<Entry>, effects: &mut Effects<T>) {
        let Some(last) = committed.last().map(|entry| entry.index) else { return };
        self.lease.committed(last);
        let mut entries = Vec::with_capacity(committed.len());
        for entry in committed {
            let mut tokens = Vec::new();
            while self.proposed.front().is_some_and(|proposed| proposed.index <= entry.index)
                && let Some(proposed) = self.proposed.pop_front()
            {
                if proposed.index == entry.index && proposed.term == entry.term {
                    tokens = proposed.tokens;
                } else {
                    // Another leader's entry took its place: it can never be committed.
                    let refusal = Refusal::NotLeader { leader: self.leader() };
                    for token in proposed.tokens {
                        effects.replies.push((token, Reply::Refused(refusal.clone())));
                    }
                }
            }
            let data = match entry.entry_type {
                EntryType::EntryNormal => entry.data,
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => Bytes::new(),
            };
            entries.push(Committed {
                index: LogIndex(entry.index),
                term: Term(entry.term),
                data,
                tokens,
            });
        }
        effects.apply.push(ApplyTask { group: self.id, entries });
    }

    fn begin_install(&mut self, mut ready: Ready, held: Vec<Message>, effects: &mut Effects<T>) {
        let meta = ready.snapshot().get_metadata();
        let (index, term, conf) = (meta.index, meta.term, meta.get_conf_state().clone());
        let hard = ready.hs().cloned().unwrap_or_else(|| {
            self.node.store().initial_state().map(|state| state.hard_state).unwrap_or_default()
        });
        let mut batch = WriteBatch::new();
        self.node.mut_store().restore(index, term, conf, hard, &mut batch);
        let number = ready.number();
        // Entries that follow the snapshot may have arrived together with it.
        self.node.mut_store().append(ready.take_entries(), &mut batch);
        self.node.advance_append_async(ready);
        let (id, state) = self.incoming.take().unwrap_or_default();
        let id_in_group = self.id;
        self.installing = Some(Box::new(Installing {
            index,
            term,
            ready: number,
            held: held.into_iter().map(|message| message::pack(id_in_group, message)).collect(),
        }));
        effects.installs.push(Install {
            group: self.id,
            id,
            index: LogIndex(index),
            term: Term(term),
            state,
            batch,
        });
    }

    fn send_raft(&self, message: Message, effects: &mut Effects<T>) {
        if message.msg_type == MessageType::MsgSnapshot {
            if let Some(node) = self.node_of(message.to) {
                effects.snapshots.push(MakeSnapshot {
                    group: self.id,
                    from: self.peer,
                    to: PeerId(message.to),
                    node,
                    term: Term(message.term),
                    at_least: LogIndex(message.get_snapshot().get_metadata().index),
                });
            }
            return;
        }
        let mut envelope = message::pack(self.id, message);
        if envelope.kind == MessageType::MsgAppend as u32
            || envelope.kind == MessageType::MsgHeartbeat as u32
        {
            envelope.safe_truncate = self.safe_truncate;
        }
        self.send(envelope, effects);
    }

    pub(super) fn send(&self, envelope: Envelope, effects: &mut Effects<T>) {
        let plane = message::kind_of(envelope.kind).map_or(Plane::Control, message::plane_of);
        if let Some(to) = self.node_of(envelope.to_peer) {
            effects.send.push(Outgoing { to, plane, envelope });
        }
    }

    pub(super) fn publish_leader(&mut self) {
        self.view.set_leader(Term(self.node.raft.term), self.leader());
    }

    fn note_leader(&mut self, effects: &mut Effects<T>) {
        let (term, leader) = (self.node.raft.term, self.node.raft.leader_id);
        if (term, leader) == (self.known_term, self.known_leader) {
            return;
        }
        if term != self.known_term || !self.is_leader() {
            self.lease.reset();
            self.view.revoke();
        }
        (self.known_term, self.known_leader) = (term, leader);
        if leader != 0 {
            self.last_leader = leader;
        }
        if self.is_leader() {
            self.safe_truncate = 0;
        }
        self.publish_leader();
        effects.leaders.push(LeaderChange {
            group: self.id,
            term: Term(term),
            leader: self.leader(),
            is_local: self.is_leader(),
        });
    }

    fn publish_lease(&mut self, context: &GroupContext<'_>) {
        if !self.is_leader() || !self.node.raft.apply_to_current_term() {
            return;
        }
        if let Some(until) = self.lease.valid_until(self.node.store().applied_index())
            && until > context.now
        {
            let renew_at = until.0 - self.lease.length().as_nanos() as u64 / u64::from(RENEW_SHARE);
            self.view.grant(until, crate::time::Instant(renew_at));
        }
    }

    /// The smallest index that every member has, those on silent processes left out.
    fn known_everywhere(&self, context: &GroupContext<'_>) -> u64 {
        let progress = self.node.raft.prs();
        self.members
            .iter()
            .filter(|member| !context.nodes.is_silent(member.node) || member.peer == self.peer)
            .filter_map(|member| progress.get(member.peer.0))
            .filter(|progress| progress.state != ProgressState::Snapshot)
            .map(|progress| progress.matched)
            .min()
            .unwrap_or(0)
    }

    fn truncate(&mut self, context: &GroupContext<'_>, batch: &mut WriteBatch) {
        let log = self.node.store();
        let (applied, first) = (log.applied_index(), log.truncated_index());
        if applied < first + context.options.truncate_entries {
            return;
        }
        if self.is_leader() {
            self.safe_truncate = self.known_everywhere(context);
        }
        let options = context.options;
        let mut to = self.safe_truncate.min(applied);
        if applied - first > options.max_log_entries || log.bytes() > options.max_log_bytes {
            // A member lags by more than a log is kept for: it will get a snapshot.
            to = to.max(applied - (applied - first) / 2);
        }
        if to >= first + options.truncate_entries {
            if let Err(error) = self.node.mut_store().truncate(to, batch) {
                tracing::debug!(group = %self.id, %error, "could not truncate the log");
            }
        } else if log.tail_bytes() > options.max_append_bytes as usize * 4 {
            let to = if self.is_leader() { self.safe_truncate } else { applied };
            self.node.mut_store().shrink_tail(to);
        }
    }

    /// Gives up on what has waited too long. Once a tick is enough.
    pub(crate) fn expire(&mut self, context: &GroupContext<'_>, effects: &mut Effects<T>) {
        let timeout = context.options.request_timeout().as_nanos() as u64;
        let Some(oldest) = context.now.0.checked_sub(timeout).map(crate::time::Instant) else {
            return;
        };
        self.reads.expire(oldest, |token| {
            effects.replies.push((token, Reply::Refused(Refusal::ReadTimedOut)));
        });
        if self.is_leader() {
            return;
        }
        while self.proposed.front().is_some_and(|proposed| proposed.since < oldest)
            && let Some(proposed) = self.proposed.pop_front()
        {
            for token in proposed.tokens {
                effects.replies.push((token, Reply::Refused(Refusal::Undetermined)));
            }
        }
    }

    /// Counts idle ticks of a leader and asks the members to sleep. Returns true where the tick
    /// must not reach raft-rs, because the members have been asked.
    pub(super) fn ask_to_sleep(
        &mut self,
        context: &GroupContext<'_>,
        effects: &mut Effects<T>,
    ) -> bool {
        if !self.is_leader() || context.options.sleep_after_ticks == 0 {
            return false;
        }
        let busy = !self.queue.is_empty() || !self.proposed.is_empty() || !self.reads.is_idle();
        match &mut self.sleep {
            Sleep::Asleep => return false,
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
        let others = self.members.iter().filter(|member| member.peer != self.peer);
        let (silent, live): (Vec<&Member>, Vec<&Member>) =
            others.partition(|member| context.nodes.is_silent(member.node));
        let level = live.iter().all(|member: &&Member| {
            raft.prs().get(member.peer.0).is_some_and(|p| p.matched == last)
        });
        let voters = self.members.iter().filter(|m| m.role == Role::Voter).count();
        let live_voters = 1 + live.iter().filter(|m| m.role == Role::Voter).count();
        if !settled || !level || live_voters <= voters / 2 {
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
            self.sleep = Sleep::Asking { term, last, missing, ticks: 0 };
        }
        true
    }

    fn fall_asleep(&mut self) {
        self.sleep = Sleep::Asleep;
        self.view.set_asleep(true);
        let applied = self.node.store().applied_index();
        self.node.mut_store().shrink_tail(applied);
        self.node.raft.maybe_free_inflight_buffers();
        self.queue.shrink_to_fit();
        self.proposed.shrink_to_fit();
        self.held = Vec::new();
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
            && raft.raft_log.last_index() == envelope.index
            && raft.raft_log.committed == envelope.index
            && log.applied_index() == envelope.index
            && self.reads.is_idle()
            && self.writing.is_none()
            && self.installing.is_none();
        if !agrees {
            return;
        }
        let (term, index) = (envelope.term, envelope.index);
        let from = PeerId(envelope.from_peer);
        self.contact = context.now;
        self.fall_asleep();
        let answer = message::own(self.id, HIBERNATE_ACK, self.peer, from, term, index);
        self.send(answer, effects);
    }

    pub(super) fn sleep_acknowledged(&mut self, envelope: Envelope) {
        let at = (envelope.term, envelope.index);
        if self.is_leader()
            && self.node.raft.term == envelope.term
            && self.node.raft.raft_log.last_index() == envelope.index
            && self.sleep.acknowledged(PeerId(envelope.from_peer), at)
        {
            self.fall_asleep();
        }
    }
}

fn push_entry(message: &mut Message, data: &mut Vec<Bytes>) {
    let data = match data.len() {
        0 => return,
        1 => data.remove(0),
        _ => {
            let mut joined = BytesMut::with_capacity(data.iter().map(Bytes::len).sum());
            for part in data.drain(..) {
                joined.extend_from_slice(&part);
            }
            joined.freeze()
        }
    };
    message.entries.push(Entry { data, ..Entry::default() });
}

fn ready_changes_vote(log: &super::GroupLog, hard: &raft::eraftpb::HardState) -> bool {
    log.hard_state().term != hard.term || log.hard_state().vote != hard.vote
}
