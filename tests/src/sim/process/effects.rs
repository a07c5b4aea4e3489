//! What a raft worker's shard wants done, in the order of its effects, and how long it takes.

use quorate_consensus::engine::{Engine, EngineError};
use quorate_consensus::shard::{
    self, ApplyTask, Effects, Install, MakeSnapshot, Merged, Outgoing, Plane,
};
use quorate_consensus::time::Instant;
use quorate_consensus::transfer::Ticket;
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{NodeId, PeerId, RegionId};
use raft::eraftpb::MessageType;

use super::Process;
use crate::sim::agenda::MS;
use crate::sim::chance::Concern;
use crate::sim::cx::Cx;
use crate::sim::messages::{Event, Token};
use crate::sim::mutant::Mutant;

/// What the apply thread of a worker does, in this order.
pub(super) enum Work {
    Apply(Vec<ApplyTask<Token>>),
    /// Read at once, to leave as one message.
    Snapshot(MakeSnapshot),
    /// Read, since its turn has come.
    Picture(Ticket, MakeSnapshot),
    Install(Install),
    Merged(Merged),
    Destroy(RegionId, PeerId),
    Discard(String),
}

impl Process {
    pub(super) fn run(
        &mut self,
        shard: usize,
        effects: Effects<Token>,
        cx: &mut Cx,
    ) -> Result<(), EngineError> {
        let (node, life, now) = (self.id, self.life, cx.now());
        if cx.is(Mutant::LeaseThroughTransfer) {
            self.keep_leases(&effects.send, cx);
        }
        self.send(effects.send, cx);
        for (token, reply) in effects.replies {
            self.with_role(cx, |role, host| role.reply(token, reply, host));
        }
        for change in effects.leaders {
            cx.checks.leader(&change);
            if change.is_local {
                cx.note(format_args!("{node} leads {} in {}", change.group, change.term));
            }
            self.outdated(&change, cx);
            self.with_role(cx, |role, _| role.leader_changed(change));
        }
        let ignored = cx.is(Mutant::StrangersIgnored);
        let mut answers = Vec::new();
        for stranger in effects.strangers.into_iter().filter(|_| !ignored) {
            answers.extend(self.with_role(cx, |role, host| role.stranger(stranger, host)));
        }
        self.send(answers, cx);
        let worker = &mut self.life().workers[shard];
        if !effects.apply.is_empty() {
            worker.work.push_back(Work::Apply(effects.apply));
        }
        let (whole, chunked): (Vec<_>, Vec<_>) =
            effects.snapshots.into_iter().partition(|_| cx.knobs.snapshots.chunk_bytes == 0);
        worker.work.extend(whole.into_iter().map(Work::Snapshot));
        worker.work.extend(effects.installs.into_iter().map(Work::Install));
        worker.work.extend(effects.merged.into_iter().map(Work::Merged));
        worker
            .work
            .extend(effects.destroyed.into_iter().map(|(group, peer)| Work::Destroy(group, peer)));
        worker.work.extend(effects.discards.into_iter().map(Work::Discard));
        self.go_on_working(shard, cx);
        for make in chunked {
            self.ask(make, cx);
        }
        if let Some(persist) = effects.persist {
            let (number, sync) = (persist.number, persist.sync);
            self.disk.write(persist.batch)?;
            let disk = Concern::Disk(node);
            let span = if sync { cx.knobs.sync } else { (0, MS / 10) };
            let mut takes = cx.within(disk, span);
            if cx.net.bad && cx.chance(disk, cx.knobs.stall) {
                takes += cx.within(disk, (100 * MS, 2_000 * MS));
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
            if e.kind == MessageType::MsgRequestPreVote as u32 {
                cx.campaigns.begun(RegionId(e.group), self.id, cx.now());
            }
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

    /// A mutant: who offers leadership away keeps half a lease.
    fn keep_leases(&mut self, messages: &[Outgoing], cx: &Cx) {
        let half = cx.knobs.raft.lease_ms / 2 * MS;
        let until = Instant(self.local(cx).0 + half);
        let offers =
            |message: &&Outgoing| message.envelope.kind == MessageType::MsgTimeoutNow as u32;
        for message in messages.iter().filter(offers) {
            if let Some(view) = self.life().role.view(RegionId(message.envelope.group)) {
                view.grant(until, until);
            }
        }
    }

    /// A write has had its time.
    pub(crate) fn synced(
        &mut self,
        shard: usize,
        number: u64,
        sync: bool,
        cx: &mut Cx,
    ) -> Result<(), EngineError> {
        if sync {
            if cx.net.bad && cx.chance(Concern::Disk(self.id), cx.knobs.sync_failure) {
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

    pub(super) fn go_on_working(&mut self, shard: usize, cx: &mut Cx) {
        let (node, life) = (self.id, self.life);
        let worker = &mut self.life().workers[shard];
        if !worker.working && !worker.work.is_empty() {
            worker.working = true;
            let disk = Concern::Disk(node);
            let mut delay = cx.within(disk, cx.knobs.apply);
            if cx.net.bad && cx.chance(disk, cx.knobs.apply_stall) {
                delay += cx.within(disk, (50 * MS, 1_500 * MS));
            }
            cx.after(delay, Event::Work { node, life, shard });
        }
    }

    /// The next of what a worker has to apply, install or read.
    pub(crate) fn work(&mut self, shard: usize, cx: &mut Cx) -> Result<(), EngineError> {
        let worker = &mut self.life().workers[shard];
        worker.working = false;
        match worker.work.pop_front() {
            Some(Work::Apply(tasks)) => self.apply(tasks, cx)?,
            Some(Work::Snapshot(make)) => self.make_snapshot(make, cx)?,
            Some(Work::Picture(ticket, make)) => self.take_picture(ticket, make, cx)?,
            Some(Work::Install(install)) => self.install(install, cx)?,
            Some(Work::Merged(told)) => {
                let gone = self.with_role(cx, |role, _| role.merged(told));
                self.stop_hosting(gone, cx);
            }
            Some(Work::Destroy(group, peer)) => {
                cx.note(format_args!("{} removes {peer} of {group}", self.id));
                self.with_role(cx, |role, host| role.destroy(group, peer, host))?;
            }
            Some(Work::Discard(name)) => self.disk.discard_staged(&name)?,
            None => {}
        }
        self.go_on_working(shard, cx);
        Ok(())
    }

    /// Each of these groups is told on its own worker.
    pub(super) fn stop_hosting(&mut self, merged: Vec<(RegionId, PeerId)>, cx: &mut Cx) {
        for (group, peer) in merged {
            if cx.is(Mutant::SourceStaysHosted) {
                continue;
            }
            cx.note(format_args!("{} has no {peer} of {group} any more", self.id));
            self.mail(shard::Event::Destroy { group, peer }, cx);
        }
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
        let untold = cx.is(Mutant::ConfigurationUntold);
        for change in outcome.reconfigured.into_iter().filter(|_| !untold) {
            cx.note(format_args!("{node} {}: {:?}", change.group, change.members));
            self.mail(shard::Event::Reconfigured(change), cx);
        }
        self.stop_hosting(outcome.merged, cx);
        for progress in outcome.progress {
            let (group, index, term) = (progress.group, progress.index, progress.term);
            cx.note(format_args!("{node} {group} applied {index}"));
            self.mail(shard::Event::Applied { group, index, term }, cx);
        }
        Ok(())
    }
}
