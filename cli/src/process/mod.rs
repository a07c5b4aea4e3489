//! `quorate placement` and `quorate store`: one long-lived process.
//!
//! Settings in, logging on, then the node runs until it fails or is told to end:
//! SIGTERM or SIGINT let it hand over and drain; a second one ends it at once.

mod joined;
pub(crate) mod panics;
mod processor;
mod telemetry;

use std::io;

use clap::ArgMatches;
use quorate_placement::PlacementConfig;
use quorate_store::StoreConfig;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};

use crate::exit::{Failure, Outcome};
use crate::settings::{Layered, Layers};

/// The exit code of a process that was told twice to end: 128 + SIGINT.
const ENDED_AT_ONCE: i32 = 130;

/// Runs a placement member until it ends.
///
/// # Errors
/// The wrong processor, bad settings, or why the member cannot run.
pub(crate) async fn placement(matches: &ArgMatches) -> Outcome {
    processor::check()?;
    let Layered { node, log, .. } =
        Layers::of_process::<PlacementConfig>(matches)?.apply::<PlacementConfig>()?;
    telemetry::start(&log)?;
    let ended = quorate_placement::run(node, shutdown()).await;
    conclude(ended.map_err(|error| error.to_string()))
}

/// Runs a store until it ends. Blocks: a store brings its own runtime.
///
/// # Errors
/// The wrong processor, bad settings, or why the store cannot run.
pub(crate) fn store(matches: &ArgMatches) -> Outcome {
    processor::check()?;
    let Layered { node, log, .. } =
        Layers::of_process::<StoreConfig>(matches)?.apply::<StoreConfig>()?;
    telemetry::start(&log)?;
    let announced = node.clone();
    let ended = quorate_store::run(node, async move {
        joined::announce(&announced);
        shutdown().await;
    });
    conclude(ended.map_err(|error| error.to_string()))
}

fn conclude(ended: Result<(), String>) -> Outcome {
    match ended {
        Ok(()) => {
            info!("ended");
            Ok(())
        }
        Err(words) => {
            error!(reason = %words, "stopped");
            Err(Failure::error(words))
        }
    }
}

/// Resolves when the process is told to end. The second time ends it at once.
async fn shutdown() {
    let listen = || {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        io::Result::Ok((terminate, interrupt, signal(SignalKind::hangup())?))
    };
    let (mut terminate, mut interrupt, mut hangup) = match listen() {
        Ok(signals) => signals,
        Err(error) => {
            error!(%error, "signals cannot be listened to, ending");
            return;
        }
    };
    // A terminal that closes does not end the process.
    tokio::spawn(async move { while hangup.recv().await.is_some() {} });
    let name = either(&mut terminate, &mut interrupt).await;
    info!(signal = name, "told to end, draining; a second signal ends at once");
    tokio::spawn(async move {
        either(&mut terminate, &mut interrupt).await;
        std::process::exit(ENDED_AT_ONCE);
    });
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
