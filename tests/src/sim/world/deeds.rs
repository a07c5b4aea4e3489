//! What trouble does to the world, one deed at a time.

use quorate_consensus::shard;
use quorate_proto::{NodeId, RegionId};

use super::World;
use crate::sim::agenda::MS;
use crate::sim::messages::Event;

/// Something bad that happens. Times are in nanoseconds.
#[derive(Debug, Clone)]
pub(crate) enum Deed {
    /// A process loses power and starts again after `down`.
    Kill { node: NodeId, down: u64 },
    /// A process stands still.
    Pause { node: NodeId, pause: u64 },
    /// Nothing gets from one to the other.
    Cut { from: NodeId, to: NodeId },
    /// Nothing gets to it and nothing from it.
    CutOff { node: NodeId },
    /// Nothing gets to it.
    Deafen { node: NodeId },
    /// All links are whole.
    Mend,
    /// Whoever leads the group is told to hand it over.
    HandOver { group: RegionId, to: NodeId },
}

impl World {
    /// Does it at once.
    pub(super) fn perform(&mut self, deed: Deed) {
        if !self.cx.net.bad {
            return;
        }
        match deed {
            Deed::Kill { node, down } => self.kill(node, down),
            Deed::Pause { node, pause } => {
                self.cx.note(format_args!("{node} is paused for {} ms", pause / MS));
                let until = self.cx.now() + pause;
                if let Some(process) = self.processes.get_mut(&node) {
                    process.paused_until = process.paused_until.max(until);
                }
            }
            Deed::Cut { from, to } => {
                self.cx.note(format_args!("nothing gets from {from} to {to}"));
                self.cx.net.cut(from, to);
            }
            Deed::CutOff { node } => {
                self.cx.note(format_args!("{node} is cut off"));
                for other in self.nodes() {
                    self.cx.net.cut(node, other);
                    self.cx.net.cut(other, node);
                }
            }
            Deed::Deafen { node } => {
                self.cx.note(format_args!("nothing gets to {node}"));
                for other in self.nodes() {
                    self.cx.net.cut(other, node);
                }
            }
            Deed::Mend => {
                self.cx.note(format_args!("all links are up"));
                self.cx.mend();
            }
            Deed::HandOver { group, to } => {
                if let Some(leader) = self.leader_of(group)
                    && let Some(process) = self.processes.get_mut(&leader)
                {
                    self.cx.note(format_args!("{leader} is told to hand {group} to {to}"));
                    process.mail(shard::Event::TransferLeader { group, to }, &mut self.cx);
                }
            }
        }
    }

    /// Plans a deed.
    pub(super) fn plan(&mut self, after: u64, deed: Deed) {
        self.cx.after(after, Event::Deed(deed));
    }

    /// Kills a process; it starts again after `down`.
    pub(super) fn kill(&mut self, node: NodeId, down: u64) {
        let Some(process) = self.processes.get_mut(&node) else { return };
        if process.up.is_some() {
            process.crash(&mut self.cx);
            self.cx.after(down, Event::Start(node));
        }
    }

    /// All processes.
    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.processes.keys().copied().collect()
    }

    /// A process that runs and takes itself for the leader of a group.
    pub(super) fn leader_of(&self, group: RegionId) -> Option<NodeId> {
        let now = self.cx.now();
        let leads = |process: &&super::Process| {
            let Some(up) = process.up.as_ref().filter(|_| process.paused_until <= now) else {
                return false;
            };
            up.role.view(group).is_some_and(|view| view.is_leader())
        };
        self.processes.values().find(leads).map(|process| process.id)
    }
}
