//! A batched stream: the hot path of clients.
//!
//! One value is both ends of the stream: it is polled for the next message out, and in doing so
//! reads the messages in. There is no task and no channel between the two. A request is decoded
//! and begun right here, in the network thread; reads under a lease are answered in the same step.
//! Everything else waits in [`Slots`] until its answer comes back through the stream's [`Inbox`].
//!
//! A message out carries all that is ready when the stream is polled, and never waits for more.
//!
//! Bounds: while too much is under way ([`Budget`](crate::budget::Budget)) the stream is not read,
//! which the client feels through HTTP/2 flow control; a message out takes at most
//! [`SOFT_BYTES`] plus one answer, and never more than clients decode; of the large answers that
//! are read elsewhere, a stream has [`LARGE_ANSWERS`] at a time, and of single values
//! [`VALUES_FROM_DISK`], so that a client that does not read cannot pile them up.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use quorate_consensus::node::clock;
use quorate_consensus::time::Instant;
use quorate_proto::limits::MAX_ANSWER_BYTES;
use quorate_proto::wire::tikvpb::batch_commands_request::Request;
use quorate_proto::wire::tikvpb::batch_commands_response::Response as WireResponse;
use quorate_proto::wire::tikvpb::batch_commands_response::response::Cmd as Response;
use quorate_proto::wire::tikvpb::{BatchCommandsRequest, BatchCommandsResponse};
use tonic::Status;

use super::begin::Begun;
use super::read::Finished;
use super::reply;
use super::slots::{Slots, Waiting};
use super::token::{Inbox, Place, Token, Verdict};
use super::{Ending, Serving};
use crate::budget::Lines;

/// Bytes after which a message is sent before more is done.
const SOFT_BYTES: usize = 256 * 1024;
/// Answers after which a message is sent before more is done.
const SOFT_ANSWERS: usize = 1_024;

/// Large answers that one stream may have at a time, being read or not yet sent.
pub(super) const LARGE_ANSWERS: usize = 4;
/// Values from disk that one stream may have at a time: about as many bytes.
pub(super) const VALUES_FROM_DISK: usize = 16;

/// How long a client must be quiet for its stream to end while the store stops.
const LINGER: Duration = Duration::from_millis(100);

/// Messages in, in whatever way they come.
type Inbound = Pin<Box<dyn Stream<Item = Result<BatchCommandsRequest, Status>> + Send>>;

/// Both ends of one stream.
pub(crate) struct BatchStream {
    serving: Arc<Serving>,
    inbound: Option<Inbound>,
    /// The rest of the message that is being begun.
    requests: Paired,
    slots: Slots,
    inbox: Arc<Inbox>,
    verdicts: VecDeque<(Place, Verdict)>,
    /// Places for what is read elsewhere for this stream.
    lines: Lines,
    /// Answers that did not fit into the last message: no more than there are slots.
    spilled: VecDeque<(u64, Response)>,
    deadline: Pin<Box<tokio::time::Sleep>>,
    armed: bool,
    /// While the store stops and the client is quiet: when the stream ends.
    linger: Option<Pin<Box<tokio::time::Sleep>>>,
}

/// Requests with their ids.
type Paired = std::iter::Zip<std::vec::IntoIter<Request>, std::vec::IntoIter<u64>>;

impl BatchStream {
    /// Serves the messages of `inbound`. Needs a runtime, for the deadline.
    pub(crate) fn new(
        serving: Arc<Serving>,
        inbound: impl Stream<Item = Result<BatchCommandsRequest, Status>> + Send + 'static,
    ) -> Self {
        serving.metrics.streams.fetch_add(1, Ordering::Relaxed);
        let inbox = serving.new_inbox();
        Self {
            serving,
            inbound: Some(Box::pin(inbound)),
            requests: Vec::new().into_iter().zip(Vec::new()),
            slots: Slots::default(),
            inbox,
            verdicts: VecDeque::new(),
            lines: Lines::new(VALUES_FROM_DISK, LARGE_ANSWERS),
            spilled: VecDeque::new(),
            deadline: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: false,
            linger: None,
        }
    }

    /// Puts the answers that have come in into the message.
    fn collect(&mut self, cx: &mut Context<'_>, out: &mut Outgoing) {
        if self.verdicts.is_empty() {
            self.inbox.take(&mut self.verdicts, cx.waker());
        }
        while out.has_room() {
            let Some((place, verdict)) = self.verdicts.pop_front() else { return };
            let Some(waiting) = self.slots.remove(place) else { continue };
            match verdict {
                Verdict::Ready(read) => match self.serving.read_briefly_at_index(&read) {
                    Some(finished) => self.finish(waiting, finished, out),
                    None => {
                        let token = self.park(waiting);
                        self.serving.read_elsewhere(read, true, token, Some(&self.lines));
                    }
                },
                verdict => {
                    let finished = self.serving.conclude(waiting.kind, waiting.region, verdict);
                    self.finish(waiting, finished, out);
                }
            }
        }
    }

    fn finish(&mut self, waiting: Waiting, finished: Finished, out: &mut Outgoing) {
        let took = clock::now().since(waiting.since);
        self.serving.metrics.ended(waiting.kind, finished.outcome, Some(took));
        self.put(out, waiting.request_id, finished.response);
    }

    /// Adds an answer, or keeps it for the next message where it does not fit.
    fn put(&mut self, out: &mut Outgoing, request_id: u64, response: Response) {
        self.spilled.extend(out.push(request_id, response));
    }

    /// A token for a request that has to wait.
    fn park(&mut self, waiting: Waiting) -> Token {
        let place = self.slots.insert(waiting);
        Token::for_stream(&self.inbox, place, self.serving.budget.take(0))
    }

    /// Begins the requests at hand. False where there is no room for more.
    fn begin(&mut self, out: &mut Outgoing) -> bool {
        let mut now = None;
        loop {
            let own = self.slots.len();
            if !out.has_room()
                || own >= self.serving.limits.requests_per_stream
                || !self.serving.budget.has_room(own)
            {
                return false;
            }
            let Some((request, request_id)) = self.requests.next() else { return true };
            // One reading of the clock for all requests that came together.
            let now = *now.get_or_insert_with(clock::now);
            self.begin_one(request, request_id, now, out);
        }
    }

    fn begin_one(&mut self, request: Request, request_id: u64, now: Instant, out: &mut Outgoing) {
        let waiting = |kind, region| Waiting { request_id, kind, region, since: now };
        match self.serving.begin(request.cmd, now) {
            Begun::Finished(kind, finished) => {
                if let Some(kind) = kind {
                    let took = finished.at.map(|at| at.since(now));
                    self.serving.metrics.ended(kind, finished.outcome, took);
                }
                self.put(out, request_id, finished.response);
            }
            Begun::Nothing => out.push_empty(request_id),
            Begun::Write { kind, region, command } => {
                let place = self.slots.insert(waiting(kind, region));
                let permit = self.serving.budget.take(command.len());
                let token = Token::for_stream(&self.inbox, place, permit);
                self.serving.raft.propose(region, command, token, false);
            }
            Begun::Index(read) => {
                let region = read.region();
                let token = self.park(waiting(read.kind(), region)).with_read(read);
                self.serving.read_index(region, token);
            }
            Begun::Elsewhere(read) => {
                let token = self.park(waiting(read.kind(), read.region()));
                self.serving.read_elsewhere(read, false, token, Some(&self.lines));
            }
        }
    }

    /// Reads the next message. True where there is one.
    fn receive(&mut self, cx: &mut Context<'_>) -> Result<bool, Status> {
        if self.serving.ending() == Ending::All {
            self.inbound = None;
        }
        let Some(inbound) = self.inbound.as_mut() else { return Ok(false) };
        match inbound.as_mut().poll_next(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(None) => {
                self.inbound = None;
                Ok(false)
            }
            Poll::Ready(Some(Err(status))) => {
                self.inbound = None;
                Err(status)
            }
            Poll::Ready(Some(Ok(message))) => {
                self.linger = None;
                self.serving.metrics.batches_in.fetch_add(1, Ordering::Relaxed);
                if message.requests.len() != message.request_ids.len() {
                    self.inbound = None;
                    return Err(Status::invalid_argument(format!(
                        "{} requests with {} request_ids: send one id for each request",
                        message.requests.len(),
                        message.request_ids.len()
                    )));
                }
                self.requests = message.requests.into_iter().zip(message.request_ids);
                Ok(true)
            }
        }
    }

    /// True where the store stops and the client has not sent anything for a moment. A stream that
    /// ends while requests are on their way would leave their client in doubt about them; one whose
    /// client was told that the leaders have gone falls quiet soon.
    fn lingered(&mut self, cx: &mut Context<'_>) -> bool {
        if self.serving.ending() == Ending::Never {
            return false;
        }
        let linger = self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        linger.as_mut().poll(cx).is_ready()
    }

    /// Gives up on what has waited too long, looking a few times per deadline.
    fn expire(&mut self, cx: &mut Context<'_>, out: &mut Outgoing) {
        let longest = self.serving.request_timeout;
        while self.slots.len() > 0 {
            if !self.armed {
                let next = tokio::time::Instant::now() + longest / 8;
                self.deadline.as_mut().reset(next);
                self.armed = true;
            }
            if self.deadline.as_mut().poll(cx).is_pending() {
                return;
            }
            self.armed = false;
            for waiting in self.slots.expire(clock::now(), longest) {
                let lost = self.serving.conclude(waiting.kind, waiting.region, Verdict::Lost);
                self.serving.metrics.ended(waiting.kind, lost.outcome, Some(longest));
                self.put(out, waiting.request_id, lost.response);
            }
        }
    }
}

impl Stream for BatchStream {
    type Item = Result<BatchCommandsResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut out = Outgoing::default();
        while out.has_room() {
            let Some((request_id, response)) = this.spilled.pop_front() else { break };
            this.put(&mut out, request_id, response);
        }
        this.expire(cx, &mut out);
        loop {
            this.collect(cx, &mut out);
            if !this.begin(&mut out) {
                break;
            }
            match this.receive(cx) {
                Ok(true) => {}
                Ok(false) => break,
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
        }
        // What was begun just now needs its deadline, too.
        this.expire(cx, &mut out);
        if !out.is_empty() {
            this.serving.metrics.batches_out.fetch_add(1, Ordering::Relaxed);
            return Poll::Ready(Some(Ok(out.message)));
        }
        if this.slots.len() > 0 || this.requests.len() > 0 {
            return Poll::Pending;
        }
        if this.inbound.is_none() || this.lingered(cx) { Poll::Ready(None) } else { Poll::Pending }
    }
}

impl Drop for BatchStream {
    fn drop(&mut self) {
        self.serving.metrics.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The message that is being put together.
#[derive(Default)]
struct Outgoing {
    message: BatchCommandsResponse,
    bytes: usize,
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.message.request_ids.is_empty()
    }

    fn has_room(&self) -> bool {
        self.bytes < SOFT_BYTES && self.message.request_ids.len() < SOFT_ANSWERS
    }

    /// Adds an answer; gives it back where the message would become larger than clients decode.
    fn push(&mut self, request_id: u64, response: Response) -> Option<(u64, Response)> {
        let bytes = reply::weight(&response);
        if !self.is_empty() && self.bytes + bytes > MAX_ANSWER_BYTES {
            self.bytes = MAX_ANSWER_BYTES;
            return Some((request_id, response));
        }
        self.bytes += bytes;
        self.message.request_ids.push(request_id);
        self.message.responses.push(WireResponse { cmd: Some(response) });
        None
    }

    /// Adds the answer to a request that says nothing that we know.
    fn push_empty(&mut self, request_id: u64) {
        self.bytes += 16;
        self.message.request_ids.push(request_id);
        self.message.responses.push(WireResponse { cmd: None });
    }
}
