//! Golden scripts and properties of the store's deciding cores, on the memory engine.
#![allow(clippy::unwrap_used)]

mod apply;
mod catching_up;
mod codec;
mod crash;
mod directory;
mod install;
mod merge;
mod merge_steps;
mod merged;
mod peers;
mod plan;
mod read;
mod report;
mod rocks;
mod split;
mod stale;
mod world;
