//! Every knob of a placement member, with its default.
//!
//! Each leaf is a number, a text, a switch or a list of texts, so that a flag, a variable of the
//! environment and a line of a TOML file can all set it; [`HELP`] says what each one means.

use std::collections::BTreeSet;
use std::path::PathBuf;

use quorate_consensus::engine::RocksOptions;
use quorate_consensus::node::listen;
use quorate_proto::{NodeId, Role};
use serde::{Deserialize, Serialize};

use crate::core::command::Member;

/// Settings of a placement member. Keys that nobody knows are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlacementConfig {
    /// Which of the members this one is. At least 1.
    pub id: u64,
    /// A name for people; empty: `placement-ID`.
    pub name: String,
    /// `HOST:PORT` to listen on for clients, stores and the other members. Port 0: any free port,
    /// for a member on its own.
    pub listen: String,
    /// `HOST:PORT` of `/health`, `/ready` and `/metrics`; empty: none.
    pub status_address: String,
    /// The data folder; created where it is missing.
    pub data: PathBuf,
    /// The placement group as it is first started, as `ID=HOST:PORT`: 1, 3 or 5 members, this one
    /// among them, the same list on all of them. Empty: a group of this member alone, or the list
    /// it was first started with.
    pub members: Vec<String>,
    /// `HOST:PORT` of members of a running group that this one shall join; its data folder is
    /// empty then, and its id is given to it. Not used once it has joined.
    pub join: Vec<String>,
    /// `HOST:PORT` under which others reach this member; empty: as in `members`, or as `listen`.
    pub advertise: String,
    /// How many stores the first regions of a new cluster wait for. 0: 3 for a new cluster, what
    /// it was set up with for an existing one. Another number for an existing cluster is refused.
    pub initial_stores: u32,
    /// Voters that a region of a new cluster shall have: 1, 3 or 5.
    pub replicas: u32,
    /// Seconds that a graceful shutdown may take.
    pub shutdown_secs: u64,
    /// Milliseconds after which a request without an outcome is answered as undetermined.
    pub request_timeout_ms: u64,
    /// Milliseconds between two writes of changed routes for the next leader.
    pub save_interval_ms: u64,
    /// Bounds on what others may ask for at once.
    pub limits: LimitsConfig,
    /// The storage engine.
    pub engine: EngineConfig,
    /// The Raft group.
    pub raft: RaftConfig,
}

/// Bounds on what others may ask for at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Connections to the listen address; further ones are closed at once.
    pub connections: usize,
    /// Streams on one connection; further ones wait.
    pub streams_per_connection: u32,
}

/// The storage engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// MiB of blocks, indexes and filters kept in memory.
    pub block_cache_mib: u64,
    /// MiB of memtables.
    pub memtable_mib: u64,
    /// MiB of write-ahead log at which memtables are flushed; bounds recovery time.
    pub wal_mib: u64,
}

/// The Raft group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RaftConfig {
    /// Milliseconds of one tick; elections start after 6 ticks and more.
    pub tick_ms: u64,
}

impl Default for PlacementConfig {
    fn default() -> Self {
        Self {
            id: 1,
            name: String::new(),
            listen: "127.0.0.1:2379".to_owned(),
            status_address: "127.0.0.1:2380".to_owned(),
            data: PathBuf::from("data/placement"),
            members: Vec::new(),
            join: Vec::new(),
            advertise: String::new(),
            initial_stores: 0,
            replicas: 3,
            shutdown_secs: 10,
            request_timeout_ms: 5_000,
            save_interval_ms: 2_000,
            limits: LimitsConfig::default(),
            engine: EngineConfig::default(),
            raft: RaftConfig::default(),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { connections: 4_096, streams_per_connection: 1_024 }
    }
}

impl Default for EngineConfig {
    /// Small: placement keeps some kilobytes for each store and region.
    fn default() -> Self {
        Self { block_cache_mib: 16, memtable_mib: 8, wal_mib: 16 }
    }
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self { tick_ms: 100 }
    }
}

/// What each key means, with its unit.
pub const HELP: &[(&str, &str)] = &[
    ("id", "which of the members this one is"),
    ("name", "a name for people (empty: placement-ID)"),
    ("listen", "HOST:PORT to listen on for clients, stores and the other members"),
    ("status_address", "HOST:PORT of /health, /ready and /metrics (empty: none)"),
    ("data", "data folder, created where it is missing"),
    ("members", "the group as first started: 1, 3 or 5 of ID=HOST:PORT (empty: this one alone)"),
    ("join", "HOST:PORT of members of a running group to join, with an empty data folder"),
    (
        "advertise",
        "HOST:PORT under which others reach this member (empty: as in members, or as listen)",
    ),
    ("initial_stores", "stores that a new cluster's first regions wait for (0: 3, or as set up)"),
    ("replicas", "voters that a region of a new cluster shall have: 1, 3 or 5"),
    ("shutdown_secs", "seconds that a graceful shutdown may take"),
    ("request_timeout_ms", "milliseconds until a request without an outcome is answered"),
    ("save_interval_ms", "milliseconds between two writes of changed routes for the next leader"),
    ("limits.connections", "connections to the listen address"),
    ("limits.streams_per_connection", "streams on one connection"),
    ("engine.block_cache_mib", "MiB of blocks, indexes and filters kept in memory"),
    ("engine.memtable_mib", "MiB of memtables"),
    ("engine.wal_mib", "MiB of write-ahead log at which memtables are flushed"),
    ("raft.tick_ms", "milliseconds of one Raft tick"),
];

/// Sorted files that the engine keeps open.
pub(crate) const OPEN_FILES: u32 = 128;
/// Members of a placement group that it can start with.
const GROUP_SIZES: [usize; 3] = [1, 3, 5];
/// Stores that a cluster waits for when it is not told how many.
pub const DEFAULT_INITIAL_STORES: u32 = 3;
/// Most stores a cluster can be told to wait for.
const MAX_INITIAL_STORES: u32 = 1_000;

impl PlacementConfig {
    /// The first bound that makes no sense, in words that say what to write instead.
    ///
    /// # Errors
    /// A knob that is zero where zero means "never", or out of its range.
    pub fn check(&self) -> Result<(), String> {
        let positive: [(&str, u64); 8] = [
            ("id", self.id),
            ("shutdown_secs", self.shutdown_secs),
            ("request_timeout_ms", self.request_timeout_ms),
            ("save_interval_ms", self.save_interval_ms),
            ("limits.connections", self.limits.connections as u64),
            ("limits.streams_per_connection", u64::from(self.limits.streams_per_connection)),
            ("engine.memtable_mib", self.engine.memtable_mib),
            ("raft.tick_ms", self.raft.tick_ms),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{key} is 0; set it to 1 or more"));
        }
        if !matches!(self.replicas, 1 | 3 | 5) {
            return Err(format!(
                "replicas is {}; set it to 1, 3 or 5: an even number costs more and survives no \
                 more failures",
                self.replicas
            ));
        }
        if self.initial_stores > MAX_INITIAL_STORES {
            return Err(format!(
                "initial_stores is {}; set it to at most {MAX_INITIAL_STORES} and add stores later",
                self.initial_stores
            ));
        }
        if !self.join.is_empty() && !self.members.is_empty() {
            return Err("members and join are both set: members is for the first start of a new \
                        group, join for one more member of a running one; leave one of them out"
                .to_owned());
        }
        for (key, addresses) in
            [("join", &self.join[..]), ("advertise", std::slice::from_ref(&self.advertise))]
        {
            for text in addresses.iter().filter(|text| !text.is_empty()) {
                listen::dialable(text).map_err(|reason| bad_address(key, text, reason))?;
            }
        }
        let group = self.group()?;
        let own = group.iter().find(|member| member.id == NodeId(self.id));
        match own.filter(|own| !self.advertise.is_empty() && own.address != self.advertise) {
            Some(own) => Err(format!(
                "advertise is {}, members says {} for this member; leave advertise out, or set \
                 members to it on all members",
                self.advertise, own.address
            )),
            None => Ok(()),
        }
    }

    /// The name of this member.
    pub fn effective_name(&self) -> String {
        if self.name.is_empty() { name_of(NodeId(self.id)) } else { self.name.clone() }
    }

    /// The group that `members` lists, in order of ids; empty where it lists none.
    ///
    /// # Errors
    /// A member that is not `ID=HOST:PORT`, a number of members that is not 1, 3 or 5, an id or
    /// address twice, or this member not among them.
    pub fn group(&self) -> Result<Vec<Member>, String> {
        let mut group = Vec::with_capacity(self.members.len());
        for text in &self.members {
            let parsed = text.split_once('=').and_then(|(id, address)| {
                let id = id.trim().parse::<u64>().ok()?;
                (id > 0).then(|| (NodeId(id), address.to_owned()))
            });
            let (id, address) = parsed.ok_or_else(|| {
                format!("member {text:?} is not ID=HOST:PORT; write it as 1=10.0.0.1:2379")
            })?;
            listen::dialable(&address)
                .map_err(|reason| bad_address("members", &address, reason))?;
            let own = id.0 == self.id;
            let name = if own { self.effective_name() } else { name_of(id) };
            group.push(Member { id, name, address, role: Role::Voter });
        }
        if group.is_empty() {
            return Ok(group);
        }
        if !GROUP_SIZES.contains(&group.len()) {
            return Err(format!(
                "{} members are listed; list 1, 3 or 5: an even number of voters costs more and \
                 survives no more failures",
                group.len()
            ));
        }
        let ids: BTreeSet<NodeId> = group.iter().map(|member| member.id).collect();
        let addresses: BTreeSet<&str> =
            group.iter().map(|member| member.address.as_str()).collect();
        if ids.len() < group.len() || addresses.len() < group.len() {
            return Err("two members have one id or one address; give each its own".to_owned());
        }
        if !ids.contains(&NodeId(self.id)) {
            return Err(format!(
                "this member's id is {}, which is none of the listed members; set id to one of them",
                self.id
            ));
        }
        group.sort_by_key(|member| member.id);
        Ok(group)
    }
}

impl EngineConfig {
    /// The engine's own options.
    pub(crate) fn options(&self) -> RocksOptions {
        RocksOptions {
            block_cache_bytes: usize::try_from(self.block_cache_mib << 20).unwrap_or(usize::MAX),
            memtable_bytes: usize::try_from(self.memtable_mib << 20).unwrap_or(usize::MAX),
            wal_bytes: self.wal_mib << 20,
            background_jobs: 1,
            open_files: i32::try_from(OPEN_FILES).unwrap_or(i32::MAX),
            ..RocksOptions::default()
        }
    }
}

fn bad_address(key: &str, address: &str, reason: &str) -> String {
    format!("{key}: {address:?} cannot be used: {reason}; write it as 10.0.0.1:2379")
}

fn name_of(id: NodeId) -> String {
    format!("placement-{}", id.0)
}
