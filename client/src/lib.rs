//! The SDK: routing, batching, retries.

#![allow(unused_variables, clippy::todo, missing_docs)]
mod client;
mod error;
mod options;
pub mod placement;

pub use client::{Client, KvPair, RegionRoute};
pub use error::{Error, Result};
pub use options::{ClientOptions, ReadMode, ReadOptions};
pub use placement::{PlacementClient, PlacementOptions, Timestamp};
