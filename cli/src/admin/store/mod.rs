//! `quorate store list|remove|replace`: stores, and how they leave.

mod leaving;
mod remove;
mod watch;

pub(crate) use remove::{RemoveArgs, ReplaceArgs, remove, replace};
pub(crate) use watch::Watcher;

use quorate_proto::wire::placement::StoreStatus;
use serde_json::{Value, json};

use super::health::used_percent;
use crate::cluster::find::Connection;
use crate::exit::Outcome;
use crate::output::{self, Table};

/// Lists the stores.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    shape: output::Shape,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors
/// Nobody answers.
pub(crate) async fn list(args: &ListArgs) -> Outcome {
    let status = args.connection.placement_client().await?.status().await?;
    output::emit(&stores(&status.stores).render(args.shape.format()))
}

/// Stores as a table.
pub(super) fn stores(stores: &[StoreStatus]) -> Table {
    let mut table = Table::new(&[
        "store",
        "address",
        "state",
        "regions",
        "leaders",
        "data",
        "disk",
        "silent ms",
        "status",
    ]);
    for entry in stores {
        let store = entry.store.clone().unwrap_or_default();
        let last = entry.last.as_ref();
        table.push(vec![
            json!(format!("s{}", store.id)),
            json!(store.address),
            json!(entry.state.to_lowercase()),
            last.map_or(Value::Null, |report| json!(report.region_count)),
            last.map_or(Value::Null, |report| json!(report.leader_count)),
            last.map_or(Value::Null, |report| json!(output::bytes(report.used_bytes))),
            used_percent(entry).map_or(Value::Null, |percent| json!(format!("{percent} %"))),
            json!(entry.silent_ms),
            json!(store.status_address),
        ]);
    }
    table
}
