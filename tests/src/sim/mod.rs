//! The whole cluster in one thread, under virtual time and one seed.
//!
//! The real cores run here (raft groups and shards of `consensus`, directory, applier and read
//! path of `store`, state, leader and oracle of `placement`) behind a second interpreter: a heap of events ordered by virtual time instead
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
mod lead;
mod member;
mod messages;
mod mutant;
mod nemesis;
mod network;
mod process;
mod role;
mod settle;
mod stamper;
mod store;
mod trace;
mod upkeep;
mod world;

use quorate_proto::wire::placement::SplitIds;

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

/// Ids for new regions from a range of ids: a region's, then those of its peers.
fn ids_of(first: u64, each: u64, count: usize) -> Vec<SplitIds> {
    let ids = |number: u64| {
        let region_id = first + number * each;
        SplitIds { region_id, peer_ids: (region_id + 1..region_id + each).collect() }
    };
    (0..count as u64).map(ids).collect()
}
