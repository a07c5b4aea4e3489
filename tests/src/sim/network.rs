//! Links between processes: delay, loss, duplicates, reordering, one-way partitions.
//!
//! A broken link loses what is sent over it, holds it until it is whole again (as a stream does
//! whose other end is not reached), or lets it through seconds late (as a stream does that breaks
//! and comes back).

use std::collections::{BTreeMap, BTreeSet};

use quorate_proto::NodeId;
use rand::rngs::SmallRng;

use super::agenda::MS;
use super::chance::{Lane, Span, happens, within};
use super::knobs::Knobs;
use super::messages::Packet;

/// How late it may be what comes through a broken link.
const LATE: Span = (200 * MS, 3_000 * MS);
/// Packets that one lane of a broken link holds; more are lost.
const MOST_HELD: usize = 64;

/// From, to, and the part of it.
pub(crate) type Link = (NodeId, NodeId, Lane);

/// What becomes of a frame.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    /// When its copies arrive; none: it is lost.
    pub(crate) arrivals: Vec<u64>,
    /// The link holds it.
    pub(crate) held: bool,
    /// True where the sender notices that its stream broke.
    pub(crate) broken: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Network {
    cut: BTreeSet<(NodeId, NodeId)>,
    last: BTreeMap<Link, u64>,
    held: BTreeMap<Link, Vec<Packet>>,
    /// When the last of what comes late is in.
    pub(crate) late_until: u64,
    /// Loss, duplicates and reordering happen.
    pub(crate) bad: bool,
}

impl Network {
    /// Nothing gets from one to the other any more.
    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    /// All links are whole. Returns what they held.
    pub(crate) fn heal(&mut self) -> Vec<Packet> {
        self.cut.clear();
        std::mem::take(&mut self.held).into_values().flatten().collect()
    }

    /// That link is whole. Returns what it held.
    pub(crate) fn join(&mut self, from: NodeId, to: NodeId) -> Vec<Packet> {
        self.cut.remove(&(from, to));
        let (its, rest): (BTreeMap<Link, Vec<Packet>>, _) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|((f, t, _), _)| (*f, *t) == (from, to));
        self.held = rest;
        its.into_values().flatten().collect()
    }

    pub(crate) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.contains(&(from, to))
    }

    /// False where it is lost.
    pub(crate) fn hold(&mut self, packet: Packet) -> bool {
        let held = self.held.entry(packet.link()).or_default();
        let fits = held.len() < MOST_HELD;
        if fits {
            held.push(packet);
        }
        fits
    }

    /// When something that keeps its place arrives.
    pub(crate) fn in_order(
        &mut self,
        link: Link,
        now: u64,
        knobs: &Knobs,
        rng: &mut SmallRng,
    ) -> u64 {
        let at = now + within(rng, knobs.delay);
        let last = self.last.entry(link).or_default();
        *last = at.max(*last);
        *last
    }

    /// Decides about one frame.
    pub(crate) fn send(&mut self, link: Link, now: u64, knobs: &Knobs, rng: &mut SmallRng) -> Fate {
        let (from, to, _) = link;
        if self.is_cut(from, to) {
            if happens(rng, knobs.held) {
                return Fate { held: true, broken: happens(rng, 0.1), ..Fate::default() };
            }
            let mut arrivals = Vec::new();
            if happens(rng, knobs.late) {
                let at = now + within(rng, LATE);
                self.late_until = self.late_until.max(at);
                arrivals.push(at);
            }
            return Fate { arrivals, broken: happens(rng, 0.3), ..Fate::default() };
        }
        if self.bad && happens(rng, knobs.loss) {
            return Fate { broken: happens(rng, 0.5), ..Fate::default() };
        }
        let mut arrivals = Vec::new();
        if self.bad && happens(rng, knobs.reorder) {
            let at = now + within(rng, knobs.delay);
            arrivals.push(at + within(rng, (0, 4 * knobs.delay.1)));
        } else {
            arrivals.push(self.in_order(link, now, knobs, rng));
        }
        if self.bad && happens(rng, knobs.duplicate) {
            arrivals.push(now + within(rng, (0, 300 * MS)));
        }
        Fate { arrivals, ..Fate::default() }
    }
}
