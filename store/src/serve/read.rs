//! Reading: one attempt is admit, look, confirm. Under a lease right away, else at a read index.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::node::clock;
use quorate_consensus::time::Instant;
use quorate_proto::RegionId;
use quorate_proto::wire::kvrpcpb::{Context, KvPair};
use quorate_proto::wire::tikvpb::batch_commands_response::response::Cmd as Response;

use super::token::{Token, Verdict};
use super::{Serving, reply, undetermined};
use crate::core::command;
use crate::core::{Pass, ReadAdmission, ReadError, RegionError, Scan, StaleClock, Unconfirmed};
use crate::kind::Kind;
use crate::metrics::Outcome;

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
    fn size(&self) -> u64 {
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
}

impl Serving {
    /// True for reads that would keep the network thread too long.
    pub(super) fn is_large(&self, read: &Read) -> bool {
        read.what.size() > u64::from(self.limits.inline_scan_pairs)
    }

    /// Reads under the lease, if there is one at `now`.
    pub(super) fn attempt(&self, read: &Read, now: Instant) -> Attempt {
        match self.reads.admit(&read.context, now) {
            Ok(ReadAdmission::Lease(pass)) => {
                if pass.renew() {
                    self.raft.renew_lease(pass.region());
                }
                match self.look(read, &pass) {
                    Attempt::NeedsIndex if read.context.stale_read => {
                        self.stale(read, clock::now())
                    }
                    attempt => attempt,
                }
            }
            Ok(ReadAdmission::NeedsIndex(_)) if read.context.stale_read => self.stale(read, now),
            Ok(ReadAdmission::NeedsIndex(_)) => Attempt::NeedsIndex,
            Err(error) => Attempt::Finished(Finished::region_error(read.kind, &error)),
        }
    }

    /// Reads what this replica has, if that is fresh enough.
    fn stale(&self, read: &Read, now: Instant) -> Attempt {
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
                self.look(read, &pass)
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
        let attempt = match self.reads.admit_at_index(&read.context) {
            Ok(pass) => self.look(read, &pass),
            Err(error) => Attempt::Finished(Finished::region_error(read.kind, &error)),
        };
        match attempt {
            Attempt::Finished(finished) => finished,
            // A pass that was given for an index does not lapse with a lease.
            Attempt::NeedsIndex => {
                Finished::region_error(read.kind, &RegionError::ReadNotReady(read.region()))
            }
        }
    }

    /// Reads on a blocking thread; the token brings the answer.
    pub(super) fn read_elsewhere(self: &Arc<Self>, read: Box<Read>, at_index: bool, token: Token) {
        let serving = Arc::clone(self);
        self.blocking.spawn_blocking(move || {
            let attempt = match at_index {
                true => Attempt::Finished(serving.read_at_index(&read)),
                false => serving.attempt(&read, clock::now()),
            };
            match attempt {
                Attempt::Finished(finished) => token.answer(Verdict::Read(Box::new(finished))),
                Attempt::NeedsIndex => serving.read_index(read.region(), token.with_read(read)),
            }
        });
    }

    fn look(&self, read: &Read, pass: &Pass) -> Attempt {
        let pairs = |pairs: Vec<KvPair>| reply::pairs(read.kind, pairs);
        let response = match &read.what {
            What::Get(key) => self.reads.get(pass, key).map(reply::value),
            What::BatchGet(keys) => self.reads.batch_get(pass, keys).map(pairs),
            What::Scan(scan) => self.reads.scan(pass, scan).map(pairs),
            What::BatchScan(scans) => self.reads.batch_scan(pass, scans).map(pairs),
        };
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
