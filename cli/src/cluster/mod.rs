//! A whole cluster on this machine: `quorate up`, `down`, `store add`, `rolling-restart`.
//!
//! Its description lives in the data folder (`cluster.toml`): which processes,
//! at which addresses, and which pids they had last. Placement members keep
//! their addresses in their replicated state, so addresses are chosen once and
//! kept for good. Processes are detached: they outlive the command, and `down`
//! ends exactly those that `up` started.

mod add;
pub(crate) mod description;
mod down;
pub(crate) mod end;
pub(crate) mod find;
pub(crate) mod local;
mod lock;
pub(crate) mod pid;
mod ports;
pub(crate) mod probe;
mod restart;
pub(crate) mod spawn;
mod up;

pub(crate) use add::{AddArgs, add, share};
pub(crate) use down::{DownArgs, down};
pub(crate) use restart::{RestartArgs, restart};
pub(crate) use up::{UpArgs, temporary, up};
