//! Stories of real processes: the program as a person and an application meet it, and what must
//! stay true while its processes are killed, paused and told to end.
//!
//! The program has to be built before (`cargo build -p quorate-cli`); `scripts/test.sh` does so.

#![allow(clippy::unwrap_used)]

#[path = "process/commands.rs"]
mod commands;
#[path = "process/kills.rs"]
mod kills;
