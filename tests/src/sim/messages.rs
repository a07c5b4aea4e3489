//! What travels between processes and clients of the simulated world, and what happens in it.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_consensus::shard::MakeSnapshot;
use quorate_placement::core::command::{Joining, JoiningMember};
use quorate_proto::wire::kvrpcpb::Context;
use quorate_proto::wire::peer::{Envelope, SnapshotAnswer, SnapshotChunk, SnapshotHeader};
use quorate_proto::wire::placement::{SplitIds, StoreOrders, StoreReport};
use quorate_proto::{KeyRange, NodeId, Peer, Region, RegionId, StoreId};
use quorate_store::core::RegionError;

use super::chance::{Concern, Lane};
use super::network::Link;
use super::world::Deed;

/// Names a request inside of one life of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token(pub(crate) u64);

/// Something that happens. Events of a process that has died since are dropped (`life`).
#[derive(Debug)]
pub(crate) enum Event {
    /// A raft worker's clock ticks.
    Tick { node: NodeId, life: u64, shard: usize },
    /// A raft worker looks at its mail.
    Turn { node: NodeId, life: u64, shard: usize },
    /// A write has had its time.
    Synced { node: NodeId, life: u64, shard: usize, number: u64, sync: bool },
    /// The next of what a worker has to apply, install or read.
    Work { node: NodeId, life: u64, shard: usize },
    /// Time to tell the neighbours that the process lives.
    Beat { node: NodeId, life: u64 },
    /// The streams to another process broke.
    Broken { node: NodeId, life: u64, to: NodeId },
    /// The next step of something the process's services do.
    Job { node: NodeId, life: u64, job: u64 },
    /// Periodic work of the process's services.
    Duty { node: NodeId, life: u64 },
    /// Something arrives.
    Packet(Box<Packet>),
    /// A process starts.
    Start(NodeId),
    /// A client of timestamps goes on.
    Stamp { client: u64, call: u64 },
    /// A client goes on.
    Client { client: u64, wake: Wake },
    /// Time for more trouble.
    Nemesis,
    /// Trouble that was planned before.
    Deed(Deed),
    /// Time to move a replica.
    Move,
    /// Time to go on with merges.
    Merge,
    /// The next step of sending or receiving snapshots.
    Transfer { node: NodeId, life: u64, step: Step },
    /// One end of a call notices that its connection broke.
    HungUp { node: NodeId, call: Call },
}

impl Event {
    /// Whose chance decides about its place among others of the same moment.
    pub(crate) fn concern(&self) -> Concern {
        match self {
            Event::Tick { node, .. }
            | Event::Turn { node, .. }
            | Event::Beat { node, .. }
            | Event::Broken { node, .. }
            | Event::Start(node) => Concern::Process(*node),
            Event::Synced { node, .. } | Event::Work { node, .. } => Concern::Disk(*node),
            Event::Job { node, .. } | Event::Duty { node, .. } => Concern::Services(*node),
            Event::Packet(packet) => packet.concern(),
            Event::Client { client, .. } => Concern::Client(*client),
            Event::Stamp { client, .. } => Concern::Stamper(*client),
            Event::Nemesis | Event::Deed(_) => Concern::Nemesis,
            Event::Move => Concern::Mover,
            Event::Merge => Concern::Merger,
            Event::Transfer { node, .. } | Event::HungUp { node, .. } => Concern::Transfers(*node),
        }
    }
}

/// What a process does next about its snapshots.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Looks whose turn it is.
    Dispatch,
    /// A chunk that was read leaves.
    Leave(Call, Box<SnapshotChunk>),
    /// A chunk that came is written.
    Write(Call),
    /// Raft is told whether a snapshot was delivered.
    Tell(MakeSnapshot, bool),
}

/// Why a client wakes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// To begin another operation.
    Next,
    /// To try the operation of that number again.
    Retry(u64),
    /// The operation of that number has taken too long.
    Deadline(u64),
}

/// Something on its way.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) lane: Lane,
    pub(crate) body: Body,
}

impl Packet {
    pub(crate) fn link(&self) -> Link {
        (self.from, self.to, self.lane)
    }

    pub(crate) fn concern(&self) -> Concern {
        Concern::Link(self.from, self.to, self.lane)
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    Frame(Vec<Envelope>),
    Beat(u64),
    Snapshot(Box<Transfer>),
    Piece(Box<Piece>),
    /// A client asks a store.
    Request(Box<Request>),
    /// A store answers a client.
    Response {
        call: u64,
        result: Result<Output, Failure>,
    },
    /// Somebody asks placement.
    Ask {
        call: u64,
        ask: Box<Ask>,
    },
    /// A placement member answers. Call 0: without being asked.
    Told {
        call: u64,
        told: Told,
    },
}

/// What placement is asked.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Join(Joining),
    Report(StoreReport),
    /// Ids for the parts of a region.
    SplitIds {
        region: Region,
        count: usize,
    },
    Timestamp,
    Region(Bytes),
    RegionById(RegionId),
    /// Split wherever these keys lie.
    Split(BTreeSet<Bytes>),
    /// One of the region's neighbours is to take it in.
    Merge {
        region: RegionId,
    },
    Transfer {
        region: RegionId,
        to: StoreId,
    },
    /// A replica more, one less, or one elsewhere.
    Replica {
        region: RegionId,
        add: Option<StoreId>,
        remove: Option<StoreId>,
    },
    /// A store is to leave, or to stay after all.
    RemoveStore {
        store: StoreId,
        cancel: bool,
        dead: bool,
    },
    /// A process wants to be a member of placement, or to know whether it still is one.
    JoinMember(JoiningMember),
    /// Another member of placement is to take the place of one.
    ReplaceMember {
        member: NodeId,
        with: NodeId,
    },
}

/// What placement answers.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    Joined {
        store: StoreId,
        regions: Option<Vec<Region>>,
        cluster: u64,
    },
    Orders(StoreOrders),
    Ids(Vec<SplitIds>),
    Timestamp(u64),
    Region(Option<(Region, Option<Peer>)>),
    /// The process with that data id is a member of placement, or waits to become one.
    MemberJoined {
        member: NodeId,
        data_id: u64,
    },
    /// Whoever asks is none, and does not become one.
    NoMember(String),
    Done,
    /// Certainly not done, for a reason.
    Refused(String),
    /// Another member leads, if any.
    NotLeader(Option<NodeId>),
    /// Nobody can say whether it was done.
    Undetermined,
}

/// Names a call that brings a snapshot: one of a run of its sender's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    pub(crate) from: NodeId,
    pub(crate) life: u64,
    pub(crate) number: u64,
}

/// A part of what one end of a call says. Each end numbers its own.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) call: Call,
    pub(crate) number: u64,
    pub(crate) words: Words,
}

#[derive(Debug, Clone)]
pub(crate) enum Words {
    /// The sender begins.
    Open(Box<SnapshotHeader>),
    Chunk(Box<SnapshotChunk>),
    /// The receiver answers.
    Answer(SnapshotAnswer),
    /// The end that says so has ended the call.
    Ended(String),
    /// Nobody here knows that call. Says who was not asked: it has no number.
    Unknown,
}

/// A snapshot on its way as one message.
#[derive(Debug, Clone)]
pub(crate) struct Transfer {
    pub(crate) make: MakeSnapshot,
    pub(crate) life: u64,
    pub(crate) message: Envelope,
    pub(crate) pairs: Vec<(Bytes, Bytes)>,
}

/// What a client asks of a store.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) call: u64,
    pub(crate) context: Context,
    pub(crate) operation: Operation,
}

/// An operation of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Get { key: Bytes },
    Put { key: Bytes, value: Bytes },
    Delete { key: Bytes },
    Scan { start: Bytes },
}

impl Operation {
    pub(crate) fn key(&self) -> &Bytes {
        match self {
            Operation::Get { key } | Operation::Put { key, .. } | Operation::Delete { key } => key,
            Operation::Scan { start } => start,
        }
    }

    pub(crate) fn is_write(&self) -> bool {
        match self {
            Operation::Put { .. } | Operation::Delete { .. } => true,
            Operation::Get { .. } | Operation::Scan { .. } => false,
        }
    }
}

/// What an operation returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    Done,
    Value(Option<Bytes>),
    /// All pairs of a range.
    Pairs(KeyRange, Vec<(Bytes, Bytes)>),
}

/// Why an operation failed.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// Certainly not done.
    Region(RegionError),
    /// Nobody listens there: certainly not done.
    Unreachable,
    /// Nobody can say.
    Undetermined,
}

/// The key of that number.
pub(crate) fn key(number: u64) -> Bytes {
    format!("k{number:03}").into()
}
