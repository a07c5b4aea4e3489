//! Raft machinery that placement and store share.
//!
//! A *group* is one Raft group; a *shard* is the set of groups that one worker
//! thread steps; a *node* is a process that hosts peers of groups. Everything
//! that decides is a plain value without IO (see `docs/ARCHITECTURE.md`).

pub mod engine;
