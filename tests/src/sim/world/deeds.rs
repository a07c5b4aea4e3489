//! What trouble does to the world, one deed at a time.

use quorate_consensus::shard;
use quorate_proto::{NodeId, RegionId, StoreId};

use super::World;
use crate::sim::agenda::MS;
use crate::sim::messages::{Ask, Event};
use crate::sim::store::joining;

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
    /// What gets from one to the other gets there again.
    Join { from: NodeId, to: NodeId },
    /// It is reached again and reaches everybody.
    Rejoin { node: NodeId },
    /// All links are whole.
    Mend,
    /// See [`Strike`].
    Strike(Box<Strike>),
    /// The store that takes the place of a lost one joins.
    JoinStore,
    /// As soon as some of a snapshot is staged, its receiver or its sender dies, or their connection
    /// breaks; nothing happens where there is none until then.
    Ambush { until: u64 },
    /// A process asks to become a member of placement.
    JoinMember { data_id: u64 },
    /// A store that is lost is said to be.
    Bury { store: StoreId },
    /// Somebody looks after stores and members that come and go.
    Tend,
    /// Whoever leads the group is told to hand it over.
    HandOver { group: RegionId, to: NodeId },
}

/// Against the promise not to vote after a start: `candidate` does not hear `leader` and wants
/// votes; `others`, who have heard the leader and have its lease on their word, are started anew
/// just before the candidate asks them again, and hear the leader no more. If they vote at once,
/// two lead.
#[derive(Debug, Clone)]
pub(crate) struct Strike {
    pub(crate) group: RegionId,
    pub(crate) leader: NodeId,
    pub(crate) candidate: NodeId,
    pub(crate) others: Vec<NodeId>,
    pub(crate) since: u64,
}

/// Between two attempts to join.
const JOIN_AGAIN: u64 = 300 * MS;
/// A candidate that does not ask for so long is not waited for.
const STRIKE_PATIENCE: u64 = 3_000 * MS;
/// How long before its next campaign its voters are killed.
const STRIKE_AHEAD: u64 = 60 * MS;

impl World {
    /// Does it at once.
    pub(super) fn perform(&mut self, deed: Deed) {
        // Who joins goes on with it also when all is healed.
        let goes_on = matches!(deed, Deed::JoinStore | Deed::JoinMember { .. } | Deed::Tend);
        if !self.cx.net.bad && !goes_on {
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
            Deed::Join { from, to } => {
                self.cx.note(format_args!("what {from} sends to {to} gets there again"));
                self.cx.join(from, to);
            }
            Deed::Rejoin { node } => {
                self.cx.note(format_args!("{node} is reached again"));
                for other in self.nodes() {
                    self.cx.join(node, other);
                    self.cx.join(other, node);
                }
            }
            Deed::Strike(strike) => self.strike(*strike),
            Deed::Ambush { until } => self.ambush(until),
            Deed::JoinStore => {
                if let Some(data_id) = self.joining {
                    self.ask_placement(&Ask::Join(joining(None, data_id, 1)));
                    self.plan(JOIN_AGAIN, Deed::JoinStore);
                }
            }
            Deed::JoinMember { data_id } => self.ask_to_be_a_member(data_id),
            Deed::Tend => self.tend(),
            Deed::Bury { store } => {
                self.ask_placement(&Ask::RemoveStore { store, cancel: false, dead: true });
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

    fn strike(&mut self, strike: Strike) {
        let now = self.cx.now();
        let (before, last) = self.cx.campaigns.of(strike.group, strike.candidate);
        // The first one ends a wait of another length.
        let period = if before >= strike.since { last - before } else { 600 * MS };
        if last < strike.since || now < last + period.saturating_sub(STRIKE_AHEAD) {
            if now < strike.since + STRIKE_PATIENCE {
                self.plan(10 * MS, Deed::Strike(Box::new(strike)));
            } else {
                self.perform(Deed::Mend);
            }
            return;
        }
        for node in strike.others {
            let down = self.draw((MS, 20 * MS));
            self.perform(Deed::Kill { node, down });
            self.perform(Deed::Cut { from: strike.leader, to: node });
            self.perform(Deed::Cut { from: node, to: strike.leader });
        }
        self.plan(1_000 * MS, Deed::Mend);
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
            self.hang_up_on(node);
        }
    }

    /// A process is gone: the others notice that the calls broke which they had with it.
    pub(super) fn hang_up_on(&mut self, gone: NodeId) {
        for process in self.processes.values() {
            let Some(up) = &process.up else { continue };
            for call in up.sending.calls_to(gone).chain(up.receiving.calls_from(gone)) {
                self.cx.hang_up(call, &[process.id]);
            }
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
