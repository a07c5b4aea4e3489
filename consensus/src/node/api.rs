//! What a process plugs into the production shell: its state machine, its answers, its addresses.

use bytes::Bytes;
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{LogIndex, NodeId, PeerId, RegionId, Term};

use crate::engine::EngineError;
use crate::shard::{
    ApplyTask, Install, LeaderChange, Member, Merged, NewGroup, Outgoing, Reconfigured, Reply,
    Stranger,
};
use crate::time::Instant;

/// Where an applied batch left a group.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The group.
    pub group: RegionId,
    /// Last applied entry.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
}

/// What applying led to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// One for each group that advanced.
    pub progress: Vec<Progress>,
    /// Groups to host from now on: split off.
    pub created: Vec<NewGroup>,
    /// Changes of members that were applied, in order, once they are written. What comes with the
    /// entry of a change is applied only where [`crate::shard::check_members`] agrees; a change
    /// that the state machine refuses is not listed, and nothing changes in raft.
    pub reconfigured: Vec<Reconfigured>,
    /// Groups of any worker that were taken in by another one, and their local peers: they are
    /// not hosted any more. What is stored of their data is the other's by now; with
    /// [`Machine::destroy`] only raft's records of them go.
    pub merged: Vec<(RegionId, PeerId)>,
    /// Groups that changed in another way that whoever looks after them should hear of.
    pub changed: Vec<RegionId>,
}

/// What an installed snapshot led to.
#[derive(Debug, Default)]
pub struct Installed {
    /// The members it names.
    pub members: Vec<Member>,
    /// Groups of any worker whose place it took, and their local peers: see [`Outcome::merged`].
    pub merged: Vec<(RegionId, PeerId)>,
}

/// A consistent picture of a group's state machine, ready to be sent.
pub struct SnapshotSource {
    /// Last applied entry in it.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// The members at that entry.
    pub members: Vec<Member>,
    /// First key of its data.
    pub start: Bytes,
    /// First key beyond; empty: no bound.
    pub end: Bytes,
    /// What the receiving state machine needs beside the data.
    pub state: Bytes,
    /// The engine as it was then.
    pub reader: Box<dyn crate::engine::Reader + Send>,
}

/// A snapshot on its way, or waiting for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotProgress {
    /// Of which group.
    pub group: RegionId,
    /// The peer that gets it.
    pub peer: PeerId,
    /// The other process: where it goes, or where it comes from.
    pub node: NodeId,
    /// True where it leaves from here.
    pub sending: bool,
    /// False while it waits for its turn, or to go on after a break.
    pub running: bool,
    /// Bytes that have left, or are staged.
    pub bytes: u64,
    /// Roughly how many it will be; never less than `bytes`. 0 while that is not known.
    pub total_bytes: u64,
    /// Changes whenever the queue moves in which it waits for its turn: those ahead of it get on,
    /// or its receiver answers that it is busy with others.
    pub queue: u64,
}

/// The replicated state machine of all groups of a process. It runs on the apply thread.
pub trait Machine: Send + 'static {
    /// Names a request.
    type Token: Send + 'static;

    /// Applies entries in order, writes data and applied index in one batch each (unsynced: the
    /// log replays it), answers the tokens.
    ///
    /// # Errors
    /// An error of the engine stops the process.
    fn apply(&mut self, tasks: Vec<ApplyTask<Self::Token>>) -> Result<Outcome, EngineError>;

    /// A picture of the group as applied now; `None` where it is not hosted any more.
    ///
    /// # Errors
    /// An error of the engine stops the process.
    fn snapshot(&mut self, group: RegionId) -> Result<Option<SnapshotSource>, EngineError>;

    /// Replaces a group's data by a received snapshot, safe against a crash at any step:
    /// `install.batch` together with an own `Installing` mark, synced; ingest; own state, synced.
    ///
    /// # Errors
    /// An error of the engine stops the process.
    fn install(&mut self, install: Install) -> Result<Installed, EngineError>;

    /// Another process says that a group is gone. Returns the peers here that are to go as well.
    ///
    /// # Errors
    /// An error of the engine stops the process.
    fn merged(&mut self, _told: Merged) -> Result<Vec<(RegionId, PeerId)>, EngineError> {
        Ok(Vec::new())
    }

    /// Removes a peer that is gone from here: its data, its own state and, with
    /// [`forget_group`](crate::shard::forget_group), what raft has stored of it, in one synced
    /// batch. One that is not here is fine; another peer of the group stays.
    ///
    /// # Errors
    /// An error of the engine stops the process.
    fn destroy(&mut self, group: RegionId, peer: PeerId) -> Result<(), EngineError>;
}

/// Who hears of requests that end without an applied entry. Called on worker threads: must not block.
pub trait Replies<T>: Send + Sync + 'static {
    /// The answer to the request that `token` names.
    fn reply(&self, token: T, reply: Reply);
    /// Leadership of a group changed.
    fn leader_changed(&self, change: LeaderChange);
    /// The members of a group changed, as applied here, or it changed in another way that the
    /// state machine tells.
    fn changed(&self, _group: RegionId) {}
    /// Somebody speaks to a peer that is not hosted here. Find out whether it should be, and give
    /// it to [`Node::create`](super::Node::create); otherwise do nothing. Where the group is known
    /// to be gone, the answer goes back at once.
    fn stranger(&self, _stranger: Stranger) -> Option<Outgoing> {
        None
    }
    /// Placement's clock at `now`, in milliseconds since the Unix epoch and never ahead of it; 0
    /// where it is not known. Without it stale reads are not served.
    fn placement_ms(&self, _now: Instant) -> u64 {
        0
    }
    /// Whether a snapshot may come in; asked before its first chunk is taken, on a network thread.
    ///
    /// # Errors
    /// Why not, for the sender's log.
    fn admit_snapshot(&self, _message: &Envelope) -> Result<(), String> {
        Ok(())
    }
}

/// Where processes are found.
pub trait Addresses: Send + Sync + 'static {
    /// `HOST:PORT` of a process, where known.
    fn address(&self, node: NodeId) -> Option<String>;
}
