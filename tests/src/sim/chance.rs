//! Chance: a stream of random numbers for each concern.
//!
//! All streams follow from the seed, and none knows of the others. So a message more on one link,
//! a knob more or a new kind of trouble changes what it touches and not what every other part of
//! the world draws next; what was pinned once stays itself for longer.

use std::collections::BTreeMap;

use quorate_consensus::shard::Plane;
use quorate_proto::NodeId;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::trace::fnv;

/// From and to, both included.
pub(crate) type Span = (u64, u64);

/// Whose chance it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Concern {
    /// When the raft workers of a process come to their work, and its clock.
    Process(NodeId),
    /// What its disk does, and when.
    Disk(NodeId),
    /// When its services come to their work.
    Services(NodeId),
    /// What becomes of messages from one process to another.
    Link(NodeId, NodeId, Lane),
    Client(u64),
    Stamper(u64),
    Nemesis,
    Mover,
    Merger,
    /// How long a process takes to read and write snapshots, and to notice that one broke off.
    Transfers(NodeId),
}

/// The part of a link that messages of one kind take. Each keeps its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    Raft(Plane),
    Beats,
    Services,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Chance {
    seed: u64,
    streams: BTreeMap<Concern, SmallRng>,
}

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, streams: BTreeMap::new() }
    }

    /// The stream of a concern.
    pub(crate) fn of(&mut self, concern: Concern) -> &mut SmallRng {
        let seed = self.seed;
        self.streams.entry(concern).or_insert_with(|| stream(seed, &format!("{concern:?}")))
    }
}

/// The stream of that name.
pub(crate) fn stream(seed: u64, name: &str) -> SmallRng {
    SmallRng::seed_from_u64(fnv(&[&seed.to_le_bytes(), name.as_bytes()]))
}

pub(crate) fn pick<T: Copy>(rng: &mut SmallRng, choices: &[T]) -> T {
    choices[rng.random_range(0..choices.len())]
}

pub(crate) fn within(rng: &mut SmallRng, (low, high): Span) -> u64 {
    rng.random_range(low..=high)
}

/// True in that share of all cases.
pub(crate) fn happens(rng: &mut SmallRng, share: f64) -> bool {
    share > 0.0 && rng.random_bool(share)
}
