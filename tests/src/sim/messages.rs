//! What travels between processes and clients of the simulated world, and what happens in it.

use bytes::Bytes;
use quorate_consensus::shard::{self, MakeSnapshot};
use quorate_proto::wire::kvrpcpb::Context;
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{KeyRange, NodeId};
use quorate_store::core::RegionError;

/// Names a request inside of one life of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Token(pub(super) u64);

/// Something that happens. Events of a process that has died since are dropped (`life`).
#[derive(Debug)]
pub(super) enum Event {
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
    /// Something for the groups of a process.
    Mail { node: NodeId, life: u64, mail: Box<shard::Event<Token>> },
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
    /// A client goes on.
    Client { client: u64, wake: Wake },
    /// Trouble.
    Nemesis,
}

/// Why a client wakes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// To begin another operation.
    Next,
    /// To try the operation of that number again.
    Retry(u64),
    /// The operation of that number has taken too long.
    Deadline(u64),
}

/// Something on its way.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    Frame(Vec<Envelope>),
    Beat(u64),
    Snapshot(Box<Transfer>),
    /// A client asks a store.
    Request(Box<Request>),
    /// A store answers a client.
    Response {
        call: u64,
        result: Result<Output, Failure>,
    },
}

/// A snapshot on its way.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) make: MakeSnapshot,
    pub(super) life: u64,
    pub(super) message: Envelope,
    pub(super) pairs: Vec<(Bytes, Bytes)>,
}

/// What a client asks of a store.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) call: u64,
    pub(super) context: Context,
    pub(super) operation: Operation,
}

/// An operation of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    Get { key: Bytes },
    Put { key: Bytes, value: Bytes },
    Delete { key: Bytes },
    Scan { start: Bytes },
}

impl Operation {
    pub(super) fn key(&self) -> &Bytes {
        match self {
            Operation::Get { key } | Operation::Put { key, .. } | Operation::Delete { key } => key,
            Operation::Scan { start } => start,
        }
    }

    pub(super) fn is_write(&self) -> bool {
        match self {
            Operation::Put { .. } | Operation::Delete { .. } => true,
            Operation::Get { .. } | Operation::Scan { .. } => false,
        }
    }
}

/// What an operation returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    Done,
    Value(Option<Bytes>),
    /// All pairs of a range.
    Pairs(KeyRange, Vec<(Bytes, Bytes)>),
}

/// Why an operation failed.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// Certainly not done.
    Region(RegionError),
    /// Nobody listens there: certainly not done.
    Unreachable,
    /// Nobody can say.
    Undetermined,
}
