//! `quorate region …`: where regions are, why they are as they are, and requests about one.

mod explain;
mod merge;
mod replicas;

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use quorate_client::PlacementClient;
use quorate_client::placement::RegionInfo;
use quorate_proto::limits::SENTINEL_START;
use quorate_proto::wire::placement::{ChangeReplicaRequest, SplitRegionRequest};
use quorate_proto::{RegionId, Role, StoreId, key};
use serde_json::{Value, json};

use super::common::Common;
use super::id::{region_id, store_id};
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
    /// Have a region taken in by its neighbour; waits until it is done
    Merge(merge::MergeArgs),
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
    /// Why a region is as it is: its replicas, what is under way, the last decisions
    Explain {
        /// Its id: 17 or r17
        #[arg(value_parser = region_id)]
        region: RegionId,
        #[command(flatten)]
        common: Common,
    },
    /// Its replicas: role, how far each is, when its store was heard of
    Peers {
        /// Its id: 17 or r17
        #[arg(value_parser = region_id)]
        region: RegionId,
        #[command(flatten)]
        common: Common,
    },
    /// Snapshots on their way to its replicas
    SnapshotInfo {
        /// Its id: 17 or r17
        #[arg(value_parser = region_id)]
        region: RegionId,
        #[command(flatten)]
        common: Common,
    },
    /// Add a replica on a store: it joins as a learner, and is promoted once it is ready
    AddReplica {
        /// The region: 17 or r17
        #[arg(value_parser = region_id)]
        region: RegionId,
        /// The store: 4 or s4
        #[arg(value_parser = store_id)]
        store: StoreId,
        /// It stays a learner: for reads that shall not touch the voters
        #[arg(long)]
        learner: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Remove the replica of a store
    RemoveReplica {
        /// The region: 17 or r17
        #[arg(value_parser = region_id)]
        region: RegionId,
        /// The store: 1 or s1
        #[arg(value_parser = store_id)]
        store: StoreId,
        #[command(flatten)]
        common: Common,
    },
    /// Move a replica from one store to another
    MoveReplica {
        /// The region: 17 or r17
        #[arg(value_parser = region_id)]
        region: RegionId,
        /// The store that gives it away: 1 or s1
        #[arg(value_parser = store_id)]
        from: StoreId,
        /// The store that takes it: 4 or s4
        #[arg(value_parser = store_id)]
        to: StoreId,
        #[command(flatten)]
        common: Common,
    },
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
        RegionCommand::Merge(args) => merge::merge(args).await,
        RegionCommand::TransferLeader { region, store, common } => {
            let placement = common.connection.placement_client().await?;
            placement.transfer_leader(region, store).await?;
            output::note(&format!("asked {store} to lead {region}"));
            Ok(())
        }
        RegionCommand::Explain { region, common } => {
            let placement = common.connection.placement_client().await?;
            let told = placement.explain_region(region).await?;
            output::emit(&explain::render(&told, common.shape.format(), SystemTime::now()))
        }
        RegionCommand::Peers { region, common } => {
            let placement = common.connection.placement_client().await?;
            let told = placement.explain_region(region).await?;
            output::emit(&replicas::peers(&told).render(common.shape.format()))
        }
        RegionCommand::SnapshotInfo { region, common } => {
            let placement = common.connection.placement_client().await?;
            let told = placement.explain_region(region).await?;
            let snapshots = replicas::snapshots(&told);
            if snapshots.is_empty() {
                output::note(&format!("no snapshot is on its way to a replica of {region}"));
            }
            output::emit(&snapshots.render(common.shape.format()))
        }
        RegionCommand::AddReplica { region, store, learner, common } => {
            let words = format!("{region} gets a replica on {store}");
            change(region, None, Some(store), learner, &common, words).await
        }
        RegionCommand::RemoveReplica { region, store, common } => {
            let words = format!("the replica of {region} on {store} is removed");
            change(region, Some(store), None, false, &common, words).await
        }
        RegionCommand::MoveReplica { region, from, to, common } => {
            let words = format!("the replica of {region} on {from} moves to {to}");
            change(region, Some(from), Some(to), false, &common, words).await
        }
    }
}

/// Asks for another set of replicas.
async fn change(
    region: RegionId,
    remove: Option<StoreId>,
    add: Option<StoreId>,
    analytics: bool,
    common: &Common,
    words: String,
) -> Outcome {
    let request = ChangeReplicaRequest {
        region_id: region.get(),
        add_store_id: add.map_or(0, StoreId::get),
        remove_store_id: remove.map_or(0, StoreId::get),
        analytics,
    };
    let placement = common.connection.placement_client().await?;
    let operator = placement.change_replica(request).await?;
    super::operator::accepted(operator, &words, common.shape.format())
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
