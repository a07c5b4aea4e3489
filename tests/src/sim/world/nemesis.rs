//! Trouble: crashes, pauses, partitions, failing disks, leadership and splits at bad moments.
//!
//! Some deeds are plots of several steps that aim at one promise; chance alone would need too many
//! seeds to break it.

use std::collections::BTreeSet;
use std::sync::Arc;

use quorate_proto::{NodeId, Peer, Region, Role};

use super::World;
use super::deeds::{Deed, Strike};
use crate::sim::agenda::MS;
use crate::sim::chance::{Concern, Lane, Span};
use crate::sim::client::key;
use crate::sim::knobs::Deeds;
use crate::sim::messages::{Ask, Body, Event};
use crate::sim::placement::GROUP;

/// The nemesis, and whoever acts in placement's name.
pub(super) const NOBODY: u64 = 400_000;
/// More are not asked for.
const MOST_REGIONS: usize = 30;

/// How long a link stays broken, unless all are mended before.
const BROKEN: Span = (300 * MS, 5_000 * MS);

/// How long an ambush is laid, and how often it looks.
const AMBUSH: Span = (500 * MS, 4_000 * MS);
const AMBUSH_LOOK: u64 = 5 * MS;

type Act = fn(&mut World);

impl World {
    /// One deed, then the next is planned.
    pub(super) fn nemesis(&mut self) {
        if !self.cx.net.bad {
            return;
        }
        let next = self.draw(self.cx.knobs.nemesis);
        self.cx.after(next, Event::Nemesis);
        let deeds = self.cx.knobs.deeds;
        let acts = acts(&deeds);
        let all: u64 = acts.iter().map(|(weight, _)| weight).sum();
        let mut at = self.draw((0, all.max(1) - 1));
        for (weight, act) in acts {
            if at < weight {
                return act(self);
            }
            at -= weight;
        }
    }

    pub(super) fn draw(&mut self, span: Span) -> u64 {
        self.cx.within(Concern::Nemesis, span)
    }

    pub(super) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.cx.one_of(Concern::Nemesis, choices.len())]
    }

    fn anybody(&mut self) -> NodeId {
        let nodes = self.nodes();
        self.one_of(&nodes)
    }

    /// A process to trouble: often one that leads where clients are.
    fn victim(&mut self) -> NodeId {
        let (region, anybody) = (self.some_region(), self.anybody());
        let aims = self.cx.chance(Concern::Nemesis, 0.5);
        let leader = region.filter(|_| aims).and_then(|region| self.leader_of(region.id));
        leader.unwrap_or(anybody)
    }

    /// The region of some key.
    fn some_region(&mut self) -> Option<Arc<Region>> {
        let at = key(self.draw((0, self.cx.knobs.keys - 1)));
        self.cx.checks.region_of(&at)
    }

    fn kill_somebody(&mut self) {
        let (node, down) = (self.victim(), self.draw((5 * MS, 2_500 * MS)));
        self.perform(Deed::Kill { node, down });
    }

    fn pause_somebody(&mut self) {
        let (node, pause) = (self.victim(), self.draw((50 * MS, 2_000 * MS)));
        self.perform(Deed::Pause { node, pause });
    }

    fn cut_a_link(&mut self) {
        let (from, to) = (self.victim(), self.anybody());
        self.perform(Deed::Cut { from, to });
        let after = self.draw(BROKEN);
        self.plan(after, Deed::Join { from, to });
    }

    fn cut_somebody_off(&mut self) {
        let node = self.victim();
        self.cut_off(node);
    }

    pub(super) fn cut_off(&mut self, node: NodeId) {
        self.perform(Deed::CutOff { node });
        let after = self.draw(BROKEN);
        self.plan(after, Deed::Rejoin { node });
    }

    /// All stores, or all members of placement, or everything loses power at the same moment.
    fn blackout(&mut self) {
        let kind = self.draw((0, 4));
        for node in self.nodes() {
            let down = self.draw((5 * MS, 800 * MS));
            let is_member = self.cx.is_member(node);
            if kind == 0 || is_member == (kind == 1) {
                self.perform(Deed::Kill { node, down });
            }
        }
    }

    /// See [`Strike`].
    fn usurp(&mut self) {
        let Some(region) = self.some_region() else { return };
        let Some(leader) = self.leader_of(region.id) else { return };
        let mut others: Vec<NodeId> =
            region.peers.iter().map(|peer| peer.store.into()).filter(|it| *it != leader).collect();
        if others.is_empty() {
            return;
        }
        let candidate = self.one_of(&others);
        others.retain(|node| *node != candidate);
        self.perform(Deed::Cut { from: leader, to: candidate });
        self.perform(Deed::Cut { from: candidate, to: leader });
        let (group, since) = (region.id, self.cx.now());
        self.perform(Deed::Strike(Box::new(Strike { group, leader, candidate, others, since })));
    }

    /// Against the lease that ends once leadership was offered away: the old leader does not hear
    /// of the election that it has asked for.
    fn orphan(&mut self) {
        let Some(region) = self.some_region() else { return };
        let Some(leader) = self.leader_of(region.id) else { return };
        let peers: Vec<NodeId> = region.peers.iter().map(|peer| peer.store.into()).collect();
        let to = self.one_of(&peers);
        self.perform(Deed::HandOver { group: region.id, to });
        let wait = self.draw((0, 2 * self.cx.knobs.delay.1 + 5 * MS));
        self.plan(wait, Deed::Deafen { node: leader });
        self.plan(wait + 1_000 * MS, Deed::Mend);
    }

    /// Leadership of some region goes elsewhere.
    fn transfer(&mut self) {
        let Some(region) = self.some_region() else { return };
        let to = self.one_of(&region.peers).store;
        self.ask_placement(&Ask::Transfer { region: region.id, to });
    }

    /// Some region splits.
    fn split_somewhere(&mut self) {
        let at = key(self.draw((0, self.cx.knobs.keys - 1)));
        if self.cx.checks.regions().count() < MOST_REGIONS {
            self.ask_placement(&Ask::Split([at].into()));
        }
    }

    /// Leadership of placement goes elsewhere.
    fn hand_placement_over(&mut self) {
        let members = self.cx.members.clone();
        let to = self.one_of(&members);
        self.perform(Deed::HandOver { group: GROUP, to });
    }

    pub(super) fn kill_placement_leader(&mut self) {
        let down = self.draw((50 * MS, 2_000 * MS));
        if let Some(node) = self.leader_of(GROUP) {
            self.perform(Deed::Kill { node, down });
        }
    }

    fn cut_placement_leader_off(&mut self) {
        if let Some(node) = self.leader_of(GROUP) {
            self.cut_off(node);
        }
    }

    /// A store never comes back. Another one joins; the mover gives it the replicas.
    fn replace_store(&mut self) {
        // Placement's own patience with a silent store may be longer than a world lasts.
        if self.cx.knobs.planned && self.cx.knobs.down_ms == 0 {
            return;
        }
        let is_lost = |peer: &Peer| self.cx.checks.lives.is_lost(peer.store.into());
        let is_hurt = |region: &Arc<Region>| {
            let voters = region.peers.iter().filter(|peer| peer.role != Role::Learner);
            voters.count() < 3 || region.peers.iter().any(is_lost)
        };
        // One at a time, and never the last majority of a region. A voter without data counts only
        // where that is wanted: it may have missed the split that made the region, and placement may
        // not have heard of the region yet.
        let is_whole = |it: &Arc<Region>| !is_hurt(it) && self.is_everywhere(it);
        if self.joining.is_some() || !self.cx.checks.regions().all(is_whole) {
            return;
        }
        let stores = self.store_nodes();
        let node = self.one_of(&stores);
        self.lose(node);
        self.hang_up_on(node);
        self.join_a_store();
        self.bury(node.into());
    }

    /// All replicas of a region are up, and have its data or, where that is wanted, may lack it.
    fn is_everywhere(&self, region: &Region) -> bool {
        region.peers.iter().all(|peer| {
            let process = self.processes.get(&NodeId::from(peer.store));
            let store = process.and_then(|process| process.up.as_ref()?.role.store());
            let local = store.and_then(|store| store.directory.get(region.id));
            let has_data = local.is_some_and(|local| local.region().is_some());
            has_data || (self.cx.knobs.hollow && store.is_some())
        })
    }

    /// The leader of a region in a joint configuration, or of one with a learner.
    fn kill_in_joint(&mut self) {
        let is_changing =
            |region: &&Arc<Region>| region.peers.iter().any(|peer| peer.role != Role::Voter);
        let changing: Vec<_> = self.cx.checks.regions().filter(is_changing).map(|r| r.id).collect();
        let down = self.draw((5 * MS, 1_500 * MS));
        if !changing.is_empty()
            && let group = self.one_of(&changing)
            && let Some(node) = self.leader_of(group)
        {
            self.perform(Deed::Kill { node, down });
        }
    }

    /// Some region is taken in by a neighbour.
    fn merge_somewhere(&mut self) {
        let Some(region) = self.some_region() else { return };
        self.ask_placement(&Ask::Merge { region: region.id });
    }

    /// The leader of a region that is stopped for a merge, or of its target, dies, or is cut off.
    fn trouble_a_merge(&mut self) {
        let mut stopped = BTreeSet::new();
        for process in self.processes.values() {
            let Some(store) = process.up.as_ref().and_then(|up| up.role.store()) else { continue };
            let all = store.directory.all();
            stopped.extend(all.iter().filter_map(|local| {
                local.merging().map(|(region, merging)| (region.id, merging.target))
            }));
        }
        let stopped: Vec<_> = stopped.into_iter().collect();
        if stopped.is_empty() {
            return self.merge_somewhere();
        }
        let (source, target) = self.one_of(&stopped);
        let group = self.one_of(&[source, target]);
        let (kills, down) = (self.draw((0, 2)) > 0, self.draw((5 * MS, 2_500 * MS)));
        match self.leader_of(group) {
            Some(node) if kills => self.perform(Deed::Kill { node, down }),
            Some(node) => self.cut_off(node),
            None => {}
        }
    }

    /// See [`Deed::Ambush`].
    fn trouble_a_snapshot(&mut self) {
        let until = self.cx.now() + self.draw(AMBUSH);
        self.perform(Deed::Ambush { until });
    }

    /// Strikes at a snapshot of which some is staged, as soon as there is one.
    pub(super) fn ambush(&mut self, until: u64) {
        let mut calls = Vec::new();
        for process in self.processes.values() {
            let Some(up) = &process.up else { continue };
            calls.extend(up.receiving.begun().map(|call| (call, process.id)));
        }
        if calls.is_empty() {
            if self.cx.now() < until {
                self.plan(AMBUSH_LOOK, Deed::Ambush { until });
            }
            return;
        }
        let (call, to) = self.one_of(&calls);
        let (kind, down) = (self.draw((0, 5)), self.draw((5 * MS, 800 * MS)));
        match kind {
            0..=2 => self.perform(Deed::Kill { node: to, down }),
            3 => self.perform(Deed::Kill { node: call.from, down }),
            _ => {
                self.cx.note(format_args!("the connection of {call:?} breaks"));
                self.cx.hang_up(call, &[call.from, to]);
            }
        }
    }

    /// Asks all members of placement: one of them leads.
    pub(super) fn ask_placement(&mut self, ask: &Ask) {
        for member in self.cx.members.clone() {
            self.calls += 1;
            let body = Body::Ask { call: self.calls, ask: Box::new(ask.clone()) };
            self.cx.send(NodeId(NOBODY), member, Lane::Services, body);
        }
    }
}

/// Newer ones come last: they change nothing of what is drawn where their weight is zero.
fn acts(deeds: &Deeds) -> [(u64, Act); 21] {
    [
        (deeds.kill, World::kill_somebody),
        (deeds.pause, World::pause_somebody),
        (deeds.cut, World::cut_a_link),
        (deeds.cut_off, World::cut_somebody_off),
        (deeds.heal, |world| world.perform(Deed::Mend)),
        (deeds.transfer, World::transfer),
        (deeds.placement_transfer, World::hand_placement_over),
        (deeds.split, World::split_somewhere),
        (deeds.blackout, World::blackout),
        (deeds.usurp, World::usurp),
        (deeds.orphan, World::orphan),
        (deeds.placement_kill, World::kill_placement_leader),
        (deeds.placement_cut, World::cut_placement_leader_off),
        (deeds.replace, World::replace_store),
        (deeds.joint_kill, World::kill_in_joint),
        (deeds.merge, World::merge_somewhere),
        (deeds.merge_trouble, World::trouble_a_merge),
        (deeds.snapshot_trouble, World::trouble_a_snapshot),
        (deeds.leave, World::ask_a_store_to_leave),
        (deeds.leave_trouble, World::trouble_a_leaver),
        (deeds.member, World::replace_a_member),
    ]
}
