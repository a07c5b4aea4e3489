//! Orders: the primitive steps, as stores get them.

use bytes::Bytes;
use quorate_proto::wire::placement as wire;
use quorate_proto::{Epoch, LogIndex, PeerId, Region, RegionId, StoreId};

use crate::core::lifecycle::Change;

/// One step that a store carries out. Each is done at exactly one epoch, so a repeated one does no
/// harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Leadership goes to the voter on that store.
    TransferLeader {
        /// Where.
        to: StoreId,
    },
    /// The region is split at these keys, or in half by size where there are none.
    Split {
        /// Ascending, each strictly inside the region.
        keys: Vec<Bytes>,
    },
    /// The configuration changes.
    Change(Change),
    /// What is left of a removed replica goes. To the store that hosted it.
    Destroy {
        /// The replica.
        peer: PeerId,
    },
    /// To the source of a merge: it stops.
    PrepareMerge {
        /// The neighbour that is to take it in.
        target: RegionId,
        /// At exactly this epoch of the neighbour.
        target_epoch: Epoch,
    },
    /// To the target of a merge: it takes the stopped source in.
    CommitMerge {
        /// As it is while it is stopped.
        source: Region,
        /// The entry that stopped it.
        frozen: LogIndex,
    },
    /// To the source of a merge: it goes on.
    RollbackMerge {
        /// The entry that stopped it.
        frozen: LogIndex,
        /// As reported: at a newer epoch than the one it was to be merged at, with a version below
        /// the source's.
        target: Region,
    },
    /// To the target of a merge: it raises its version, so that the source can go on.
    RefuseMerge,
}

/// A step on its way to a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Of which operator.
    pub operator: u64,
    /// Of which region.
    pub region: RegionId,
    /// At which epoch; for a destroyed replica that of the region without it.
    pub epoch: Epoch,
    /// Why, in words.
    pub reason: String,
    /// What.
    pub step: Step,
}

impl From<Order> for wire::Order {
    fn from(order: Order) -> Self {
        let (region_id, epoch) = (order.region.0, Some(order.epoch.into()));
        let step = match order.step {
            Step::TransferLeader { to } => {
                let to_store = to.0;
                let step = wire::TransferLeaderStep { region_id, epoch, to_store };
                wire::order::Step::TransferLeader(step)
            }
            Step::Split { keys } => {
                wire::order::Step::Split(wire::SplitStep { region_id, epoch, keys })
            }
            Step::Change(change) => {
                let change = Some(change_to_wire(change));
                let step = wire::ChangePeersStep { region_id, epoch, change };
                wire::order::Step::ChangePeers(step)
            }
            Step::PrepareMerge { target, target_epoch } => {
                wire::order::Step::PrepareMerge(wire::PrepareMergeStep {
                    region_id,
                    epoch,
                    target_id: target.0,
                    target_epoch: Some(target_epoch.into()),
                })
            }
            Step::CommitMerge { source, frozen } => {
                let (source, frozen_index) = (Some((&source).into()), frozen.0);
                let step = wire::CommitMergeStep { region_id, epoch, source, frozen_index };
                wire::order::Step::CommitMerge(step)
            }
            Step::RollbackMerge { frozen, target } => {
                let (target, frozen_index) = (Some((&target).into()), frozen.0);
                let step = wire::RollbackMergeStep { region_id, epoch, frozen_index, target };
                wire::order::Step::RollbackMerge(step)
            }
            Step::RefuseMerge => {
                wire::order::Step::RefuseMerge(wire::RefuseMergeStep { region_id, epoch })
            }
            Step::Destroy { peer } => {
                let step = wire::DestroyPeerStep { region_id, epoch, peer_id: peer.0 };
                wire::order::Step::DestroyPeer(step)
            }
        };
        wire::Order { operator_id: order.operator, reason: order.reason, step: Some(step) }
    }
}

fn change_to_wire(change: Change) -> wire::change_peers_step::Change {
    let numbers = |peers: Vec<PeerId>| peers.into_iter().map(PeerId::get).collect();
    match change {
        Change::AddLearner { node, peer } => {
            wire::change_peers_step::Change::AddLearner(wire::AddLearner {
                store_id: node.0,
                peer_id: peer.0,
            })
        }
        Change::EnterJoint { promote, demote } => {
            wire::change_peers_step::Change::EnterJoint(wire::EnterJoint {
                promote: numbers(promote),
                demote: numbers(demote),
            })
        }
        Change::LeaveJoint => wire::change_peers_step::Change::LeaveJoint(wire::LeaveJoint {}),
        Change::RemoveLearner { peer } => {
            wire::change_peers_step::Change::RemoveLearner(wire::RemoveLearner { peer_id: peer.0 })
        }
    }
}
