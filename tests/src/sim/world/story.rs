//! What a world lives through: start, work, trouble, healing, rest.

use super::{Deed, World};
use crate::linearize::kv::{KvVerdict, check_kv};
use crate::sim::agenda::MS;
use crate::sim::client::{Client, key};
use crate::sim::messages::{Event, Operation, Wake};

/// Operations that a seed must complete, or its test has shown nothing.
const FLOOR: u64 = 20;

impl World {
    pub(super) fn story(&mut self) {
        for client in 1..=self.clients.len() as u64 {
            self.cx.after(1_000 * MS, Event::Client { client, wake: Wake::Next });
        }
        for stamper in &mut self.stampers {
            stamper.ask(&mut self.cx);
        }
        if !self.until(30_000 * MS, "a first write of each client", |world| {
            let mut roaming = world.clients.iter().filter(|client| client.roams());
            roaming.all(|client| client.written > 0 || client.completed > 20)
        }) {
            return;
        }
        self.cx.net.bad = true;
        self.cx.after(0, Event::Nemesis);
        self.cx.after(0, Event::Move);
        self.cx.after(0, Event::Merge);
        if self.cx.knobs.down_ms > 0 {
            self.begin_growth();
            self.perform(Deed::Tend);
        }
        let end = self.cx.now() + self.cx.knobs.chaos;
        self.run_to(end);
        self.heal();
        // What comes late through links that were broken may hold elections up.
        let late = self.cx.net.late_until.max(self.cx.now());
        self.run_to(late);
        let before: Vec<u64> = self.clients.iter().map(|client| client.completed).collect();
        if !self.until(20_000 * MS, "progress of each client after all is healed", |world| {
            let mut clients = world.clients.iter().zip(&before);
            clients.all(|(client, before)| !client.roams() || client.completed > before + 3)
        }) {
            return;
        }
        let before: Vec<u64> = self.stampers.iter().map(|stamper| stamper.stamped).collect();
        if !self.until(20_000 * MS, "timestamps after all is healed", |world| {
            let mut stampers = world.stampers.iter().zip(&before);
            stampers.all(|(stamper, before)| !stamper.roams() || stamper.stamped > *before)
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
    pub(crate) fn run_errands(&mut self, errands: impl Iterator<Item = Operation>) {
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
        self.cx.mend();
        let now = self.cx.now();
        for process in self.processes.values_mut() {
            process.paused_until = process.paused_until.min(now);
            if process.up.is_none() {
                self.cx.after(0, Event::Start(process.id));
            }
        }
    }

    /// Lets time pass until something holds.
    pub(crate) fn until(
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

    pub(crate) fn run_to(&mut self, end: u64) {
        while self.cx.checks.broken.is_none()
            && self.cx.agenda.next_at().is_some_and(|at| at <= end)
        {
            self.step();
        }
    }

    pub(super) fn check_history(&mut self) {
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
