//! Orders of placement, or of the nemesis in its name: checked against what this store has, and
//! carried out.
//!
//! The counterpart of `store/src/placement/orders.rs`, and of what looks after replicas that nobody
//! speaks to any more.

use quorate_consensus::shard::{self, Stranger};
use quorate_proto::wire::placement::change_peers_step::Change;
use quorate_proto::wire::placement::order::Step;
use quorate_proto::wire::placement::{DestroyPeerStep, Order};
use quorate_proto::{Epoch, NodeId, PeerId, Region, RegionId, StoreId};
use quorate_store::core::directory::Conflict;
use quorate_store::core::peers::{self, PeersPlan};
use quorate_store::core::{Admitted, PeerAdmission};

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
        };
        let Some(local) = self.directory.get(RegionId(id)) else { return };
        let Some(region) = local.region() else { return };
        if epoch.map(Epoch::from) != Some(region.epoch) || !local.view().is_leader() {
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
    pub(crate) fn stranger(&mut self, stranger: Stranger, host: &mut Host<'_>) {
        let ask = Ask::RegionById(stranger.group);
        self.ask(ask, Purpose::Stranger(stranger.peer), host);
    }
}
