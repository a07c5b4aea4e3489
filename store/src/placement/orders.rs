//! Orders of placement, checked against what this store has.
//!
//! An order names the epoch that placement saw. One for another epoch is dropped: placement learns
//! of the new epoch with the next report and thinks again.

use bytes::Bytes;
use quorate_proto::wire::placement as wire;
use quorate_proto::wire::placement::order::Step;
use quorate_proto::{Epoch, NodeId, RegionId, StoreId};

use crate::core::Directory;

/// An order that can be carried out now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Hand leadership of the region over.
    TransferLeader {
        /// Of this region.
        region: RegionId,
        /// To the replica on this store.
        to: NodeId,
    },
    /// Split the region.
    Split {
        /// This one.
        region: RegionId,
        /// At these keys; none: in half by size.
        keys: Vec<Bytes>,
    },
}

impl Order {
    /// Checks an order.
    ///
    /// # Errors
    /// Why it is dropped.
    pub(crate) fn check(order: wire::Order, directory: &Directory) -> Result<Self, String> {
        let step = order.step.ok_or("an order of a kind that this version does not know")?;
        let (id, epoch) = match &step {
            Step::TransferLeader(step) => (step.region_id, step.epoch),
            Step::Split(step) => (step.region_id, step.epoch),
            Step::ChangePeers(step) => (step.region_id, step.epoch),
            Step::DestroyPeer(step) => (step.region_id, step.epoch),
        };
        let id = RegionId(id);
        let local = directory.get(id).ok_or_else(|| format!("{id} is not on this store"))?;
        let region = local.region().ok_or_else(|| format!("{id} has no data here yet"))?;
        if epoch.map(Epoch::from).is_some_and(|epoch| epoch != region.epoch) {
            return Err(format!("{id} has another epoch by now"));
        }
        if !local.view().is_leader() {
            return Err(format!("{id} is led by another store"));
        }
        match step {
            Step::ChangePeers(_) | Step::DestroyPeer(_) => {
                Err(format!("{id}: this store cannot change replicas yet"))
            }
            Step::TransferLeader(step) => {
                let to = StoreId(step.to_store);
                if region.peer_on(to).is_none() {
                    return Err(format!("{id} has no replica on {to}"));
                }
                Ok(Order::TransferLeader { region: id, to: to.into() })
            }
            Step::Split(step) => {
                if let Some(key) = step.keys.iter().find(|key| !region.range.can_split_at(key)) {
                    let key = quorate_proto::key::display(key);
                    return Err(format!("{id} cannot be split at {key}: not strictly inside"));
                }
                Ok(Order::Split { region: id, keys: step.keys })
            }
        }
    }
}
