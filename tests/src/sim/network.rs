//! Links between processes: delay, loss, duplicates, reordering, one-way partitions.

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::shard::Plane;
use quorate_proto::NodeId;
use rand::Rng;
use rand::rngs::SmallRng;

use super::agenda::MS;
use super::knobs::{Knobs, within};

/// What becomes of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fate {
    /// When its copies arrive; none: it is lost.
    pub(super) arrivals: Vec<u64>,
    /// True where the sender notices that its stream broke.
    pub(super) broken: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Network {
    cut: BTreeSet<(NodeId, NodeId)>,
    last: BTreeMap<(NodeId, NodeId, Plane), u64>,
    /// Loss, duplicates and reordering happen.
    pub(super) bad: bool,
}

impl Network {
    /// Nothing gets from one to the other any more.
    pub(super) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(super) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Decides about one frame.
    pub(super) fn send(
        &mut self,
        (from, to, plane): (NodeId, NodeId, Plane),
        now: u64,
        knobs: &Knobs,
        rng: &mut SmallRng,
    ) -> Fate {
        let mut arrivals = Vec::new();
        if self.is_cut(from, to) {
            // Some of what a dead link had queued comes through once it is back.
            if rng.random_bool(knobs.keep) {
                arrivals.push(now + within(rng, (200 * MS, 3_000 * MS)));
            }
            return Fate { arrivals, broken: rng.random_bool(0.3) };
        }
        if self.bad && rng.random_bool(knobs.loss) {
            return Fate { arrivals, broken: rng.random_bool(0.5) };
        }
        let at = now + within(rng, knobs.delay);
        let last = self.last.entry((from, to, plane)).or_default();
        if self.bad && rng.random_bool(knobs.reorder) {
            arrivals.push(at + within(rng, (0, 4 * knobs.delay.1)));
        } else {
            *last = at.max(*last);
            arrivals.push(*last);
        }
        if self.bad && rng.random_bool(knobs.duplicate) {
            arrivals.push(at + within(rng, (0, 300 * MS)));
        }
        Fate { arrivals, broken: false }
    }
}
