//! The sender's side: whose turn it is, and what follows from how an attempt ended.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_proto::wire::peer::snapshot_answer::Answer;
use quorate_proto::wire::peer::{SnapshotAnswer, SnapshotBusy, SnapshotResult};
use quorate_proto::{NodeId, RegionId, Term};

use crate::shard::MakeSnapshot;
use crate::time::Instant;

/// Jobs that may wait. Placement orders far fewer; beyond, Raft is told at once and asks again.
const CAPACITY: usize = 4_096;
/// Between two attempts of a broken transfer: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Raft asks again at once for what was not delivered; this long it is not told.
const COOLING: Duration = Duration::from_millis(500);

/// A job's place in the line: smaller ones go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// See the module.
#[derive(Debug)]
pub struct SendQueue {
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
enum Broken {
    /// It keeps its turn and goes on later.
    Retry,
    /// It has taken too long, or had not begun: tell Raft.
    GiveUp,
}

/// How an attempt to deliver a snapshot ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has everything and has handed it to its group.
    Delivered,
    /// It has no place.
    Busy(Duration),
    /// It does not want it.
    Refused(String),
    /// The connection broke, or a chunk arrived damaged.
    Broken(String),
    /// Nobody wants it sent any more.
    Stopped,
}

impl Outcome {
    /// What an answer says that ends a call; one that does not end it comes out of order.
    pub fn of(answer: SnapshotAnswer) -> Self {
        match answer.answer {
            Some(Answer::Result(SnapshotResult { accepted: true, .. })) => Self::Delivered,
            Some(Answer::Result(SnapshotResult { reason, .. })) => Self::Refused(reason),
            Some(Answer::Busy(SnapshotBusy { retry_after_ms })) => {
                Self::Busy(Duration::from_millis(retry_after_ms))
            }
            Some(Answer::GoOn(_)) | None => Self::Broken("an answer out of order".to_owned()),
        }
    }
}

/// What follows from how an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The job keeps its turn. `keep`: it goes on with the same picture. Otherwise nothing was
    /// received yet: a newer one is as good, and this one would hold back the engine meanwhile.
    Again {
        /// The picture stays.
        keep: bool,
    },
    /// The job has ended: tell Raft, once so long has passed.
    Tell {
        /// Whether the snapshot was delivered.
        delivered: bool,
        /// From now on.
        wait: Duration,
    },
    /// Nobody waits for it.
    Nothing,
}

impl SendQueue {
    /// `patience`: how long a broken transfer may make no progress.
    pub fn new(places: usize, patience: Duration) -> Self {
        let (jobs, busy) = (BTreeMap::new(), BTreeMap::new());
        Self { places, patience, tickets: 0, jobs, busy }
    }

    /// Raft wants a snapshot sent. A job for the same receiver is overtaken: its ticket is
    /// returned, and where it was running it must be stopped. `Err`: too many wait.
    pub fn ask(&mut self, make: MakeSnapshot) -> Result<Option<Ticket>, MakeSnapshot> {
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
    pub fn next(&mut self, now: Instant) -> Option<(Ticket, MakeSnapshot)> {
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
    pub fn next_time(&self) -> Option<Instant> {
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
    fn busy(&mut self, ticket: Ticket, wait: Duration, now: Instant) -> Broken {
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

    /// The receiver has given it a place, or took a chunk.
    pub fn progressed(&mut self, ticket: Ticket, now: Instant) {
        if let Some(job) = self.jobs.get_mut(&ticket) {
            job.attempts = 0;
            job.progress = Some(now);
        }
    }

    /// The connection broke, or the receiver found a damaged chunk.
    fn broke(&mut self, ticket: Ticket, now: Instant) -> Broken {
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

    /// An attempt ended. `has_picture`: what was to be sent is still there.
    pub fn attempted(
        &mut self,
        ticket: Ticket,
        outcome: &Outcome,
        has_picture: bool,
        now: Instant,
    ) -> After {
        let next = match outcome {
            Outcome::Delivered | Outcome::Refused(_) => {
                self.ended(ticket);
                Broken::GiveUp
            }
            Outcome::Busy(wait) => self.busy(ticket, *wait, now),
            Outcome::Broken(_) if has_picture => self.broke(ticket, now),
            Outcome::Broken(_) => {
                self.ended(ticket);
                Broken::GiveUp
            }
            Outcome::Stopped => return After::Nothing,
        };
        match next {
            Broken::Retry => {
                let begun = self.jobs.get(&ticket).is_some_and(|job| job.progress.is_some());
                After::Again { keep: has_picture && begun }
            }
            Broken::GiveUp => {
                let delivered = *outcome == Outcome::Delivered;
                let wait = if delivered { Duration::ZERO } else { COOLING };
                After::Tell { delivered, wait }
            }
        }
    }

    /// It ended, one way or the other.
    pub fn ended(&mut self, ticket: Ticket) {
        self.jobs.remove(&ticket);
    }

    /// Leadership of a group changed: what earlier terms wanted sent, or this one where its leader
    /// has stepped down, is not wanted any more. Returns the tickets of those jobs, to be stopped.
    pub fn outdated(&mut self, group: RegionId, term: Term, leads: bool) -> Vec<Ticket> {
        let old = |job: &Job| {
            job.make.group == group && (job.make.term < term || (job.make.term == term && !leads))
        };
        let tickets: Vec<Ticket> =
            self.jobs.iter().filter(|(_, job)| old(job)).map(|(ticket, _)| *ticket).collect();
        self.jobs.retain(|_, job| !old(job));
        tickets
    }

    /// Jobs that hold a place.
    pub fn running(&self) -> usize {
        self.jobs.values().filter(|job| job.state == State::Running).count()
    }

    /// How often the receiver of a job has answered that it is busy with others.
    pub fn answers(&self, ticket: Ticket) -> u64 {
        self.jobs.get(&ticket).map_or(0, |job| job.answers)
    }

    /// All jobs, by turn.
    pub fn jobs(&self) -> impl Iterator<Item = (Ticket, &MakeSnapshot, bool)> {
        self.jobs.iter().map(|(ticket, job)| (*ticket, &job.make, job.state == State::Running))
    }
}

#[cfg(test)]
#[path = "sending_tests.rs"]
mod tests;
