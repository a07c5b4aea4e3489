//! The placement driver: regions, stores, timestamps, scheduling.
//!
//! One Raft group of 1, 3 or 5 members (the group `r0`, on the same machinery as the regions)
//! keeps what a cluster must never forget: its id, its stores, which ids were handed out, how far
//! timestamps went. The leader of that group also keeps what can be learnt again: the region tree
//! and the load of the stores, from the reports of the stores; it writes the tree behind, so that
//! the next leader routes at once.
//!
//! [`core`] decides and touches nothing: no clock, no randomness, no thread. [`run`] is the shell
//! around it: gRPC, HTTP, the Raft node, the disk. Begin with [`core::state::State`] (what is
//! replicated) and [`core::leader::Leader`] (what only the leader knows).
//!
//! Absent on purpose: the store's side of all this, and anything that reads or writes user data.

pub mod config;
pub mod core;
pub mod error;
mod shell;

pub use config::PlacementConfig;
pub use error::PlacementError;
pub use shell::run;
