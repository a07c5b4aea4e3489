//! The multi-group loop as a plain value: events and the time go in, effects come out.
//!
//! A [`Shard`] owns the groups of one raft worker. [`Shard::step`] takes one event;
//! [`Shard::collect`] asks every touched group what it wants done and merges all writes into one
//! batch; [`Shard::persisted`] says that the batch is durable. One write at most is under way:
//! until it is durable, events may be stepped but nothing is collected.
//!
//! Idle groups cost nothing: a tick visits only groups that are awake, and one beat for each pair
//! of processes vouches for all sleeping ones.

mod api;
mod nodes;
mod options;
mod parked;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

pub use api::{
    ApplyTask, Committed, Effects, Event, Install, LeaderChange, MakeSnapshot, Member, NewGroup,
    Outgoing, Persist, Plane, Refusal, Reply, Stranger, conf_of,
};
pub use options::RaftOptions;
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{NodeId, PeerId, RegionId};

use crate::engine::{Engine, EngineError, WriteBatch};
use crate::group::{Group, GroupContext};
use crate::hash::FixedState;
use crate::time::Instant;
use nodes::Change;
pub(crate) use nodes::Nodes;
use parked::Parked;

/// The groups of one raft worker.
pub struct Shard<T> {
    options: RaftOptions,
    engine: Arc<dyn Engine>,
    incarnation: u64,
    logger: slog::Logger,
    votes_from: Instant,
    groups: HashMap<RegionId, Group<T>, FixedState>,
    awake: BTreeSet<RegionId>,
    touched: Vec<RegionId>,
    nodes: Nodes,
    to_wake: BTreeMap<RegionId, Wake>,
    parked: Parked,
    /// Effects made by `step`, handed out by the next `collect`.
    pending: Effects<T>,
    writing: Option<(u64, Vec<RegionId>)>,
    writes: u64,
    failed: Option<EngineError>,
}

/// A hosted group, and what it works with.
type Found<'a, T> = (&'a mut Group<T>, GroupContext<'a>, &'a mut Effects<T>);

/// Why a sleeping group is to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    /// The process that led it has fallen silent, last heard of then.
    Orphaned(Instant),
    /// A process it slept without is back.
    Returned,
}

impl<T> Shard<T> {
    /// A shard without groups. `incarnation` must differ from that of every earlier start of the
    /// process; `now` is the time of its start: no vote is given for a while, because the process
    /// may have promised before it went down.
    pub fn new(
        options: RaftOptions,
        engine: Arc<dyn Engine>,
        incarnation: u64,
        logger: slog::Logger,
        now: Instant,
    ) -> Self {
        let votes_from = now + options.vote_promise();
        Self {
            nodes: Nodes::new(options.node_silence()),
            options,
            engine,
            incarnation,
            logger,
            votes_from,
            groups: HashMap::default(),
            awake: BTreeSet::new(),
            touched: Vec::new(),
            to_wake: BTreeMap::new(),
            parked: Parked::default(),
            pending: Effects::default(),
            writing: None,
            writes: 0,
            failed: None,
        }
    }

    /// Takes one event.
    pub fn step(&mut self, event: Event<T>, now: Instant) {
        match event {
            Event::Tick => self.tick(now),
            Event::Message { from, envelope } => self.message(from, *envelope, now),
            Event::Beat { from, incarnation } => self.beat(from, incarnation, now),
            Event::Create(new) => self.create(*new, now),
            Event::Destroy { group } => self.destroy(group),
            Event::Unreachable { node } => self.unreachable(node),
            Event::Propose { group, command, token, suspends_lease } => {
                match self.find(group, now) {
                    Ok((group, context, effects)) => {
                        group.propose(command, token, suspends_lease, &context, effects);
                    }
                    Err(effects) => {
                        effects.replies.push((token, Reply::Refused(Refusal::NoGroup)));
                    }
                }
            }
            Event::Read { group, token } => match self.find(group, now) {
                Ok((group, context, effects)) => group.read(token, &context, effects),
                Err(effects) => {
                    effects.replies.push((token, Reply::Refused(Refusal::NoGroup)));
                }
            },
            Event::RenewLease { group } => self.with(group, now, |group, _, _| group.renew_lease()),
            Event::TransferLeader { group, to } => {
                self.with(group, now, |group, _, _| group.transfer(to));
            }
            Event::Applied { group, index, term } => {
                self.with(group, now, |group, _, _| group.applied(index.0, term.0));
            }
            Event::SnapshotTaken { group, to, index } => {
                self.with(group, now, |group, _, _| group.snapshot_taken(to, index));
            }
            Event::SnapshotSent { group, to, delivered } => {
                self.with(group, now, |group, _, _| group.snapshot_sent(to, delivered));
            }
            Event::Installed { group, index, members } => {
                self.meet(group, &members, now);
                self.with(group, now, |group, _, effects| {
                    group.installed(index.0, members, effects);
                });
                self.awake.insert(group);
            }
        }
    }

    /// What is to be done now. Nothing while a write is under way.
    pub fn collect(&mut self, now: Instant) -> Effects<T> {
        let mut effects = std::mem::take(&mut self.pending);
        if self.writing.is_some() {
            return effects;
        }
        let context = context(&self.options, &self.nodes, self.votes_from, now);
        let mut batch = WriteBatch::new();
        let mut sync = false;
        let mut writing = Vec::with_capacity(self.touched.len());
        // Messages are large; growing step by step would copy them again and again.
        effects.send.reserve(self.touched.len() * 2);
        for id in std::mem::take(&mut self.touched) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            group.touched = false;
            sync |= group.collect(&context, &mut effects, &mut batch);
            if group.is_writing() {
                writing.push(id);
            } else if group.has_more() {
                group.touched = true;
                self.touched.push(id);
            }
            if let Some(error) = group.take_failure() {
                self.failed = Some(error);
            }
        }
        if !batch.is_empty() || !writing.is_empty() {
            self.writes += 1;
            self.writing = Some((self.writes, writing));
            effects.persist = Some(Persist { number: self.writes, batch, sync });
        }
        effects
    }

    /// The write of that number is durable.
    pub fn persisted(&mut self, number: u64) {
        let Some((_, groups)) = self.writing.take_if(|(writing, _)| *writing == number) else {
            return;
        };
        self.pending.send.reserve(groups.len());
        self.touched.reserve(groups.len());
        for id in groups {
            if let Some(group) = self.groups.get_mut(&id) {
                group.persisted(&mut self.pending);
                touch(&mut self.touched, group);
            }
        }
    }

    /// True where [`Shard::collect`] would hand something out.
    pub fn has_work(&self) -> bool {
        self.writing.is_none() && (!self.touched.is_empty() || !self.pending.is_idle())
    }

    /// True while the group still waits for that snapshot to be sent.
    pub fn wants_snapshot(&self, make: &MakeSnapshot) -> bool {
        self.groups.get(&make.group).is_some_and(|group| group.wants_snapshot(make))
    }

    /// An engine error met while reading the log: the process must stop.
    pub fn take_failure(&mut self) -> Option<EngineError> {
        self.failed.take()
    }

    /// Processes that share a group with this shard: those to send beats to.
    pub fn neighbours(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.neighbours()
    }

    /// Groups hosted, and how many of them are awake.
    pub fn counts(&self) -> (usize, usize) {
        (self.groups.len(), self.awake.len())
    }

    fn find(&mut self, group: RegionId, now: Instant) -> Result<Found<'_, T>, &mut Effects<T>> {
        match self.groups.get_mut(&group) {
            Some(group) => {
                touch(&mut self.touched, group);
                if group.is_asleep() {
                    self.awake.insert(group.id());
                }
                let context = context(&self.options, &self.nodes, self.votes_from, now);
                Ok((group, context, &mut self.pending))
            }
            None => Err(&mut self.pending),
        }
    }

    fn with(
        &mut self,
        group: RegionId,
        now: Instant,
        act: impl FnOnce(&mut Group<T>, &GroupContext<'_>, &mut Effects<T>),
    ) {
        if let Ok((group, context, effects)) = self.find(group, now) {
            act(group, &context, effects);
        }
    }

    /// The other processes with members of a group get beats from now on.
    fn meet(&mut self, group: RegionId, members: &[Member], now: Instant) {
        let Some(group) = self.groups.get(&group) else { return };
        for member in members.iter().filter(|member| member.peer != group.peer()) {
            self.nodes.meet(member.node, now);
        }
    }

    fn tick(&mut self, now: Instant) {
        for change in self.nodes.silent_since(now) {
            self.node_changed(change);
        }
        self.wake_some(now);
        self.pending.discards.extend(self.parked.expire(now));
        let context = context(&self.options, &self.nodes, self.votes_from, now);
        let mut asleep = Vec::new();
        for id in &self.awake {
            let Some(group) = self.groups.get_mut(id) else {
                asleep.push(*id);
                continue;
            };
            group.expire(&context, &mut self.pending);
            if group.tick(&context, &mut self.pending) {
                touch(&mut self.touched, group);
            }
            if group.is_asleep() {
                asleep.push(*id);
            }
        }
        for id in asleep {
            self.awake.remove(&id);
        }
    }

    fn message(&mut self, from: NodeId, envelope: Envelope, now: Instant) {
        let id = RegionId(envelope.group);
        if !self.groups.contains_key(&id) {
            // The group may be about to split off here.
            let peer = PeerId(envelope.to_peer);
            let parking = self.parked.park(id, from, envelope, now);
            self.pending.discards.extend(parking.discard);
            if parking.ask {
                self.pending.strangers.push(Stranger { group: id, peer });
            }
            return;
        }
        self.with(id, now, |group, context, effects| {
            group.meet(envelope.from_peer, from);
            group.step(envelope, context, effects);
        });
    }

    fn beat(&mut self, from: NodeId, incarnation: u64, now: Instant) {
        if let Some(change) = self.nodes.beat(from, incarnation, now) {
            self.node_changed(change);
            self.wake_some(now);
        }
    }

    /// A process fell silent, came back, or was restarted: find the sleeping groups it concerns.
    fn node_changed(&mut self, change: Change) {
        let (node, orphaned, returned, restarted) = match change {
            Change::Silent { node, last } => (node, Some(last), false, false),
            Change::Restarted { node, last } => (node, Some(last), true, true),
            Change::Returned { node } => (node, None, true, false),
        };
        for group in self.groups.values().filter(|group| group.is_asleep()) {
            if let Some(last) = orphaned
                && group.leader_node() == Some(node)
            {
                self.to_wake.insert(group.id(), Wake::Orphaned(last));
            } else if returned
                // A restarted process has forgotten that its peers slept: they would campaign.
                && (restarted || group.missed_someone())
                && group.nodes().any(|member| member == node)
            {
                self.to_wake.insert(group.id(), Wake::Returned);
            }
        }
    }

    fn wake_some(&mut self, now: Instant) {
        for _ in 0..self.options.wakes_per_tick {
            let Some((id, why)) = self.to_wake.pop_first() else { return };
            let context = context(&self.options, &self.nodes, self.votes_from, now);
            let Some(group) = self.groups.get_mut(&id) else { continue };
            match why {
                Wake::Orphaned(last) => group.wake_orphaned(last, &context),
                Wake::Returned => group.wake_for_return(),
            }
            if !group.is_asleep() {
                self.awake.insert(id);
                touch(&mut self.touched, group);
            }
        }
    }

    fn create(&mut self, new: NewGroup, now: Instant) {
        let id = new.group;
        if let Some(known) = self.groups.get(&id) {
            if known.is_initialised() || new.members.is_empty() {
                return;
            }
            // It waited for a snapshot and was split off here after all. Its term and vote are in
            // the engine: what was not handed out for writing was not promised to anybody.
            self.destroy(id);
        }
        let context = context(&self.options, &self.nodes, self.votes_from, now);
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

    fn destroy(&mut self, id: RegionId) {
        if let Some(mut group) = self.groups.remove(&id) {
            group.close(&mut self.pending);
            self.awake.remove(&id);
        }
    }

    fn unreachable(&mut self, node: NodeId) {
        for id in &self.awake {
            if let Some(group) = self.groups.get_mut(id) {
                group.unreachable(node);
            }
        }
    }
}

fn touch<T>(touched: &mut Vec<RegionId>, group: &mut Group<T>) {
    if !group.touched {
        group.touched = true;
        touched.push(group.id());
    }
}

fn context<'a>(
    options: &'a RaftOptions,
    nodes: &'a Nodes,
    votes_from: Instant,
    now: Instant,
) -> GroupContext<'a> {
    GroupContext { options, now, votes_from, nodes }
}
