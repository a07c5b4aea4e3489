//! The bounded queues into the raft workers.
//!
//! A mailbox is emptied in one go, under one lock, and its worker is woken only when it sleeps:
//! what counts on a small machine is wake-ups and cache lines per operation. (A general channel
//! takes its lock or its atomics once per item, and spins before it sleeps.)

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{NodeId, RegionId};

use super::transmit::Client;
use super::{Counters, Replies};
use crate::hash::FixedState;
use crate::shard::{Event, MakeSnapshot, Refusal, Reply};
use crate::transfer::Ticket;

/// Mails one worker's mailbox holds; beyond, requests are refused and messages dropped.
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
    sleeping: bool,
    closed: bool,
}

/// The queue of one worker.
pub(super) struct Mailbox<T> {
    queue: Mutex<Queue<T>>,
    arrived: Condvar,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        let queue = Queue { mails: Vec::new(), sleeping: false, closed: false };
        Self { queue: Mutex::new(queue), arrived: Condvar::new() }
    }
}

impl<T> Mailbox<T> {
    /// Adds a mail, or gives it back where the mailbox is full (unless it `must` be taken) or its
    /// worker has gone.
    fn push(&self, mail: Mail<T>, must: bool) -> Result<(), Mail<T>> {
        let mut queue = self.queue.lock();
        if queue.closed || (!must && queue.mails.len() >= CAPACITY) {
            return Err(mail);
        }
        queue.mails.push(mail);
        let wake = std::mem::take(&mut queue.sleeping);
        drop(queue);
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
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
        std::mem::swap(&mut queue.mails, empty);
    }

    /// The worker goes: nothing is taken any more. Returns what nobody will look at.
    pub(super) fn close(&self) -> Vec<Mail<T>> {
        let mut queue = self.queue.lock();
        queue.closed = true;
        std::mem::take(&mut queue.mails)
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
        let taken = worker.push(Mail::Frame(from, vec![envelope]), false).is_ok();
        self.counters.mailbox_dropped.add(u64::from(!taken));
        taken
    }

    /// It is a snapshot's turn to be sent. There are as many as there are places for them.
    pub(super) fn snapshot(&self, ticket: Ticket, make: MakeSnapshot) {
        let _ = self.of(make.group).push(Mail::Snapshot(ticket, make), true);
    }

    fn deliver(&self, worker: &Mailbox<T>, from: NodeId, envelopes: Vec<Envelope>) {
        let count = envelopes.len() as u64;
        if worker.push(Mail::Frame(from, envelopes), false).is_err() {
            self.counters.mailbox_dropped.add(count);
        }
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
mod tests {
    use super::*;

    #[test]
    fn groups_spread_over_workers_whatever_the_gaps_of_their_ids() {
        for (workers, gap) in [(1, 4), (2, 4), (3, 3), (4, 4), (8, 6)] {
            let mut groups = vec![0; workers];
            for number in 0..1_000 {
                groups[spread(RegionId(2 + number * gap), workers)] += 1;
            }
            let fair = 1_000 / workers;
            let uneven = groups.iter().any(|count| count * 10 < fair * 9 || count * 10 > fair * 11);
            assert!(!uneven, "{workers} workers, every {gap}th id: {groups:?}");
        }
    }
}
