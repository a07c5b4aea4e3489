//! A request on its way through the log, and the way back of its answer.
//!
//! A [`Token`] travels with the command (or the read) through the raft worker and comes back from
//! there, or from the apply thread, exactly once; one that is dropped unanswered, because its
//! group went away or the process stops, answers for itself. Answers to a batched stream meet in
//! its [`Inbox`], a queue without a bound of its own: there is one place per request that the
//! stream has under way, and those are bounded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use quorate_consensus::shard::{Refusal, Reply};

use super::read::{Finished, Read};
use crate::budget::Permit;
use crate::core::{Answer, Answered, Answers, RegionError};

/// What became of a request that had to wait.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The write is applied.
    Done,
    /// The state machine has reached the read index: read now.
    Ready(Box<Read>),
    /// Read outside of the network thread.
    Read(Box<Finished>),
    /// Raft did not take it, or cannot say.
    Refused(Refusal),
    /// The region had changed when the command was applied; nothing was written.
    Rejected(Box<RegionError>),
    /// Nobody can say whether the write will be applied.
    Undetermined,
    /// Nobody answered before the deadline, or the process stops.
    Lost,
}

/// The place of a request in the stream that it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Which slot.
    pub(crate) slot: u32,
    /// Which use of the slot; an answer to an earlier one comes too late.
    pub(crate) generation: u32,
}

/// The answers that a batched stream has not sent yet.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    queue: Mutex<VecDeque<(Place, Verdict)>>,
    waker: AtomicWaker,
}

impl Inbox {
    /// Adds one. True where the queue was empty, so that the stream has to be woken.
    fn push(&self, place: Place, answer: Verdict) -> bool {
        let mut queue = self.queue.lock();
        queue.push_back((place, answer));
        queue.len() == 1
    }

    /// Wakes the stream.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Exchanges what has come in for `empty`. The stream is woken by the next answer after this.
    pub(crate) fn take(&self, empty: &mut VecDeque<(Place, Verdict)>, waker: &Waker) {
        self.waker.register(waker);
        std::mem::swap(&mut *self.queue.lock(), empty);
    }
}

#[derive(Debug)]
enum Target {
    Stream(Arc<Inbox>, Place),
    Call(oneshot::Sender<Verdict>),
}

/// Names one request; answered once.
#[derive(Debug)]
pub(crate) struct Token {
    target: Option<Target>,
    read: Option<Box<Read>>,
    _permit: Permit,
}

impl Token {
    /// A request of a batched stream.
    pub(crate) fn for_stream(inbox: &Arc<Inbox>, place: Place, permit: Permit) -> Self {
        let target = Some(Target::Stream(Arc::clone(inbox), place));
        Self { target, read: None, _permit: permit }
    }

    /// A request of its own.
    pub(crate) fn for_call(permit: Permit) -> (Self, oneshot::Receiver<Verdict>) {
        let (sender, receiver) = oneshot::channel();
        (Self { target: Some(Target::Call(sender)), read: None, _permit: permit }, receiver)
    }

    /// The same request, waiting for a read index.
    pub(crate) fn with_read(mut self, read: Box<Read>) -> Self {
        self.read = Some(read);
        self
    }

    /// The answer, now.
    pub(crate) fn answer(mut self, answer: Verdict) {
        if let Some(to_wake) = self.deliver(answer) {
            to_wake.wake();
        }
    }

    /// The answer, with the waking left to the caller: nothing where the stream is awake already.
    pub(crate) fn answer_quietly(mut self, answer: Verdict) -> Option<Arc<Inbox>> {
        self.deliver(answer)
    }

    /// What raft says of a request that did not end in an applied entry.
    pub(crate) fn reply(mut self, reply: Reply) {
        let answer = match reply {
            Reply::ReadAt(_) => match self.read.take() {
                Some(read) => Verdict::Ready(read),
                // Only reads are sent to be answered this way.
                None => Verdict::Lost,
            },
            Reply::Refused(refusal) => Verdict::Refused(refusal),
        };
        self.answer(answer);
    }

    fn deliver(&mut self, answer: Verdict) -> Option<Arc<Inbox>> {
        match self.target.take()? {
            Target::Stream(answers, place) => answers.push(place, answer).then_some(answers),
            Target::Call(sender) => {
                // The caller has gone: nobody is interested any more.
                let _ = sender.send(answer);
                None
            }
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if let Some(to_wake) = self.deliver(Verdict::Lost) {
            to_wake.wake();
        }
    }
}

/// Hears the apply thread: answers a batch of requests, then wakes each stream once.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// Empty between calls.
    to_wake: Vec<Arc<Inbox>>,
}

impl Answers<Token> for Applied {
    fn answer(&mut self, answers: &mut Vec<Answered<Token>>) {
        for Answered { token, answer } in answers.drain(..) {
            let verdict = match answer {
                Answer::Done => Verdict::Done,
                Answer::Refused(error) => Verdict::Rejected(Box::new(error)),
                Answer::Undetermined => Verdict::Undetermined,
            };
            self.to_wake.extend(token.answer_quietly(verdict));
        }
        for inbox in self.to_wake.drain(..) {
            inbox.wake();
        }
    }
}
