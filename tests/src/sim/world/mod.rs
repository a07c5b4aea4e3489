//! The world of one seed: processes, clients, trouble, and the order in which all of it happens.

mod deeds;
mod grower;
mod leaver;
mod merger;
mod mover;
mod nemesis;
mod packets;
mod settle;
mod story;

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::engine::EngineError;
use quorate_proto::{NodeId, StoreId};

pub(crate) use self::deeds::Deed;
use self::merger::Plot;
use super::agenda::MS;
use super::case::Case;
use super::chance::Concern;
use super::checks::Transfers;
use super::client::{Client, History};
use super::clock::Clock;
use super::cx::Cx;
use super::knobs::Knobs;
use super::messages::Event;
use super::process::Process;
use super::stamper::Stamper;

/// Events after which a world counts as running in circles.
const MOST_EVENTS: u64 = 20_000_000;

/// See the module.
pub(crate) struct World {
    pub(crate) cx: Cx,
    pub(crate) processes: BTreeMap<NodeId, Process>,
    pub(crate) clients: Vec<Client>,
    pub(crate) history: History,
    pub(crate) stampers: Vec<Stamper>,
    /// Calls of the nemesis to placement.
    pub(crate) calls: u64,
    /// The data id of the store that joins, in the place of a lost one for the most part.
    pub(crate) joining: Option<u64>,
    /// Stores and members that came later, or are on their way.
    pub(crate) arrivals: u64,
    /// Data ids of processes that ask to become members of placement.
    pub(crate) candidates: BTreeSet<u64>,
    /// All processes that there ever were.
    pub(crate) known: BTreeSet<NodeId>,
    /// Processes that came back once after they were told to go.
    pub(crate) returned: BTreeSet<NodeId>,
    /// Replicas that the mover has made.
    pub(crate) made: u64,
    /// Merges under way where placement does not plan.
    pub(crate) plots: Vec<Plot>,
    pub(crate) events: u64,
}

/// What became of a seed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Of every event; equal for equal seeds.
    pub hash: u64,
    /// Lines of the trace.
    pub lines: u64,
    /// The first broken promise.
    pub broken: Option<String>,
    /// Operations of clients that were answered.
    pub completed: u64,
    /// Entries applied over all replicas.
    pub applied: u64,
    /// Elections won.
    pub elections: u64,
    /// Regions at the end.
    pub regions: u64,
    /// Snapshots installed.
    pub installs: u64,
    /// What became of snapshots on their way.
    pub transfers: Transfers,
    /// Regions that were taken in by a neighbour.
    pub merges: u64,
    /// Configurations of regions, one after the other.
    pub configurations: u64,
    /// Stores that left.
    pub removals: u64,
    /// Stores and members of placement that were lost for good, where others took their place.
    pub lost: u64,
    /// Members of placement at the end that joined while it ran, and vote.
    pub grown: u64,
}

impl World {
    pub(crate) fn new(case: Case) -> Self {
        let print = case.print;
        let cx = Cx::new(case);
        if print {
            println!("{:#?}", cx.knobs);
        }
        let stores = (1..=cx.knobs.stores).map(NodeId);
        let nodes: Vec<NodeId> = stores.chain(cx.members.iter().copied()).collect();
        let clients = clients(&cx.knobs);
        let history = History::new(|| 0);
        let stampers = stampers(&cx.knobs);
        let mut world = Self {
            cx,
            processes: BTreeMap::new(),
            clients,
            history,
            stampers,
            calls: 0,
            joining: None,
            arrivals: 0,
            candidates: BTreeSet::new(),
            known: BTreeSet::new(),
            returned: BTreeSet::new(),
            made: 0,
            plots: Vec::new(),
            events: 0,
        };
        for node in nodes {
            world.add(node, 500 * MS);
        }
        world
    }

    /// A machine more; its process starts within that time.
    fn add(&mut self, node: NodeId, within: u64) {
        let own = Concern::Process(node);
        let clock = Clock {
            rate: self.cx.within(own, self.cx.knobs.rates),
            origin: self.cx.within(own, (1_000 * MS, 1_000_000 * MS)),
        };
        self.known.insert(node);
        self.processes.insert(node, Process::new(node, clock));
        let delay = self.cx.within(own, (0, within));
        self.cx.after(delay, Event::Start(node));
    }

    /// Lives through the seed's whole story.
    pub(crate) fn run(mut self) -> Outcome {
        self.story();
        self.cx.checks.broken.is_none().then(|| self.check_history());
        let completed = self.clients.iter().map(|client| client.completed).sum();
        let checks = &self.cx.checks;
        Outcome {
            hash: self.cx.trace.hash(),
            lines: self.cx.trace.lines(),
            broken: checks.broken.clone(),
            completed,
            applied: checks.applied,
            elections: checks.elections,
            regions: checks.regions().count() as u64,
            installs: checks.installs,
            transfers: checks.transfers,
            merges: checks.merges,
            configurations: checks.configurations,
            removals: checks.lives.removals(),
            lost: checks.lives.losses(),
            grown: self.grown_voters(),
        }
    }

    fn step(&mut self) {
        let Some(event) = self.cx.agenda.pop() else { return };
        self.events += 1;
        if self.events > MOST_EVENTS {
            self.cx.checks.fail(|| "the world runs in circles".to_owned());
            return;
        }
        let happened = self.happen(event);
        while let Some(node) = self.cx.ended.pop() {
            self.end(node);
        }
        if let Err((node, error)) = happened {
            match error {
                EngineError::Fatal { .. } | EngineError::Full { .. } => {
                    self.cx.note(format_args!("{node} stops: {error}"));
                    let down = self.cx.within(Concern::Disk(node), (5 * MS, 1_000 * MS));
                    self.kill(node, down);
                }
                error => self.cx.checks.fail(|| format!("{node}: {error}")),
            }
        }
    }

    /// A process was told to go: it comes back once, and must be told again.
    fn end(&mut self, node: NodeId) {
        let Some(process) = self.processes.get_mut(&node) else { return };
        self.cx.note(format_args!("{node} is told to go"));
        if self.returned.insert(node) {
            process.crash(&mut self.cx);
            let after = self.cx.within(Concern::Process(node), (MS, 1_000 * MS));
            self.cx.after(after, Event::Start(node));
        } else {
            self.remove(node);
        }
    }

    /// A process is there no more.
    fn remove(&mut self, node: NodeId) {
        self.processes.remove(&node);
        self.cx.members.retain(|member| *member != node);
    }

    /// A process never comes back.
    fn lose(&mut self, node: NodeId) {
        self.cx.note(format_args!("{node} is lost for good"));
        self.remove(node);
        self.cx.checks.lost(node);
    }

    fn happen(&mut self, event: Event) -> Result<(), (NodeId, EngineError)> {
        let (node, life) = match &event {
            Event::Tick { node, life, .. }
            | Event::Turn { node, life, .. }
            | Event::Synced { node, life, .. }
            | Event::Work { node, life, .. }
            | Event::Beat { node, life }
            | Event::Broken { node, life, .. }
            | Event::Job { node, life, .. }
            | Event::Transfer { node, life, .. }
            | Event::Duty { node, life } => (*node, *life),
            // Its call says whom it means.
            Event::HungUp { node, .. } => {
                (*node, self.processes.get(node).map_or(0, |process| process.life))
            }
            Event::Packet(_) => return self.packet(event),
            Event::Start(node) => return self.start(*node),
            Event::Client { client, wake } => {
                let client = &mut self.clients[*client as usize - 1];
                client.wake(*wake, &self.history, &mut self.cx);
                return Ok(());
            }
            Event::Stamp { client, call } => {
                self.stampers[*client as usize - 1].wake(*call, &mut self.cx);
                return Ok(());
            }
            Event::Nemesis => {
                self.nemesis();
                return Ok(());
            }
            Event::Move => {
                self.move_replicas();
                return Ok(());
            }
            Event::Merge => {
                self.merge_regions();
                return Ok(());
            }
            Event::Deed(deed) => {
                let deed = deed.clone();
                self.perform(deed);
                return Ok(());
            }
        };
        let Some(process) = self.processes.get_mut(&node) else { return Ok(()) };
        let cx = &mut self.cx;
        if !process.lives(life) {
            return Ok(());
        }
        if cx.now() < process.paused_until {
            let rest = process.paused_until - cx.now();
            cx.after(rest, event);
            return Ok(());
        }
        let result = match event {
            Event::Tick { shard, .. } => {
                process.tick(shard, cx);
                Ok(())
            }
            Event::Turn { shard, .. } => process.turn(shard, cx),
            Event::Synced { shard, number, sync, .. } => process.synced(shard, number, sync, cx),
            Event::Work { shard, .. } => process.work(shard, cx),
            Event::Beat { .. } => {
                process.beat(cx);
                Ok(())
            }
            Event::Broken { to, .. } => {
                process.unreachable(to, cx);
                Ok(())
            }
            Event::Job { job, .. } => {
                process.with_role(cx, |role, host| role.job(job, host));
                Ok(())
            }
            Event::Duty { .. } => {
                process.duty(cx);
                process.expire(cx)
            }
            Event::Transfer { step, .. } => process.transfer(step, cx),
            Event::HungUp { call, .. } => process.hung_up(call, cx),
            Event::Packet(_)
            | Event::Start(_)
            | Event::Client { .. }
            | Event::Stamp { .. }
            | Event::Nemesis
            | Event::Move
            | Event::Merge
            | Event::Deed(_) => Ok(()),
        };
        result.map_err(|error| (node, error))
    }

    fn start(&mut self, node: NodeId) -> Result<(), (NodeId, EngineError)> {
        let Some(process) = self.processes.get_mut(&node) else { return Ok(()) };
        if process.up.is_none() {
            self.cx.note(format_args!("{node} starts"));
            process.start(&mut self.cx).map_err(|error| (node, error))?;
        }
        Ok(())
    }
}

fn clients(knobs: &Knobs) -> Vec<Client> {
    let roaming = (0..knobs.clients).map(|_| None);
    let sticking = (1..=knobs.stores).filter(|_| knobs.sticking).map(|store| Some(StoreId(store)));
    (1..).zip(roaming.chain(sticking)).map(|(number, store)| Client::new(number, store)).collect()
}

fn stampers(knobs: &Knobs) -> Vec<Stamper> {
    let roaming = (0..2).map(|_| None);
    let sticking = (1..=knobs.members).filter(|_| knobs.sticking).map(Some);
    (1..).zip(roaming.chain(sticking)).map(|(number, to)| Stamper::new(number, to)).collect()
}
