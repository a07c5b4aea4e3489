//! Raft machinery that placement and store share.
//!
//! A *group* is one Raft group; a *shard* is the set of groups that one worker
//! thread steps; a *node* is a process that hosts peers of groups. Everything
//! that decides is a plain value without IO (see `docs/ARCHITECTURE.md`); only
//! [`node`], the production shell, knows threads, sockets and clocks.

pub mod engine;
mod group;
pub mod hash;
pub mod node;
pub mod shard;
pub mod sleepers;
pub mod time;
pub mod transfer;
pub mod view;
pub mod vigil;
