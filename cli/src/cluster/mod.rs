//! A whole cluster on this machine: `quorate up` and `quorate down`.
//!
//! Its description lives in the data folder (`cluster.toml`): which processes,
//! at which addresses, and which pids they had last. Placement members keep
//! their addresses in their replicated state, so addresses are chosen once and
//! kept for good. Processes are detached: they outlive the command, and `down`
//! ends exactly those that `up` started.

pub(crate) mod description;
mod down;
pub(crate) mod find;
mod lock;
pub(crate) mod pid;
mod ports;
pub(crate) mod probe;
mod spawn;
mod up;

pub(crate) use down::{DownArgs, down};
pub(crate) use up::{UpArgs, up};
