//! The bounded queues into the raft workers.
//!
//! A mailbox is emptied in one go, under one lock, and its worker is woken only when it sleeps:
//! what counts on a small machine is wake-ups and cache lines per operation. (A general channel
//! takes its lock or its atomics once per item, and spins before it sleeps.)
//!
//! It is bounded by its number of mails and by their bytes. Commands of clients and messages of other
//! processes are counted apart, so that neither crowds the other out. When it is full:
//!
//! * A command is refused as busy, which means: certainly not done. Reads have no bytes to speak of
//!   and are refused by the number of mails only.
//! * A message with log entries is dropped. Its leader finds out with the next heartbeat and sends
//!   the entries again.
//! * A message without entries (heartbeats, votes, answers, what leaderships and quorums live on) has
//!   as much room again to itself, and is dropped beyond that or by the number of mails.
//! * What must not be lost is always taken; there is little of it.
//!
//! Nobody is made to wait, and whatever is larger than all room is taken where nothing else waits.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{NodeId, RegionId};

use super::outbox::size_of;
use super::transmit::Client;
use super::{Counters, Replies};
use crate::hash::FixedState;
use crate::shard::{Event, MakeSnapshot, Refusal, Reply};
use crate::transfer::Ticket;

/// Mails one worker's mailbox holds. See the module for what happens beyond.
const CAPACITY: usize = 65_536;

/// What a worker receives.
pub(super) enum Mail<T> {
    Event(Event<T>),
    Frame(NodeId, Vec<Envelope>),
    /// It is this snapshot's turn to be sent.
    Snapshot(Ticket, MakeSnapshot),
    Stop,
}

struct Queue<T> {
    mails: Vec<Mail<T>>,
    /// Bytes of the commands among them, and of the messages.
    commands: usize,
    messages: usize,
    sleeping: bool,
    closed: bool,
}

/// The queue of one worker.
pub(super) struct Mailbox<T> {
    queue: Mutex<Queue<T>>,
    arrived: Condvar,
    most_bytes: usize,
}

/// Bytes of a client's command.
fn command_bytes<T>(mail: &Mail<T>) -> usize {
    match mail {
        Mail::Event(Event::Propose { command, .. } | Event::ChangeMembers { command, .. }) => {
            command.len()
        }
        Mail::Event(_) | Mail::Frame(..) | Mail::Snapshot(..) | Mail::Stop => 0,
    }
}

/// True where `more` bytes fit beside those that are there.
fn fits(there: usize, more: usize, most: usize) -> bool {
    there == 0 || there.saturating_add(more) <= most
}

impl<T> Mailbox<T> {
    /// An empty one, for so many bytes of commands and as many of messages with entries.
    pub(super) fn new(most_bytes: usize) -> Self {
        let queue =
            Queue { mails: Vec::new(), commands: 0, messages: 0, sleeping: false, closed: false };
        Self { queue: Mutex::new(queue), arrived: Condvar::new(), most_bytes }
    }

    /// Adds a mail, or gives it back where the mailbox is full (unless it `must` be taken) or its
    /// worker has gone.
    fn push(&self, mail: Mail<T>, must: bool) -> Result<(), Mail<T>> {
        let bytes = command_bytes(&mail);
        let mut queue = self.queue.lock();
        let has_room = queue.mails.len() < CAPACITY
            && (bytes == 0 || fits(queue.commands, bytes, self.most_bytes));
        if queue.closed || !(must || has_room) {
            return Err(mail);
        }
        queue.commands += bytes;
        self.add(queue, mail);
        Ok(())
    }

    /// Adds messages of another process; returns how many of them were dropped.
    fn push_messages(&self, from: NodeId, mut envelopes: Vec<Envelope>) -> usize {
        let count = envelopes.len();
        let mut bytes: usize = envelopes.iter().map(size_of).sum();
        let mut queue = self.queue.lock();
        if queue.closed || queue.mails.len() >= CAPACITY {
            return count;
        }
        if queue.messages + bytes > self.most_bytes {
            let there = queue.messages;
            bytes = 0;
            envelopes.retain(|envelope| {
                let most = match envelope.entries.is_empty() {
                    true => self.most_bytes.saturating_mul(2),
                    false => self.most_bytes,
                };
                let size = size_of(envelope);
                let taken = fits(there + bytes, size, most);
                bytes += if taken { size } else { 0 };
                taken
            });
        }
        let dropped = count - envelopes.len();
        if !envelopes.is_empty() {
            queue.messages += bytes;
            self.add(queue, Mail::Frame(from, envelopes));
        }
        dropped
    }

    fn add(&self, mut queue: MutexGuard<'_, Queue<T>>, mail: Mail<T>) {
        queue.mails.push(mail);
        let wake = std::mem::take(&mut queue.sleeping);
        drop(queue);
        if wake {
            self.arrived.notify_one();
        }
    }

    /// Exchanges everything that is here for `empty`. Where there is nothing, waits for something
    /// for at most `wait`.
    pub(super) fn take(&self, empty: &mut Vec<Mail<T>>, wait: Option<Duration>) {
        let mut queue = self.queue.lock();
        if let Some(wait) = wait.filter(|_| queue.mails.is_empty()) {
            queue.sleeping = true;
            self.arrived.wait_for(&mut queue, wait);
            queue.sleeping = false;
        }
        (queue.commands, queue.messages) = (0, 0);
        std::mem::swap(&mut queue.mails, empty);
    }

    /// The worker goes: nothing is taken any more. Returns what nobody will look at.
    pub(super) fn close(&self) -> Vec<Mail<T>> {
        let mut queue = self.queue.lock();
        queue.closed = true;
        std::mem::take(&mut queue.mails)
    }

    /// Bytes of the commands and messages that wait.
    fn bytes(&self) -> usize {
        let queue = self.queue.lock();
        queue.commands + queue.messages
    }

    /// True where nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.lock().mails.is_empty()
    }
}

/// Which of `workers` a group belongs to. Region ids have regular gaps, since their peers take ids
/// from the same source, so that a plain remainder would leave workers without groups.
fn spread(group: RegionId, workers: usize) -> usize {
    (((FixedState.hash_one(group) >> 32) * workers as u64) >> 32) as usize
}

/// The mailboxes of all workers.
pub(super) struct Mailboxes<T> {
    pub(super) workers: Vec<Arc<Mailbox<T>>>,
    pub(super) replies: Arc<dyn Replies<T>>,
    pub(super) counters: Arc<Counters>,
}

impl<T: 'static> Mailboxes<T> {
    pub(super) fn worker_of(&self, group: RegionId) -> usize {
        spread(group, self.workers.len())
    }

    /// Bytes of all commands and messages that wait for a worker.
    pub(super) fn bytes(&self) -> usize {
        self.workers.iter().map(|worker| worker.bytes()).sum()
    }

    fn of(&self, group: RegionId) -> &Mailbox<T> {
        &self.workers[self.worker_of(group)]
    }

    /// A request: refused when the mailbox is full.
    pub(super) fn request(&self, group: RegionId, event: Event<T>) {
        if let Err(mail) = self.of(group).push(Mail::Event(event), false) {
            self.counters.mailbox_refused.add(1);
            self.refuse(mail, Refusal::Busy { reason: "the store has too much to do" });
        }
    }

    fn refuse(&self, mail: Mail<T>, refusal: Refusal) {
        if let Mail::Event(
            Event::Propose { token, .. }
            | Event::ChangeMembers { token, .. }
            | Event::Read { token, .. },
        ) = mail
        {
            self.replies.reply(token, Reply::Refused(refusal));
        }
    }

    /// Closes the mailbox of a worker that has ended; who still waits is refused.
    pub(super) fn close(&self, worker: usize) {
        for mail in self.workers[worker].close() {
            self.refuse(mail, Refusal::NoGroup);
        }
    }

    /// An event that must not be lost. The number of such events is bounded by those who send them.
    pub(super) fn tell(&self, group: RegionId, event: Event<T>) {
        let _ = self.of(group).push(Mail::Event(event), true);
    }

    /// A hint that may be lost.
    pub(super) fn hint(&self, group: RegionId, event: Event<T>) {
        let _ = self.of(group).push(Mail::Event(event), false);
    }

    pub(super) fn unreachable(&self, node: NodeId) {
        for worker in &self.workers {
            let _ = worker.push(Mail::Event(Event::Unreachable { node }), false);
        }
    }

    pub(super) fn beat(&self, from: NodeId, incarnation: u64) {
        for worker in &self.workers {
            let _ = worker.push(Mail::Event(Event::Beat { from, incarnation }), false);
        }
    }

    pub(super) fn frame(&self, from: NodeId, envelopes: Vec<Envelope>) {
        self.counters.messages_received.add(envelopes.len() as u64);
        if let [worker] = self.workers.as_slice() {
            self.deliver(worker, from, envelopes);
            return;
        }
        let mut parts: Vec<Vec<Envelope>> = self.workers.iter().map(|_| Vec::new()).collect();
        for envelope in envelopes {
            parts[self.worker_of(RegionId(envelope.group))].push(envelope);
        }
        for (worker, part) in self.workers.iter().zip(parts) {
            if !part.is_empty() {
                self.deliver(worker, from, part);
            }
        }
    }

    /// A single message; false where the mailbox is full.
    pub(super) fn message(&self, from: NodeId, envelope: Envelope) -> bool {
        let worker = self.of(RegionId(envelope.group));
        self.counters.messages_received.add(1);
        self.deliver(worker, from, vec![envelope])
    }

    /// It is a snapshot's turn to be sent. There are as many as there are places for them.
    pub(super) fn snapshot(&self, ticket: Ticket, make: MakeSnapshot) {
        let _ = self.of(make.group).push(Mail::Snapshot(ticket, make), true);
    }

    /// False where some had to be dropped.
    fn deliver(&self, worker: &Mailbox<T>, from: NodeId, envelopes: Vec<Envelope>) -> bool {
        let dropped = worker.push_messages(from, envelopes);
        self.counters.mailbox_dropped.add(dropped as u64);
        dropped == 0
    }

    pub(super) fn stop(&self) {
        for worker in &self.workers {
            let _ = worker.push(Mail::Stop, true);
        }
    }
}

impl<T: Send + 'static> Client for Mailboxes<T> {
    fn take_picture(&self, ticket: Ticket, make: MakeSnapshot) {
        self.snapshot(ticket, make);
    }

    fn sent(&self, make: &MakeSnapshot, delivered: bool) {
        let (group, to) = (make.group, make.to);
        self.tell(group, Event::SnapshotSent { group, to, delivered });
    }
}

#[cfg(test)]
#[path = "mailbox_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
