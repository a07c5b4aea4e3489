//! `quorate region list|show|split|transfer-leader`.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_client::PlacementClient;
use quorate_client::placement::RegionInfo;
use quorate_proto::limits::SENTINEL_START;
use quorate_proto::wire::placement::SplitRegionRequest;
use quorate_proto::{RegionId, Role, StoreId, key};
use serde_json::{Value, json};

use crate::cluster::find::Connection;
use crate::exit::{Failure, Outcome};
use crate::kv::written;
use crate::output::{self, Format, Table};

/// Regions: where they are, and requests about one.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum RegionCommand {
    /// List regions in the order of their keys
    List {
        /// Most regions
        #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
        limit: usize,
        #[command(flatten)]
        common: Common,
    },
    /// Show one region and its replicas
    Show {
        /// Its id: 17 or r17
        #[arg(required_unless_present = "key", value_parser = region_id)]
        region: Option<RegionId>,
        /// Instead of an id: a key in it
        #[arg(long, conflicts_with = "region")]
        key: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Split at keys, or one region in half
    Split {
        /// First keys of the new regions
        #[arg(required_unless_present = "region")]
        keys: Vec<String>,
        /// Instead of keys: halve this region by size
        #[arg(long, value_parser = region_id, conflicts_with = "keys")]
        region: Option<RegionId>,
        #[command(flatten)]
        common: Common,
    },
    /// Let another store lead a region
    TransferLeader {
        /// Its id: 17 or r17
        #[arg(value_parser = region_id)]
        region: RegionId,
        /// The store that shall lead: 2 or s2
        #[arg(value_parser = store_id)]
        store: StoreId,
        #[command(flatten)]
        common: Common,
    },
}

/// What all of them take.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Common {
    #[command(flatten)]
    shape: output::Shape,
    #[command(flatten)]
    connection: Connection,
}

fn region_id(text: &str) -> Result<RegionId, String> {
    let number = text.strip_prefix('r').unwrap_or(text).parse();
    number.map(RegionId).map_err(|_| "a region is written as 17 or r17".to_owned())
}

fn store_id(text: &str) -> Result<StoreId, String> {
    let number = text.strip_prefix('s').unwrap_or(text).parse();
    number.map(StoreId).map_err(|_| "a store is written as 2 or s2".to_owned())
}

/// Runs the command.
///
/// # Errors
/// Nobody answers, no such region, or placement refuses.
pub(crate) async fn region(command: RegionCommand) -> Outcome {
    match command {
        RegionCommand::List { limit, common } => {
            let placement = common.connection.placement_client().await?;
            let regions = placement.scan_regions(Bytes::new(), Bytes::new(), limit.max(1)).await?;
            output::emit(&table(&regions).render(common.shape.format()))
        }
        RegionCommand::Show { region, key, common } => {
            let placement = common.connection.placement_client().await?;
            let info = find(&placement, region, key.as_deref()).await?;
            show(&placement, &info, common.shape.format()).await
        }
        RegionCommand::Split { keys, region, common } => {
            let keys: Vec<Bytes> =
                keys.iter().map(|key| written(key, "key")).collect::<Outcome<_>>()?;
            let request = SplitRegionRequest { keys, region_id: region.map_or(0, RegionId::get) };
            let placement = common.connection.placement_client().await?;
            let regions = placement.split_region(request).await?;
            let regions: Vec<RegionInfo> =
                regions.into_iter().map(|region| RegionInfo { region, leader: None }).collect();
            output::emit(&table(&regions).render(common.shape.format()))
        }
        RegionCommand::TransferLeader { region, store, common } => {
            let placement = common.connection.placement_client().await?;
            placement.transfer_leader(region, store).await?;
            output::note(&format!("asked {store} to lead {region}"));
            Ok(())
        }
    }
}

async fn find(
    placement: &PlacementClient,
    id: Option<RegionId>,
    key: Option<&str>,
) -> Outcome<RegionInfo> {
    match id {
        Some(id) => placement.get_region_by_id(id).await?.ok_or_else(|| {
            Failure::error(format!("there is no region {id}: see `quorate region list`"))
        }),
        None => Ok(placement.get_region(written(key.unwrap_or(""), "key")?).await?),
    }
}

fn table(regions: &[RegionInfo]) -> Table {
    let mut table = Table::new(&["region", "start", "end", "epoch", "leader", "replicas", "note"]);
    for info in regions {
        table.push(row(info));
    }
    table
}

fn row(RegionInfo { region, leader }: &RegionInfo) -> Vec<Value> {
    let stores: Vec<String> = region
        .peers
        .iter()
        .map(|peer| match peer.role {
            Role::Voter => peer.store.to_string(),
            role @ (Role::Learner | Role::IncomingVoter | Role::DemotingVoter) => {
                format!("{} ({})", peer.store, role_name(role))
            }
        })
        .collect();
    let sentinel = region.range.start.as_ref() == SENTINEL_START;
    vec![
        json!(region.id.to_string()),
        json!(key::display(&region.range.start)),
        json!(key::display(&region.range.end)),
        json!(format!("{}.{}", region.epoch.conf_ver, region.epoch.version)),
        leader.map_or(Value::Null, |leader| json!(leader.store.to_string())),
        json!(stores),
        if sentinel { json!("sentinel") } else { Value::Null },
    ]
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Voter => "voter",
        Role::Learner => "learner",
        Role::IncomingVoter => "incoming voter",
        Role::DemotingVoter => "demoting voter",
    }
}

async fn show(placement: &PlacementClient, info: &RegionInfo, format: Format) -> Outcome {
    let stores = placement.get_all_stores().await?;
    let addresses: BTreeMap<u64, String> =
        stores.into_iter().map(|store| (store.id, store.address)).collect();
    let mut replicas = Table::new(&["replica", "store", "address", "role", "leads"]);
    for peer in &info.region.peers {
        let leads = info.leader.is_some_and(|leader| leader.id == peer.id);
        replicas.push(vec![
            json!(peer.id.to_string()),
            json!(peer.store.to_string()),
            addresses.get(&peer.store.get()).map_or(Value::Null, |address| json!(address)),
            json!(role_name(peer.role)),
            json!(if leads { "leader" } else { "" }),
        ]);
    }
    let region = table(std::slice::from_ref(info));
    output::emit(&match format {
        Format::Table => format!("{}\n{}", region.render(format), replicas.render(format)),
        Format::Plain => format!("{}{}", region.render(format), replicas.render(format)),
        Format::Json => {
            let mut document = region.to_json()[0].clone();
            document["replicas"] = replicas.to_json();
            format!("{document}\n")
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use quorate_proto::{Epoch, KeyRange, Peer, PeerId, Region};

    use super::*;

    #[test]
    fn ids_are_read_as_they_are_shown() {
        assert_eq!(region_id("r17"), Ok(RegionId(17)));
        assert_eq!(region_id("17"), Ok(RegionId(17)));
        assert_eq!(store_id("s2"), Ok(StoreId(2)));
        assert!(region_id("s17").is_err());
    }

    #[test]
    fn a_region_is_one_row_and_the_sentinel_is_marked() {
        let peer = |id, store, role| Peer { id: PeerId(id), store: StoreId(store), role };
        let region = Region {
            id: RegionId(2),
            range: KeyRange::new(SENTINEL_START, Bytes::new()),
            epoch: Epoch { conf_ver: 1, version: 3 },
            peers: vec![peer(7, 1, Role::Voter), peer(8, 2, Role::Learner)],
        };
        let info = RegionInfo { leader: Some(region.peers[0]), region };
        assert_eq!(
            table(&[info]).render(Format::Plain),
            "r2\t\\xff\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\xf8\t-\t1.3\ts1\ts1,s2 (learner)\tsentinel\n"
        );
    }
}
