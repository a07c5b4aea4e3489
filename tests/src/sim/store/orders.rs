//! Orders of placement, or of the nemesis in its name: checked against what this store has, and
//! carried out.
//!
//! The counterpart of `store/src/placement/orders.rs`, and of what looks after replicas that nobody
//! speaks to any more.

use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::shard::{self, Outgoing, Stranger};
use quorate_proto::wire::placement::change_peers_step::Change;
use quorate_proto::wire::placement::order::Step;
use quorate_proto::wire::placement::{CommitMergeStep, DestroyPeerStep, Order};
use quorate_proto::{Epoch, LogIndex, NodeId, PeerId, Region, RegionId, StoreId};
use quorate_store::core::command::{self, Stamp};
use quorate_store::core::directory::Conflict;
use quorate_store::core::merge::{self, MergeError};
use quorate_store::core::peers::{self, PeersPlan};
use quorate_store::core::{Admitted, LocalRegion, PeerAdmission};

use super::StoreRole;
use super::serving::Waiting;
use super::upkeep::Purpose;
use crate::sim::agenda::MS;
use crate::sim::messages::Ask;
use crate::sim::mutant::Mutant;
use crate::sim::process::role::Host;

/// A leader that was silent for so long is asked for at placement (sooner than in production).
const SILENCE: u64 = 2_000 * MS;

impl StoreRole {
    /// Carries out an order, unless the region has changed since, or a rule stands in the way.
    pub(super) fn order(&mut self, order: Order, host: &mut Host<'_>) {
        let Some(step) = order.step else { return };
        let (id, epoch) = match &step {
            Step::TransferLeader(step) => (step.region_id, step.epoch),
            Step::Split(step) => (step.region_id, step.epoch),
            Step::ChangePeers(step) => (step.region_id, step.epoch),
            Step::DestroyPeer(step) => return self.destroy_if_removed(step, host),
            Step::PrepareMerge(step) => (step.region_id, step.epoch),
            Step::CommitMerge(step) => (step.region_id, step.epoch),
            Step::RollbackMerge(step) => (step.region_id, step.epoch),
            Step::RefuseMerge(step) => (step.region_id, step.epoch),
        };
        let Some(local) = self.directory.get(RegionId(id)) else { return };
        let Some(region) = local.replicated() else { return };
        let anyhow = matches!(step, Step::CommitMerge(_)) && host.cx.is(Mutant::CommitAtAnyEpoch);
        let meant = anyhow || epoch.map(Epoch::from) == Some(region.epoch);
        if !meant || !local.view().is_leader() {
            return;
        }
        match step {
            Step::TransferLeader(step) => {
                let peer = region.peer_on(StoreId(step.to_store));
                let fits = |peer| peers::check_successor(&region, local.view(), peer).is_ok();
                if peer.is_some_and(fits) {
                    let (group, to) = (region.id, NodeId(step.to_store));
                    host.mail.push(shard::Event::TransferLeader { group, to });
                }
            }
            Step::Split(step) => {
                if !self.splitting.contains_key(&region.id) {
                    self.begin_split(&region, step.keys, host);
                }
            }
            Step::ChangePeers(step) => {
                let Some(change) = step.change else { return };
                self.change_peers(&Admitted { local, region }, &change, host);
            }
            Step::DestroyPeer(_) => {}
            Step::PrepareMerge(step) => {
                let time_ms = self.time_ms(host.now);
                let command = merge::prepare(&self.directory, &local, &step, time_ms);
                self.merge(region.id, command, true, host);
            }
            Step::CommitMerge(step) => {
                let time_ms = self.time_ms(host.now);
                let command = match host.cx.is(Mutant::CommitAtAnyEpoch) {
                    true => careless_commit(&region, step, time_ms),
                    false => merge::commit(&self.directory, &local, &step, time_ms),
                };
                self.merge(region.id, command, true, host);
            }
            Step::RollbackMerge(step) => {
                let command = merge::rollback(&local, &step, self.time_ms(host.now));
                self.merge(region.id, command, false, host);
            }
            Step::RefuseMerge(step) => {
                let command = merge::refuse(&local, &step, self.time_ms(host.now));
                self.merge(region.id, command, false, host);
            }
        }
    }

    /// A mutant: stopped regions go on after a while.
    pub(super) fn lose_patience(&mut self, host: &mut Host<'_>) {
        let led = |local: &Arc<LocalRegion>| local.merging().filter(|_| local.view().is_leader());
        let stopped: Vec<_> = self.directory.all().iter().filter_map(led).collect();
        for (region, merging) in stopped {
            let Epoch { conf_ver, version } = region.epoch;
            let stamp = Stamp { conf_ver, version, time_ms: self.time_ms(host.now) };
            let target = merging.target_epoch;
            let seen = Epoch { version: target.version + 1, ..target };
            let command = command::rollback_merge(stamp, merging.frozen, seen);
            self.merge(region.id, command.map_err(MergeError::from), false, host);
        }
    }

    fn merge(
        &mut self,
        group: RegionId,
        command: Result<Bytes, MergeError>,
        suspends_lease: bool,
        host: &mut Host<'_>,
    ) {
        let node = host.node;
        match command {
            Ok(command) => {
                host.cx.note(format_args!("{node} takes a step of a merge of {group}"));
                let token = self.token(Waiting::Peers);
                host.mail.push(shard::Event::Propose { group, command, token, suspends_lease });
            }
            Err(refused) => host.cx.note(format_args!("{node} refuses to merge: {refused}")),
        }
    }

    fn change_peers(&mut self, admitted: &Admitted, change: &Change, host: &mut Host<'_>) {
        let (node, group) = (host.node, admitted.region.id);
        if host.cx.is(Mutant::LeaveByWhoEntered) {
            let entered = matches!(change, Change::EnterJoint(_)) && self.entered.insert(group);
            if matches!(change, Change::LeaveJoint(_)) && !self.entered.contains(&group) {
                return;
            }
            host.cx.note(format_args!("{node} entered {group}: {entered}"));
        }
        match peers::plan(admitted, change, self.time_ms(host.now)) {
            Ok(PeersPlan::Change(plan)) => {
                host.cx.note(format_args!("{node} changes {group}: {change:?}"));
                let token = self.token(Waiting::Peers);
                let (members, command) = (plan.members, plan.command);
                host.mail.push(shard::Event::ChangeMembers { group, members, command, token });
            }
            Ok(PeersPlan::HandOver(to)) => {
                let to = NodeId::from(to);
                host.mail.push(shard::Event::TransferLeader { group, to });
            }
            Err(refused) => host.cx.note(format_args!("{node} refuses {change:?}: {refused}")),
        }
    }

    fn destroy_if_removed(&mut self, step: &DestroyPeerStep, host: &mut Host<'_>) {
        let group = RegionId(step.region_id);
        let Some(local) = self.directory.get(group) else { return };
        let epoch = step.epoch.map(Epoch::from).unwrap_or_default();
        let peer = PeerId(step.peer_id);
        if local.peer() == peer && peers::was_removed(&local, epoch) {
            host.mail.push(shard::Event::Destroy { group, peer });
        }
    }

    /// Asks placement about replicas whose leader has been silent for long.
    pub(super) fn look_for_lost(&mut self, host: &mut Host<'_>) {
        if host.cx.is(Mutant::LostIgnored) {
            return;
        }
        let now = host.now;
        let lost = |since: quorate_consensus::time::Instant| now.0 >= since.0 + SILENCE;
        for local in self.directory.hosted() {
            if local.view().silent_since().is_some_and(lost) {
                let id = local.id();
                self.ask(Ask::RegionById(id), Purpose::Lost(id), host);
            }
        }
    }

    /// Placement has told of the region of a replica that nobody speaks to.
    pub(super) fn is_lost(&mut self, region: &Region, host: &mut Host<'_>) {
        let group = region.id;
        let Some(local) = self.directory.get(group) else { return };
        if peers::is_removed(&local, region) {
            let peer = local.peer();
            host.mail.push(shard::Event::Destroy { group, peer });
        }
    }

    /// Placement has told of the region of a replica that is spoken to.
    pub(super) fn welcome(&mut self, region: &Region, peer: PeerId, host: &mut Host<'_>) {
        match self.directory.admit_peer(region, peer) {
            PeerAdmission::Create(new) => host.mail.push(shard::Event::Create(new)),
            PeerAdmission::Refuse(Conflict::OtherPeer { actual, .. }) if actual < peer => {
                self.is_lost(region, host);
            }
            PeerAdmission::Refuse(_) | PeerAdmission::Exists | PeerAdmission::Hold => {}
        }
    }

    /// Somebody speaks to a replica that is not here: asks placement for its region.
    pub(crate) fn stranger(&mut self, stranger: Stranger, host: &mut Host<'_>) -> Option<Outgoing> {
        let ignored = stranger.asks && host.cx.is(Mutant::AskersIgnored);
        let told = !ignored && !host.cx.is(Mutant::MergedUntold);
        if let Some(gone) = self.directory.taken_in(stranger.group).filter(|_| told) {
            return Some(stranger.answer_merged(gone.into, gone.region.as_ref().into()));
        }
        if !stranger.asks {
            let ask = Ask::RegionById(stranger.group);
            self.ask(ask, Purpose::Stranger(stranger.peer), host);
        }
        None
    }
}

/// A mutant: takes a source in as the order names it, whatever it was stopped for.
fn careless_commit(
    target: &Region,
    step: CommitMergeStep,
    time_ms: u64,
) -> Result<Bytes, MergeError> {
    let Epoch { conf_ver, version } = target.epoch;
    let source = Region::try_from(step.source.unwrap_or_default());
    let source = source
        .map_err(|error| MergeError::Rule { region: target.id, reason: error.to_string() })?;
    let stamp = Stamp { conf_ver, version, time_ms };
    Ok(command::commit_merge(stamp, &source, LogIndex(step.frozen_index))?)
}
