//! Messages from other peers: checked, taken note of, and handed to raft-rs.

use quorate_proto::PeerId;
use quorate_proto::wire::peer::Envelope;
use raft::eraftpb::MessageType;

use super::fresh::Claim;
use super::message::{BadEnvelope, HIBERNATE, HIBERNATE_ACK};
use super::{Group, GroupContext, guard, message};
use crate::shard::Effects;

impl<T> Group<T> {
    /// A message from a peer of the group.
    pub(crate) fn step(
        &mut self,
        envelope: Envelope,
        context: &GroupContext<'_>,
        effects: &mut Effects<T>,
    ) {
        let staged = message::staged(&envelope);
        self.take_message(envelope, context, effects);
        if let Some(staged) = staged {
            self.keep_or_discard(staged, effects);
        }
    }

    fn take_message(
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
            HIBERNATE_ACK => return self.sleep_acknowledged(envelope, context),
            _ => {}
        }
        self.count_beats(context);
        if self.sleep.is_asleep()
            && envelope.from_peer == self.node.raft.leader_id
            && message::asks_for_vote(envelope.kind)
            && envelope.term > self.node.raft.term
        {
            // It would not ask if it still led.
            self.wake();
        }
        if !self.may_answer(&envelope, context) {
            return;
        }
        let safe_truncate = envelope.safe_truncate;
        let applied = message::is_answer(envelope.kind).then_some(envelope.applied);
        let claim = Claim { time_ms: envelope.fresh_ms, commit: envelope.fresh_commit };
        let checked = message::unpack(envelope)
            .and_then(|message| guard::check(&message, &self.node.raft).map(|()| message));
        let message = match checked {
            Ok(message) => message,
            // Late answers, of which a restart with many groups makes many.
            Err(error @ BadEnvelope::Unasked) => {
                tracing::debug!(group = %self.id, %error, "dropped a message");
                return;
            }
            Err(error) => {
                tracing::warn!(group = %self.id, %error, "dropped a message");
                return;
            }
        };
        let (kind, current) = (message.msg_type, message.term >= self.node.raft.term);
        let from_leader = matches!(
            kind,
            MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot
        );
        if from_leader && current {
            self.contact = Some(context.now);
            self.end_silence();
            self.safe_truncate = self.safe_truncate.max(safe_truncate);
            self.heard_claim(claim, context.now);
            if self.last_leader != message.from {
                self.last_leader = message.from;
                self.set_timeout();
            }
        }
        if let Some(applied) = applied.filter(|_| message.term == self.node.raft.term) {
            self.note_applied(message.from, applied);
        }
        if self.is_installing() {
            return;
        }
        let is_answer = kind == MessageType::MsgHeartbeatResponse;
        let quiet = kind == MessageType::MsgHeartbeat || is_answer;
        if is_answer && self.sleep.is_asleep() && message.term <= self.node.raft.term {
            // Answered before its sender agreed to sleep: no reason to wake up again. Or a late
            // heartbeat woke its sender: a learner would not find back to sleep by itself.
            self.ask_again_to_sleep(PeerId(message.from), effects);
            return;
        }
        // What an earlier leader or candidate said wakes nobody.
        let is_over = message.term != 0 && message.term < self.node.raft.term;
        if !is_over && (self.sleep.is_asleep() || !quiet) {
            self.wake();
        }
        if let Err(error) = self.node.step(message) {
            tracing::debug!(group = %self.id, %error, "raft refused a message");
        }
        self.stagger();
    }
}
