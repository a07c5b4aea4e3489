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
mod gone;
mod hosting;
pub(crate) mod members;
mod nodes;
mod options;
mod parked;
mod waking;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

pub use api::{
    ApplyTask, Committed, Effects, Event, Install, LeaderChange, MakeSnapshot, NewGroup, Outgoing,
    Persist, Plane, Refusal, Reply,
};
pub use gone::{Merged, Stranger};
pub use members::{
    MAX_BEHIND, MAX_VOTERS, Member, MembersRefusal, Reconfigured, Side, check_members, conf_of,
    is_joint, replaces_only_voter,
};
pub use options::{RaftOptions, Terms};
use quorate_proto::{NodeId, PeerId, RegionId};

use crate::engine::{Engine, EngineError, WriteBatch};
use crate::group::{Group, GroupContext};
pub use crate::group::{durable_entries, forget_group, has_records};
use crate::hash::FixedState;
use crate::sleepers::Sleepers;
use crate::time::Instant;
pub(crate) use nodes::Nodes;
use parked::Parked;
use waking::Wake;

/// Ticks between two looks at which processes still share a group with this shard.
const PART_TICKS: u64 = 100;

/// The groups of one raft worker.
pub struct Shard<T> {
    options: RaftOptions,
    engine: Arc<dyn Engine>,
    incarnation: u64,
    logger: slog::Logger,
    around: Around,
    groups: HashMap<RegionId, Group<T>, FixedState>,
    awake: BTreeSet<RegionId>,
    touched: Vec<RegionId>,
    nodes: Nodes,
    to_wake: BTreeMap<RegionId, Wake>,
    parked: Parked,
    /// Groups that are gone; told once the write under way, which may hold some of them, is done.
    destroyed: Vec<(RegionId, PeerId)>,
    /// Effects made by `step`, handed out by the next `collect`.
    pending: Effects<T>,
    writing: Option<(u64, Vec<RegionId>)>,
    writes: u64,
    ticks: u64,
    failed: Option<EngineError>,
}

/// What is the same for all groups.
struct Around {
    votes_from: Instant,
    time_ms: u64,
    sleepers: Arc<Sleepers>,
}

/// A hosted group, and what it works with.
type Found<'a, T> = (&'a mut Group<T>, GroupContext<'a>, &'a mut Effects<T>);

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
            around: Around { votes_from, time_ms: 0, sleepers: Arc::default() },
            groups: HashMap::default(),
            awake: BTreeSet::new(),
            touched: Vec::new(),
            to_wake: BTreeMap::new(),
            parked: Parked::default(),
            destroyed: Vec::new(),
            pending: Effects::default(),
            writing: None,
            writes: 0,
            ticks: 0,
            failed: None,
        }
    }

    /// Counts the sleeping groups together with those of the process's other shards. Before any
    /// group is created.
    pub fn share_sleepers(&mut self, sleepers: Arc<Sleepers>) {
        self.around.sleepers = sleepers;
    }

    /// Placement's clock at the time of the next calls, in milliseconds since the Unix epoch and
    /// never ahead of it. Without it no replica can tell how fresh it is.
    pub fn tell_time(&mut self, time_ms: u64) {
        self.around.time_ms = time_ms;
    }

    /// Takes one event.
    pub fn step(&mut self, event: Event<T>, now: Instant) {
        match event {
            Event::Tick => self.tick(now),
            Event::Message { from, envelope } => self.message(from, *envelope, now),
            Event::Beat { from, incarnation } => self.beat(from, incarnation, now),
            Event::Create(new) => self.create(*new, now),
            Event::Destroy { group, peer } => self.destroy(group, peer),
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
            Event::ChangeMembers { group, members, command, token } => {
                match self.find(group, now) {
                    Ok((group, context, effects)) => {
                        group.change_members(&members, command, token, &context, effects);
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
                self.with(group, now, |group, context, _| group.transfer(to, context));
            }
            Event::Reconfigured(change) => self.reconfigured(change, now),
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
        effects.destroyed.append(&mut self.destroyed);
        let context = context(&self.options, &self.nodes, &self.around, now);
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
        let idle = self.touched.is_empty() && self.pending.is_idle() && self.destroyed.is_empty();
        self.writing.is_none() && !idle
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

    /// Those of them that are not heard.
    pub fn silent(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.neighbours().filter(|node| self.nodes.is_silent(*node))
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
                let context = context(&self.options, &self.nodes, &self.around, now);
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

    fn tick(&mut self, now: Instant) {
        for change in self.nodes.silent_since(now) {
            self.node_changed(change);
        }
        self.wake_some(now);
        self.ticks += 1;
        if self.ticks.is_multiple_of(PART_TICKS) {
            self.part();
        }
        self.pending.discards.extend(self.parked.expire(now));
        let context = context(&self.options, &self.nodes, &self.around, now);
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
            group.publish_progress(&context);
            if group.is_asleep() {
                asleep.push(*id);
            }
        }
        for id in asleep {
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
    around: &'a Around,
    now: Instant,
) -> GroupContext<'a> {
    let Around { votes_from, time_ms, sleepers } = around;
    GroupContext { options, now, nodes, votes_from: *votes_from, time_ms: *time_ms, sleepers }
}
