//! Trouble: crashes, pauses, partitions, failing disks, leadership and splits at bad moments.

use quorate_consensus::engine::EngineError;
use quorate_consensus::shard::{self, Plane};
use quorate_proto::NodeId;

use super::agenda::MS;
use super::client::key;
use super::knobs::DEEDS;
use super::member::{GROUP, MEMBERS};
use super::messages::{Ask, Body, Event};
use super::process::Process;
use super::world::World;

/// The nemesis waits for no answers.
const NOBODY: u64 = 9_999;
/// More are not asked for.
const MOST_REGIONS: usize = 30;

impl World {
    /// One deed, then the next is planned.
    pub(super) fn nemesis(&mut self) -> Result<(), (NodeId, EngineError)> {
        if !self.cx.net.bad {
            return Ok(());
        }
        let next = self.cx.within(self.cx.knobs.nemesis);
        self.cx.after(next, Event::Nemesis);
        let nodes: Vec<NodeId> = self.processes.keys().copied().collect();
        let victim = self.victim();
        let other = nodes[self.cx.within((0, nodes.len() as u64 - 1)) as usize];
        match self.draw_deed() {
            0 => {
                let down = self.cx.within((5 * MS, 2_500 * MS));
                self.kill(victim, down);
            }
            1 => {
                let pause = self.cx.within((50 * MS, 2_000 * MS));
                self.cx.note(format_args!("{victim} is paused for {} ms", pause / MS));
                let until = self.cx.now() + pause;
                if let Some(process) = self.processes.get_mut(&victim) {
                    process.paused_until = process.paused_until.max(until);
                }
            }
            2 => {
                self.cx.note(format_args!("nothing gets from {victim} to {other}"));
                self.cx.net.cut(victim, other);
            }
            3 => {
                self.cx.note(format_args!("{victim} is cut off"));
                for other in nodes {
                    self.cx.net.cut(victim, other);
                    self.cx.net.cut(other, victim);
                }
            }
            4 => {
                self.cx.note(format_args!("all links are up"));
                self.cx.net.heal();
            }
            5 => self.transfer(),
            6 => self.hand_over_placement(),
            _ => self.split_somewhere(),
        }
        Ok(())
    }

    /// Drawn by the weights of the seed.
    fn draw_deed(&mut self) -> usize {
        let weights = self.cx.knobs.deeds;
        let mut at = self.cx.within((0, weights.iter().sum::<u64>() - 1));
        for (deed, weight) in weights.into_iter().enumerate() {
            if at < weight {
                return deed;
            }
            at -= weight;
        }
        DEEDS - 1
    }

    /// Kills a process; it starts again after `down`.
    pub(super) fn kill(&mut self, node: NodeId, down: u64) {
        let Some(process) = self.processes.get_mut(&node) else { return };
        if process.up.is_some() {
            process.crash(&mut self.cx);
            self.cx.after(down, Event::Start(node));
        }
    }

    /// Asks all members of placement: one of them leads.
    fn ask_placement(&mut self, ask: &Ask) {
        for member in MEMBERS + 1..=MEMBERS + self.cx.knobs.members {
            self.calls += 1;
            let body = Body::Ask { call: self.calls, ask: Box::new(ask.clone()) };
            self.cx.send(NodeId(NOBODY), NodeId(member), Plane::Control, body);
        }
    }

    /// Leadership of some region goes elsewhere.
    fn transfer(&mut self) {
        let at = key(self.cx.within((0, self.cx.knobs.keys - 1)));
        let Some(region) = self.cx.checks.region_of(&at) else { return };
        let to = region.peers[self.cx.within((0, region.peers.len() as u64 - 1)) as usize].store;
        self.ask_placement(&Ask::Transfer { region: region.id, to });
    }

    /// Some region splits.
    fn split_somewhere(&mut self) {
        let at = key(self.cx.within((0, self.cx.knobs.keys - 1)));
        if self.cx.checks.regions().count() < MOST_REGIONS {
            self.ask_placement(&Ask::Split([at].into()));
        }
    }

    /// Leadership of placement goes elsewhere.
    fn hand_over_placement(&mut self) {
        let to = NodeId(MEMBERS + self.cx.within((1, self.cx.knobs.members)));
        let now = self.cx.now();
        for process in self.processes.values_mut().filter(|process| process.paused_until <= now) {
            let member = process.up.as_ref().and_then(|up| up.role.member());
            if member.is_some_and(|member| member.view.is_leader()) {
                process.mail(shard::Event::TransferLeader { group: GROUP, to }, &mut self.cx);
            }
        }
    }

    /// A process to trouble: often one that leads where clients are.
    fn victim(&mut self) -> NodeId {
        let at = key(self.cx.within((0, self.cx.knobs.keys - 1)));
        let region = self.cx.checks.region_of(&at).filter(|_| self.cx.chance(0.5));
        let leads = |process: &&Process| {
            let store = process.up.as_ref().and_then(|up| up.role.store());
            let local = region.as_ref().and_then(|region| store?.directory.get(region.id));
            local.is_some_and(|local| local.view().is_leader())
        };
        if let Some(process) = self.processes.values().find(leads) {
            return process.id;
        }
        let nodes: Vec<NodeId> = self.processes.keys().copied().collect();
        nodes[self.cx.within((0, nodes.len() as u64 - 1)) as usize]
    }
}
