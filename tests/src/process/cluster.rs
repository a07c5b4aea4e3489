//! Placement members and stores of one cluster, and questions to all of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use quorate_client::placement::RegionInfo;
use quorate_client::{Client, ClientOptions, PlacementClient, PlacementOptions};
use quorate_proto::wire::placement::{SplitRegionRequest, StatusResponse};
use quorate_proto::{RegionId, StoreId};
use tempfile::TempDir;

use super::load::{letters, split_keys};
use super::permit::Permit;
use super::{Node, Ran, eventually, program};

/// How long a cluster may take to be healthy: two busy processors are enough.
const HEALTHY: Duration = Duration::from_secs(60);
/// How long an operation of a test's client may take, with all retries.
const DEADLINE: Duration = Duration::from_secs(10);
/// The lines of a process's log that a failed test shows.
const SHOWN_LINES: usize = 25;

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Placement members: 1, 3 or 5.
    pub placements: usize,
    /// Stores; with fewer than three a region has one replica.
    pub stores: usize,
    /// Further flags of every placement member.
    pub placement_flags: Vec<String>,
    /// Further flags of every store.
    pub store_flags: Vec<String>,
}

impl Default for Shape {
    fn default() -> Shape {
        let (placement_flags, store_flags) = (Vec::new(), Vec::new());
        Shape { placements: 3, stores: 3, placement_flags, store_flags }
    }
}

impl Shape {
    /// One member and one store: the least that serves.
    pub fn small() -> Shape {
        Shape { placements: 1, stores: 1, ..Shape::default() }
    }

    /// Adds a flag of every store.
    #[must_use]
    pub fn store_flag(mut self, flag: &str) -> Shape {
        self.store_flags.push(flag.to_owned());
        self
    }
}

/// A cluster of processes, in a folder that is removed with it (`QUORATE_KEEP=1` keeps it).
pub struct Cluster {
    /// The placement members; their ids are 1 and up in this order.
    pub placements: Vec<Node>,
    /// The stores; their ids are in [`Cluster::store_ids`].
    pub stores: Vec<Node>,
    home: Option<TempDir>,
    _permit: Permit,
}

impl Cluster {
    /// Starts a cluster and waits until it is healthy.
    ///
    /// # Panics
    /// When it is not within a minute.
    pub async fn start(shape: Shape) -> Cluster {
        let permit = tokio::task::spawn_blocking(Permit::take).await.expect("a turn comes");
        let home = tempfile::Builder::new().prefix("quorate-").tempdir().expect("a temp folder");
        let folder = home.path();
        let replicas = if shape.stores < 3 { 1 } else { 3 };
        let mut placements: Vec<Node> = (1..=shape.placements)
            .map(|number| Node::new(folder, "placement", number, shape.placement_flags.clone()))
            .collect();
        let members: Vec<String> =
            (1..).zip(&placements).map(|(id, node)| format!("{id}={}", node.address)).collect();
        for (id, node) in (1..).zip(&mut placements) {
            node.replace_flag(&format!("--id={id}"));
            node.replace_flag(&format!("--members={}", members.join(",")));
            node.replace_flag(&format!("--initial-stores={replicas}"));
            node.replace_flag(&format!("--replicas={replicas}"));
        }
        let addresses: Vec<&str> = placements.iter().map(|node| node.address.as_str()).collect();
        let mut flags = vec![format!("--placement={}", addresses.join(","))];
        flags.extend(shape.store_flags);
        let stores =
            (1..=shape.stores).map(|number| Node::new(folder, "store", number, flags.clone()));
        let stores = stores.collect();
        let mut cluster = Cluster { placements, stores, home: Some(home), _permit: permit };
        for node in cluster.placements.iter_mut().chain(&mut cluster.stores) {
            node.start();
        }
        cluster.healthy().await;
        cluster
    }

    /// Another store joins. Its place in [`Cluster::stores`] is the last one.
    ///
    /// # Panics
    /// When it is not ready within a minute.
    pub fn join_store(&mut self, flags: &[&str]) -> StoreId {
        let mut all = vec![format!("--placement={}", self.placement_addresses().join(","))];
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let mut node = Node::new(self.home(), "store", self.stores.len() + 1, all);
        node.start();
        node.ready(HEALTHY);
        self.stores.push(node);
        self.store_ids()[self.stores.len() - 1]
    }

    /// The cluster's folder: data, logs, and room for files of the test.
    pub fn home(&self) -> &Path {
        self.home.as_ref().expect("the folder lives as long as the cluster").path()
    }

    /// Addresses of the placement members.
    pub fn placement_addresses(&self) -> Vec<String> {
        self.placements.iter().map(|node| node.address.clone()).collect()
    }

    /// A new client, with an empty cache.
    ///
    /// # Panics
    /// When it cannot connect.
    pub async fn client(&self) -> Client {
        let options = ClientOptions { deadline: DEADLINE, ..ClientOptions::default() };
        let client = Client::connect(&self.placement_addresses(), options).await;
        client.unwrap_or_else(|error| panic!("no client: {error}"))
    }

    /// A new client of placement.
    ///
    /// # Panics
    /// When it cannot connect.
    pub async fn placement(&self) -> PlacementClient {
        let options = PlacementOptions { deadline: DEADLINE, ..PlacementOptions::default() };
        let client = PlacementClient::connect(&self.placement_addresses(), options).await;
        client.unwrap_or_else(|error| panic!("no placement client: {error}"))
    }

    /// Runs a command on this cluster to its end.
    #[track_caller]
    pub fn quorate(&self, arguments: &[&str]) -> Ran {
        let mut command = program::command(self.home());
        command.env("QUORATE_PLACEMENT", self.placement_addresses().join(","));
        program::finish(command.args(arguments), arguments)
    }

    /// Waits until every process is ready, every store reports, and every region has its replicas
    /// and a leader.
    ///
    /// # Panics
    /// When that takes longer than a minute.
    pub async fn healthy(&mut self) -> StatusResponse {
        for node in self.placements.iter_mut().chain(&mut self.stores) {
            node.ready(HEALTHY);
        }
        let placement = self.placement().await;
        let wanted = self.stores.len();
        eventually("the cluster is healthy", HEALTHY, || async {
            let status = placement.status().await.map_err(|error| error.to_string())?;
            let up = status.stores.iter().filter(|store| store.state == "Up").count();
            let well = up == wanted
                && status.bootstrapped
                && status.leaderless == 0
                && status.reported_stores == status.reporting_stores
                && status.under_replicated == 0
                && status.members.iter().all(|member| member.healthy);
            if well { Ok(status) } else { Err(format!("{status:?}")) }
        })
        .await
    }

    /// The id of each store, in the order of [`Cluster::stores`].
    ///
    /// # Panics
    /// When one does not answer.
    pub fn store_ids(&self) -> Vec<StoreId> {
        let id = |node: &Node| {
            let page = node.health().unwrap_or_else(|error| panic!("{}: {error}", node.name));
            StoreId(page["id"].as_u64().unwrap_or_else(|| panic!("{}: {page}", node.name)))
        };
        self.stores.iter().map(id).collect()
    }

    /// Which placement member leads, as an index into [`Cluster::placements`].
    ///
    /// # Panics
    /// When none does within 20 s.
    pub async fn placement_leader(&self) -> usize {
        eventually("a placement member leads", Duration::from_secs(20), || async {
            let leads = |node: &Node| {
                node.health().is_ok_and(|page| page["role"] == "leader" && page["lease"] == true)
            };
            self.placements.iter().position(leads).ok_or_else(|| "none does".to_owned())
        })
        .await
    }

    /// Splits at the keys, and returns once that is done.
    ///
    /// # Panics
    /// When placement refuses, or it takes longer than the client's deadline allows.
    pub async fn split(&self, placement: &PlacementClient, keys: Vec<Bytes>) {
        let count = keys.len();
        let answer = placement.split_region(SplitRegionRequest { keys, region_id: 0 }).await;
        answer.unwrap_or_else(|error| panic!("the split at {count} keys: {error}"));
    }

    /// One region a letter of [`letters`], with leaders on all stores in turn. Returns who leads
    /// which letter.
    ///
    /// # Panics
    /// When that is not so within a minute.
    pub async fn spread(&mut self) -> BTreeMap<u8, StoreId> {
        let placement = self.placement().await;
        self.split(&placement, split_keys()).await;
        self.healthy().await;
        let ids = self.store_ids();
        let enough = letters().count() / ids.len() / 2;
        eventually("every store leads some regions", HEALTHY, || async {
            let leaders = leaders(&placement).await?;
            let led = |id| leaders.values().filter(|leader| **leader == id).count();
            if ids.iter().all(|id| led(*id) >= enough) {
                return Ok(leaders);
            }
            for (number, letter) in letters().enumerate() {
                let wanted = ids[number % ids.len()];
                if leaders.get(&letter) != Some(&wanted) {
                    let region = region_of(&placement, letter).await?;
                    // Refused while another move is under way: the next look asks again.
                    let _ = placement.transfer_leader(region, wanted).await;
                }
            }
            Err(format!("{leaders:?}"))
        })
        .await
    }
}

/// Who leads the region of each letter, as placement knows it.
///
/// # Errors
/// Placement does not answer, or a letter has no leader.
pub(super) async fn leaders(placement: &PlacementClient) -> Result<BTreeMap<u8, StoreId>, String> {
    let mut leaders = BTreeMap::new();
    for letter in letters() {
        let info = region(placement, letter).await?;
        let leader = info.leader.ok_or_else(|| format!("{} has no leader", info.region.id))?;
        leaders.insert(letter, leader.store);
    }
    Ok(leaders)
}

async fn region(placement: &PlacementClient, letter: u8) -> Result<RegionInfo, String> {
    let info = placement.get_region(Bytes::copy_from_slice(&[letter])).await;
    info.map_err(|error| error.to_string())
}

async fn region_of(placement: &PlacementClient, letter: u8) -> Result<RegionId, String> {
    region(placement, letter).await.map(|info| info.region.id)
}

impl Cluster {
    /// Who leads the region of each letter, once all have a leader.
    ///
    /// # Panics
    /// When that takes longer than a minute.
    pub async fn leaders(&self) -> BTreeMap<u8, StoreId> {
        let placement = self.placement().await;
        eventually("every region has a leader", HEALTHY, || leaders(&placement)).await
    }

    /// Checks that the regions cover the key space without a gap or an overlap, and returns them.
    ///
    /// # Panics
    /// When they do not.
    pub async fn covering_regions(&self) -> Vec<RegionInfo> {
        let placement = self.placement().await;
        let regions = placement.scan_regions(Bytes::new(), Bytes::new(), 100_000).await;
        let regions = regions.unwrap_or_else(|error| panic!("no regions: {error}"));
        let mut end = Bytes::new();
        for (number, info) in regions.iter().enumerate() {
            let range = &info.region.range;
            assert_eq!(
                range.start, end,
                "{} does not start where the one before ends",
                info.region.id
            );
            assert!(number == 0 || !end.is_empty(), "a region lies behind the last one");
            end = range.end.clone();
        }
        assert!(!regions.is_empty() && end.is_empty(), "the last region does not reach the end");
        regions
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let keep = std::env::var_os("QUORATE_KEEP").is_some_and(|keep| !keep.is_empty());
        if std::thread::panicking() || keep {
            for node in self.placements.iter().chain(&self.stores) {
                let log = node.log_text();
                let lines: Vec<&str> = log.lines().collect();
                let shown = lines.len().saturating_sub(SHOWN_LINES);
                eprintln!("--- end of the log of {}\n{}", node.name, lines[shown..].join("\n"));
            }
        }
        self.placements.clear();
        self.stores.clear();
        if keep && let Some(home) = self.home.take() {
            eprintln!("--- kept {}", home.keep().display());
        }
    }
}
