//! The queue of one connection: what waits to be sent, and what was sent and waits for its answer.
//!
//! A plain value. Time is an argument; replies are whatever the shell hands in. The one promise
//! that matters is about writes: [`Lane::close`] and [`Lane::expire`] say of each request whether
//! it was ever handed to the connection ([`Fate`]).

use std::{collections::VecDeque, time::Instant};

use super::table::Table;

/// A request on its way.
pub(crate) struct Call<C, R> {
    /// What to send.
    pub(crate) command: C,
    /// About how many bytes it takes.
    pub(crate) bytes: usize,
    /// When nobody waits for it any more.
    pub(crate) deadline: Instant,
    /// Where the answer goes.
    pub(crate) reply: R,
}

/// How far a request came that will get no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was never handed to the connection: certainly not applied.
    NotSent,
    /// It was: nobody can say.
    Sent,
}

/// Bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Requests that wait to be sent.
    pub(crate) queued: usize,
    /// Requests sent and not answered.
    pub(crate) in_flight: usize,
    /// Requests in one message.
    pub(crate) requests: usize,
    /// Bytes in one message; a single request may be larger.
    pub(crate) bytes: usize,
}

/// Why a request was not queued; it comes back.
pub(crate) enum NotQueued<C, R> {
    /// Too many wait already.
    Full(Call<C, R>),
    /// The connection is gone.
    Closed(Call<C, R>),
}

/// See the module.
pub(crate) struct Lane<C, R> {
    bounds: Bounds,
    queue: VecDeque<Call<C, R>>,
    sent: Table<(Instant, R)>,
    closed: bool,
}

impl<C, R> Lane<C, R> {
    /// An empty queue.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, queue: VecDeque::new(), sent: Table::default(), closed: false }
    }

    /// Queues a request. True where the queue was empty, so that the sender has to be woken.
    #[allow(clippy::result_large_err)] // The refused request goes back whole.
    pub(crate) fn push(&mut self, call: Call<C, R>) -> Result<bool, NotQueued<C, R>> {
        if self.closed {
            return Err(NotQueued::Closed(call));
        }
        if self.queue.len() >= self.bounds.queued {
            return Err(NotQueued::Full(call));
        }
        let first = self.queue.is_empty();
        self.queue.push_back(call);
        Ok(first)
    }

    /// Moves what fits into one message from the queue to the sent. Requests whose caller is gone
    /// are dropped unsent.
    pub(crate) fn drain(
        &mut self,
        abandoned: impl Fn(&R) -> bool,
        commands: &mut Vec<C>,
        ids: &mut Vec<u64>,
    ) {
        let mut bytes = 0;
        while let Some(call) = self.queue.front() {
            if ids.len() >= self.bounds.requests
                || self.sent.len() >= self.bounds.in_flight
                || (!ids.is_empty() && bytes + call.bytes > self.bounds.bytes)
            {
                break;
            }
            let Some(call) = self.queue.pop_front() else { break };
            if abandoned(&call.reply) {
                continue;
            }
            bytes += call.bytes;
            ids.push(self.sent.insert((call.deadline, call.reply)));
            commands.push(call.command);
        }
    }

    /// Where the answer with this id goes; none for an answer that nobody waits for.
    pub(crate) fn answer(&mut self, id: u64) -> Option<R> {
        self.sent.remove(id).map(|(_, reply)| reply)
    }

    /// Takes out every request whose deadline has passed.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(R, Fate)> {
        let mut expired = Vec::new();
        if self.queue.iter().any(|call| call.deadline <= now) {
            let (late, waiting): (VecDeque<_>, VecDeque<_>) =
                self.queue.drain(..).partition(|call| call.deadline <= now);
            self.queue = waiting;
            expired.extend(late.into_iter().map(|call| (call.reply, Fate::NotSent)));
        }
        expired.extend(
            self.sent
                .take_if(|(deadline, _)| *deadline <= now)
                .into_iter()
                .map(|(_, reply)| (reply, Fate::Sent)),
        );
        expired
    }

    /// Takes out everything that was sent. `fate` is what the shell knows about it: a server that
    /// refused the whole stream has seen none of it.
    pub(crate) fn give_up_sent(&mut self) -> Vec<R> {
        self.sent.take_if(|_| true).into_iter().map(|(_, reply)| reply).collect()
    }

    /// Refuses requests from now on and takes out all there are.
    pub(crate) fn close(&mut self) -> Vec<(R, Fate)> {
        self.closed = true;
        let sent = self.give_up_sent().into_iter().map(|reply| (reply, Fate::Sent));
        let queued = self.queue.drain(..).map(|call| (call.reply, Fate::NotSent));
        queued.chain(sent).collect()
    }

    /// Requests in the next message, at most.
    pub(crate) fn next_message(&self) -> usize {
        self.queue.len().min(self.bounds.requests)
    }

    /// Requests sent and not answered.
    pub(crate) fn in_flight(&self) -> usize {
        self.sent.len()
    }

    /// True where something waits and may be sent.
    pub(crate) fn ready(&self) -> bool {
        !self.queue.is_empty() && self.sent.len() < self.bounds.in_flight
    }
}
