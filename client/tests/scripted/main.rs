// Sizes of messages do not matter here.
#![allow(clippy::unwrap_used, clippy::large_enum_variant, clippy::result_large_err)]
//! The client against real gRPC servers on loopback whose answers are scripted.

mod failures;
mod operations;
mod placement;
mod placement_calls;
mod proxy;
mod quorum;
mod stale;
mod store;
mod world;
