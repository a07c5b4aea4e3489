//! The one binary, `quorate`.
//!
//! It starts processes (`placement`, `store`), whole clusters on one machine
//! (`up`, `down`, `rolling-restart`), talks to a cluster (`kv`, `status`, `region`, `store list`,
//! `operator`, `member`, `events`, `bench`), and tells stories on one of its own (`demo`). Nothing here decides anything about the cluster: [`args`] finds out
//! what is wanted, each command has a module of its own, and all of them end the
//! way [`exit`] says, with data on stdout the way [`output`] says.

mod admin;
mod args;
mod bench;
mod cluster;
mod demo;
mod exit;
mod kv;
mod output;
mod process;
mod screen;
mod settings;

use std::process::ExitCode;

/// Runs the command line of this process and gives its exit code.
pub fn run() -> ExitCode {
    process::panics::install();
    match args::parse().and_then(|matches| args::run(&matches)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.finish(),
    }
}
