//! One process: its disk, its clock, its raft workers, and what it is there for.
//!
//! The counterpart of the production shell's worker (`consensus/src/node/worker.rs`): events go
//! into the shard, its effects are run in the order of their fields. What takes time there takes
//! virtual time here, and anything may happen in between: a write and its sync, committed entries
//! and their application, an index and the read that waited for it.

mod calls;
mod careless;
mod effects;
mod receiving;
pub(crate) mod role;
mod sending;
mod snapshots;

use std::collections::VecDeque;
use std::sync::Arc;

use quorate_consensus::engine::{Engine, EngineError, MemoryEngine};
use quorate_consensus::node::raft_logger;
use quorate_consensus::shard::{self, Shard};
use quorate_consensus::time::Instant;
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{NodeId, RegionId};

use self::effects::Work;
use self::receiving::Receiving;
use self::role::{Host, Role};
use self::sending::Sending;
use crate::sim::agenda::MS;
use crate::sim::chance::{Concern, Lane};
use crate::sim::clock::Clock;
use crate::sim::cx::Cx;
use crate::sim::messages::{Body, Event, Token};
use crate::sim::mutant::Mutant;

/// Beats stop when a worker has waited for its disk for so long (as in production).
const STALL: u64 = 300 * MS;
const BEAT: u64 = 100 * MS;
const DUTY: u64 = 50 * MS;

/// A process, running or not.
pub(crate) struct Process {
    pub(crate) id: NodeId,
    pub(crate) clock: Clock,
    pub(crate) disk: MemoryEngine,
    /// Counts its starts.
    pub(crate) life: u64,
    /// It stands still until then.
    pub(crate) paused_until: u64,
    pub(crate) up: Option<Life>,
}

/// One run of a process.
pub(crate) struct Life {
    pub(crate) workers: Vec<Worker>,
    pub(crate) role: Role,
    incarnation: u64,
    pub(crate) sending: Sending,
    pub(crate) receiving: Receiving,
    /// Snapshots that leave as one message.
    whole: usize,
}

/// One raft worker.
pub(crate) struct Worker {
    pub(crate) shard: Shard<Token>,
    mail: VecDeque<shard::Event<Token>>,
    turning: bool,
    tick_due: bool,
    writing: Option<(u64, u64)>,
    work: VecDeque<Work>,
    working: bool,
}

impl Process {
    pub(crate) fn new(id: NodeId, clock: Clock) -> Self {
        let disk = MemoryEngine::new();
        Self { id, clock, disk, life: 0, paused_until: 0, up: None }
    }

    pub(crate) fn local(&self, cx: &Cx) -> Instant {
        self.clock.read(cx.now())
    }

    /// Starts it from what its disk has.
    pub(crate) fn start(&mut self, cx: &mut Cx) -> Result<(), EngineError> {
        self.life += 1;
        let (node, life) = (self.id, self.life);
        let incarnation = (node.0 << 32) | life;
        let mut now = self.local(cx);
        if cx.is(Mutant::ForgottenPromise) {
            now = Instant(now.0.saturating_sub(10_000 * MS).max(1));
        }
        let (role, groups) = Role::start(node, incarnation, &self.disk, cx)?;
        let engine: Arc<dyn Engine> = Arc::new(self.disk.clone());
        let mut workers = Vec::new();
        for shard in 0..cx.knobs.shards {
            let mut options = cx.knobs.raft.clone();
            if cx.is(Mutant::LeaseOutlivesPromise) {
                options.lease_ms = options.vote_promise_ms * 3 / 2;
            }
            workers.push(Worker {
                shard: Shard::new(options, engine.clone(), incarnation, raft_logger(), now),
                mail: VecDeque::new(),
                turning: false,
                tick_due: false,
                writing: None,
                work: VecDeque::new(),
                working: false,
            });
            let delay = cx.within(Concern::Process(node), (0, cx.knobs.raft.tick_ms * MS));
            cx.after(delay, Event::Tick { node, life, shard });
        }
        let delay = cx.within(Concern::Process(node), (0, BEAT));
        cx.after(delay, Event::Beat { node, life });
        cx.after(delay, Event::Duty { node, life });
        let mut snapshots = cx.knobs.snapshots;
        if role.member().is_some() {
            snapshots.rate *= 100;
        }
        let sending = Sending::new(&snapshots);
        let receiving = Receiving::new(&snapshots, &self.disk, self.local(cx))?;
        self.up = Some(Life { workers, role, incarnation, sending, receiving, whole: 0 });
        for group in groups {
            self.mail(shard::Event::Create(Box::new(group)), cx);
        }
        Ok(())
    }

    /// Loses power, or is killed: what was not synced survives in part.
    pub(crate) fn crash(&mut self, cx: &mut Cx) {
        self.up = None;
        self.paused_until = 0;
        let mut kept = (0, 0);
        self.disk = self.disk.crash(|unsynced| {
            let survives = cx.within(Concern::Disk(self.id), (0, unsynced as u64));
            kept = (survives, unsynced as u64);
            survives as usize
        });
        if cx.is(Mutant::AppliedWithoutData) {
            role::lose_data(self.id, &self.disk, cx);
        }
        cx.note(format_args!(
            "{} dies; {} of {} unsynced batches survive",
            self.id, kept.0, kept.1
        ));
    }

    /// True where the event belongs to this run of the process.
    pub(crate) fn lives(&self, life: u64) -> bool {
        self.up.is_some() && self.life == life
    }

    fn life(&mut self) -> &mut Life {
        self.up.as_mut().expect("only a running process is stepped")
    }

    fn shard_of(&mut self, group: RegionId) -> usize {
        group.0 as usize % self.life().workers.len()
    }

    /// Puts an event into the mailbox it belongs to.
    pub(crate) fn mail(&mut self, event: shard::Event<Token>, cx: &mut Cx) {
        use shard::Event as E;
        let group = match &event {
            E::Message { envelope, .. } => RegionId(envelope.group),
            E::Propose { group, .. }
            | E::ChangeMembers { group, .. }
            | E::Read { group, .. }
            | E::RenewLease { group }
            | E::TransferLeader { group, .. }
            | E::Destroy { group, .. }
            | E::Applied { group, .. }
            | E::SnapshotTaken { group, .. }
            | E::SnapshotSent { group, .. }
            | E::Installed { group, .. } => *group,
            E::Create(new) => new.group,
            E::Reconfigured(change) => change.group,
            E::Tick | E::Beat { .. } | E::Unreachable { .. } => {
                unreachable!("these go to every worker")
            }
        };
        let shard = self.shard_of(group);
        self.life().workers[shard].mail.push_back(event);
        self.wake(shard, cx);
    }

    fn wake(&mut self, shard: usize, cx: &mut Cx) {
        let (node, life) = (self.id, self.life);
        let worker = &mut self.life().workers[shard];
        if !worker.turning {
            worker.turning = true;
            let delay = cx.within(Concern::Process(node), (0, MS / 10));
            cx.after(delay, Event::Turn { node, life, shard });
        }
    }

    pub(crate) fn beat_from(&mut self, from: NodeId, incarnation: u64, cx: &mut Cx) {
        for shard in 0..self.life().workers.len() {
            let event = shard::Event::Beat { from, incarnation };
            self.life().workers[shard].mail.push_back(event);
            self.wake(shard, cx);
        }
    }

    pub(crate) fn unreachable(&mut self, to: NodeId, cx: &mut Cx) {
        for shard in 0..self.life().workers.len() {
            self.life().workers[shard].mail.push_back(shard::Event::Unreachable { node: to });
            self.wake(shard, cx);
        }
    }

    /// Time for the services' periodic work.
    pub(crate) fn duty(&mut self, cx: &mut Cx) {
        let (node, life) = (self.id, self.life);
        cx.after(self.clock.takes(DUTY), Event::Duty { node, life });
        self.with_role(cx, |role, host| role.duty(host));
    }

    /// A frame of raft messages has arrived.
    pub(crate) fn frame(&mut self, from: NodeId, envelopes: Vec<Envelope>, cx: &mut Cx) {
        for envelope in envelopes {
            self.mail(shard::Event::Message { from, envelope: Box::new(envelope) }, cx);
        }
    }

    pub(crate) fn tick(&mut self, shard: usize, cx: &mut Cx) {
        let (node, life) = (self.id, self.life);
        let blocking = cx.knobs.blocking;
        let period = self.clock.takes(cx.knobs.raft.tick_ms * MS);
        cx.after(period, Event::Tick { node, life, shard });
        let now = self.local(cx);
        let worker = &mut self.life().workers[shard];
        if worker.writing.is_some() && blocking {
            worker.tick_due = true;
            return;
        }
        worker.shard.step(shard::Event::Tick, now);
        self.wake(shard, cx);
    }

    pub(crate) fn beat(&mut self, cx: &mut Cx) {
        let (node, life, now) = (self.id, self.life, cx.now());
        cx.after(self.clock.takes(BEAT), Event::Beat { node, life });
        let up = self.life();
        let stalled = |worker: &Worker| {
            worker.writing.is_some_and(|(_, since)| now.saturating_sub(since) >= STALL)
        };
        if up.workers.iter().any(stalled) {
            return;
        }
        let mut to: Vec<NodeId> =
            up.workers.iter().flat_map(|worker| worker.shard.neighbours()).collect();
        to.sort_unstable();
        to.dedup();
        let incarnation = up.incarnation;
        for to in to {
            cx.send(node, to, Lane::Beats, Body::Beat(incarnation));
        }
    }

    /// A worker looks at its mail.
    pub(crate) fn turn(&mut self, shard: usize, cx: &mut Cx) -> Result<(), EngineError> {
        let now = self.local(cx);
        let blocking = cx.knobs.blocking;
        let worker = &mut self.life().workers[shard];
        worker.turning = false;
        if worker.writing.is_some() && blocking {
            // The thread waits for the disk: its mailbox fills.
            return Ok(());
        }
        while let Some(event) = self.life().workers[shard].mail.pop_front() {
            if self.admits(&event, cx)? {
                self.life().workers[shard].shard.step(event, now);
            }
        }
        let worker = &mut self.life().workers[shard];
        if std::mem::take(&mut worker.tick_due) {
            worker.shard.step(shard::Event::Tick, now);
        }
        let effects = worker.shard.collect(now);
        let failure = worker.shard.take_failure();
        if let Some(error) = failure {
            return Err(error);
        }
        self.run(shard, effects, cx)?;
        if self.life().workers[shard].shard.has_work() {
            self.wake(shard, cx);
        }
        Ok(())
    }

    /// Runs something of the process's services, then mails what they want from the groups.
    pub(crate) fn with_role<R>(
        &mut self,
        cx: &mut Cx,
        act: impl FnOnce(&mut Role, &mut Host<'_>) -> R,
    ) -> R {
        let now = self.local(cx);
        let (node, life) = (self.id, self.life);
        let up = self.up.as_mut().expect("only a running process is stepped");
        let mut host = Host { node, life, now, cx, disk: &self.disk, mail: Vec::new(), pause: 0 };
        let result = act(&mut up.role, &mut host);
        let (mail, pause) = (host.mail, host.pause);
        if pause > 0 {
            cx.note(format_args!("{node} stands still for {} ms", pause / MS));
            self.paused_until = self.paused_until.max(cx.now() + pause);
        }
        for event in mail {
            self.mail(event, cx);
        }
        result
    }
}
