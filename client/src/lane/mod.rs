//! One connection to one store: a batched stream, driven by one task.
//!
//! Requests of all callers enter one queue ([`core::Lane`], under a lock held for tens of
//! nanoseconds). The outgoing half is polled by the connection's own task and puts everything
//! that waits into one message ([`outbound`]); it never waits for more, it only lets the other
//! runnable tasks of its thread go first when there are several. The incoming half and the
//! deadlines are one task ([`drive`]). A request costs no timer of its own: overdue ones are swept
//! out every [`SWEEP`].
//!
//! A lane lives as long as its connection. When that breaks, every request in it learns whether
//! it had been sent ([`Outcome`]), and the next request to that store opens another lane.
//!
//! A server without batched streams (`Unimplemented`) is spoken to with unary calls.

use std::{
    pin::pin,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use quorate_proto::{
    StoreId,
    wire::tikvpb::{
        BatchCommandsResponse,
        batch_commands_request::{Request, request::Cmd as Command},
        tikv_client::TikvClient,
    },
};
use tokio::{
    sync::{Notify, oneshot},
    time::{MissedTickBehavior, interval, timeout_at},
};
use tonic::{Code, Status, Streaming, transport::Channel};
use tracing::{debug, info};

use crate::{ClientOptions, command::Answer, stores::Directory};

mod core;
mod outbound;
mod table;
#[cfg(test)]
mod tests;
mod unary;

use self::core::{Bounds, Call, Fate, NotQueued};

/// How often overdue requests are looked for; deadlines are kept to this precision.
const SWEEP: Duration = Duration::from_millis(50);
/// Bytes put into one message before the next request waits for the next message. With the
/// largest single request this stays below the 4 MiB that gRPC servers decode by default.
const MESSAGE_BYTES: usize = 768 * 1024;
/// Largest message taken from a store: several full answers may share one.
const DECODE_BYTES: usize = 128 * 1024 * 1024;

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The store answered.
    Answer(Answer),
    /// Certainly never sent.
    NotSent(Arc<str>),
    /// Sent, and the connection broke before the answer.
    Lost(Arc<str>),
    /// The deadline passed.
    Expired {
        /// Whether it had been sent.
        sent: bool,
    },
}

impl Outcome {
    /// A lane answers all it has taken in; only with its runtime it cannot.
    pub(crate) fn runtime_ended() -> Self {
        Self::Lost(Arc::from("the client's runtime has ended"))
    }
}

/// A request that could not be queued at once.
pub(crate) enum Held {
    /// The store takes unary calls only.
    Unary(TikvClient<Channel>, Command, Instant),
    /// The queue is full, or closed.
    Refused(NotQueued<Request, Reply>, oneshot::Receiver<Outcome>),
}

type Reply = oneshot::Sender<Outcome>;

/// One connection. See the module.
pub(crate) struct Lane {
    queue: Mutex<core::Lane<Request, Reply>>,
    /// The outgoing half, when it waits for work.
    sender: AtomicWaker,
    /// Callers that wait for room in a full queue.
    room: Notify,
    /// Why it was closed.
    closed: OnceLock<Arc<str>>,
    /// Set where the store has no batched streams.
    unary: OnceLock<TikvClient<Channel>>,
}

impl Lane {
    fn new(options: &ClientOptions) -> Self {
        let bounds = Bounds {
            queued: options.max_queued.max(1),
            in_flight: options.max_in_flight.max(1),
            requests: options.batch_requests.max(1),
            bytes: MESSAGE_BYTES,
        };
        Self {
            queue: Mutex::new(core::Lane::new(bounds)),
            sender: AtomicWaker::new(),
            room: Notify::new(),
            closed: OnceLock::new(),
            unary: OnceLock::new(),
        }
    }

    /// Opens a connection to `store`, on the current runtime of `directory`. Requests may be
    /// handed in at once.
    pub(crate) fn open(store: StoreId, directory: Arc<Directory>) -> Arc<Self> {
        let lane = Arc::new(Self::new(directory.options()));
        let runtime = directory.runtime().clone();
        runtime.spawn(drive(Arc::clone(&lane), store, directory));
        lane
    }

    /// Queues a request of about `bytes` bytes; its outcome comes at `deadline` at the latest.
    /// What cannot be queued at once is given back for [`Self::send_later`].
    pub(crate) fn send(
        &self,
        command: Command,
        bytes: usize,
        deadline: Instant,
    ) -> Result<oneshot::Receiver<Outcome>, Box<Held>> {
        if let Some(client) = self.unary.get() {
            return Err(Box::new(Held::Unary(client.clone(), command, deadline)));
        }
        let (reply, outcome) = oneshot::channel();
        let command = Request { cmd: Some(command) };
        match self.push(Call { command, bytes, deadline, reply }) {
            Ok(()) => Ok(outcome),
            Err(refused) => Err(Box::new(Held::Refused(refused, outcome))),
        }
    }

    /// The slow path of [`Self::send`]: a unary call, or a wait for room in the queue.
    pub(crate) async fn send_later(&self, held: Box<Held>) -> Outcome {
        let (mut refused, outcome) = match *held {
            Held::Unary(client, command, deadline) => {
                return unary::call(client, command, deadline).await;
            }
            Held::Refused(refused, outcome) => (refused, outcome),
        };
        loop {
            let call = match refused {
                NotQueued::Closed(_) => return Outcome::NotSent(self.reason()),
                NotQueued::Full(call) => call,
            };
            let deadline = call.deadline;
            let mut room = pin!(self.room.notified());
            room.as_mut().enable();
            match self.push(call) {
                Ok(()) => return outcome.await.unwrap_or_else(|_| Outcome::runtime_ended()),
                Err(again) => refused = again,
            }
            if timeout_at(deadline.into(), room).await.is_err() {
                return Outcome::Expired { sent: false };
            }
        }
    }

    /// Refuses requests from now on, and tells those inside.
    pub(crate) fn close(&self, reason: &str) {
        let reason = Arc::clone(self.closed.get_or_init(|| Arc::from(reason)));
        let inside = self.queue.lock().close();
        for (reply, fate) in inside {
            // A caller that has gone away misses nothing.
            let _ = reply.send(match fate {
                Fate::NotSent => Outcome::NotSent(Arc::clone(&reason)),
                Fate::Sent => Outcome::Lost(Arc::clone(&reason)),
            });
        }
        self.sender.wake();
        self.room.notify_waiters();
    }

    /// True once it takes no more requests.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get().is_some()
    }

    fn reason(&self) -> Arc<str> {
        self.closed.get().cloned().unwrap_or_else(|| Arc::from("the connection is closed"))
    }

    #[allow(clippy::result_large_err)] // The refused request goes back whole.
    fn push(&self, call: Call<Request, Reply>) -> Result<(), NotQueued<Request, Reply>> {
        let first = self.queue.lock().push(call)?;
        if first {
            self.sender.wake();
        }
        Ok(())
    }

    /// Hands each answer of one message to its caller.
    fn deliver(&self, message: BatchCommandsResponse) {
        let mut ready = Vec::with_capacity(message.responses.len());
        let blocked = {
            let mut queue = self.queue.lock();
            for (response, id) in message.responses.into_iter().zip(message.request_ids) {
                if let Some(reply) = queue.answer(id)
                    && let Some(answer) = response.cmd
                {
                    ready.push((reply, Answer::from(answer)));
                }
            }
            queue.ready()
        };
        for (reply, answer) in ready {
            let _ = reply.send(Outcome::Answer(answer));
        }
        if blocked {
            self.sender.wake();
        }
    }

    fn sweep(&self, now: Instant) {
        let expired = self.queue.lock().expire(now);
        if !expired.is_empty() {
            self.room.notify_waiters();
        }
        for (reply, fate) in expired {
            let _ = reply.send(Outcome::Expired { sent: fate == Fate::Sent });
        }
    }

    /// The store has no batched streams: it saw none of what was sent.
    fn fall_back(&self, client: TikvClient<Channel>) {
        let _ = self.unary.set(client);
        let (sent, queued) = {
            let mut queue = self.queue.lock();
            let sent = queue.give_up_sent();
            (sent, queue.close())
        };
        let reason: Arc<str> = Arc::from("the store takes unary calls only");
        for reply in sent.into_iter().chain(queued.into_iter().map(|(reply, _)| reply)) {
            let _ = reply.send(Outcome::NotSent(Arc::clone(&reason)));
        }
        self.room.notify_waiters();
    }
}

/// Runs one lane from its first dial to its end.
async fn drive(lane: Arc<Lane>, store: StoreId, directory: Arc<Directory>) {
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stream = {
        let mut opening = pin!(open(&lane, store, &directory));
        loop {
            tokio::select! {
                opened = &mut opening => match opened {
                    Ok(Some(stream)) => break stream,
                    Ok(None) => return,
                    Err(reason) => {
                        debug!(%store, %reason, "cannot open a stream");
                        directory.failed(store);
                        lane.close(&reason);
                        return;
                    }
                },
                _ = sweep.tick() => {
                    lane.sweep(Instant::now());
                    if lane.is_closed() {
                        return;
                    }
                }
            }
        }
    };
    directory.opened(store);
    let reason = loop {
        tokio::select! {
            biased;
            message = stream.message() => match message {
                Ok(Some(message)) => lane.deliver(message),
                Ok(None) => break format!("{store} ended the stream"),
                Err(status) => break format!("connection to {store} lost: {}", words(&status)),
            },
            _ = sweep.tick() => {
                lane.sweep(Instant::now());
                if lane.is_closed() {
                    return;
                }
            }
        }
    };
    info!(%store, %reason, "stream closed");
    lane.close(&reason);
}

/// Dials; none where the store wants unary calls.
async fn open(
    lane: &Arc<Lane>,
    store: StoreId,
    directory: &Arc<Directory>,
) -> Result<Option<Streaming<BatchCommandsResponse>>, String> {
    let channel = directory.dial(store).await?;
    let mut client = TikvClient::new(channel)
        .max_decoding_message_size(DECODE_BYTES)
        .max_encoding_message_size(DECODE_BYTES);
    let requests = outbound::Outbound::new(Arc::clone(lane));
    match client.batch_commands(requests).await {
        Ok(response) => Ok(Some(response.into_inner())),
        Err(status) if status.code() == Code::Unimplemented => {
            directory.opened(store);
            lane.fall_back(client);
            Ok(None)
        }
        Err(status) => Err(format!("{store} refused the stream: {}", words(&status))),
    }
}

/// A status in one short line.
pub(crate) fn words(status: &Status) -> String {
    let mut words = match status.message() {
        "" => status.code().to_string(),
        message => message.to_owned(),
    };
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words = format!("{words}: {cause_words}");
        }
        source = cause.source();
    }
    words
}
