//! Which groups are hosted: they come, get their messages, change their members, and go.

use quorate_proto::wire::peer::Envelope;
use quorate_proto::{NodeId, PeerId, RegionId};

use super::{Member, NewGroup, Reconfigured, Shard, Stranger, context, touch};
use crate::group::Group;
use crate::time::Instant;

impl<T> Shard<T> {
    pub(super) fn message(&mut self, from: NodeId, envelope: Envelope, now: Instant) {
        let id = RegionId(envelope.group);
        let peer = PeerId(envelope.to_peer);
        if let Some(merged) = crate::group::merged(&envelope) {
            self.pending.merged.push(merged);
            return;
        }
        let from_peer = PeerId(envelope.from_peer);
        let asks = envelope.kind == crate::group::WAKE;
        // Ids of peers only grow: one that is older than the peer spoken to was replaced.
        if self.groups.get(&id).is_none_or(|group| group.peer() < peer) {
            let stranger = Stranger { group: id, peer, from, from_peer, asks };
            if asks {
                return self.pending.strangers.push(stranger);
            }
            // The group may be about to split off here, or to go and come again.
            let parking = self.parked.park(id, from, envelope, now);
            // While it is found out what the peer is, the sender must hear that this process is
            // alive: a group may sleep without a peer that is taken for silent.
            self.nodes.meet(from, now);
            self.pending.discards.extend(parking.discard);
            if parking.ask {
                self.pending.strangers.push(stranger);
            }
            return;
        }
        if asks {
            // It may be no member any more, so it is not met.
            return self.with(id, now, |group, context, _| group.is_asked(from_peer, context));
        }
        if self.groups.get(&id).is_some_and(|group| !group.is_initialised()) {
            // Its leader must hear that this process is alive, or the group may sleep without it.
            self.nodes.meet(from, now);
        }
        self.with(id, now, |group, context, effects| {
            group.meet(envelope.from_peer, from);
            group.step(envelope, context, effects);
        });
    }

    pub(super) fn create(&mut self, new: NewGroup, now: Instant) {
        let id = new.group;
        if let Some(known) = self.groups.get(&id) {
            if known.is_initialised() || new.members.is_empty() {
                return;
            }
            // It waited for a snapshot and was split off here after all. Its term and vote are in
            // the engine: what was not handed out for writing was not promised to anybody.
            self.close(id);
        }
        let context = context(&self.options, &self.nodes, &self.around, now);
        let engine = self.engine.clone();
        match Group::open(&new, engine, self.incarnation, &self.logger, &context) {
            Ok(mut group) => {
                touch(&mut self.touched, &mut group);
                self.groups.insert(id, group);
                self.awake.insert(id);
                self.meet(id, &new.members, now);
            }
            Err(error) => {
                self.failed = Some(error);
                return;
            }
        }
        for (from, envelope) in self.parked.take(id) {
            self.message(from, envelope, now);
        }
    }

    /// Stops hosting a peer for good.
    pub(super) fn destroy(&mut self, id: RegionId, peer: PeerId) {
        if self.groups.get(&id).is_none_or(|group| group.peer() == peer) {
            self.close(id);
            self.destroyed.push((id, peer));
        }
    }

    fn close(&mut self, id: RegionId) {
        if let Some(mut group) = self.groups.remove(&id) {
            group.close(&mut self.pending);
            self.awake.remove(&id);
        }
    }

    /// The state machine has changed a group's members.
    pub(super) fn reconfigured(&mut self, change: Reconfigured, now: Instant) {
        let Reconfigured { group: id, members } = change;
        let Ok((group, _, _)) = self.find(id, now) else { return };
        if group.reconfigured(members.clone()) {
            self.awake.insert(id);
            self.meet(id, &members, now);
            self.with(id, now, |group, context, _| group.publish_progress(context));
        } else {
            let peer = group.peer();
            tracing::info!(group = %id, %peer, "the local peer was removed");
            self.destroy(id, peer);
        }
    }

    /// Processes that share no group with this shard any more get no beats, and are not missed.
    pub(super) fn part(&mut self) {
        let shared = self.groups.values().flat_map(Group::nodes).collect();
        self.nodes.retain(&shared);
    }

    /// The other processes with members of a group get beats from now on.
    pub(super) fn meet(&mut self, group: RegionId, members: &[Member], now: Instant) {
        let Some(group) = self.groups.get(&group) else { return };
        for member in members.iter().filter(|member| member.peer != group.peer()) {
            self.nodes.meet(member.node, now);
        }
    }
}
