//! The sender's side: whose turn it is, and where each chunk of a transfer begins.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::{NodeId, RegionId, Term};

use crate::shard::MakeSnapshot;
use crate::time::Instant;

/// Jobs that may wait. Placement orders far fewer; beyond, Raft is told at once and asks again.
const CAPACITY: usize = 4_096;
/// Between two attempts of a broken transfer: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A job's place in the line: smaller ones go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(crate) u64);

/// See the module.
#[derive(Debug)]
pub(crate) struct SendQueue {
    places: usize,
    patience: Duration,
    tickets: u64,
    jobs: BTreeMap<Ticket, Job>,
    /// Receivers that had no place: not to be asked before then.
    busy: BTreeMap<NodeId, Instant>,
}

#[derive(Debug)]
struct Job {
    make: MakeSnapshot,
    state: State,
    /// Attempts since the receiver last took a chunk.
    attempts: u32,
    /// When it last took one; `None` where it never did.
    progress: Option<Instant>,
    /// How often the receiver has answered that it is busy with others.
    answers: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Waiting { until: Instant },
    Running,
}

/// What to do about a transfer that broke off.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It keeps its turn and goes on later.
    Retry,
    /// It has taken too long, or had not begun: tell Raft.
    GiveUp,
}

impl SendQueue {
    /// `patience`: how long a broken transfer may make no progress.
    pub(crate) fn new(places: usize, patience: Duration) -> Self {
        let (jobs, busy) = (BTreeMap::new(), BTreeMap::new());
        Self { places, patience, tickets: 0, jobs, busy }
    }

    /// Raft wants a snapshot sent. A job for the same receiver is overtaken: its ticket is
    /// returned, and where it was running it must be stopped. `Err`: too many wait.
    pub(crate) fn ask(&mut self, make: MakeSnapshot) -> Result<Option<Ticket>, MakeSnapshot> {
        let same = |job: &Job| job.make.group == make.group && job.make.to == make.to;
        let old = self.jobs.iter().find(|(_, job)| same(job)).map(|(ticket, _)| *ticket);
        if old.is_none() && self.jobs.len() >= CAPACITY {
            return Err(make);
        }
        if let Some(old) = old {
            self.jobs.remove(&old);
        }
        self.tickets += 1;
        let state = State::Waiting { until: Instant::default() };
        let job = Job { make, state, attempts: 0, progress: None, answers: 0 };
        self.jobs.insert(Ticket(self.tickets), job);
        Ok(old)
    }

    /// The next job to run now, if there is a place; it takes the place.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(Ticket, MakeSnapshot)> {
        self.busy.retain(|_, until| *until > now);
        if self.running() >= self.places {
            return None;
        }
        let busy = &self.busy;
        let (ticket, job) = self.jobs.iter_mut().find(|(_, job)| match job.state {
            State::Waiting { until } => until <= now && !busy.contains_key(&job.make.node),
            State::Running => false,
        })?;
        job.state = State::Running;
        Some((*ticket, job.make.clone()))
    }

    /// When [`SendQueue::next`] may have something that it has not now; `None`: not before a job
    /// ends or is added.
    pub(crate) fn next_time(&self) -> Option<Instant> {
        if self.running() >= self.places {
            return None;
        }
        let waits = |job: &Job| match job.state {
            State::Waiting { until } => {
                let busy = self.busy.get(&job.make.node).copied().unwrap_or_default();
                Some(until.max(busy))
            }
            State::Running => None,
        };
        self.jobs.values().filter_map(waits).min()
    }

    /// The receiver had no place. The job keeps its turn; nothing is sent to that receiver for
    /// `wait`.
    pub(crate) fn busy(&mut self, ticket: Ticket, wait: Duration, now: Instant) -> Broken {
        let until = now + wait;
        let Some(job) = self.jobs.get_mut(&ticket) else { return Broken::GiveUp };
        self.busy.insert(job.make.node, until);
        job.state = State::Waiting { until };
        job.answers += 1;
        if job.progress.is_some_and(|at| now.since(at) >= self.patience) {
            self.jobs.remove(&ticket);
            return Broken::GiveUp;
        }
        Broken::Retry
    }

    /// The receiver took a chunk.
    pub(crate) fn progressed(&mut self, ticket: Ticket, now: Instant) {
        if let Some(job) = self.jobs.get_mut(&ticket) {
            job.attempts = 0;
            job.progress = Some(now);
        }
    }

    /// The connection broke, or the receiver found a damaged chunk.
    pub(crate) fn broke(&mut self, ticket: Ticket, now: Instant) -> Broken {
        let patience = self.patience;
        let Some(job) = self.jobs.get_mut(&ticket) else { return Broken::GiveUp };
        match job.progress {
            Some(at) if now.since(at) < patience => {
                let wait = BACKOFF.0 * 2_u32.saturating_pow(job.attempts.min(16));
                job.attempts += 1;
                job.state = State::Waiting { until: now + wait.min(BACKOFF.1) };
                Broken::Retry
            }
            Some(_) | None => {
                self.jobs.remove(&ticket);
                Broken::GiveUp
            }
        }
    }

    /// It ended, one way or the other.
    pub(crate) fn ended(&mut self, ticket: Ticket) {
        self.jobs.remove(&ticket);
    }

    /// Leadership of a group changed: what earlier terms wanted sent, or this one where its leader
    /// has stepped down, is not wanted any more. Returns the tickets of those jobs, to be stopped.
    pub(crate) fn outdated(&mut self, group: RegionId, term: Term, leads: bool) -> Vec<Ticket> {
        let old = |job: &Job| {
            job.make.group == group && (job.make.term < term || (job.make.term == term && !leads))
        };
        let tickets: Vec<Ticket> =
            self.jobs.iter().filter(|(_, job)| old(job)).map(|(ticket, _)| *ticket).collect();
        self.jobs.retain(|_, job| !old(job));
        tickets
    }

    /// Jobs that hold a place.
    pub(crate) fn running(&self) -> usize {
        self.jobs.values().filter(|job| job.state == State::Running).count()
    }

    /// How often the receiver of a job has answered that it is busy with others.
    pub(crate) fn answers(&self, ticket: Ticket) -> u64 {
        self.jobs.get(&ticket).map_or(0, |job| job.answers)
    }

    /// All jobs, by turn.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = (Ticket, &MakeSnapshot, bool)> {
        self.jobs.iter().map(|(ticket, job)| (*ticket, &job.make, job.state == State::Running))
    }
}

/// Where a chunk begins, and what lies before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// First key it may have.
    pub(crate) start: Bytes,
    /// Records before it.
    pub(crate) records: u64,
    /// Bytes of chunks before it.
    pub(crate) bytes: u64,
    /// Digest of the chunks before it.
    pub(crate) digest: u32,
}

/// Where every chunk of a transfer begins, as far as it was read: a receiver may ask for any of
/// them again. A few dozen bytes for each 256 KiB.
#[derive(Debug)]
pub(crate) struct Marks(Vec<Mark>);

impl Marks {
    /// Nothing was read yet.
    pub(crate) fn new(start: Bytes) -> Self {
        Self(vec![Mark { start, records: 0, bytes: 0, digest: 0 }])
    }

    /// Where chunk `sequence` begins; `None` where nobody has read so far.
    pub(crate) fn at(&self, sequence: u64) -> Option<&Mark> {
        self.0.get(usize::try_from(sequence).ok()?)
    }

    /// Chunk `sequence` was read; the next one begins at `next`.
    pub(crate) fn read(&mut self, sequence: u64, next: Mark) {
        let at = sequence as usize + 1;
        // Read again, it is the same: the picture does not change.
        if at == self.0.len() {
            self.0.push(next);
        }
    }
}

#[cfg(test)]
#[path = "sending_tests.rs"]
mod tests;
