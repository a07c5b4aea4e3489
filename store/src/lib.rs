//! The store node: many regions on one engine.
//!
//! [`core`] decides and is plain values; the rest of this crate is the shell that runs it:
//!
//! * [`run`](mod@run): a store from its start to its end; the one entry point, [`run()`].
//! * [`config`]: every knob.
//! * `identity`, `addresses`: who this store is and where the others are, kept in its folder.
//! * `listener`, `serve`: connections, and requests from the wire to their answer: the hot path.
//! * `placement`, `split`: joining, reporting, orders; splitting regions.
//! * `pages`, `status`, `metrics`, `process`: what can be seen from outside.
//!
//! Absent on purpose: any state about a region that the cores do not have, any timer per region,
//! and any way to placement beside the SDK's client.

pub mod config;
pub mod core;
pub mod error;
pub mod run;

mod addresses;
mod answering;
mod budget;
mod fatal;
mod identity;
mod kind;
mod leaving;
mod lost;
mod metrics;
mod pages;
mod placement;
mod placement_time;
mod process;
mod raft;
mod serve;
mod split;
mod status;
mod strangers;
#[cfg(test)]
mod testing;

pub use config::StoreConfig;
pub use error::StoreError;
pub use run::run;
