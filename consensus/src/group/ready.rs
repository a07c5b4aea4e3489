//! What a group wants done: proposals and reads go into raft-rs, its `Ready` comes out.

use quorate_proto::wire::peer::Envelope;
use quorate_proto::{LogIndex, Term};
use raft::Error;
use raft::eraftpb::{Entry, EntryType, HardState, Message, MessageType};
use raft::prelude::Ready;

use super::{Group, GroupContext, GroupLog, UNCOMMITTED, message};
use crate::engine::WriteBatch;
use crate::shard::{ApplyTask, Committed, Effects, Outgoing, Plane, Refusal, Reply};
use crate::time::Instant;

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
        // First what has been confirmed: a late answer must not be given up for lost.
        self.confirm_reads();
        self.make_claim(context);
        self.begin_reads(context);
        // A group of one has its answer at once.
        self.confirm_reads();
        let mut sync = false;
        if self.node.has_ready() {
            let ready = self.node.ready();
            sync = self.handle(ready, effects, batch);
        }
        let applied = self.node.store().applied_index();
        self.reads.ready(applied, |token| {
            effects.replies.push((token, Reply::ReadAt(LogIndex(applied))));
        });
        self.publish_lease(context);
        self.truncate(context, effects, batch);
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
        if !self.proposals.has_queued() {
            return;
        }
        let not_leader = Refusal::NotLeader { leader: self.leader() };
        if !self.is_leader() {
            self.proposals.drain_queued(|token| {
                effects.replies.push((token, Reply::Refused(not_leader.clone())));
            });
            return;
        }
        if self.node.raft.lead_transferee.is_some() {
            // Leadership is being handed over: either it goes, or proposing goes on. Waiting is
            // better than refusing.
            return;
        }
        let batch = self.proposals.take_batch(context.options.entry_bytes);
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.peer.0;
        message.entries = batch.entries.into();
        match self.node.step(message) {
            Ok(()) => {
                let last = self.node.raft.raft_log.last_index();
                let first = last + 1 - batch.tokens.len() as u64;
                self.proposals.proposed(first, self.node.raft.term, context.now, batch.tokens);
                self.lease.proposed(last, context.now);
                if batch.suspends_lease {
                    self.lease.suspend(last);
                    self.view.revoke();
                    // The members should apply it at once, not with the next heartbeat.
                    self.node.skip_bcast_commit(false);
                }
            }
            Err(error) => {
                let refusal = match error {
                    Error::ProposalDropped if self.is_leader() => UNCOMMITTED,
                    _ => not_leader,
                };
                for token in batch.tokens.into_iter().flatten() {
                    effects.replies.push((token, Reply::Refused(refusal.clone())));
                }
            }
        }
    }

    fn confirm_reads(&mut self) {
        for state in std::mem::take(&mut self.node.raft.read_states) {
            let sent = self.reads.confirm(&state.request_ctx, state.index);
            if let Some(sent) = sent
                && self.is_leader()
            {
                self.lease.confirmed(sent);
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
        effects: &mut Effects<T>,
        batch: &mut WriteBatch,
    ) -> bool {
        self.note_leader(effects);
        self.stagger();
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
        let reconfigures = entries.iter().any(|e| e.entry_type != EntryType::EntryNormal);
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
        if reconfigures {
            // Whoever has a change of members in its log knows, even after a restart, that the
            // change before it is committed, and does not campaign before it has applied that.
            // Otherwise it could win by majorities of a configuration long past.
            let hard = self.node.store().hard_state().clone();
            self.node.mut_store().set_hard_state(hard, batch);
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
        let not_leader = Refusal::NotLeader { leader: self.leader() };
        let mut entries = Vec::with_capacity(committed.len());
        for entry in committed {
            let tokens = self.proposals.committed(entry.index, entry.term, |token| {
                // Another leader's entry took its place: it can never be committed.
                effects.replies.push((token, Reply::Refused(not_leader.clone())));
            });
            let (data, changes_members) = match entry.entry_type {
                EntryType::EntryNormal => (entry.data, false),
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => (entry.context, true),
            };
            entries.push(Committed {
                index: LogIndex(entry.index),
                term: Term(entry.term),
                data,
                changes_members,
                tokens,
            });
        }
        effects.apply.push(ApplyTask { group: self.id, entries });
    }

    fn send_raft(&self, message: Message, effects: &mut Effects<T>) {
        if message.msg_type == MessageType::MsgSnapshot {
            return self.ask_for_snapshot(&message, effects);
        }
        let mut envelope = message::pack(self.id, message);
        if envelope.kind == MessageType::MsgAppend as u32
            || envelope.kind == MessageType::MsgHeartbeat as u32
        {
            envelope.safe_truncate = self.safe_truncate;
            let claim = self.claim();
            (envelope.fresh_ms, envelope.fresh_commit) = (claim.time_ms, claim.commit);
        }
        self.send(envelope, effects);
    }

    pub(super) fn send(&self, mut envelope: Envelope, effects: &mut Effects<T>) {
        if message::is_answer(envelope.kind) {
            // As of now: it may have waited for a write.
            envelope.applied = self.node.store().applied_index();
        }
        let plane = message::kind_of(envelope.kind).map_or(Plane::Control, message::plane_of);
        if let Some(to) = self.node_of(envelope.to_peer) {
            effects.send.push(Outgoing { to, plane, envelope });
        }
    }

    fn publish_lease(&mut self, context: &GroupContext<'_>) {
        if !self.is_leader() || !self.node.raft.apply_to_current_term() {
            return;
        }
        if let Some(until) = self.lease.valid_until(self.node.store().applied_index())
            && until > context.now
        {
            let renew_at = until.0 - self.lease.length().as_nanos() as u64 / u64::from(RENEW_SHARE);
            self.view.grant(until, Instant(renew_at));
        }
    }

    /// Gives up on what has waited too long. Once a tick is enough.
    pub(crate) fn expire(&mut self, context: &GroupContext<'_>, effects: &mut Effects<T>) {
        let timeout = context.options.request_timeout().as_nanos() as u64;
        let Some(oldest) = context.now.0.checked_sub(timeout).map(Instant) else {
            return;
        };
        self.reads.expire(oldest, |token| {
            effects.replies.push((token, Reply::Refused(Refusal::ReadTimedOut)));
        });
        if self.is_leader() {
            return;
        }
        self.proposals.expire(oldest, |token| {
            effects.replies.push((token, Reply::Refused(Refusal::Undetermined)));
        });
    }
}

fn ready_changes_vote(log: &GroupLog, hard: &HardState) -> bool {
    log.hard_state().term != hard.term || log.hard_state().vote != hard.vote
}
