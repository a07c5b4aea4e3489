//! One process: its disk, its clock, its raft workers, and what it is there for.
//!
//! The counterpart of the production shell's worker (`consensus/src/node/worker.rs`): events go
//! into the shard, its effects are run in the order of their fields. What takes time there takes
//! virtual time here, and anything may happen in between: a write and its sync, committed entries
//! and their application, an index and the read that waited for it.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::engine::{Cf, Direction, Engine, EngineError, MemoryEngine};
use quorate_consensus::node::{SnapshotSource, raft_logger};
use quorate_consensus::shard::{
    self, ApplyTask, Effects, Install, MakeSnapshot, Outgoing, Plane, Shard, conf_of,
};
use quorate_consensus::time::Instant;
use quorate_proto::wire::peer::{Envelope, SnapshotMeta};
use quorate_proto::{NodeId, RegionId};

use super::agenda::MS;
use super::clock::Clock;
use super::cx::Cx;
use super::messages::{Body, Event, Token, Transfer};
use super::mutant::Mutant;
use super::role::{Host, Role};

/// Beats stop when a worker has waited for its disk for so long (as in production).
const STALL: u64 = 300 * MS;
const BEAT: u64 = 100 * MS;
const DUTY: u64 = 50 * MS;
/// Snapshots a process sends at once (as in production).
const SENDING: usize = 2;

/// A process, running or not.
pub(super) struct Process {
    pub(super) id: NodeId,
    pub(super) clock: Clock,
    pub(super) disk: MemoryEngine,
    /// Counts its starts.
    pub(super) life: u64,
    /// It stands still until then.
    pub(super) paused_until: u64,
    pub(super) up: Option<Life>,
}

/// One run of a process.
pub(super) struct Life {
    pub(super) workers: Vec<Worker>,
    pub(super) role: Role,
    incarnation: u64,
    sending: usize,
}

/// One raft worker.
pub(super) struct Worker {
    pub(super) shard: Shard<Token>,
    mail: VecDeque<shard::Event<Token>>,
    turning: bool,
    tick_due: bool,
    writing: Option<(u64, u64)>,
    work: VecDeque<Work>,
    working: bool,
}

/// What the apply thread of a worker does, in this order.
enum Work {
    Apply(Vec<ApplyTask<Token>>),
    Snapshot(MakeSnapshot),
    Install(Install),
    Discard(String),
}

impl Process {
    pub(super) fn new(id: NodeId, clock: Clock) -> Self {
        let disk = MemoryEngine::new();
        Self { id, clock, disk, life: 0, paused_until: 0, up: None }
    }

    pub(super) fn local(&self, cx: &Cx) -> Instant {
        self.clock.read(cx.now())
    }

    /// Starts it from what its disk has.
    pub(super) fn start(&mut self, cx: &mut Cx) -> Result<(), EngineError> {
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
            let options = cx.knobs.raft.clone();
            workers.push(Worker {
                shard: Shard::new(options, engine.clone(), incarnation, raft_logger(), now),
                mail: VecDeque::new(),
                turning: false,
                tick_due: false,
                writing: None,
                work: VecDeque::new(),
                working: false,
            });
            let delay = cx.within((0, cx.knobs.raft.tick_ms * MS));
            cx.after(delay, Event::Tick { node, life, shard });
        }
        let delay = cx.within((0, BEAT));
        cx.after(delay, Event::Beat { node, life });
        cx.after(delay, Event::Duty { node, life });
        self.up = Some(Life { workers, role, incarnation, sending: 0 });
        for group in groups {
            self.mail(shard::Event::Create(Box::new(group)), cx);
        }
        Ok(())
    }

    /// Loses power, or is killed: what was not synced survives in part.
    pub(super) fn crash(&mut self, cx: &mut Cx) {
        self.up = None;
        let mut kept = (0, 0);
        self.disk = self.disk.crash(|unsynced| {
            kept = (cx.within((0, unsynced as u64)), unsynced as u64);
            kept.0 as usize
        });
        if cx.is(Mutant::AppliedWithoutData) {
            super::role::lose_data(&self.disk, cx);
        }
        cx.note(format_args!(
            "{} dies; {} of {} unsynced batches survive",
            self.id, kept.0, kept.1
        ));
    }

    /// True where the event belongs to this run of the process.
    pub(super) fn lives(&self, life: u64) -> bool {
        self.up.is_some() && self.life == life
    }

    fn life(&mut self) -> &mut Life {
        self.up.as_mut().expect("only a running process is stepped")
    }

    fn shard_of(&mut self, group: RegionId) -> usize {
        group.0 as usize % self.life().workers.len()
    }

    /// Puts an event into the mailbox it belongs to.
    pub(super) fn mail(&mut self, event: shard::Event<Token>, cx: &mut Cx) {
        use shard::Event as E;
        let group = match &event {
            E::Message { envelope, .. } => RegionId(envelope.group),
            E::Propose { group, .. }
            | E::Read { group, .. }
            | E::RenewLease { group }
            | E::TransferLeader { group, .. }
            | E::Destroy { group }
            | E::Applied { group, .. }
            | E::SnapshotTaken { group, .. }
            | E::SnapshotSent { group, .. }
            | E::Installed { group, .. } => *group,
            E::Create(new) => new.group,
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
            let delay = cx.within((0, MS / 10));
            cx.after(delay, Event::Turn { node, life, shard });
        }
    }

    pub(super) fn beat_from(&mut self, from: NodeId, incarnation: u64, cx: &mut Cx) {
        for shard in 0..self.life().workers.len() {
            let event = shard::Event::Beat { from, incarnation };
            self.life().workers[shard].mail.push_back(event);
            self.wake(shard, cx);
        }
    }

    pub(super) fn unreachable(&mut self, to: NodeId, cx: &mut Cx) {
        for shard in 0..self.life().workers.len() {
            self.life().workers[shard].mail.push_back(shard::Event::Unreachable { node: to });
            self.wake(shard, cx);
        }
    }

    /// Time for the services' periodic work.
    pub(super) fn duty(&mut self, cx: &mut Cx) {
        let (node, life) = (self.id, self.life);
        cx.after(self.clock.takes(DUTY), Event::Duty { node, life });
        self.with_role(cx, |role, host| role.duty(host));
    }

    /// A frame of raft messages has arrived.
    pub(super) fn frame(&mut self, from: NodeId, envelopes: Vec<Envelope>, cx: &mut Cx) {
        for envelope in envelopes {
            self.mail(shard::Event::Message { from, envelope: Box::new(envelope) }, cx);
        }
    }

    pub(super) fn tick(&mut self, shard: usize, cx: &mut Cx) {
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

    pub(super) fn beat(&mut self, cx: &mut Cx) {
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
            cx.send(node, to, Plane::Control, Body::Beat(incarnation));
        }
    }

    /// A worker looks at its mail.
    pub(super) fn turn(&mut self, shard: usize, cx: &mut Cx) -> Result<(), EngineError> {
        let now = self.local(cx);
        let blocking = cx.knobs.blocking;
        let worker = &mut self.life().workers[shard];
        worker.turning = false;
        if worker.writing.is_some() && blocking {
            // The thread waits for the disk: its mailbox fills.
            return Ok(());
        }
        while let Some(event) = worker.mail.pop_front() {
            worker.shard.step(event, now);
        }
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

    fn run(
        &mut self,
        shard: usize,
        effects: Effects<Token>,
        cx: &mut Cx,
    ) -> Result<(), EngineError> {
        let (node, life, now) = (self.id, self.life, cx.now());
        self.send(effects.send, cx);
        for (token, reply) in effects.replies {
            self.with_role(cx, |role, host| role.reply(token, reply, host));
        }
        for change in effects.leaders {
            cx.checks.leader(&change);
            if change.is_local {
                cx.note(format_args!("{node} leads {} in {}", change.group, change.term));
            }
            self.with_role(cx, |role, _| role.leader_changed(change));
        }
        for stranger in effects.strangers {
            self.with_role(cx, |role, host| role.stranger(stranger, host));
        }
        let worker = &mut self.life().workers[shard];
        if !effects.apply.is_empty() {
            worker.work.push_back(Work::Apply(effects.apply));
        }
        worker.work.extend(effects.snapshots.into_iter().map(Work::Snapshot));
        worker.work.extend(effects.installs.into_iter().map(Work::Install));
        worker.work.extend(effects.discards.into_iter().map(Work::Discard));
        self.go_on_working(shard, cx);
        if let Some(persist) = effects.persist {
            let (number, sync) = (persist.number, persist.sync);
            self.disk.write(persist.batch)?;
            let mut takes = if sync { cx.within(cx.knobs.sync) } else { cx.within((0, MS / 10)) };
            if cx.net.bad && cx.chance(cx.knobs.stall) {
                takes += cx.within((100 * MS, 2_000 * MS));
            }
            self.life().workers[shard].writing = Some((number, now));
            if cx.is(Mutant::PersistedBeforeSync) && sync {
                let worker = &mut self.life().workers[shard];
                worker.writing = None;
                worker.shard.persisted(number);
                self.wake(shard, cx);
            }
            cx.after(takes, Event::Synced { node, life, shard, number, sync });
        }
        Ok(())
    }

    fn send(&mut self, messages: Vec<Outgoing>, cx: &mut Cx) {
        let mut frames: Vec<((NodeId, Plane), Vec<Envelope>)> = Vec::new();
        for message in messages {
            let e = &message.envelope;
            cx.note(format_args!(
                "{}→{} r{} kind {} t{} i{} c{} n{} {}",
                self.id,
                message.to,
                e.group,
                e.kind,
                e.term,
                e.index,
                e.commit,
                e.entries.len(),
                e.reject
            ));
            let key = (message.to, message.plane);
            match frames.iter_mut().find(|(known, _)| *known == key) {
                Some((_, envelopes)) => envelopes.push(message.envelope),
                None => frames.push((key, vec![message.envelope])),
            }
        }
        for ((to, plane), envelopes) in frames {
            cx.frame((self.id, self.life), to, plane, envelopes);
        }
    }

    /// A write has had its time.
    pub(super) fn synced(
        &mut self,
        shard: usize,
        number: u64,
        sync: bool,
        cx: &mut Cx,
    ) -> Result<(), EngineError> {
        if sync {
            if cx.net.bad && cx.chance(cx.knobs.sync_failure) {
                cx.note(format_args!("{} cannot sync", self.id));
                self.disk.fail_next_sync();
            }
            if !(cx.is(Mutant::SkippedSync) && number.is_multiple_of(5)) {
                self.disk.sync()?;
            }
        }
        let worker = &mut self.life().workers[shard];
        if worker.writing.is_some_and(|(writing, _)| writing == number) {
            worker.writing = None;
            worker.shard.persisted(number);
        }
        self.wake(shard, cx);
        Ok(())
    }

    fn go_on_working(&mut self, shard: usize, cx: &mut Cx) {
        let (node, life) = (self.id, self.life);
        let worker = &mut self.life().workers[shard];
        if !worker.working && !worker.work.is_empty() {
            worker.working = true;
            let delay = cx.within(cx.knobs.apply);
            cx.after(delay, Event::Work { node, life, shard });
        }
    }

    /// The next of what a worker has to apply, install or read.
    pub(super) fn work(&mut self, shard: usize, cx: &mut Cx) -> Result<(), EngineError> {
        let worker = &mut self.life().workers[shard];
        worker.working = false;
        match worker.work.pop_front() {
            Some(Work::Apply(tasks)) => self.apply(tasks, cx)?,
            Some(Work::Snapshot(make)) => self.make_snapshot(make, cx)?,
            Some(Work::Install(install)) => self.install(install, cx)?,
            Some(Work::Discard(name)) => self.disk.discard_staged(&name)?,
            None => {}
        }
        self.go_on_working(shard, cx);
        Ok(())
    }

    fn apply(&mut self, tasks: Vec<ApplyTask<Token>>, cx: &mut Cx) -> Result<(), EngineError> {
        let node = self.id;
        for task in &tasks {
            cx.checks.entries(node, task);
        }
        let outcome = self.with_role(cx, |role, host| role.apply(tasks, host))?;
        for new in outcome.created {
            self.mail(shard::Event::Create(Box::new(new)), cx);
        }
        for progress in outcome.progress {
            let (group, index, term) = (progress.group, progress.index, progress.term);
            cx.note(format_args!("{node} {group} applied {index}"));
            self.mail(shard::Event::Applied { group, index, term }, cx);
        }
        Ok(())
    }

    fn make_snapshot(&mut self, make: MakeSnapshot, cx: &mut Cx) -> Result<(), EngineError> {
        let (group, to, life) = (make.group, make.to, self.life);
        let source = self.with_role(cx, |role, _| role.snapshot(group))?;
        let full = self.life().sending >= SENDING;
        let Some(source) = source.filter(|source| source.index >= make.at_least && !full) else {
            self.mail(shard::Event::SnapshotSent { group, to, delivered: false }, cx);
            return Ok(());
        };
        let index = source.index;
        self.mail(shard::Event::SnapshotTaken { group, to, index }, cx);
        let transfer = self.transfer(make, source, cx)?;
        self.life().sending += 1;
        let (from, to) = (self.id, transfer.make.node);
        let takes = cx.within((MS, 800 * MS));
        cx.note(format_args!("{from}→{to} snapshot {}", transfer.message.group));
        let body = Body::Snapshot(Box::new(Transfer { life, ..transfer }));
        let packet = super::messages::Packet { from, to, body };
        cx.after(takes, Event::Packet(Box::new(packet)));
        Ok(())
    }

    fn transfer(
        &mut self,
        make: MakeSnapshot,
        source: SnapshotSource,
        cx: &Cx,
    ) -> Result<Transfer, EngineError> {
        let id =
            format!("{}-{}-{}-{:x}", make.group, make.to, source.index.0, self.life().incarnation);
        let message = Envelope {
            group: make.group.0,
            from_peer: make.from.0,
            to_peer: make.to.0,
            kind: raft::eraftpb::MessageType::MsgSnapshot as u32,
            term: make.term.0,
            snapshot: Some(SnapshotMeta {
                id,
                index: source.index.0,
                term: source.term.0,
                conf: Some(conf_of(&source.members)),
                state: source.state.clone(),
            }),
            ..Envelope::default()
        };
        let mut pairs = Vec::new();
        let (start, end) = (&source.start, &source.end);
        source.reader.scan(Cf::Data, start, end, Direction::Forward, &mut |key, value| {
            pairs.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            ControlFlow::Continue(())
        })?;
        let _ = cx;
        Ok(Transfer { make, life: 0, message, pairs })
    }

    /// A transfer of ours has ended, one way or the other.
    pub(super) fn sent(&mut self, make: &MakeSnapshot, delivered: bool, cx: &mut Cx) {
        let life = self.life();
        life.sending = life.sending.saturating_sub(1);
        let (group, to) = (make.group, make.to);
        self.mail(shard::Event::SnapshotSent { group, to, delivered }, cx);
    }

    /// All of a snapshot is here. False where it is not wanted.
    pub(super) fn receive(
        &mut self,
        from: NodeId,
        transfer: &Transfer,
        cx: &mut Cx,
    ) -> Result<bool, EngineError> {
        let Some(meta) = &transfer.message.snapshot else { return Ok(false) };
        let admitted = self.with_role(cx, |role, _| role.admit_snapshot(&transfer.message));
        if !admitted {
            return Ok(false);
        }
        let mut stage = self.disk.stage(&meta.id)?;
        for (key, value) in &transfer.pairs {
            stage.put(key, value)?;
        }
        stage.finish()?;
        self.frame(from, vec![transfer.message.clone()], cx);
        Ok(true)
    }

    fn install(&mut self, install: Install, cx: &mut Cx) -> Result<(), EngineError> {
        let (group, index) = (install.group, install.index);
        let before = self.disk.unsynced();
        if cx.net.bad && cx.chance(cx.knobs.sync_failure * 20.0) {
            cx.note(format_args!("{} cannot sync", self.id));
            self.disk.fail_next_sync();
        }
        let members = self.with_role(cx, |role, host| role.install(install, host))?;
        cx.note(format_args!("{} installed {group} at {index} after {before}", self.id));
        cx.checks.installs += 1;
        self.mail(shard::Event::Installed { group, index, members }, cx);
        Ok(())
    }

    /// Runs something of the process's services, then mails what they want from the groups.
    pub(super) fn with_role<R>(
        &mut self,
        cx: &mut Cx,
        act: impl FnOnce(&mut Role, &mut Host<'_>) -> R,
    ) -> R {
        let now = self.local(cx);
        let (node, life) = (self.id, self.life);
        let up = self.up.as_mut().expect("only a running process is stepped");
        let mut host = Host { node, life, now, cx, disk: &self.disk, mail: Vec::new() };
        let result = act(&mut up.role, &mut host);
        let mail = host.mail;
        for event in mail {
            self.mail(event, cx);
        }
        result
    }
}
