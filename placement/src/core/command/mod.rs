//! The commands of placement's log, their answers, and their wire form.
//!
//! Each command carries the cluster version that introduced its form, so that a member can tell a
//! newer cluster's command (it must be upgraded) from damage.

use std::collections::BTreeMap;

use quorate_proto::{InvalidRegion, NodeId, Peer, Region, RegionId, Role, StoreId, Term};
use thiserror::Error;

pub(crate) use self::encoding::{labels_from_wire, labels_to_wire, leader_from_wire};
pub use self::member::{
    Candidate, JoiningMember, MAX_WAITING, MEMBERS_SINCE, MOVES_SINCE, Member, MemberRefusal,
};
use super::events::Batch;
use super::lifecycle::Record;
use super::operators::{Ended, Operator};
use super::settings::BadSetting;
use super::state::StoreLife;

mod encoding;
mod member;
pub(crate) mod notes;
pub(crate) mod plan;

/// The newest cluster version this program knows: the form of its commands and records. A running
/// cluster uses an older form until somebody raises its setting `cluster_version`.
pub const CLUSTER_VERSION: u32 = quorate_proto::limits::KNOWN_VERSION;
/// Since when operators, lifecycles, events, settings and the leaving of stores are replicated.
pub const PLANS_SINCE: u32 = 2;
/// Since when regions are merged: stores apply no such command before.
pub const MERGES_SINCE: u32 = 4;
/// Since when it is replicated how operators ended, and how long a learner was ready.
pub const NOTES_SINCE: u32 = 5;
/// Most ids one command allocates.
pub const MAX_IDS: u64 = 1_000_000;
/// Most regions one command saves.
pub const MAX_SAVED_REGIONS: usize = 2_000;

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
#[derive(Clone, Debug, PartialEq)]
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
        /// The form of commands and records it uses.
        version: u32,
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
    /// A store leaves, is taken back in, or has left.
    ChangeStore {
        /// Which one.
        store: StoreId,
        /// What becomes of it.
        life: StoreLife,
    },
    /// Remember what the leader has planned.
    SavePlan(Plan),
    /// Change settings, by their names.
    ChangeSettings(Vec<(String, String)>),
    /// A process asks to become a member of the placement group.
    JoinMember(JoiningMember),
    /// Who is in the placement group from now on: comes with a change of Raft's configuration.
    ChangeMembers {
        /// The number of changes so far.
        version: u64,
        /// All members afterwards.
        members: Vec<(NodeId, Role)>,
    },
}

/// What the leader has planned since its last one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Operators that began or changed.
    pub operators: Vec<Operator>,
    /// Ids of those that ended.
    pub ended: Vec<u64>,
    /// All records of each group that changed. One without a peer gets an id for it.
    pub lifecycles: Vec<(RegionId, Vec<Record>)>,
    /// What happened.
    pub events: Batch,
    /// What became of operators, oldest first.
    pub notes: Vec<Ended>,
}

impl Plan {
    /// True where there is nothing to remember. Notes alone wait for an entry that goes out anyway.
    pub fn is_empty(&self) -> bool {
        self.operators.is_empty()
            && self.ended.is_empty()
            && self.lifecycles.is_empty()
            && self.events.news.is_empty()
    }
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
    /// The process is a member, or waits to become one, under that id.
    MemberJoined(NodeId),
    /// The process may not become a member.
    MemberRefused(MemberRefusal),
    /// The placement group has the members that were wanted.
    MembersChanged,
    /// It cannot be, in words.
    Refused(String),
    /// Settings that cannot be.
    BadSetting(BadSetting),
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
    /// It was taken out.
    #[error(
        "{store} was taken out of this cluster and its replicas were replaced, so its data is old: \
         start the store with an empty data folder and it gets an id of its own"
    )]
    Left {
        /// The id.
        store: StoreId,
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
