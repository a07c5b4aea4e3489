//! Reading: one attempt is admit, look, confirm. Under a lease right away, else at a read index.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::engine::EngineError;
use quorate_consensus::node::clock;
use quorate_consensus::shard::Refusal;
use quorate_consensus::time::Instant;
use quorate_proto::RegionId;
use quorate_proto::wire::kvrpcpb::{Context, KvPair};
use quorate_proto::wire::tikvpb::batch_commands_response::response::Cmd as Response;
use tokio::sync::OwnedSemaphorePermit;

use super::token::{Token, Verdict};
use super::{Serving, reply, undetermined};
use crate::budget::{Lines, Room, Size};
use crate::core::command;
use crate::core::{
    Effort, Pass, ReadAdmission, ReadError, RegionError, Scan, StaleClock, Unconfirmed,
};
use crate::kind::Kind;
use crate::metrics::Outcome;

/// Answers of calls are counted from this many bytes on.
const CHARGED: usize = 16 << 10;
/// Why there is no room for an answer.
const UNREAD_WORDS: &str = "answers to other clients fill this store's memory for them";
const UNREAD: Refusal = Refusal::Busy {
    reason: "other reads keep its reading threads busy, or answers to other clients fill its memory",
};

/// A read that could not be answered at once.
#[derive(Debug)]
pub(crate) struct Read {
    kind: Kind,
    context: Context,
    what: What,
}

/// What to read.
#[derive(Debug)]
pub(super) enum What {
    /// One key.
    Get(Bytes),
    /// Several keys.
    BatchGet(Vec<Bytes>),
    /// One range.
    Scan(Scan),
    /// Several ranges.
    BatchScan(Vec<Scan>),
}

impl What {
    /// Whether it can be read at all.
    pub(super) fn check(&self) -> Result<(), String> {
        let checked = match self {
            What::Get(key) => command::check_key(key),
            What::BatchGet(keys) => keys.iter().try_for_each(|key| command::check_key(key)),
            What::Scan(scan) => check_scan(scan),
            What::BatchScan(scans) => scans.iter().try_for_each(check_scan),
        };
        checked.map_err(|error| error.to_string())
    }

    /// Keys or pairs that it may have to touch.
    fn count(&self) -> u64 {
        match self {
            What::Get(_) => 1,
            What::BatchGet(keys) => keys.len() as u64,
            What::Scan(scan) => u64::from(scan.limit),
            What::BatchScan(scans) => scans.iter().map(|scan| u64::from(scan.limit.max(1))).sum(),
        }
    }
}

fn check_scan(scan: &Scan) -> Result<(), command::CommandError> {
    command::check_bound(&scan.start)?;
    command::check_bound(&scan.end)
}

impl Read {
    /// How large its answer may be.
    fn size(&self) -> Size {
        match &self.what {
            What::Get(_) => Size::Value,
            What::BatchGet(_) | What::Scan(_) | What::BatchScan(_) => Size::Answer,
        }
    }
    /// True where it may pass over much, wherever that is.
    fn scans(&self) -> bool {
        match &self.what {
            What::Get(_) | What::BatchGet(_) => false,
            What::Scan(_) | What::BatchScan(_) => true,
        }
    }
    pub(super) fn new(kind: Kind, context: Context, what: What) -> Self {
        Self { kind, context, what }
    }
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }
    pub(super) fn region(&self) -> RegionId {
        RegionId(self.context.region_id)
    }
}

/// An answer, and how the request is counted.
#[derive(Debug)]
pub(crate) struct Finished {
    /// For the client.
    pub(super) response: Response,
    /// For the metrics.
    pub(super) outcome: Outcome,
    /// A clock reading taken towards the end, where there was one.
    pub(super) at: Option<Instant>,
}

impl Finished {
    pub(super) fn ok(response: Response) -> Self {
        Self { response, outcome: Outcome::Ok, at: None }
    }
    pub(super) fn region_error(kind: Kind, error: &RegionError) -> Self {
        let outcome = match error {
            RegionError::StoreNotMatch { .. }
            | RegionError::RegionNotFound(_)
            | RegionError::MismatchPeer { .. }
            | RegionError::NotInitialized(_)
            | RegionError::EpochNotMatch { .. }
            | RegionError::KeyNotInRegion { .. }
            | RegionError::NotLeader { .. }
            | RegionError::DataIsNotReady { .. }
            | RegionError::StaleCommand => Outcome::Rerouted,
            RegionError::Busy(_)
            | RegionError::NoQuorum { .. }
            | RegionError::ReadNotReady(_)
            | RegionError::Merging(_) => Outcome::Busy,
            RegionError::EntryTooLarge { .. }
            | RegionError::AnswerTooLarge { .. }
            | RegionError::TooManyItems { .. }
            | RegionError::BadSplit { .. }
            | RegionError::BadMerge { .. }
            | RegionError::BadPeers { .. } => Outcome::Invalid,
        };
        Self { response: reply::region_error(kind, error.to_wire()), outcome, at: None }
    }
    pub(super) fn invalid(kind: Kind, reason: String) -> Self {
        Self { response: reply::invalid(kind, reason), outcome: Outcome::Invalid, at: None }
    }
    pub(super) fn undetermined(kind: Kind, region: RegionId) -> Self {
        let response = reply::region_error(kind, undetermined(region));
        Self { response, outcome: Outcome::Undetermined, at: None }
    }
}

/// What one attempt came to.
pub(super) enum Attempt {
    /// An answer.
    Finished(Finished),
    /// No lease: a read index is needed.
    NeedsIndex,
    /// Too much for this thread.
    TooLong,
}

impl Serving {
    /// True for reads that would keep the network thread too long.
    pub(super) fn is_large(&self, read: &Read) -> bool {
        read.what.count() > u64::from(self.limits.inline_scan_pairs)
    }

    /// Reads under the lease, if there is one at `now`.
    pub(super) fn attempt(&self, read: &Read, now: Instant, effort: Effort) -> Attempt {
        match self.reads.admit(&read.context, now) {
            Ok(ReadAdmission::Lease(pass)) => {
                if pass.renew() {
                    self.raft.renew_lease(pass.region());
                }
                match self.look(read, &pass, effort) {
                    Attempt::NeedsIndex if read.context.stale_read => {
                        self.stale(read, clock::now(), effort)
                    }
                    attempt => attempt,
                }
            }
            Ok(ReadAdmission::NeedsIndex(_)) if read.context.stale_read => {
                self.stale(read, now, effort)
            }
            Ok(ReadAdmission::NeedsIndex(_)) => Attempt::NeedsIndex,
            Err(error) => Attempt::Finished(Finished::region_error(read.kind, &error)),
        }
    }

    /// Reads what this replica has, if that is fresh enough.
    fn stale(&self, read: &Read, now: Instant, effort: Effort) -> Attempt {
        let bound = match read.context.stale_ms {
            0 => self.limits.stale_read_ms,
            asked => asked,
        };
        let vouched = |slept| self.raft.vouched(slept);
        let latest_ms = self.time.latest(now);
        let clock = StaleClock { now, latest_ms, vouched: &vouched };
        let bound = Duration::from_millis(bound);
        match self.reads.admit_stale(&read.context, bound, &clock) {
            Ok(pass) => {
                self.metrics.stale_reads.fetch_add(1, Ordering::Relaxed);
                self.look(read, &pass, effort)
            }
            Err(error) => {
                if let RegionError::DataIsNotReady { .. } = &error {
                    self.metrics.stale_reads_refused.fetch_add(1, Ordering::Relaxed);
                }
                Attempt::Finished(Finished::region_error(read.kind, &error))
            }
        }
    }

    /// Reads after the state machine has reached the read index.
    pub(super) fn read_at_index(&self, read: &Read) -> Finished {
        match self.look_at_index(read, Effort::Whole) {
            Attempt::Finished(finished) => finished,
            // A pass that was given for an index does not lapse with a lease, and the read takes
            // its time.
            Attempt::NeedsIndex | Attempt::TooLong => {
                Finished::region_error(read.kind, &RegionError::ReadNotReady(read.region()))
            }
        }
    }

    /// [`Serving::read_at_index`] in the network thread; `None` where that would take too long.
    pub(super) fn read_briefly_at_index(&self, read: &Read) -> Option<Finished> {
        if self.is_large(read) {
            return None;
        }
        match self.look_at_index(read, Effort::Brief) {
            Attempt::Finished(finished) => Some(finished),
            Attempt::NeedsIndex | Attempt::TooLong => None,
        }
    }

    fn look_at_index(&self, read: &Read, effort: Effort) -> Attempt {
        match self.reads.admit_at_index(&read.context) {
            Ok(pass) => self.look(read, &pass, effort),
            Err(error) => Attempt::Finished(Finished::region_error(read.kind, &error)),
        }
    }

    /// Reads on a blocking thread, once there is room for the answer and a thread for such reads; the
    /// token brings it. `lines` bound what one stream may have of the room.
    pub(super) fn read_elsewhere(
        self: &Arc<Self>,
        read: Box<Read>,
        at_index: bool,
        token: Token,
        lines: Option<&Lines>,
    ) {
        if !self.is_large(&read) {
            self.metrics.disk_reads.fetch_add(1, Ordering::Relaxed);
        }
        let size = read.size();
        let line = lines.map(|lines| lines.of(size));
        // Scans and reads of keys wait for their like alone.
        let readers = if read.scans() { &self.scans } else { &self.disk_reads };
        if let Some((room, reader)) = self.budget.try_room(size, line.as_ref(), readers) {
            return self.read_into(room, reader, read, at_index, token);
        }
        let (serving, readers) = (Arc::clone(self), Arc::clone(readers));
        self.blocking.spawn(async move {
            // Half of the request's time: the refusal says more than the deadline would.
            let patience = serving.request_timeout / 2;
            let room = serving.budget.room(size, line, readers);
            match tokio::time::timeout(patience, room).await {
                Ok(Some((room, reader))) => {
                    serving.read_into(room, reader, read, at_index, token);
                }
                Ok(None) | Err(_) => token.answer(Verdict::Refused(UNREAD)),
            }
        });
    }

    fn read_into(
        self: &Arc<Self>,
        room: Room,
        reader: OwnedSemaphorePermit,
        read: Box<Read>,
        at_index: bool,
        token: Token,
    ) {
        let serving = Arc::clone(self);
        self.blocking.spawn_blocking(move || {
            serving.read_now(room, read, at_index, token);
            drop(reader);
        });
    }

    fn read_now(self: &Arc<Self>, room: Room, read: Box<Read>, at_index: bool, token: Token) {
        let attempt = match at_index {
            true => Attempt::Finished(self.read_at_index(&read)),
            false => self.attempt(&read, clock::now(), Effort::Whole),
        };
        match attempt {
            Attempt::Finished(mut finished) => {
                reply::hold(&mut finished.response, room);
                token.answer(Verdict::Read(Box::new(finished)));
            }
            // Room for the answer is taken again when it can be read.
            Attempt::NeedsIndex | Attempt::TooLong => {
                self.read_index(read.region(), token.with_read(read));
            }
        }
    }

    /// Counts the answer to a call of its own until the transport has it; refuses what does not
    /// fit. Streams need that only for what is read elsewhere: they are asked for one message at a
    /// time.
    pub(super) fn charge(&self, kind: Kind, mut finished: Finished) -> Finished {
        let bytes = reply::weight(&finished.response);
        if bytes < CHARGED {
            return finished;
        }
        match self.budget.room_for(bytes) {
            Some(room) => {
                reply::hold(&mut finished.response, room);
                finished
            }
            None => Finished::region_error(kind, &RegionError::Busy(UNREAD_WORDS)),
        }
    }

    /// Reads, and takes note of how long keys take that are not in memory.
    fn fetch(&self, read: &Read, pass: &Pass, effort: Effort) -> Result<Response, ReadError> {
        let pairs = |pairs: Vec<KvPair>| reply::pairs(read.kind, pairs);
        let from_disk = effort == Effort::Whole && !read.scans() && !self.is_large(read);
        let began = from_disk.then(clock::now);
        let response = match &read.what {
            What::Get(key) => self.reads.get(pass, key, effort).map(reply::value),
            What::BatchGet(keys) => self.reads.batch_get(pass, keys, effort).map(pairs),
            What::Scan(scan) => self.reads.scan(pass, scan, effort).map(pairs),
            What::BatchScan(scans) => self.reads.batch_scan(pass, scans, effort).map(pairs),
        };
        if let Some(began) = began {
            self.disk.took(clock::now().since(began), read.what.count());
        }
        response
    }

    fn look(&self, read: &Read, pass: &Pass, effort: Effort) -> Attempt {
        let incomplete = |response: &Result<Response, ReadError>| {
            matches!(response, Err(ReadError::Engine(EngineError::Incomplete)))
        };
        let mut response = self.fetch(read, pass, effort);
        if incomplete(&response) && !read.scans() && self.disk.is_quick() {
            response = self.fetch(read, pass, Effort::Whole);
        }
        if incomplete(&response) {
            return Attempt::TooLong;
        }
        let now = clock::now();
        match self.reads.confirm(pass, now) {
            Ok(()) => {}
            Err(Unconfirmed::NeedsIndex(_)) => return Attempt::NeedsIndex,
            Err(Unconfirmed::Region(error)) => {
                return Attempt::Finished(Finished::region_error(read.kind, &error));
            }
        }
        let mut finished = match response {
            Ok(response) => Finished::ok(response),
            Err(ReadError::Region(error)) => Finished::region_error(read.kind, &error),
            Err(ReadError::Engine(error)) => {
                self.fatal.engine(&error);
                let busy = RegionError::Busy("the storage of this store failed");
                Finished::region_error(read.kind, &busy)
            }
        };
        finished.at = Some(now);
        Attempt::Finished(finished)
    }
}
