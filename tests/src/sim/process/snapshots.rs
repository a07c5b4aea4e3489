//! Snapshots of the groups of a process: read, named, and installed.
//!
//! They travel in chunks (`sending`, `receiving`). Where a case was pinned before there were
//! chunks, one arrives whole after a while, or not at all.

use std::ops::ControlFlow;

use bytes::Bytes;
use quorate_consensus::engine::{Cf, Direction, Engine, EngineError};
use quorate_consensus::node::{Installed, SnapshotSource};
use quorate_consensus::shard::{self, Install, MakeSnapshot, Plane, conf_of};
use quorate_consensus::transfer::announce;
use quorate_proto::wire::peer::{Envelope, SnapshotMeta};
use quorate_proto::{KeyRange, NodeId, Role};

use super::Process;
use crate::sim::agenda::MS;
use crate::sim::chance::{Concern, Lane};
use crate::sim::checks::{self, data_hash};
use crate::sim::cx::Cx;
use crate::sim::messages::{Body, Event, Packet, Token, Transfer};
use crate::sim::mutant::Mutant;

/// Snapshots a process sends at once where each is one message.
const SENDING: usize = 2;

impl Process {
    /// The message that announces what was read, by a name of its own, and what is left of the data
    /// where a bug was put in.
    pub(super) fn announce(
        &mut self,
        make: &MakeSnapshot,
        number: u64,
        mut source: SnapshotSource,
        cx: &mut Cx,
    ) -> Result<(Envelope, SnapshotSource), EngineError> {
        let mut members = source.members.clone();
        if cx.is(Mutant::SnapshotWithoutJoint) {
            for member in &mut members {
                member.role = match member.role {
                    Role::Voter | Role::IncomingVoter => Role::Voter,
                    Role::Learner | Role::DemotingVoter => Role::Learner,
                };
            }
        }
        let meta = SnapshotMeta {
            id: String::new(),
            index: source.index.0,
            term: source.term.0,
            conf: Some(conf_of(&members)),
            state: source.state.clone(),
        };
        let message = announce(make, self.life().incarnation, number, meta);
        let range = KeyRange { start: source.start.clone(), end: source.end.clone() };
        let hash = data_hash(&*source.reader, &range)?;
        if cx.is(Mutant::SnapshotWithoutAll)
            && let Some((last, _)) = pairs(&source)?.pop()
        {
            source.end = last;
        }
        let (group, index) = (make.group, source.index.0);
        let id = name(&message);
        cx.checks.pictured(id, checks::Picture { group, index, range, hash });
        Ok((message, source))
    }

    pub(super) fn make_snapshot(
        &mut self,
        make: MakeSnapshot,
        cx: &mut Cx,
    ) -> Result<(), EngineError> {
        let (group, to, life) = (make.group, make.to, self.life);
        let source = self.with_role(cx, |role, _| role.snapshot(group))?;
        let full = self.life().whole >= SENDING;
        let Some(source) = source.filter(|source| source.index >= make.at_least && !full) else {
            self.tell(&make, false, cx);
            return Ok(());
        };
        let index = source.index;
        self.mail(shard::Event::SnapshotTaken { group, to, index }, cx);
        let (message, source) = self.announce(&make, 0, source, cx)?;
        let pairs = pairs(&source)?;
        self.life().whole += 1;
        let (from, to, lane) = (self.id, make.node, Lane::Raft(Plane::Bulk));
        let takes = cx.within(Concern::Link(from, to, lane), (MS, 800 * MS));
        cx.note(format_args!("{from}→{to} snapshot {}", message.group));
        let body = Body::Snapshot(Box::new(Transfer { make, life, message, pairs }));
        cx.after(takes, Event::Packet(Box::new(Packet { from, to, lane, body })));
        Ok(())
    }

    /// A transfer of ours, one message, has ended, one way or the other.
    pub(crate) fn sent(&mut self, make: &MakeSnapshot, delivered: bool, cx: &mut Cx) {
        let life = self.life();
        life.whole = life.whole.saturating_sub(1);
        self.tell(make, delivered, cx);
    }

    /// Raft hears whether a snapshot was delivered.
    pub(super) fn tell(&mut self, make: &MakeSnapshot, delivered: bool, cx: &mut Cx) {
        let (group, to) = (make.group, make.to);
        self.mail(shard::Event::SnapshotSent { group, to, delivered }, cx);
    }

    /// All of a snapshot is here, in one message. False where it is not wanted.
    pub(crate) fn receive(
        &mut self,
        from: NodeId,
        transfer: &Transfer,
        cx: &mut Cx,
    ) -> Result<bool, EngineError> {
        let message = &transfer.message;
        if !self.with_role(cx, |role, _| role.admit_snapshot(message)) {
            return Ok(false);
        }
        let mut stage = self.disk.stage(name(message))?;
        for (key, value) in &transfer.pairs {
            stage.put(key, value)?;
        }
        stage.finish()?;
        self.frame(from, vec![message.clone()], cx);
        Ok(true)
    }

    /// A snapshot was admitted when it began to come; the regions around may have changed since.
    pub(super) fn admits(
        &mut self,
        event: &shard::Event<Token>,
        cx: &mut Cx,
    ) -> Result<bool, EngineError> {
        let shard::Event::Message { envelope, .. } = event else { return Ok(true) };
        if envelope.snapshot.is_none()
            || self.with_role(cx, |role, _| role.admit_snapshot(envelope))
        {
            return Ok(true);
        }
        self.disk.discard_staged(name(envelope))?;
        Ok(false)
    }

    pub(super) fn install(&mut self, install: Install, cx: &mut Cx) -> Result<(), EngineError> {
        let (group, index, id) = (install.group, install.index, install.id.clone());
        let before = self.disk.unsynced();
        if cx.net.bad && cx.chance(Concern::Disk(self.id), cx.knobs.sync_failure * 20.0) {
            cx.note(format_args!("{} cannot sync", self.id));
            self.disk.fail_next_sync();
        }
        let installed = self.with_role(cx, |role, host| role.install(install, host))?;
        let Installed { members, merged } = installed;
        cx.note(format_args!("{} installed {group} at {index} after {before}", self.id));
        let range = cx.checks.picture(&id).map(|picture| picture.range.clone()).unwrap_or_default();
        let hash = data_hash(&self.disk, &range)?;
        let found = checks::Picture { group, index: index.0, range, hash };
        cx.checks.installed(self.id, &id, &found);
        self.mail(shard::Event::Installed { group, index, members }, cx);
        self.stop_hosting(merged, cx);
        Ok(())
    }
}

/// What a snapshot is called on its way.
pub(super) fn name(message: &Envelope) -> &str {
    message.snapshot.as_ref().map_or("", |meta| &meta.id)
}

/// All data of a picture.
fn pairs(source: &SnapshotSource) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
    let mut pairs = Vec::new();
    let (start, end) = (&source.start, &source.end);
    source.reader.scan(Cf::Data, start, end, Direction::Forward, &mut |key, value| {
        pairs.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        ControlFlow::Continue(())
    })?;
    Ok(pairs)
}
