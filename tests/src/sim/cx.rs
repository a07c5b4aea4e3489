//! What every part of the simulated world shares: time, chance, links, checks, the trace.

use std::collections::BTreeMap;
use std::fmt;

use quorate_consensus::shard::Plane;
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{NodeId, RegionId};
use rand::Rng;

use super::agenda::{Agenda, MS};
use super::case::Case;
use super::chance::{Chance, Concern, Lane, Span, happens, within};
use super::checks::Checks;
use super::knobs::Knobs;
use super::messages::{Body, Call, Event, Packet, Piece};
use super::mutant::Mutant;
use super::network::Network;
use super::placement::{MEMBERS, founders};
use super::trace::Trace;

/// When processes last asked for votes. The nemesis looks at it to strike at the right moment.
#[derive(Debug, Default)]
pub(crate) struct Campaigns {
    times: BTreeMap<(RegionId, NodeId), (u64, u64)>,
}

impl Campaigns {
    pub(crate) fn begun(&mut self, group: RegionId, node: NodeId, now: u64) {
        let (_, last) = self.times.entry((group, node)).or_default();
        if now > *last {
            let before = *last;
            self.times.insert((group, node), (before, now));
        }
    }

    /// The last two, the newest second; zero where there was none.
    pub(crate) fn of(&self, group: RegionId, node: NodeId) -> (u64, u64) {
        self.times.get(&(group, node)).copied().unwrap_or_default()
    }
}

/// What the sender of a packet may find out.
struct Sent {
    /// Its stream broke, and it notices.
    broken: bool,
    /// The packet never arrives.
    lost: bool,
}

/// How long it takes at most to notice that nobody is at the other end (as in production).
const KEPT_ALIVE: u64 = 4_000 * MS;

/// See the module.
pub(crate) struct Cx {
    chance: Chance,
    pub(crate) agenda: Agenda<Event>,
    pub(crate) net: Network,
    pub(crate) checks: Checks,
    pub(crate) trace: Trace,
    pub(crate) knobs: Knobs,
    pub(crate) mutant: Option<Mutant>,
    /// Raft messages of stores handed to the network so far.
    pub(crate) envelopes: u64,
    pub(crate) campaigns: Campaigns,
    /// Stores that have joined: they do it in order, so that each gets the id it expects.
    pub(crate) joined: u64,
    /// Members of placement, as all who look for its leader know them.
    pub(crate) members: Vec<NodeId>,
    /// Those that came later, and the data id of each.
    pub(crate) grown: BTreeMap<NodeId, u64>,
    /// Processes that were told to end for good, until the world has ended them.
    pub(crate) ended: Vec<NodeId>,
}

impl Cx {
    pub(crate) fn new(case: Case) -> Self {
        let Case { seed, knobs, mutant, print, .. } = case;
        let members = founders(knobs.members).iter().map(|member| member.node).collect();
        Self {
            chance: Chance::new(seed),
            agenda: Agenda::new(),
            net: Network::default(),
            checks: Checks::default(),
            trace: Trace::new(print),
            knobs,
            mutant,
            envelopes: 0,
            campaigns: Campaigns::default(),
            joined: 0,
            members,
            grown: BTreeMap::new(),
            ended: Vec::new(),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.agenda.now()
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// True for the process of a member of placement, past or present.
    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        node.0 > MEMBERS || self.grown.contains_key(&node)
    }

    /// The member of placement to ask after that one.
    pub(crate) fn next_member(&self, after: NodeId) -> NodeId {
        let at = self.members.iter().position(|member| *member == after);
        self.members[at.map_or(0, |at| (at + 1) % self.members.len())]
    }

    pub(crate) fn note(&mut self, words: fmt::Arguments<'_>) {
        self.trace.note(self.agenda.now(), words);
    }

    pub(crate) fn chance(&mut self, concern: Concern, share: f64) -> bool {
        happens(self.chance.of(concern), share)
    }

    pub(crate) fn within(&mut self, concern: Concern, span: Span) -> u64 {
        within(self.chance.of(concern), span)
    }

    /// One of so many, counted from zero.
    pub(crate) fn one_of(&mut self, concern: Concern, count: usize) -> usize {
        within(self.chance.of(concern), (0, count as u64 - 1)) as usize
    }

    /// Plans an event `after` nanoseconds from now.
    pub(crate) fn after(&mut self, after: u64, event: Event) {
        self.at(self.now() + after, event);
    }

    fn at(&mut self, at: u64, event: Event) {
        let tie = self.chance.of(event.concern()).random();
        self.agenda.at(at, tie, event);
    }

    /// Sends raft messages. `life` is the sender's.
    pub(crate) fn frame(
        &mut self,
        (from, life): (NodeId, u64),
        to: NodeId,
        plane: Plane,
        envelopes: Vec<Envelope>,
    ) {
        if !self.is_member(from) {
            self.envelopes += envelopes.len() as u64;
        }
        let lane = Lane::Raft(plane);
        let body = Body::Frame(envelopes);
        if self.transmit(Packet { from, to, lane, body }, true).broken {
            let delay = self.within(Concern::Link(from, to, lane), (0, 50 * MS));
            self.after(delay, Event::Broken { node: from, life, to });
        }
    }

    /// Sends anything else, once at most.
    pub(crate) fn send(&mut self, from: NodeId, to: NodeId, lane: Lane, body: Body) {
        self.transmit(Packet { from, to, lane, body }, false);
    }

    /// Sends a piece of a call. What gets lost takes its connection along.
    pub(crate) fn piece(&mut self, from: NodeId, to: NodeId, piece: Piece) {
        let (call, lane) = (piece.call, Lane::Raft(Plane::Bulk));
        let body = Body::Piece(Box::new(piece));
        let sent = self.transmit(Packet { from, to, lane, body }, false);
        if sent.lost || sent.broken {
            self.hang_up(call, &[from, to]);
        }
    }

    /// The connection of a call broke: each of these ends notices in its own time.
    pub(crate) fn hang_up(&mut self, call: Call, ends: &[NodeId]) {
        for &node in ends {
            let own = Concern::Transfers(node);
            let soon = self.chance(own, 0.5);
            let after = self.within(own, (0, if soon { 50 * MS } else { KEPT_ALIVE }));
            self.after(after, Event::HungUp { node, call });
        }
    }

    fn transmit(&mut self, packet: Packet, may_repeat: bool) -> Sent {
        let now = self.now();
        let rng = self.chance.of(packet.concern());
        let fate = self.net.send(packet.link(), now, &self.knobs, rng);
        let broken = fate.broken;
        if fate.held {
            let lost = !self.net.hold(packet);
            return Sent { broken, lost };
        }
        let mut arrivals = fate.arrivals.into_iter();
        let Some(first) = arrivals.next() else { return Sent { broken, lost: true } };
        if may_repeat && let Some(again) = arrivals.next() {
            self.at(again, Event::Packet(Box::new(packet.clone())));
        }
        self.at(first, Event::Packet(Box::new(packet)));
        Sent { broken, lost: false }
    }

    /// All links are up again: what they held comes in, in its order.
    pub(crate) fn mend(&mut self) {
        let held = self.net.heal();
        self.release(held);
    }

    /// That link is up again.
    pub(crate) fn join(&mut self, from: NodeId, to: NodeId) {
        let held = self.net.join(from, to);
        self.release(held);
    }

    fn release(&mut self, held: Vec<Packet>) {
        for packet in held {
            let (now, rng) = (self.now(), self.chance.of(packet.concern()));
            let at = self.net.in_order(packet.link(), now, &self.knobs, rng);
            self.at(at, Event::Packet(Box::new(packet)));
        }
    }
}
