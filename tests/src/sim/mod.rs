//! The whole cluster in one thread, under virtual time and one seed.
//!
//! The real cores run here (raft groups and shards of `consensus`, directory, applier and read
//! path of `store`) behind a second interpreter: a heap of events ordered by virtual time instead
//! of threads and sockets, [`MemoryEngine`]s that lose what was not synced instead of disks, and
//! links that delay, lose, repeat and reorder. Everything that chance decides is drawn from the
//! seed, so that a seed replays exactly: [`Outcome::hash`] is over every event.
//!
//! One story each: start, work, trouble, healing; then there must be progress, equal replicas,
//! sleep, and a linearizable history. Invariants are checked all along (`checks`).
//!
//! [`MemoryEngine`]: quorate_consensus::engine::MemoryEngine

mod agenda;
mod checks;
mod client;
mod clock;
mod cx;
mod knobs;
mod messages;
mod mutant;
mod nemesis;
mod network;
mod process;
mod role;
mod settle;
mod store;
mod trace;
mod world;

pub use mutant::Mutant;
pub use world::Outcome;

/// Lives through a seed.
pub fn run(seed: u64) -> Outcome {
    world::World::new(seed, None, false).run()
}

/// Lives through a seed with a bug put in.
pub fn run_mutant(seed: u64, mutant: Mutant) -> Outcome {
    world::World::new(seed, Some(mutant), false).run()
}

/// Lives through a seed and prints everything that happens.
pub fn replay(seed: u64) -> Outcome {
    world::World::new(seed, None, true).run()
}
