//! The commands of placement's log, their answers, and their wire form.
//!
//! Each command carries the cluster version that introduced its form, so that a member can tell a
//! newer cluster's command (it must be upgraded) from damage.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use quorate_proto::wire::{metapb, placement_state as wire};
use quorate_proto::{InvalidRegion, NodeId, Peer, PeerId, Region, RegionId, Role, StoreId, Term};
use thiserror::Error;

use quorate_consensus::shard;

/// The cluster version this program writes: the form of its commands and records.
pub const CLUSTER_VERSION: u32 = 1;
/// Most ids one command allocates.
pub const MAX_IDS: u64 = 1_000_000;
/// Most regions one command saves.
pub const MAX_SAVED_REGIONS: usize = 2_000;

/// A member of the placement group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Names its process and its peer.
    pub id: NodeId,
    /// For people.
    pub name: String,
    /// `HOST:PORT` where clients, stores and the other members reach it.
    pub address: String,
}

impl Member {
    /// As a voter of the Raft group.
    pub fn voter(&self) -> shard::Member {
        shard::Member { peer: PeerId(self.id.0), node: self.id, role: Role::Voter }
    }
}

impl From<&Member> for wire::Member {
    fn from(member: &Member) -> Self {
        Self { id: member.id.0, name: member.name.clone(), address: member.address.clone() }
    }
}

impl TryFrom<wire::Member> for Member {
    type Error = BadCommand;

    fn try_from(wire: wire::Member) -> Result<Self, BadCommand> {
        if wire.id == 0 || wire.address.is_empty() {
            return Err(BadCommand::Missing("a member's id or address"));
        }
        Ok(Self { id: NodeId(wire.id), name: wire.name, address: wire.address })
    }
}

/// What a store says of itself when it joins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joining {
    /// The cluster it was told to join or belongs to; 0: it does not know yet.
    pub cluster_id: u64,
    /// Its id; `None`: it has none yet.
    pub store: Option<StoreId>,
    /// `HOST:PORT` for clients and stores.
    pub address: String,
    /// `HOST:PORT` of its status pages; may be empty.
    pub status_address: String,
    /// Where it stands: zone, rack, host.
    pub labels: BTreeMap<String, String>,
    /// Version of its program.
    pub version: String,
    /// Drawn anew at each of its starts.
    pub incarnation: u64,
    /// Drawn once for its data folder. Never 0.
    pub data_id: u64,
}

/// A region as the leader last saw it, written behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedRegion {
    /// Range, epoch, peers.
    pub region: Region,
    /// Who led it.
    pub leader: Option<Peer>,
    /// In which term.
    pub term: Term,
    /// Roughly its size.
    pub bytes: u64,
    /// Roughly its number of keys.
    pub keys: u64,
}

/// A change of the replicated state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The first command of a cluster; a second one changes nothing.
    Initialize {
        /// Drawn by the first leader.
        cluster_id: u64,
        /// The group.
        members: Vec<Member>,
        /// How many stores to wait for before the first regions are made.
        initial_stores: u32,
        /// Wanted voters of a region.
        replicas: u32,
    },
    /// A store announces itself.
    JoinStore(Joining),
    /// A store that had joined was heard of.
    ActivateStore(StoreId),
    /// Make the first regions if enough stores have joined.
    Bootstrap,
    /// Set ids aside.
    AllocateIds {
        /// How many, 1 to [`MAX_IDS`].
        count: u64,
    },
    /// Raise the ceiling of timestamps.
    ExtendTime {
        /// Milliseconds since the Unix epoch.
        ceiling_ms: u64,
    },
    /// Remember routes for the next leader.
    SaveRegions(Vec<SavedRegion>),
    /// Raise the point below which old versions may be collected.
    RaiseSafePoint(u64),
}

/// What applying a command led to, for whoever proposed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing to say.
    Done,
    /// The cluster's id, new or old.
    Initialized(u64),
    /// The store belongs to the cluster under that id.
    Joined(StoreId),
    /// The store may not join.
    JoinRefused(JoinRefusal),
    /// True where the cluster has its first regions now.
    Bootstrapped(bool),
    /// These ids are the proposer's.
    Ids {
        /// The first one.
        first: u64,
        /// How many.
        count: u64,
    },
    /// Timestamps below the new ceiling and at or above the previous one are the proposer's.
    Time {
        /// Ceiling before.
        previous_ms: u64,
        /// Ceiling now.
        ceiling_ms: u64,
    },
    /// The safe point now.
    SafePoint(u64),
}

/// Why a store may not join.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JoinRefusal {
    /// The placement group has no cluster yet.
    #[error("the placement group is still starting; try again in a second")]
    NotInitialized,
    /// Not this cluster.
    #[error(
        "the store belongs to cluster {theirs}, this is cluster {ours}: give it the placement \
         addresses of its own cluster, or start it with an empty data folder"
    )]
    WrongCluster {
        /// The store's.
        theirs: u64,
        /// Ours.
        ours: u64,
    },
    /// Two data folders claim one id.
    #[error(
        "{store} is in use by another data folder (at {address}): do not copy a store's folder; \
         start this store with an empty one and it gets an id of its own"
    )]
    IdInUse {
        /// The id.
        store: StoreId,
        /// Where the rightful one was last seen.
        address: String,
    },
    /// An id this cluster never gave.
    #[error(
        "{store} is not known to this cluster: its data folder comes from somewhere else; start \
         the store with an empty data folder"
    )]
    UnknownStore {
        /// The id.
        store: StoreId,
    },
    /// Two living stores at one address.
    #[error(
        "{address} is the address of {store}, which is alive: give this store another \
         --advertise-address, or stop {store} first"
    )]
    AddressInUse {
        /// Who has it.
        store: StoreId,
        /// The address.
        address: String,
    },
    /// Something is missing from the request.
    #[error("a store joins with {0}")]
    Incomplete(&'static str),
}

/// Why bytes are no command or record of ours.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BadCommand {
    /// Written by a later version of the program.
    #[error(
        "it has version {found}, this program knows up to {known}: start a version of quorate at \
         least as new as the rest of the placement group"
    )]
    Newer {
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Not protobuf.
    #[error("it cannot be decoded: {0}")]
    Decode(String),
    /// A required part is not there.
    #[error("it lacks {0}")]
    Missing(&'static str),
    /// A number beyond its bound.
    #[error("it exceeds a bound: {0}")]
    Bound(&'static str),
    /// A bad region.
    #[error(transparent)]
    Region(#[from] InvalidRegion),
}

impl Command {
    /// The bytes to propose: the wire form with its length in front.
    pub fn encode(&self) -> Bytes {
        let kind = match self {
            Command::Initialize { cluster_id, members, initial_stores, replicas } => {
                wire::command::Kind::Initialize(wire::Initialize {
                    cluster_id: *cluster_id,
                    members: members.iter().map(Into::into).collect(),
                    initial_stores: *initial_stores,
                    replicas: *replicas,
                })
            }
            Command::JoinStore(joining) => wire::command::Kind::JoinStore(joining.into()),
            Command::ActivateStore(store) => {
                wire::command::Kind::ActivateStore(wire::ActivateStore { store_id: store.0 })
            }
            Command::Bootstrap => wire::command::Kind::Bootstrap(wire::Bootstrap {}),
            Command::AllocateIds { count } => {
                wire::command::Kind::AllocateIds(wire::AllocateIds { count: *count })
            }
            Command::ExtendTime { ceiling_ms } => {
                wire::command::Kind::ExtendTime(wire::ExtendTime { ceiling_ms: *ceiling_ms })
            }
            Command::SaveRegions(regions) => {
                let regions = regions.iter().map(Into::into).collect();
                wire::command::Kind::SaveRegions(wire::SaveRegions { regions })
            }
            Command::RaiseSafePoint(safe_point) => {
                wire::command::Kind::RaiseSafePoint(wire::RaiseSafePoint {
                    safe_point: *safe_point,
                })
            }
        };
        let command = wire::Command { version: CLUSTER_VERSION, kind: Some(kind) };
        command.encode_length_delimited_to_vec().into()
    }

    /// Takes the next command off the front of an entry's data.
    ///
    /// # Errors
    /// The bytes are no command of this or an earlier cluster version.
    pub fn decode(data: &mut Bytes) -> Result<Self, BadCommand> {
        let command = wire::Command::decode_length_delimited(data)
            .map_err(|error| BadCommand::Decode(error.to_string()))?;
        if command.version > CLUSTER_VERSION {
            return Err(BadCommand::Newer { found: command.version, known: CLUSTER_VERSION });
        }
        Ok(match command.kind.ok_or(BadCommand::Missing("its kind"))? {
            wire::command::Kind::Initialize(wire) => {
                if wire.cluster_id == 0 {
                    return Err(BadCommand::Missing("a cluster id"));
                }
                let members =
                    wire.members.into_iter().map(Member::try_from).collect::<Result<_, _>>()?;
                let (initial_stores, replicas) = (wire.initial_stores, wire.replicas);
                let cluster_id = wire.cluster_id;
                Command::Initialize { cluster_id, members, initial_stores, replicas }
            }
            wire::command::Kind::JoinStore(wire) => Command::JoinStore(wire.into()),
            wire::command::Kind::ActivateStore(wire) => {
                Command::ActivateStore(StoreId(wire.store_id))
            }
            wire::command::Kind::Bootstrap(wire::Bootstrap {}) => Command::Bootstrap,
            wire::command::Kind::AllocateIds(wire::AllocateIds { count }) => {
                if count == 0 || count > MAX_IDS {
                    return Err(BadCommand::Bound("ids of one allocation"));
                }
                Command::AllocateIds { count }
            }
            wire::command::Kind::ExtendTime(wire::ExtendTime { ceiling_ms }) => {
                Command::ExtendTime { ceiling_ms }
            }
            wire::command::Kind::SaveRegions(wire) => {
                if wire.regions.len() > MAX_SAVED_REGIONS {
                    return Err(BadCommand::Bound("regions saved at once"));
                }
                let regions = wire.regions.into_iter().map(SavedRegion::try_from);
                Command::SaveRegions(regions.collect::<Result<_, _>>()?)
            }
            wire::command::Kind::RaiseSafePoint(wire) => Command::RaiseSafePoint(wire.safe_point),
        })
    }
}

impl From<&Joining> for wire::JoinStore {
    fn from(joining: &Joining) -> Self {
        Self {
            cluster_id: joining.cluster_id,
            store_id: joining.store.map_or(0, StoreId::get),
            address: joining.address.clone(),
            status_address: joining.status_address.clone(),
            labels: labels_to_wire(&joining.labels),
            version: joining.version.clone(),
            incarnation: joining.incarnation,
            data_id: joining.data_id,
        }
    }
}

impl From<wire::JoinStore> for Joining {
    fn from(wire: wire::JoinStore) -> Self {
        Self {
            cluster_id: wire.cluster_id,
            store: (wire.store_id != 0).then_some(StoreId(wire.store_id)),
            address: wire.address,
            status_address: wire.status_address,
            labels: labels_from_wire(wire.labels),
            version: wire.version,
            incarnation: wire.incarnation,
            data_id: wire.data_id,
        }
    }
}

impl From<&SavedRegion> for wire::SavedRegion {
    fn from(saved: &SavedRegion) -> Self {
        Self {
            region: Some((&saved.region).into()),
            leader: saved.leader.map(Into::into),
            term: saved.term.0,
            approximate_bytes: saved.bytes,
            approximate_keys: saved.keys,
        }
    }
}

impl TryFrom<wire::SavedRegion> for SavedRegion {
    type Error = BadCommand;

    fn try_from(wire: wire::SavedRegion) -> Result<Self, BadCommand> {
        let region = Region::try_from(wire.region.ok_or(BadCommand::Missing("a region"))?)?;
        Ok(Self {
            leader: leader_from_wire(&region, wire.leader)?,
            region,
            term: Term(wire.term),
            bytes: wire.approximate_bytes,
            keys: wire.approximate_keys,
        })
    }
}

/// Parses a leader, which must be one of the region's peers.
pub(crate) fn leader_from_wire(
    region: &Region,
    leader: Option<metapb::Peer>,
) -> Result<Option<Peer>, InvalidRegion> {
    let bad = |id: RegionId, why| InvalidRegion::BadPeer(id, why);
    let Some(leader) = leader else { return Ok(None) };
    match region.peer(PeerId(leader.id)) {
        Some(peer) if peer.store.0 == leader.store_id => Ok(Some(*peer)),
        Some(_) | None => Err(bad(region.id, "the leader is none of the peers")),
    }
}

/// Labels as the wire has them.
pub(crate) fn labels_to_wire(labels: &BTreeMap<String, String>) -> Vec<metapb::StoreLabel> {
    let label = |(key, value): (&String, &String)| metapb::StoreLabel {
        key: key.clone(),
        value: value.clone(),
    };
    labels.iter().map(label).collect()
}

/// Labels from the wire; of two with one key, the last one counts.
pub(crate) fn labels_from_wire(labels: Vec<metapb::StoreLabel>) -> BTreeMap<String, String> {
    labels.into_iter().map(|label| (label.key, label.value)).collect()
}
