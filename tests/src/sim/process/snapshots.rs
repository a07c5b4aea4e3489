//! Snapshots that a process sends and receives.
//!
//! One arrives whole after a while, or not at all.

use std::ops::ControlFlow;

use bytes::Bytes;
use quorate_consensus::engine::{Cf, Direction, Engine, EngineError};
use quorate_consensus::node::{Installed, SnapshotSource};
use quorate_consensus::shard::{self, Install, MakeSnapshot, Plane, conf_of};
use quorate_proto::wire::peer::{Envelope, SnapshotMeta};
use quorate_proto::{NodeId, Role};

use super::Process;
use crate::sim::agenda::MS;
use crate::sim::chance::{Concern, Lane};
use crate::sim::cx::Cx;
use crate::sim::messages::{Body, Event, Packet, Transfer};
use crate::sim::mutant::Mutant;

/// Snapshots a process sends at once (as in production).
const SENDING: usize = 2;

impl Process {
    pub(super) fn make_snapshot(
        &mut self,
        make: MakeSnapshot,
        cx: &mut Cx,
    ) -> Result<(), EngineError> {
        let (group, to, life) = (make.group, make.to, self.life);
        let source = self.with_role(cx, |role, _| role.snapshot(group))?;
        let full = self.life().sending >= SENDING;
        let Some(source) = source.filter(|source| source.index >= make.at_least && !full) else {
            self.mail(shard::Event::SnapshotSent { group, to, delivered: false }, cx);
            return Ok(());
        };
        let index = source.index;
        self.mail(shard::Event::SnapshotTaken { group, to, index }, cx);
        let transfer = self.transfer(make, source, cx.mutant)?;
        self.life().sending += 1;
        let (from, to, lane) = (self.id, transfer.make.node, Lane::Raft(Plane::Bulk));
        let takes = cx.within(Concern::Link(from, to, lane), (MS, 800 * MS));
        cx.note(format_args!("{from}→{to} snapshot {}", transfer.message.group));
        let body = Body::Snapshot(Box::new(Transfer { life, ..transfer }));
        cx.after(takes, Event::Packet(Box::new(Packet { from, to, lane, body })));
        Ok(())
    }

    fn transfer(
        &mut self,
        make: MakeSnapshot,
        source: SnapshotSource,
        mutant: Option<Mutant>,
    ) -> Result<Transfer, EngineError> {
        let id =
            format!("{}-{}-{}-{:x}", make.group, make.to, source.index.0, self.life().incarnation);
        let mut members = source.members.clone();
        if mutant == Some(Mutant::SnapshotWithoutJoint) {
            for member in &mut members {
                member.role = match member.role {
                    Role::Voter | Role::IncomingVoter => Role::Voter,
                    Role::Learner | Role::DemotingVoter => Role::Learner,
                };
            }
        }
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
                conf: Some(conf_of(&members)),
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
        if mutant == Some(Mutant::SnapshotWithoutAll) {
            pairs.pop();
        }
        Ok(Transfer { make, life: 0, message, pairs })
    }

    /// A transfer of ours has ended, one way or the other.
    pub(crate) fn sent(&mut self, make: &MakeSnapshot, delivered: bool, cx: &mut Cx) {
        let life = self.life();
        life.sending = life.sending.saturating_sub(1);
        let (group, to) = (make.group, make.to);
        self.mail(shard::Event::SnapshotSent { group, to, delivered }, cx);
    }

    /// All of a snapshot is here. False where it is not wanted.
    pub(crate) fn receive(
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

    pub(super) fn install(&mut self, install: Install, cx: &mut Cx) -> Result<(), EngineError> {
        let (group, index) = (install.group, install.index);
        let before = self.disk.unsynced();
        if cx.net.bad && cx.chance(Concern::Disk(self.id), cx.knobs.sync_failure * 20.0) {
            cx.note(format_args!("{} cannot sync", self.id));
            self.disk.fail_next_sync();
        }
        let installed = self.with_role(cx, |role, host| role.install(install, host))?;
        let Installed { members, merged } = installed;
        cx.note(format_args!("{} installed {group} at {index} after {before}", self.id));
        cx.checks.installs += 1;
        self.mail(shard::Event::Installed { group, index, members }, cx);
        self.stop_hosting(merged, cx);
        Ok(())
    }
}
