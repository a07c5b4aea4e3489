//! The bounded queues into the raft workers.

use std::sync::Arc;

use crossbeam::channel::{Sender, TrySendError};
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{NodeId, RegionId};

use super::{Counters, Replies};
use crate::shard::{Event, Refusal, Reply};

/// Items one worker's mailbox holds.
pub(super) const MAILBOX: usize = 65_536;

/// What a worker receives.
pub(super) enum Mail<T> {
    Event(Event<T>),
    Frame(NodeId, Vec<Envelope>),
    Stop,
}

/// See the module.
pub(super) struct Mailboxes<T> {
    pub(super) senders: Vec<Sender<Mail<T>>>,
    pub(super) replies: Arc<dyn Replies<T>>,
    pub(super) counters: Arc<Counters>,
}

impl<T: 'static> Mailboxes<T> {
    pub(super) fn worker_of(&self, group: RegionId) -> usize {
        (group.0 % self.senders.len() as u64) as usize
    }

    /// A request: refused when the mailbox is full.
    pub(super) fn request(&self, group: RegionId, event: Event<T>) {
        let sender = &self.senders[self.worker_of(group)];
        let Err(error) = sender.try_send(Mail::Event(event)) else { return };
        self.counters.mailbox_refused.add(1);
        let refusal = match &error {
            TrySendError::Full(_) => Refusal::Busy { reason: "the store has too much to do" },
            TrySendError::Disconnected(_) => Refusal::NoGroup,
        };
        if let Mail::Event(Event::Propose { token, .. } | Event::Read { token, .. }) =
            error.into_inner()
        {
            self.replies.reply(token, Reply::Refused(refusal));
        }
    }

    /// An event that must not be lost: waits for a place.
    pub(super) fn tell(&self, group: RegionId, event: Event<T>) {
        let _ = self.senders[self.worker_of(group)].send(Mail::Event(event));
    }

    /// A hint that may be lost.
    pub(super) fn hint(&self, group: RegionId, event: Event<T>) {
        let _ = self.senders[self.worker_of(group)].try_send(Mail::Event(event));
    }

    pub(super) fn unreachable(&self, node: NodeId) {
        for sender in &self.senders {
            let _ = sender.try_send(Mail::Event(Event::Unreachable { node }));
        }
    }

    pub(super) fn beat(&self, from: NodeId, incarnation: u64) {
        for sender in &self.senders {
            let _ = sender.try_send(Mail::Event(Event::Beat { from, incarnation }));
        }
    }

    pub(super) fn frame(&self, from: NodeId, envelopes: Vec<Envelope>) {
        self.counters.messages_received.add(envelopes.len() as u64);
        if let [sender] = self.senders.as_slice() {
            self.deliver(sender, from, envelopes);
            return;
        }
        let mut parts: Vec<Vec<Envelope>> = self.senders.iter().map(|_| Vec::new()).collect();
        for envelope in envelopes {
            parts[self.worker_of(RegionId(envelope.group))].push(envelope);
        }
        for (sender, part) in self.senders.iter().zip(parts) {
            if !part.is_empty() {
                self.deliver(sender, from, part);
            }
        }
    }

    /// A single message; false where the mailbox is full.
    pub(super) fn message(&self, from: NodeId, envelope: Envelope) -> bool {
        let sender = &self.senders[self.worker_of(RegionId(envelope.group))];
        self.counters.messages_received.add(1);
        let taken = sender.try_send(Mail::Frame(from, vec![envelope])).is_ok();
        self.counters.mailbox_dropped.add(u64::from(!taken));
        taken
    }

    fn deliver(&self, sender: &Sender<Mail<T>>, from: NodeId, envelopes: Vec<Envelope>) {
        let count = envelopes.len() as u64;
        if sender.try_send(Mail::Frame(from, envelopes)).is_err() {
            self.counters.mailbox_dropped.add(count);
        }
    }

    pub(super) fn stop(&self) {
        for sender in &self.senders {
            let _ = sender.send(Mail::Stop);
        }
    }
}
