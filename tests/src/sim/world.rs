//! The world of one seed: processes, clients, trouble, and the order in which all of it happens.

use std::collections::BTreeMap;

use quorate_consensus::engine::EngineError;
use quorate_consensus::shard::Plane;
use quorate_proto::NodeId;

use super::agenda::MS;
use super::client::{CLIENTS, Client, History, key};
use super::clock::Clock;
use super::cx::Cx;
use super::member::{Asked, MEMBERS};
use super::messages::{Body, Event, Failure, Operation, Packet, Told, Wake};
use super::mutant::Mutant;
use super::process::Process;
use super::stamper::{STAMPERS, Stamper};
use crate::linearize::kv::{KvVerdict, check_kv};

/// Operations that a seed must complete, or its test has shown nothing.
const FLOOR: u64 = 30;
/// Events after which a world counts as running in circles.
const MOST_EVENTS: u64 = 20_000_000;

/// See the module.
pub(super) struct World {
    pub(super) cx: Cx,
    pub(super) processes: BTreeMap<NodeId, Process>,
    pub(super) clients: Vec<Client>,
    pub(super) history: History,
    pub(super) stampers: Vec<Stamper>,
    /// Calls of the nemesis to placement.
    pub(super) calls: u64,
    pub(super) events: u64,
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
}

impl World {
    pub(super) fn new(seed: u64, mutant: Option<Mutant>, print: bool) -> Self {
        let mut cx = Cx::new(seed, mutant, print);
        if print {
            println!("{:#?}", cx.knobs);
        }
        let mut processes = BTreeMap::new();
        let members = MEMBERS + 1..=MEMBERS + cx.knobs.members;
        for store in (1..=cx.knobs.stores).chain(members) {
            let clock = Clock {
                rate: cx.within(cx.knobs.rates),
                origin: cx.within((1_000 * MS, 1_000_000 * MS)),
            };
            processes.insert(NodeId(store), Process::new(NodeId(store), clock));
            let delay = cx.within((0, 500 * MS));
            cx.after(delay, Event::Start(NodeId(store)));
        }
        let clients = (1..=cx.knobs.clients).map(Client::new).collect();
        let history = History::new(|| 0);
        let stampers = (1..=2).map(Stamper::new).collect();
        Self { cx, processes, clients, history, stampers, calls: 0, events: 0 }
    }

    /// Lives through the seed's whole story.
    pub(super) fn run(mut self) -> Outcome {
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
        }
    }

    fn story(&mut self) {
        for client in 1..=self.cx.knobs.clients {
            self.cx.after(1_000 * MS, Event::Client { client, wake: Wake::Next });
        }
        for stamper in &mut self.stampers {
            stamper.ask(&mut self.cx);
        }
        if !self.until(30_000 * MS, "a first write of each client", |world| {
            world.clients.iter().all(|client| client.written > 0 || client.completed > 20)
        }) {
            return;
        }
        self.cx.net.bad = true;
        self.cx.after(0, Event::Nemesis);
        let end = self.cx.now() + self.cx.knobs.chaos;
        self.run_to(end);
        self.heal();
        let before: Vec<u64> = self.clients.iter().map(|client| client.completed).collect();
        if !self.until(20_000 * MS, "progress of each client after all is healed", |world| {
            world.clients.iter().zip(&before).all(|(client, before)| client.completed > before + 3)
        }) {
            return;
        }
        for client in &mut self.clients {
            client.stopped = true;
        }
        if !self.until(10_000 * MS, "the end of all operations", World::is_idle) {
            return;
        }
        self.run_errands((0..self.cx.knobs.keys).map(|number| Operation::Get { key: key(number) }));
        self.settle();
    }

    /// One client does these, each of which must be answered.
    pub(super) fn run_errands(&mut self, errands: impl Iterator<Item = Operation>) {
        let before = self.clients[0].completed;
        self.clients[0].errands = errands.collect();
        let wanted = before + self.clients[0].errands.len() as u64;
        self.cx.after(0, Event::Client { client: 1, wake: Wake::Next });
        if !self.until(30_000 * MS, "the end of all errands", World::is_idle) {
            return;
        }
        let completed = self.clients[0].completed;
        if completed != wanted {
            self.cx
                .checks
                .fail(|| format!("{} of the errands in a healed world failed", wanted - completed));
        }
    }

    fn is_idle(world: &World) -> bool {
        world.clients.iter().all(Client::is_idle)
    }

    fn heal(&mut self) {
        self.cx.note(format_args!("all is healed"));
        self.cx.net.bad = false;
        self.cx.net.heal();
        let now = self.cx.now();
        for process in self.processes.values_mut() {
            process.paused_until = process.paused_until.min(now);
            if process.up.is_none() {
                self.cx.after(0, Event::Start(process.id));
            }
        }
    }

    /// Lets time pass until something holds.
    pub(super) fn until(
        &mut self,
        within: u64,
        what: &str,
        holds: impl Fn(&World) -> bool,
    ) -> bool {
        let end = self.cx.now() + within;
        while !holds(self) {
            if self.cx.checks.broken.is_some() {
                return false;
            }
            if self.cx.agenda.next_at().is_none_or(|at| at > end) {
                self.cx.checks.fail(|| format!("waited {} ms in vain for {what}", within / MS));
                return false;
            }
            self.step();
        }
        true
    }

    pub(super) fn run_to(&mut self, end: u64) {
        while self.cx.checks.broken.is_none()
            && self.cx.agenda.next_at().is_some_and(|at| at <= end)
        {
            self.step();
        }
    }

    fn step(&mut self) {
        let Some(event) = self.cx.agenda.pop() else { return };
        self.events += 1;
        if self.events > MOST_EVENTS {
            self.cx.checks.fail(|| "the world runs in circles".to_owned());
            return;
        }
        if let Err((node, error)) = self.happen(event) {
            match error {
                EngineError::Fatal { .. } | EngineError::Full { .. } => {
                    self.cx.note(format_args!("{node} stops: {error}"));
                    let down = self.cx.within((5 * MS, 1_000 * MS));
                    self.kill(node, down);
                }
                error => self.cx.checks.fail(|| format!("{node}: {error}")),
            }
        }
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
            | Event::Duty { node, life } => (*node, *life),
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
            Event::Nemesis => return self.nemesis(),
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
                Ok(())
            }
            Event::Packet(_)
            | Event::Start(_)
            | Event::Client { .. }
            | Event::Stamp { .. }
            | Event::Nemesis => Ok(()),
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

    fn packet(&mut self, event: Event) -> Result<(), (NodeId, EngineError)> {
        let Event::Packet(packet) = event else { return Ok(()) };
        let Packet { from, to, .. } = *packet;
        if to.0 > CLIENTS {
            self.deliver_to_client(*packet);
            return Ok(());
        }
        let Some(process) = self.processes.get_mut(&to) else { return Ok(()) };
        if process.up.is_none() {
            self.nobody_there(*packet);
            return Ok(());
        }
        if self.cx.now() < process.paused_until {
            let rest = process.paused_until - self.cx.now();
            self.cx.after(rest, Event::Packet(packet));
            return Ok(());
        }
        let cx = &mut self.cx;
        match packet.body {
            Body::Frame(envelopes) => process.frame(from, envelopes, cx),
            Body::Beat(incarnation) => process.beat_from(from, incarnation, cx),
            Body::Snapshot(transfer) => {
                let broken = cx.net.is_cut(from, to) || (cx.net.bad && cx.chance(0.1));
                let taken =
                    !broken && process.receive(from, &transfer, cx).map_err(|error| (to, error))?;
                // Its receipt may be lost as well.
                let known = taken && !(cx.net.bad && cx.chance(0.1));
                self.transferred(from, *transfer, known);
            }
            Body::Request(request) => process.with_role(cx, |role, host| {
                if let Some(store) = role.store_mut() {
                    store.request(from, *request, host);
                }
            }),
            Body::Ask { call, ask } => process.with_role(cx, |role, host| {
                role.asked(Asked { from, call, ask: *ask }, host);
            }),
            Body::Told { call, told } => {
                let told = process.with_role(cx, |role, host| match role.store_mut() {
                    Some(store) => store.told(call, told, host),
                    None => Ok(()),
                });
                told.map_err(|error| (to, error))?;
            }
            Body::Response { .. } => {}
        }
        Ok(())
    }

    fn deliver_to_client(&mut self, packet: Packet) {
        let Packet { from, to, body } = packet;
        if to.0 > STAMPERS {
            if let Body::Told { call, told } = body
                && let Some(stamper) = self.stampers.get_mut((to.0 - STAMPERS) as usize - 1)
            {
                stamper.told(from, call, &told, &mut self.cx);
            }
            return;
        }
        let client = &mut self.clients[(to.0 - CLIENTS) as usize - 1];
        match body {
            Body::Response { call, result } => client.answer(call, result, &mut self.cx),
            Body::Told { call, told } => client.told(call, told, &mut self.cx),
            Body::Frame(_)
            | Body::Beat(_)
            | Body::Snapshot(_)
            | Body::Request(_)
            | Body::Ask { .. } => {}
        }
    }

    fn transferred(&mut self, from: NodeId, transfer: super::messages::Transfer, delivered: bool) {
        let Some(process) = self.processes.get_mut(&from) else { return };
        if process.lives(transfer.life) {
            process.sent(&transfer.make, delivered, &mut self.cx);
        }
    }

    /// The process is down: its system refuses connections.
    fn nobody_there(&mut self, packet: Packet) {
        let Packet { from, to, body } = packet;
        match body {
            Body::Frame(_) | Body::Beat(_) => {
                if let Some(process) = self.processes.get_mut(&from)
                    && process.up.is_some()
                {
                    process.unreachable(to, &mut self.cx);
                }
            }
            Body::Snapshot(transfer) => self.transferred(from, *transfer, false),
            Body::Request(request) => {
                let body = Body::Response { call: request.call, result: Err(Failure::Unreachable) };
                self.cx.send(to, from, Plane::Control, body);
            }
            Body::Ask { call, .. } => {
                let body = Body::Told { call, told: Told::NotLeader(None) };
                self.cx.send(to, from, Plane::Control, body);
            }
            Body::Response { .. } | Body::Told { .. } => {}
        }
    }

    fn check_history(&mut self) {
        let mut history = self.history.history();
        for client in &mut self.clients {
            history.append(&mut client.scans);
        }
        match check_kv(&history) {
            KvVerdict::Linearizable => {}
            bad @ (KvVerdict::Illegal { .. } | KvVerdict::Unknown { .. }) => {
                self.cx.checks.fail(|| bad.to_string());
            }
        }
        let completed: u64 = self.clients.iter().map(|client| client.completed).sum();
        if completed < FLOOR {
            self.cx.checks.fail(|| format!("only {completed} operations were completed"));
        }
    }
}
