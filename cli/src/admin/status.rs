//! `quorate status`: one line of health, then who is there.

use quorate_proto::wire::placement::{MemberStatus, StatusResponse};
use serde_json::{Value, json};

use super::health::{self, Health, Level};
use super::store::stores;
use crate::cluster::find::Connection;
use crate::exit::{Failure, Outcome};
use crate::output::{self, Format, Table};

/// How the cluster is; exit code 0 healthy, 2 degraded or not known yet, 3
/// unavailable.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    shape: output::Shape,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors
/// Nobody answers, or the cluster is not healthy.
pub(crate) async fn status(args: &StatusArgs) -> Outcome {
    let status = args.connection.placement_client().await?.status().await?;
    let health = health::judge(&status);
    output::emit(&render(&status, &health, args.shape.format()))?;
    match health.level {
        Level::Healthy => Ok(()),
        Level::Degraded | Level::Unknown | Level::Unavailable => {
            Err(Failure::quiet(health.level.code()))
        }
    }
}

fn render(status: &StatusResponse, health: &Health, format: Format) -> String {
    let (members, stores) = (members(&status.members), stores(&status.stores));
    match format {
        Format::Table => {
            format!("{health}\n\n{}\n{}", members.render(format), stores.render(format))
        }
        Format::Plain => {
            let named = |name: &str, table: &Table| -> String {
                table.render(format).lines().map(|line| format!("{name}\t{line}\n")).collect()
            };
            format!("health\t{health}\n{}{}", named("placement", &members), named("store", &stores))
        }
        Format::Json => {
            let document = json!({
                "cluster_id": status.cluster_id.to_string(),
                "cluster_version": status.cluster_version,
                "health": health.level.to_string(),
                "troubles": health.troubles,
                "survives_store_failures": health.survives,
                "regions": status.regions,
                "replicas": status.replicas,
                "under_replicated": status.under_replicated,
                "leaderless": status.leaderless,
                "stopped": status.stopped,
                "unreported": status.unreported,
                "reported_stores": status.reported_stores,
                "reporting_stores": status.reporting_stores,
                "moving": status.operators,
                "fullest_store_percent": health.fullest_percent,
                "operations_per_second": status.operations_per_second,
                "placement": members.to_json(),
                "stores": stores.to_json(),
            });
            format!("{document}\n")
        }
    }
}

fn members(members: &[MemberStatus]) -> Table {
    let mut table = Table::new(&["placement", "address", "role", "state"]);
    for member in members {
        let role = match (member.leader, member.learner) {
            (true, _) => "leader",
            (false, false) => "follower",
            (false, true) => "learner",
        };
        let state = if member.healthy { "up" } else { "away" };
        table.push([&member.name, &member.address, role, state].map(Value::from).to_vec());
    }
    table
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn example() -> StatusResponse {
        StatusResponse {
            cluster_id: u64::MAX,
            bootstrapped: true,
            members: vec![MemberStatus {
                id: 1,
                name: "placement-1".to_owned(),
                address: "127.0.0.1:2379".to_owned(),
                leader: true,
                healthy: true,
                learner: false,
            }],
            regions: 2,
            replicas: 3,
            ..StatusResponse::default()
        }
    }

    #[test]
    fn plain_lines_say_what_they_are_about() {
        let status = example();
        let text = render(&status, &health::judge(&status), Format::Plain);
        let kinds: Vec<&str> = text.lines().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(kinds, ["health", "placement"]);
        assert!(text.contains("placement-1\t127.0.0.1:2379\tleader\tup"));
    }

    #[test]
    fn json_keeps_large_ids_whole() {
        let status = example();
        let text = render(&status, &health::judge(&status), Format::Json);
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["cluster_id"], u64::MAX.to_string());
        assert_eq!(document["placement"][0]["role"], "leader");
        assert_eq!(document["health"], "HEALTHY");
    }
}
