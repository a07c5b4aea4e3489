//! The whole cluster in one thread, under virtual time and one seed.
//!
//! The real cores run here (raft groups, shards and transfers of snapshots of `consensus`, directory,
//! applier and read path of `store`, state, leader and oracle of `placement`) behind a second interpreter: a heap
//! of events ordered by virtual time instead of threads and sockets, [`MemoryEngine`]s that lose
//! what was not synced instead of disks, and links that delay, lose, repeat and reorder.
//! Everything that chance decides follows from the seed (`chance`), so that a seed replays
//! exactly: [`Outcome::hash`] is over every event.
//!
//! One story each (`world::story`): start, work, trouble, healing; then there must be progress,
//! equal replicas, sleep, and a linearizable history. Invariants are checked all along (`checks`).
//!
//! [`MemoryEngine`]: quorate_consensus::engine::MemoryEngine

mod agenda;
mod case;
mod chance;
mod checks;
mod client;
mod clock;
mod cx;
mod knobs;
mod messages;
mod mutant;
mod network;
mod placement;
mod process;
mod stamper;
mod store;
mod trace;
mod world;

pub use case::Case;
pub use checks::Transfers;
pub use mutant::Mutant;
pub use world::Outcome;

/// Lives through a case.
pub fn run(case: Case) -> Outcome {
    world::World::new(case).run()
}
