//! What goes into a shard and what comes out of it.

use std::sync::Arc;

use bytes::Bytes;
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{LogIndex, NodeId, PeerId, RegionId, Term};
use thiserror::Error;

use super::gone::{Merged, Stranger};
use super::members::{Member, MembersRefusal, Reconfigured};
use crate::engine::WriteBatch;
use crate::view::{GroupView, LostQuorum};

/// A group to host: found at start, bootstrapped, or split off.
#[derive(Clone, Debug)]
pub struct NewGroup {
    /// Its id.
    pub group: RegionId,
    /// The local peer.
    pub peer: PeerId,
    /// All members, the local one included.
    pub members: Vec<Member>,
    /// What the state machine has applied (index 5, term 5 for a fresh group).
    pub applied: (LogIndex, Term),
    /// Where the local peer's state is published.
    pub view: Arc<GroupView>,
    /// Campaign at once instead of waiting for an election timeout: set where the parent's leader
    /// lives when a region is split off.
    pub campaign: bool,
}

/// What a shard reacts to. `T` names a request; it comes back once, in a [`Reply`] or with the
/// committed entry.
#[derive(Debug)]
pub enum Event<T> {
    /// One tick of the clock has passed (100 ms by default). Missed ticks are never made up for.
    Tick,
    /// A message from a peer.
    Message {
        /// The process it came from.
        from: NodeId,
        /// The message.
        envelope: Box<Envelope>,
    },
    /// A process vouches for itself and for the sleeping groups it leads.
    Beat {
        /// Which.
        from: NodeId,
        /// Drawn anew at each of its starts.
        incarnation: u64,
    },
    /// Replicate a command.
    Propose {
        /// In which group.
        group: RegionId,
        /// The encoded command with its length in front (prost's `encode_length_delimited`).
        command: Bytes,
        /// Whom to answer.
        token: T,
        /// True for commands that change the region (a split): no lease read is served from now
        /// until it is applied.
        suspends_lease: bool,
    },
    /// Change who replicates the group, by one step (see [`crate::shard::check_members`]). Answered
    /// like a proposal; every rule that stands in the way is [`Refusal::Members`].
    ChangeMembers {
        /// Of which group.
        group: RegionId,
        /// All members afterwards, with their roles.
        members: Vec<Member>,
        /// One command with its length in front, by which the state machine changes its own
        /// description of the group, or refuses to.
        command: Bytes,
        /// Whom to answer.
        token: T,
    },
    /// A linearizable read wants to know up to where it must see the log applied.
    Read {
        /// Of which group. Followers ask their leader.
        group: RegionId,
        /// Whom to answer, with [`Reply::ReadAt`] once that index is applied here.
        token: T,
    },
    /// The lease is used and about to lapse: renew it without anybody waiting.
    RenewLease {
        /// Of which group.
        group: RegionId,
    },
    /// Hand leadership over.
    TransferLeader {
        /// Of which group.
        group: RegionId,
        /// To this process.
        to: NodeId,
    },
    /// Host a group.
    Create(Box<NewGroup>),
    /// Stop hosting a peer. Ends with it in [`Effects::destroyed`]. Where another peer of the group
    /// has taken its place meanwhile, that one stays.
    Destroy {
        /// Of which group.
        group: RegionId,
        /// The peer that is to go.
        peer: PeerId,
    },
    /// The state machine has applied a change of members. Comes before the [`Event::Applied`] that
    /// covers its entry, in the order of the entries; there is none for a change that it refused.
    Reconfigured(Reconfigured),
    /// The state machine has applied up to here (data and applied index are written).
    Applied {
        /// In which group.
        group: RegionId,
        /// Last applied entry.
        index: LogIndex,
        /// Its term.
        term: Term,
    },
    /// The data of a snapshot asked for by [`MakeSnapshot`] was read as of this index: the log is
    /// kept from there on until the receiver has caught up, within its bounds.
    SnapshotTaken {
        /// Of which group.
        group: RegionId,
        /// For whom.
        to: PeerId,
        /// Last applied entry in it.
        index: LogIndex,
    },
    /// A snapshot asked for by [`MakeSnapshot`] was delivered to its receiver, or not.
    SnapshotSent {
        /// Of which group.
        group: RegionId,
        /// To whom.
        to: PeerId,
        /// False: try again later.
        delivered: bool,
    },
    /// An [`Install`] is done: data and applied state are durable.
    Installed {
        /// In which group.
        group: RegionId,
        /// Where the snapshot ends.
        index: LogIndex,
        /// The members it names.
        members: Vec<Member>,
    },
    /// Messages to that process were lost: an outbox was full or a connection broke.
    Unreachable {
        /// Which process.
        node: NodeId,
    },
}

/// A message for another process.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// The process.
    pub to: NodeId,
    /// Which connection it takes.
    pub plane: Plane,
    /// The message.
    pub envelope: Envelope,
}

/// The separate connections between two processes; a snapshot must never delay a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plane {
    /// Heartbeats, votes, read index, liveness.
    Control,
    /// Log entries and their acknowledgements.
    Data,
    /// Snapshots.
    Bulk,
}

/// Committed entries for the state machine, in order.
#[derive(Debug)]
pub struct ApplyTask<T> {
    /// Of which group.
    pub group: RegionId,
    /// Never empty; indexes without a gap, following those of the last task.
    pub entries: Vec<Committed<T>>,
}

/// One committed entry.
#[derive(Debug)]
pub struct Committed<T> {
    /// Its place in the log.
    pub index: LogIndex,
    /// The term it was proposed in.
    pub term: Term,
    /// Commands, each with its length in front; empty for the entry a new leader starts with. For a
    /// change of members the one command that came with it.
    pub data: Bytes,
    /// True for an entry of raft's own kind for a change of members: only such a one may change them.
    pub changes_members: bool,
    /// Where this replica proposed it: one token for each command, in order. Otherwise empty.
    pub tokens: Vec<T>,
}

/// The answer to a request that did not end in an applied entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A read may be served from the state machine as it is now: it has applied up to here.
    ReadAt(LogIndex),
    /// It was not done, or nobody can say.
    Refused(Refusal),
}

/// Why a request was not done. All but [`Refusal::Undetermined`] mean: certainly not done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// This peer does not lead the group.
    #[error("not the leader")]
    NotLeader {
        /// Who does, where known.
        leader: Option<PeerId>,
    },
    /// The group is not hosted here.
    #[error("the group is not hosted here")]
    NoGroup,
    /// A bound was reached; try again later.
    #[error("{reason}")]
    Busy {
        /// Which bound.
        reason: &'static str,
    },
    /// No majority of the voters' processes can be heard: nothing is committed until one is back.
    #[error("{} of {} voters are silent: the quorum is lost", .0.silent.len(), .0.voters)]
    NoQuorum(LostQuorum),
    /// The command is larger than a log entry may be.
    #[error("a command of {bytes} bytes does not fit into a log entry")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The read could not be confirmed in time; nothing was changed.
    #[error("the leader could not confirm the read in time")]
    ReadTimedOut,
    /// A rule stands in the way of a change of members.
    #[error(transparent)]
    Members(#[from] MembersRefusal),
    /// The command may be applied later, or never.
    #[error("nobody can say whether the command will be applied")]
    Undetermined,
}

/// A snapshot to produce and send. It must be taken at or after `at_least`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MakeSnapshot {
    /// Of which group.
    pub group: RegionId,
    /// Sender.
    pub from: PeerId,
    /// Receiver.
    pub to: PeerId,
    /// The process of the receiver.
    pub node: NodeId,
    /// The sender's term, for the message that carries the snapshot.
    pub term: Term,
    /// Smallest index it may end at.
    pub at_least: LogIndex,
}

/// A received snapshot to install. The log and hard state that go with it are in `batch`; the
/// state machine adds its own `Installing` mark, writes both synced, ingests, then answers
/// [`Event::Installed`]. Until then the group does nothing.
#[derive(Debug)]
pub struct Install {
    /// In which group.
    pub group: RegionId,
    /// Name of the staged file.
    pub id: String,
    /// Where the snapshot ends.
    pub index: LogIndex,
    /// The term of that entry.
    pub term: Term,
    /// The state machine's own description (see `SnapshotMeta.state`).
    pub state: Bytes,
    /// The consensus part of the first, synced write.
    pub batch: WriteBatch,
}

/// Leadership or term of a group changed, seen from the local peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderChange {
    /// Of which group.
    pub group: RegionId,
    /// The term.
    pub term: Term,
    /// Who leads it now.
    pub leader: Option<PeerId>,
    /// True where that is the local peer.
    pub is_local: bool,
}

/// What a shard wants done. One write at most is under way; the order of the fields is the order
/// in which an interpreter runs them.
#[derive(Debug)]
pub struct Effects<T> {
    /// May leave at once, in parallel with the write.
    pub send: Vec<Outgoing>,
    /// Requests that end here.
    pub replies: Vec<(T, Reply)>,
    /// Committed entries: already durable on a majority and in the local log.
    pub apply: Vec<ApplyTask<T>>,
    /// Snapshots to produce.
    pub snapshots: Vec<MakeSnapshot>,
    /// Snapshots to install.
    pub installs: Vec<Install>,
    /// Groups that are gone from here, by [`Event::Destroy`] or because the local peer was removed:
    /// nothing of them is written any more. The state machine removes their data, with
    /// [`crate::shard::forget_group`] in the same batch, unless it has another peer of the group by
    /// now.
    pub destroyed: Vec<(RegionId, PeerId)>,
    /// Staged files of snapshots that are not wanted: to remove.
    pub discards: Vec<String>,
    /// Changes of leadership to report.
    pub leaders: Vec<LeaderChange>,
    /// Peers spoken to that are not hosted here.
    pub strangers: Vec<Stranger>,
    /// Groups that are gone, as others say.
    pub merged: Vec<Merged>,
    /// Of each log that was truncated, how many entries went.
    pub truncated: Vec<u64>,
    /// To write, synced where `sync` is set; then [`crate::shard::Shard::persisted`].
    pub persist: Option<Persist>,
}

impl<T> Default for Effects<T> {
    fn default() -> Self {
        Self {
            send: Vec::new(),
            replies: Vec::new(),
            apply: Vec::new(),
            snapshots: Vec::new(),
            installs: Vec::new(),
            destroyed: Vec::new(),
            discards: Vec::new(),
            leaders: Vec::new(),
            strangers: Vec::new(),
            merged: Vec::new(),
            truncated: Vec::new(),
            persist: None,
        }
    }
}

impl<T> Effects<T> {
    /// True where there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.send.is_empty()
            && self.replies.is_empty()
            && self.apply.is_empty()
            && self.snapshots.is_empty()
            && self.installs.is_empty()
            && self.destroyed.is_empty()
            && self.discards.is_empty()
            && self.leaders.is_empty()
            && self.strangers.is_empty()
            && self.merged.is_empty()
            && self.truncated.is_empty()
            && self.persist.is_none()
    }
}

/// What all touched groups of a shard want written, merged.
#[derive(Debug)]
pub struct Persist {
    /// Hand this back once it is done.
    pub number: u64,
    /// To write.
    pub batch: WriteBatch,
    /// False where losing it would break no promise.
    pub sync: bool,
}
