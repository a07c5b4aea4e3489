//! What an operator is for, and the drafts from which operators are made.
//!
//! A [`Goal`] says what shall be true of a region in the end, not how to get there. The controller
//! derives the next primitive step from the goal and from the region as it is reported, again and
//! again, so that a goal can be pursued by whoever leads placement, from any point on the way.

use std::fmt;

use bytes::Bytes;
use quorate_proto::{Epoch, RegionId, StoreId};

pub use crate::core::lifecycle::ReplicaRole;

/// What shall become true of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Leadership goes to the peer on another store.
    TransferLeader {
        /// The store that leads.
        from: StoreId,
        /// The store that shall.
        to: StoreId,
    },
    /// The region is split at these keys, or in half by size where there are none.
    Split {
        /// Ascending, each strictly inside the region.
        keys: Vec<Bytes>,
    },
    /// A new replica. A standard one becomes a voter together with a partner, so that the number
    /// of voters stays odd; until there is one it waits as a learner.
    AddReplica {
        /// Where.
        to: StoreId,
        /// What for.
        role: ReplicaRole,
    },
    /// The replica moves, with the role it has: add, sync, swap in one joint change, remove.
    MoveReplica {
        /// Where it is.
        from: StoreId,
        /// Where it shall be.
        to: StoreId,
    },
    /// The replica goes: a learner alone, a voter together with a partner that the controller
    /// chooses.
    RemoveReplica {
        /// Where it is.
        from: StoreId,
    },
    /// Learners that are ready become voters in one joint change.
    Promote {
        /// Where they are.
        stores: Vec<StoreId>,
    },
    /// Voters become learners in one joint change.
    Demote {
        /// Where they are.
        stores: Vec<StoreId>,
    },
    /// A joint configuration that nobody is busy with is completed.
    LeaveJoint,
    /// The region is taken in by its neighbour: it stops, and its keys become the neighbour's.
    MergeInto {
        /// The neighbour.
        target: RegionId,
        /// The region's first key: whoever has it afterwards has taken the region in.
        start: Bytes,
    },
    /// The region was stopped to be taken in, which shall not come about: it goes on.
    RollBackMerge {
        /// The neighbour that it was stopped for.
        target: RegionId,
        /// The region's first key.
        start: Bytes,
    },
}

impl Goal {
    /// The kind, as people read it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Goal::TransferLeader { .. } => "transfer-leader",
            Goal::Split { .. } => "split",
            Goal::AddReplica { .. } => "add-replica",
            Goal::MoveReplica { .. } => "move-replica",
            Goal::RemoveReplica { .. } => "remove-replica",
            Goal::Promote { .. } => "promote",
            Goal::Demote { .. } => "demote",
            Goal::LeaveJoint => "leave-joint",
            Goal::MergeInto { .. } => "merge",
            Goal::RollBackMerge { .. } => "roll-back-merge",
        }
    }
}

impl Goal {
    /// True where who replicates the region changes, or who of them votes: pursued by lifecycles.
    pub const fn changes_members(&self) -> bool {
        match self {
            Goal::TransferLeader { .. }
            | Goal::Split { .. }
            | Goal::MergeInto { .. }
            | Goal::RollBackMerge { .. } => false,
            Goal::AddReplica { .. }
            | Goal::MoveReplica { .. }
            | Goal::RemoveReplica { .. }
            | Goal::Promote { .. }
            | Goal::Demote { .. }
            | Goal::LeaveJoint => true,
        }
    }

    /// The neighbour that takes the region in, or was to: pursued from both regions as reported.
    pub const fn merges_with(&self) -> Option<RegionId> {
        match self {
            Goal::MergeInto { target, .. } | Goal::RollBackMerge { target, .. } => Some(*target),
            Goal::TransferLeader { .. }
            | Goal::Split { .. }
            | Goal::AddReplica { .. }
            | Goal::MoveReplica { .. }
            | Goal::RemoveReplica { .. }
            | Goal::Promote { .. }
            | Goal::Demote { .. }
            | Goal::LeaveJoint => None,
        }
    }

    /// True for what one order does: it ends with that order's effect, or its refusal.
    pub const fn is_one_step(&self) -> bool {
        !self.changes_members() && self.merges_with().is_none()
    }

    /// True where something is done to a replica on that store.
    pub fn concerns(&self, store: StoreId) -> bool {
        match self {
            Goal::TransferLeader { from, to } | Goal::MoveReplica { from, to } => {
                [from, to].contains(&&store)
            }
            Goal::AddReplica { to, .. } => *to == store,
            Goal::RemoveReplica { from } => *from == store,
            Goal::Promote { stores } | Goal::Demote { stores } => stores.contains(&store),
            Goal::Split { .. }
            | Goal::LeaveJoint
            | Goal::MergeInto { .. }
            | Goal::RollBackMerge { .. } => false,
        }
    }

    /// How long it may take without getting on, in milliseconds.
    pub fn time_ms(&self) -> u64 {
        let time = match self {
            Goal::TransferLeader { .. } => super::TRANSFER_DEADLINE,
            Goal::Split { .. } => super::SPLIT_DEADLINE,
            Goal::AddReplica { .. }
            | Goal::MoveReplica { .. }
            | Goal::RemoveReplica { .. }
            | Goal::Promote { .. }
            | Goal::Demote { .. }
            | Goal::LeaveJoint => super::CHANGE_DEADLINE,
            Goal::MergeInto { .. } => super::MERGE_DEADLINE,
            Goal::RollBackMerge { .. } => super::ROLL_BACK_DEADLINE,
        };
        super::millis(time)
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::TransferLeader { from, to } => write!(f, "leadership from {from} to {to}"),
            Goal::Split { keys } if keys.is_empty() => write!(f, "split in half"),
            Goal::Split { keys } => write!(f, "split at {} keys", keys.len()),
            Goal::AddReplica { to, role } => write!(f, "add a {} replica on {to}", role.name()),
            Goal::MoveReplica { from, to } => write!(f, "move a replica from {from} to {to}"),
            Goal::RemoveReplica { from } => write!(f, "remove the replica on {from}"),
            Goal::Promote { stores } => write!(f, "promote {}", list(stores)),
            Goal::Demote { stores } => write!(f, "demote {}", list(stores)),
            Goal::LeaveJoint => write!(f, "leave the joint configuration"),
            Goal::MergeInto { target, .. } => write!(f, "merge into {target}"),
            Goal::RollBackMerge { target, .. } => write!(f, "roll back the merge into {target}"),
        }
    }
}

/// `s4+s5`, as lifecycles write members that act together.
fn list(stores: &[StoreId]) -> String {
    stores.iter().map(StoreId::to_string).collect::<Vec<_>>().join("+")
}

/// An operator to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Of which region.
    pub region: RegionId,
    /// At which epoch it was planned.
    pub epoch: Epoch,
    /// What for.
    pub goal: Goal,
    /// Who wants it: `replica-checker`, `balance-region`, `request`…
    pub by: &'static str,
    /// Why, in words.
    pub reason: String,
}
