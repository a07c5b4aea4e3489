//! Serving clients: from a request on the wire to its answer.
//!
//! * [`service`]: the gRPC methods; [`stream`]: batched streams, the hot path.
//! * [`begin`]: the first step of a request, in the network thread.
//! * [`read`]: reading, once a lease or a read index allows it; [`disk`]: where it may wait.
//! * [`token`]: how the answer of a request that had to wait finds its way back; [`slots`]: what
//!   waits on one stream.
//! * [`reply`]: answers in the words of the wire.
//!
//! Every request is answered: by the state machine, by raft, by its deadline, or, where its group
//! goes away, by the [`Token`] that is dropped. Its answer says one of three things: done,
//! certainly not done, or (`stale_command`) that nobody can say.

mod begin;
mod disk;
mod health;
mod read;
mod reply;
mod service;
mod slots;
mod stream;
mod token;

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_consensus::engine::Engine;
use quorate_consensus::node::clock;
use quorate_consensus::shard::Refusal;
use quorate_proto::RegionId;
use quorate_proto::wire::errorpb;
use quorate_proto::wire::tikvpb::batch_commands_request::request::Cmd as Asked;
use quorate_proto::wire::tikvpb::batch_commands_response::response::Cmd as Response;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

use crate::budget::Budget;
use crate::config::LimitsConfig;
use crate::core::{Directory, ReadPath, RegionError};
use crate::fatal::Fatal;
use crate::kind::Kind;
use crate::metrics::Metrics;
use crate::placement_time::PlacementTime;
use crate::raft::Raft;

pub(crate) use self::health::HealthService;
pub(crate) use self::service::TikvService;
pub(crate) use self::token::{Applied, Token, Verdict};

use self::begin::Begun;
use self::disk::Disk;
use self::read::Finished;
use self::token::Inbox;

/// What serving a request needs.
pub(crate) struct Serving {
    reads: ReadPath,
    directory: Arc<Directory>,
    raft: Arc<dyn Raft>,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
    time: Arc<PlacementTime>,
    fatal: Fatal,
    limits: LimitsConfig,
    request_timeout: Duration,
    blocking: Handle,
    disk: Disk,
    /// Places for scans outside of the network thread, so that they do not take those of others.
    scans: Arc<Semaphore>,
    /// Places for reads of keys there.
    disk_reads: Arc<Semaphore>,
    ending: AtomicU8,
    /// Of the streams that are open, to wake them when the store stops.
    inboxes: Mutex<Vec<Weak<Inbox>>>,
}

/// Which batched streams end by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// None: the store serves.
    Never = 0,
    /// Those whose client has been quiet for a moment. The others are told where to go.
    Quiet = 1,
    /// All of them: no further request is read.
    All = 2,
}

/// What serving is put together from.
pub(crate) struct Parts {
    /// The regions.
    pub(crate) directory: Arc<Directory>,
    /// Where reads look.
    pub(crate) engine: Arc<dyn Engine>,
    /// Where writes go.
    pub(crate) raft: Arc<dyn Raft>,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// What goes on commands.
    pub(crate) time: Arc<PlacementTime>,
    /// Who hears of a broken engine.
    pub(crate) fatal: Fatal,
    /// The bounds.
    pub(crate) limits: LimitsConfig,
    /// Runs scans, and what waits for the disk, on its blocking threads.
    pub(crate) blocking: Handle,
}

impl Serving {
    /// Puts it together.
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts { directory, engine, raft, metrics, time, fatal, limits, blocking } = parts;
        Arc::new(Self {
            reads: ReadPath::new(Arc::clone(&directory), engine),
            directory,
            raft,
            budget: Budget::new(limits.requests, limits.write_bytes, limits.answer_bytes),
            metrics,
            time,
            fatal,
            request_timeout: Duration::from_millis(limits.request_timeout_ms),
            disk: Disk::default(),
            scans: Arc::new(Semaphore::new(limits.concurrent_scans)),
            disk_reads: Arc::new(Semaphore::new(limits.concurrent_disk_reads)),
            limits,
            blocking,
            ending: AtomicU8::new(Ending::Never as u8),
            inboxes: Mutex::new(Vec::new()),
        })
    }

    /// The regions.
    pub(crate) fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// What waits for an answer.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Streams end from now on: those that are quiet, or all once what they have is answered.
    pub(crate) fn end_streams(&self, ending: Ending) {
        self.ending.store(ending as u8, Ordering::Release);
        for inbox in self.inboxes.lock().iter().filter_map(Weak::upgrade) {
            inbox.wake();
        }
    }

    fn ending(&self) -> Ending {
        match self.ending.load(Ordering::Acquire) {
            0 => Ending::Never,
            1 => Ending::Quiet,
            // Only these three are ever stored.
            _ => Ending::All,
        }
    }

    fn new_inbox(&self) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::default());
        let mut inboxes = self.inboxes.lock();
        if inboxes.len() == inboxes.capacity() {
            // Only those of open streams are kept: as many as there are, twice over at most.
            inboxes.retain(|inbox| inbox.strong_count() > 0);
        }
        inboxes.push(Arc::downgrade(&inbox));
        inbox
    }

    /// Serves one call from beginning to end.
    async fn call(self: &Arc<Self>, asked: Asked) -> Response {
        let since = clock::now();
        let finished = match self.begin(Some(asked), since) {
            Begun::Finished(kind, finished) => {
                if let Some(kind) = kind {
                    let took = finished.at.map(|at| at.since(since));
                    self.metrics.ended(kind, finished.outcome, took);
                }
                return match kind {
                    Some(kind) => self.charge(kind, finished).response,
                    None => finished.response,
                };
            }
            // A call always asks for something.
            Begun::Nothing => return Response::Empty(Default::default()),
            Begun::Write { kind, region, command } => {
                self.wait(kind, region, command.len(), |token| {
                    self.raft.propose(region, command, token, false);
                })
                .await
            }
            Begun::Index(read) => {
                let (kind, region) = (read.kind(), read.region());
                let reader = |token: Token| self.read_index(region, token.with_read(read));
                self.wait(kind, region, 0, reader).await
            }
            Begun::Elsewhere(read) => {
                let (kind, region) = (read.kind(), read.region());
                self.wait(kind, region, 0, |token| self.read_elsewhere(read, false, token, None))
                    .await
            }
        };
        let (kind, finished) = finished;
        self.metrics.ended(kind, finished.outcome, Some(clock::now().since(since)));
        finished.response
    }

    /// Sends a request on its way and waits for its end, until its deadline.
    async fn wait(
        self: &Arc<Self>,
        kind: Kind,
        region: RegionId,
        bytes: usize,
        send: impl FnOnce(Token),
    ) -> (Kind, Finished) {
        if !self.budget.has_room(usize::MAX) {
            let busy = RegionError::Busy("too many requests are under way on this store");
            return (kind, Finished::region_error(kind, &busy));
        }
        let deadline = tokio::time::Instant::now() + self.request_timeout;
        let (token, answer) = Token::for_call(self.budget.take(bytes));
        send(token);
        let mut verdict = until(deadline, answer).await;
        if let Verdict::Ready(read) = verdict {
            if let Some(finished) = self.read_briefly_at_index(&read) {
                return (kind, self.charge(kind, finished));
            }
            let (token, answer) = Token::for_call(self.budget.take(0));
            self.read_elsewhere(read, true, token, None);
            verdict = until(deadline, answer).await;
        }
        (kind, self.conclude(kind, region, verdict))
    }

    /// Asks for a read index.
    fn read_index(&self, region: RegionId, token: Token) {
        self.metrics.read_index.fetch_add(1, Ordering::Relaxed);
        self.raft.read(region, token);
    }

    /// What a verdict means for the client.
    fn conclude(&self, kind: Kind, region: RegionId, verdict: Verdict) -> Finished {
        match verdict {
            Verdict::Done => Finished::ok(reply::done(kind)),
            Verdict::Ready(read) => self.read_at_index(&read),
            Verdict::Read(finished) => *finished,
            Verdict::Refused(refusal) => self.refused(kind, region, refusal),
            Verdict::Rejected(error) => Finished::region_error(kind, &error),
            Verdict::Undetermined => Finished::undetermined(kind, region),
            Verdict::Lost if kind.is_read() => {
                Finished::region_error(kind, &RegionError::ReadNotReady(region))
            }
            Verdict::Lost => Finished::undetermined(kind, region),
        }
    }

    /// What a refusal of raft means for the client.
    fn refused(&self, kind: Kind, region: RegionId, refusal: Refusal) -> Finished {
        let error = match refusal {
            Refusal::NotLeader { leader } => {
                let known = self.directory().get(region).and_then(|local| local.replicated());
                let leader = leader.and_then(|id| known?.peer(id).copied());
                RegionError::NotLeader { region, leader }
            }
            Refusal::NoGroup => RegionError::RegionNotFound(region),
            Refusal::NoQuorum(lost) => RegionError::no_quorum(region, &lost),
            Refusal::Busy { reason } => RegionError::Busy(reason),
            Refusal::TooLarge { bytes } => RegionError::EntryTooLarge { region, bytes },
            // No client asks for it.
            Refusal::Members(_) => RegionError::Busy("the replicas of the region are changing"),
            Refusal::ReadTimedOut => RegionError::ReadNotReady(region),
            Refusal::Undetermined if kind.is_read() => RegionError::ReadNotReady(region),
            Refusal::Undetermined => return Finished::undetermined(kind, region),
        };
        Finished::region_error(kind, &error)
    }
}

/// The verdict, or that there was none in time.
async fn until(deadline: tokio::time::Instant, answer: oneshot::Receiver<Verdict>) -> Verdict {
    match tokio::time::timeout_at(deadline, answer).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(_)) | Err(_) => Verdict::Lost,
    }
}

/// The region error that leaves open whether a write will be applied.
fn undetermined(region: RegionId) -> errorpb::Error {
    errorpb::Error {
        message: format!(
            "nobody can say whether this write to {region} will be applied: read the key before \
             you write it again"
        ),
        stale_command: Some(errorpb::StaleCommand {}),
        ..Default::default()
    }
}

#[cfg(test)]
mod brief_tests;
#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unread_tests;
