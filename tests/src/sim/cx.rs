//! What every part of the simulated world shares: time, chance, links, checks, the trace.

use std::fmt;

use quorate_consensus::shard::Plane;
use quorate_proto::NodeId;
use quorate_proto::wire::peer::Envelope;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::agenda::{Agenda, MS};
use super::checks::Checks;
use super::knobs::{Knobs, Span, within};
use super::member::MEMBERS;
use super::messages::{Body, Event, Packet};
use super::mutant::Mutant;
use super::network::Network;
use super::trace::Trace;

/// See the module.
pub(super) struct Cx {
    pub(super) rng: SmallRng,
    pub(super) agenda: Agenda<Event>,
    pub(super) net: Network,
    pub(super) checks: Checks,
    pub(super) trace: Trace,
    pub(super) knobs: Knobs,
    pub(super) mutant: Option<Mutant>,
    /// Raft messages of stores handed to the network so far.
    pub(super) envelopes: u64,
    /// Stores that have joined: they do it in order, so that each gets the id it expects.
    pub(super) joined: u64,
}

impl Cx {
    pub(super) fn new(seed: u64, mutant: Option<Mutant>, print: bool) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let knobs = Knobs::draw(&mut rng);
        Self {
            rng,
            agenda: Agenda::new(),
            net: Network::default(),
            checks: Checks::default(),
            trace: Trace::new(print),
            knobs,
            mutant,
            envelopes: 0,
            joined: 0,
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.agenda.now()
    }

    pub(super) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub(super) fn note(&mut self, words: fmt::Arguments<'_>) {
        self.trace.note(self.agenda.now(), words);
    }

    pub(super) fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.rng.random_bool(share)
    }

    pub(super) fn within(&mut self, span: Span) -> u64 {
        within(&mut self.rng, span)
    }

    /// Plans an event `after` nanoseconds from now.
    pub(super) fn after(&mut self, after: u64, event: Event) {
        let (at, tie) = (self.now() + after, self.rng.random());
        self.agenda.at(at, tie, event);
    }

    /// Sends raft messages. `life` is the sender's.
    pub(super) fn frame(
        &mut self,
        (from, life): (NodeId, u64),
        to: NodeId,
        plane: Plane,
        envelopes: Vec<Envelope>,
    ) {
        if from.0 <= MEMBERS {
            self.envelopes += envelopes.len() as u64;
        }
        let now = self.now();
        let fate = self.net.send((from, to, plane), now, &self.knobs, &mut self.rng);
        if fate.broken {
            let delay = self.within((0, 50 * MS));
            self.after(delay, Event::Broken { node: from, life, to });
        }
        for at in fate.arrivals {
            let body = Body::Frame(envelopes.clone());
            self.arrive(at, Packet { from, to, body });
        }
    }

    /// Sends anything else, once at most.
    pub(super) fn send(&mut self, from: NodeId, to: NodeId, plane: Plane, body: Body) {
        let now = self.now();
        let fate = self.net.send((from, to, plane), now, &self.knobs, &mut self.rng);
        if let Some(at) = fate.arrivals.into_iter().next() {
            self.arrive(at, Packet { from, to, body });
        }
    }

    fn arrive(&mut self, at: u64, packet: Packet) {
        let tie = self.rng.random();
        self.agenda.at(at, tie, Event::Packet(Box::new(packet)));
    }
}
