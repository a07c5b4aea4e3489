//! Stories of real processes: the program as a person and an application meet it, and what must
//! stay true while its processes are killed, paused and told to end.
//!
//! The program has to be built before (`cargo build -p quorate-cli`); `scripts/test.sh` does so.

#![allow(clippy::unwrap_used)]

#[path = "process/admin.rs"]
mod admin;
#[path = "process/alone.rs"]
mod alone;
#[path = "process/batches.rs"]
mod batches;
#[path = "process/cache.rs"]
mod cache;
#[path = "process/commands.rs"]
mod commands;
#[path = "process/demos.rs"]
mod demos;
#[path = "process/disk.rs"]
mod disk;
#[path = "process/grow.rs"]
mod grow;
#[path = "process/handover.rs"]
mod handover;
#[path = "process/import.rs"]
mod import;
#[path = "process/kills.rs"]
mod kills;
#[path = "process/membership.rs"]
mod membership;
#[path = "process/merges.rs"]
mod merges;
#[path = "process/pages.rs"]
mod pages;
#[path = "process/placement.rs"]
mod placement;
#[path = "process/quorum.rs"]
mod quorum;
#[path = "process/snapshots.rs"]
mod snapshots;
#[path = "process/splits.rs"]
mod splits;
#[path = "process/stale.rs"]
mod stale;
#[path = "process/steps.rs"]
mod steps;
#[path = "process/trouble.rs"]
mod trouble;
#[path = "process/wire.rs"]
mod wire;

use std::time::Duration;

use quorate_client::Client;
use quorate_proto::StoreId;
use quorate_tests::process::{Cluster, letters};

/// How long writes may take to go on after a fault: far more than they should.
const RECOVERY: Duration = Duration::from_secs(20);

/// Three clients, so that connections and caches differ.
async fn clients(cluster: &Cluster) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(cluster.client().await);
    }
    clients
}

fn all_letters() -> Vec<u8> {
    letters().collect()
}

/// The letters whose regions a store leads.
async fn led_by(cluster: &Cluster, store: StoreId) -> Vec<u8> {
    let leaders = cluster.leaders().await.into_iter();
    leaders.filter_map(|(letter, leader)| (leader == store).then_some(letter)).collect()
}
