//! One raft worker: a thread that drains its mailbox, steps the shard, and runs its effects.
//!
//! It also writes and applies. On a small machine one thread that does all three wakes up less
//! often than three that hand over to each other, and while it waits for a sync its mailbox fills:
//! that is the group commit. It never waits while there is something to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{NodeId, PeerId, RegionId};

use super::links::Links;
use super::mailbox::{Mail, Mailbox, Mailboxes};
use super::transmit::Transmitter;
use super::{Counters, Installed, Machine, Replies, clock};
use crate::engine::{Engine, EngineError};
use crate::shard::{ApplyTask, Effects, Event, Install, MakeSnapshot, Shard};
use crate::time::Instant;
use crate::transfer::Ticket;

/// What a worker tells the rest of the node.
#[derive(Default)]
pub(super) struct Pulse {
    /// When it last went round its loop.
    pub(super) at: AtomicU64,
    /// Whom it shares groups with.
    pub(super) neighbours: Mutex<Vec<NodeId>>,
    /// Those among them that are silent.
    pub(super) silent: Mutex<Vec<NodeId>>,
    /// Groups hosted.
    pub(super) groups: AtomicU64,
    /// Groups awake.
    pub(super) awake: AtomicU64,
}

pub(super) struct Worker<M: Machine> {
    pub(super) number: usize,
    pub(super) shard: Shard<M::Token>,
    pub(super) mailbox: Arc<Mailbox<M::Token>>,
    pub(super) mailboxes: Arc<Mailboxes<M::Token>>,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) machine: Arc<Mutex<M>>,
    pub(super) replies: Arc<dyn Replies<M::Token>>,
    pub(super) links: Arc<Links>,
    pub(super) transmitter: Arc<Transmitter>,
    pub(super) counters: Arc<Counters>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) tick: Duration,
}

impl<M: Machine> Worker<M> {
    /// Runs until told to stop, or until the engine fails.
    pub(super) fn run(mut self) -> Result<(), EngineError> {
        let mut next_tick = clock::now() + self.tick;
        let mut stopping = false;
        let mut mails = Vec::new();
        loop {
            let idle = !self.shard.has_work() && !stopping;
            let wait = idle.then(|| next_tick.since(clock::now()));
            self.mailbox.take(&mut mails, wait);
            let now = clock::now();
            self.pulse.at.store(now.0, Ordering::Relaxed);
            self.shard.tell_time(self.replies.placement_ms(now));
            for mail in mails.drain(..) {
                stopping |= self.take(mail, now)?;
            }
            if now >= next_tick {
                // Ticks that were missed stay missed: a paused process must not believe that its
                // leader was silent all the time.
                next_tick = now + self.tick;
                self.shard.step(Event::Tick, now);
                self.tell();
            }
            let effects = self.shard.collect(now);
            self.run_effects(effects)?;
            if stopping && !self.shard.has_work() && self.mailbox.is_empty() {
                return Ok(());
            }
        }
    }

    fn take(&mut self, mail: Mail<M::Token>, now: Instant) -> Result<bool, EngineError> {
        match mail {
            Mail::Event(event) => {
                self.count(&event);
                self.shard.step(event, now);
            }
            Mail::Frame(from, envelopes) => {
                for envelope in envelopes {
                    if self.admits(&envelope) {
                        let envelope = Box::new(envelope);
                        self.shard.step(Event::Message { from, envelope }, now);
                    }
                }
            }
            Mail::Snapshot(ticket, make) => self.take_picture(ticket, make)?,
            Mail::Stop => return Ok(true),
        }
        Ok(false)
    }

    /// A snapshot was admitted when its first chunk came; the regions around may have changed
    /// since.
    fn admits(&self, envelope: &Envelope) -> bool {
        let Some(meta) = &envelope.snapshot else { return true };
        let Err(reason) = self.replies.admit_snapshot(envelope) else { return true };
        tracing::info!(group = %RegionId(envelope.group), %reason, "dropped a snapshot");
        if let Err(error) = self.engine.discard_staged(&meta.id) {
            tracing::warn!(id = %meta.id, %error, "could not remove a snapshot nobody wants");
        }
        false
    }

    fn count(&self, event: &Event<M::Token>) {
        match event {
            Event::Propose { .. } | Event::ChangeMembers { .. } => self.counters.proposals.add(1),
            Event::Read { .. } => self.counters.read_indexes.add(1),
            Event::Tick
            | Event::Message { .. }
            | Event::Beat { .. }
            | Event::RenewLease { .. }
            | Event::TransferLeader { .. }
            | Event::Create(_)
            | Event::Destroy { .. }
            | Event::Reconfigured(_)
            | Event::Applied { .. }
            | Event::SnapshotTaken { .. }
            | Event::SnapshotSent { .. }
            | Event::Installed { .. }
            | Event::Unreachable { .. } => {}
        }
    }

    fn tell(&self) {
        let (groups, awake) = self.shard.counts();
        self.pulse.groups.store(groups as u64, Ordering::Relaxed);
        self.pulse.awake.store(awake as u64, Ordering::Relaxed);
        let mut neighbours = self.pulse.neighbours.lock();
        neighbours.clear();
        neighbours.extend(self.shard.neighbours());
        let mut silent = self.pulse.silent.lock();
        silent.clear();
        silent.extend(self.shard.silent());
    }

    fn run_effects(&mut self, effects: Effects<M::Token>) -> Result<(), EngineError> {
        if let Some(error) = self.shard.take_failure() {
            return Err(error);
        }
        if !effects.send.is_empty() {
            self.links.send(effects.send);
        }
        for (token, reply) in effects.replies {
            self.replies.reply(token, reply);
        }
        for change in effects.leaders {
            self.counters.leader_changes.add(1);
            self.transmitter.leader_changed(&change);
            self.replies.leader_changed(change);
        }
        let gone = |stranger| self.replies.stranger(stranger);
        let answers: Vec<_> = effects.strangers.into_iter().filter_map(gone).collect();
        if !answers.is_empty() {
            self.links.send(answers);
        }
        if !effects.truncated.is_empty() {
            self.counters.log_truncations.add(effects.truncated.len() as u64);
            self.counters.log_truncated_entries.add(effects.truncated.iter().sum());
        }
        // Somebody waits for what this process proposed; the rest can be applied after the write.
        let (waited_for, rest): (Vec<_>, Vec<_>) = effects
            .apply
            .into_iter()
            .partition(|task| task.entries.iter().any(|entry| !entry.tokens.is_empty()));
        self.apply(waited_for)?;
        if let Some(persist) = effects.persist {
            let began = clock::now();
            if !persist.batch.is_empty() {
                self.counters.log_writes.add(1);
                if persist.sync {
                    self.engine.write_synced(persist.batch)?;
                    self.counters.log_syncs.add(1);
                } else {
                    self.engine.write(persist.batch)?;
                }
            }
            let done = clock::now();
            self.counters.log_nanos.add(done.since(began).as_nanos() as u64);
            self.pulse.at.store(done.0, Ordering::Relaxed);
            self.shard.persisted(persist.number);
        }
        self.apply(rest)?;
        for make in effects.snapshots {
            self.make_snapshot(make);
        }
        for install in effects.installs {
            self.install(install)?;
        }
        for told in effects.merged {
            let gone = self.machine.lock().merged(told)?;
            self.stop_hosting(gone);
        }
        for (group, peer) in effects.destroyed {
            self.machine.lock().destroy(group, peer)?;
            tracing::info!(%group, %peer, "removed a replica");
        }
        for id in effects.discards {
            if let Err(error) = self.engine.discard_staged(&id) {
                tracing::warn!(%id, %error, "could not remove a snapshot nobody wants");
            }
        }
        Ok(())
    }

    fn apply(&mut self, tasks: Vec<ApplyTask<M::Token>>) -> Result<(), EngineError> {
        if tasks.is_empty() {
            return Ok(());
        }
        let entries: usize = tasks.iter().map(|task| task.entries.len()).sum();
        self.counters.applied_entries.add(entries as u64);
        let outcome = self.machine.lock().apply(tasks)?;
        let now = clock::now();
        for new in outcome.created {
            if self.mailboxes.worker_of(new.group) == self.number {
                self.shard.step(Event::Create(Box::new(new)), now);
            } else {
                self.mailboxes.tell(new.group, Event::Create(Box::new(new)));
            }
        }
        for change in outcome.reconfigured {
            let group = change.group;
            self.shard.step(Event::Reconfigured(change), now);
            self.replies.changed(group);
        }
        self.stop_hosting(outcome.merged);
        for group in outcome.changed {
            self.replies.changed(group);
        }
        for progress in outcome.progress {
            let (group, index, term) = (progress.group, progress.index, progress.term);
            self.shard.step(Event::Applied { group, index, term }, now);
        }
        Ok(())
    }

    /// These groups were taken in by another one. Each is told on its own worker.
    fn stop_hosting(&mut self, merged: Vec<(RegionId, PeerId)>) {
        for (group, peer) in merged {
            let event = Event::Destroy { group, peer };
            if self.mailboxes.worker_of(group) == self.number {
                self.shard.step(event, clock::now());
            } else {
                self.mailboxes.tell(group, event);
            }
        }
    }

    /// Whoever wants it gets it in turn; the receiver would get nothing more for the rest of the
    /// term if the outcome were lost.
    fn make_snapshot(&mut self, make: MakeSnapshot) {
        let (group, to) = (make.group, make.to);
        if !self.transmitter.ask(make) {
            let event = Event::SnapshotSent { group, to, delivered: false };
            self.shard.step(event, clock::now());
        }
    }

    /// It is this snapshot's turn.
    fn take_picture(&mut self, ticket: Ticket, make: MakeSnapshot) -> Result<(), EngineError> {
        let (group, to) = (make.group, make.to);
        if !self.shard.wants_snapshot(&make) {
            self.transmitter.forget(ticket);
            return Ok(());
        }
        let source = self.machine.lock().snapshot(group)?;
        match source {
            Some(source) if source.index >= make.at_least => {
                let event = Event::SnapshotTaken { group, to, index: source.index };
                self.shard.step(event, clock::now());
                self.transmitter.begin(ticket, make, source);
            }
            Some(_) | None => {
                self.transmitter.forget(ticket);
                let event = Event::SnapshotSent { group, to, delivered: false };
                self.shard.step(event, clock::now());
            }
        }
        Ok(())
    }

    fn install(&mut self, install: Install) -> Result<(), EngineError> {
        let (group, index) = (install.group, install.index);
        let Installed { members, merged } = self.machine.lock().install(install)?;
        self.counters.snapshots_installed.add(1);
        tracing::info!(%group, %index, "installed a snapshot");
        self.shard.step(Event::Installed { group, index, members }, clock::now());
        self.stop_hosting(merged);
        Ok(())
    }
}

impl Pulse {
    /// True where the worker has moved lately.
    pub(super) fn beats(&self, now: Instant, limit: Duration) -> bool {
        now.since(Instant(self.at.load(Ordering::Relaxed))) < limit
    }
}
