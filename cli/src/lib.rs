//! The one binary, `quorate`.
//!
//! It starts processes (`placement`, `store`), whole clusters on one machine
//! (`up`, `down`), and talks to a cluster (`kv`, `status`, `region`, `store list`,
//! `bench`). Nothing here decides anything about the cluster: [`args`] finds out
//! what is wanted, each command has a module of its own, and all of them end the
//! way [`exit`] says, with data on stdout the way [`output`] says.

mod admin;
mod args;
mod bench;
mod cluster;
mod exit;
mod kv;
mod output;
mod process;
mod settings;

use std::process::ExitCode;

use exit::{Failure, Outcome};

/// Runs the command line of this process and gives its exit code.
pub fn run() -> ExitCode {
    process::panics::install();
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.finish(),
    }
}

fn start() -> Outcome {
    let matches = args::parse()?;
    // One thread is the cheapest way to wait for many answers; nodes start threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::error(format!("the runtime cannot start: {error}")))?;
    let outcome = runtime.block_on(args::run(&matches));
    // What still waits in the background must not hold up the end.
    runtime.shutdown_background();
    outcome
}
