//! Orders of placement, checked against what this store has, and carried out.
//!
//! An order names the epoch that placement saw. One for another epoch, or for a region that is led
//! elsewhere, is overtaken: placement learns of that with the next report and thinks again. One
//! that a rule stands in the way of is refused, and placement is told the rule.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::node::clock;
use quorate_proto::wire::placement as wire;
use quorate_proto::wire::placement::order::Step;
use quorate_proto::{Epoch, NodeId, PeerId, RegionId, StoreId};
use tokio::sync::{mpsc, oneshot};

use super::Nudge;
use crate::core::merge::{self, MergeError};
use crate::core::peers::{self, PeersChange, PeersPlan};
use crate::core::{Admitted, Directory, RegionError};
use crate::placement_time::PlacementTime;
use crate::raft::Raft;
use crate::serve::{Serving, Token, Verdict};
use crate::split::SplitRequest;

/// How long a proposed change may take until its outcome is not waited for any more.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// Change who replicates the region.
    ChangePeers {
        /// Of this region.
        region: RegionId,
        /// How.
        change: PeersChange,
    },
    /// Take a step of a merge.
    Merge {
        /// In the log of this region.
        region: RegionId,
        /// Which.
        command: Bytes,
        /// No lease until it is applied.
        suspends_lease: bool,
    },
    /// Remove a replica that its region is without.
    Destroy {
        /// Of this region.
        region: RegionId,
        /// This one.
        peer: PeerId,
    },
}

/// Why an order is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// Placement knows already, or will with the next report.
    Overtaken(String),
    /// A rule stands in the way.
    Refused(String),
}

impl Order {
    /// Checks an order; `time_ms` is placement's time.
    ///
    /// # Errors
    /// Why it is dropped.
    pub(crate) fn check(
        order: wire::Order,
        directory: &Directory,
        time_ms: u64,
    ) -> Result<Self, Dropped> {
        let unknown = "an order of a kind that this version does not know";
        let step = order.step.ok_or_else(|| Dropped::Refused(unknown.to_owned()))?;
        let (id, epoch) = match &step {
            Step::TransferLeader(step) => (step.region_id, step.epoch),
            Step::Split(step) => (step.region_id, step.epoch),
            Step::ChangePeers(step) => (step.region_id, step.epoch),
            Step::DestroyPeer(step) => return destroy(step, directory),
            Step::PrepareMerge(step) => (step.region_id, step.epoch),
            Step::CommitMerge(step) => (step.region_id, step.epoch),
            Step::RollbackMerge(step) => (step.region_id, step.epoch),
            Step::RefuseMerge(step) => (step.region_id, step.epoch),
        };
        let id = RegionId(id);
        let overtaken = |why: &str| Dropped::Overtaken(format!("{id} {why}"));
        let local = directory.get(id).ok_or_else(|| overtaken("is not on this store"))?;
        let region = local.replicated().ok_or_else(|| overtaken("has no data here yet"))?;
        if epoch.map(Epoch::from).is_some_and(|epoch| epoch != region.epoch) {
            return Err(overtaken("has another epoch by now"));
        }
        if !local.view().is_leader() {
            return Err(overtaken("is led by another store"));
        }
        let refused = |why: &dyn std::fmt::Display| Dropped::Refused(why.to_string());
        match step {
            Step::TransferLeader(step) => {
                let to = StoreId(step.to_store);
                let peer = region.peer_on(to);
                let peer = peer.ok_or_else(|| refused(&format!("{id} has no replica on {to}")))?;
                peers::check_successor(&region, local.view(), peer).map_err(|why| refused(&why))?;
                Ok(Order::TransferLeader { region: id, to: to.into() })
            }
            Step::Split(step) => {
                if local.merging().is_some() {
                    return Err(refused(&RegionError::Merging(id)));
                }
                if let Some(key) = step.keys.iter().find(|key| !region.range.can_split_at(key)) {
                    let key = quorate_proto::key::display(key);
                    let why = format!("{id} cannot be split at {key}: not strictly inside");
                    return Err(Dropped::Refused(why));
                }
                Ok(Order::Split { region: id, keys: step.keys })
            }
            Step::ChangePeers(step) => {
                let change = step.change.ok_or_else(|| Dropped::Refused(unknown.to_owned()))?;
                let admitted = Admitted { local, region };
                match peers::plan(&admitted, &change, time_ms).map_err(|why| refused(&why))? {
                    PeersPlan::Change(change) => Ok(Order::ChangePeers { region: id, change }),
                    PeersPlan::HandOver(to) => {
                        Ok(Order::TransferLeader { region: id, to: to.into() })
                    }
                }
            }
            Step::DestroyPeer(step) => destroy(&step, directory),
            Step::PrepareMerge(step) => {
                order_merge(id, merge::prepare(directory, &local, &step, time_ms), true)
            }
            Step::CommitMerge(step) => {
                order_merge(id, merge::commit(directory, &local, &step, time_ms), true)
            }
            Step::RollbackMerge(step) => {
                order_merge(id, merge::rollback(&local, &step, time_ms), false)
            }
            Step::RefuseMerge(step) => {
                order_merge(id, merge::refuse(&local, &step, time_ms), false)
            }
        }
    }
}

fn order_merge(
    region: RegionId,
    command: Result<Bytes, MergeError>,
    suspends_lease: bool,
) -> Result<Order, Dropped> {
    match command {
        Ok(command) => Ok(Order::Merge { region, command, suspends_lease }),
        // Where this store only lags, placement asks again.
        Err(error @ MergeError::NotYet { .. }) => Err(Dropped::Overtaken(error.to_string())),
        Err(error @ (MergeError::Rule { .. } | MergeError::Region(_) | MergeError::Command(_))) => {
            Err(Dropped::Refused(error.to_string()))
        }
    }
}

fn destroy(step: &wire::DestroyPeerStep, directory: &Directory) -> Result<Order, Dropped> {
    let (id, peer) = (RegionId(step.region_id), PeerId(step.peer_id));
    let overtaken = |why: String| Dropped::Overtaken(why);
    let gone = || overtaken(format!("{peer} of {id} is not on this store"));
    let local = directory.get(id).filter(|local| local.peer() == peer).ok_or_else(gone)?;
    let no_epoch = || Dropped::Refused(format!("the order to remove {peer} names no epoch"));
    if !peers::was_removed(&local, step.epoch.ok_or_else(no_epoch)?.into()) {
        let why = format!("{peer} is in a configuration of {id} that is as new, or newer");
        return Err(Dropped::Refused(why));
    }
    Ok(Order::Destroy { region: id, peer })
}

/// Carries orders out.
#[derive(Clone)]
pub(crate) struct Orders {
    pub(crate) serving: Arc<Serving>,
    pub(crate) raft: Arc<dyn Raft>,
    pub(crate) time: Arc<PlacementTime>,
    pub(crate) nudge: Arc<Nudge>,
    pub(crate) splits: mpsc::Sender<SplitRequest>,
}

impl Orders {
    /// Carries one out, or tells why not. Does not wait for the outcome.
    pub(crate) fn carry_out(&self, order: wire::Order) {
        let (operator, reason) = (order.operator_id, order.reason.clone());
        let region = region_of(&order);
        let now = self.time.at(clock::now());
        match Order::check(order, self.serving.directory(), now) {
            Ok(Order::TransferLeader { region, to }) => {
                tracing::info!(operator, %region, %to, reason, "handing leadership over");
                self.raft.transfer_leader(region, to);
            }
            Ok(Order::Split { region, keys }) => {
                tracing::info!(operator, %region, keys = keys.len(), reason, "asked to split");
                if self.splits.try_send(SplitRequest { region, keys }).is_err() {
                    tracing::warn!(operator, %region, "too many splits are asked for; dropped");
                }
            }
            Ok(Order::ChangePeers { region, change }) => {
                tracing::info!(operator, %region, reason, "changing replicas");
                let orders = self.clone();
                tokio::spawn(async move { orders.change_peers(operator, region, change).await });
            }
            Ok(Order::Merge { region, command, suspends_lease }) => {
                tracing::info!(operator, %region, reason, "taking a step of a merge");
                let orders = self.clone();
                tokio::spawn(async move {
                    let (token, answer) =
                        Token::for_call(orders.serving.budget().take(command.len()));
                    orders.raft.propose(region, command, token, suspends_lease);
                    orders.outcome(operator, region, answer).await;
                });
            }
            Ok(Order::Destroy { region, peer }) => {
                tracing::info!(operator, %region, reason, "removing a replica");
                self.raft.destroy(region, peer);
            }
            Err(Dropped::Overtaken(why)) => tracing::debug!(operator, why, "dropped an order"),
            Err(Dropped::Refused(why)) => self.nudge.refuse(operator, region, why),
        }
    }

    pub(super) async fn change_peers(&self, operator: u64, region: RegionId, change: PeersChange) {
        let PeersChange { members, command } = change;
        let (token, answer) = Token::for_call(self.serving.budget().take(command.len()));
        self.raft.change_members(region, members, command, token);
        self.outcome(operator, region, answer).await;
    }

    /// Waits for what became of a change, and lets placement hear of it.
    async fn outcome(&self, operator: u64, region: RegionId, answer: oneshot::Receiver<Verdict>) {
        let why = match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(Verdict::Done)) => {
                self.nudge.add(region);
                return;
            }
            Ok(Ok(Verdict::Refused(refusal))) => refusal.to_string(),
            Ok(Ok(Verdict::Rejected(error))) => error.to_string(),
            Ok(Ok(
                Verdict::Undetermined | Verdict::Lost | Verdict::Ready(_) | Verdict::Read(_),
            ))
            | Ok(Err(_))
            | Err(_) => "nobody can say whether it was applied: see what is reported".to_owned(),
        };
        self.nudge.refuse(operator, region, why);
    }
}

fn region_of(order: &wire::Order) -> RegionId {
    RegionId(match &order.step {
        Some(Step::TransferLeader(step)) => step.region_id,
        Some(Step::Split(step)) => step.region_id,
        Some(Step::ChangePeers(step)) => step.region_id,
        Some(Step::DestroyPeer(step)) => step.region_id,
        Some(Step::PrepareMerge(step)) => step.region_id,
        Some(Step::CommitMerge(step)) => step.region_id,
        Some(Step::RollbackMerge(step)) => step.region_id,
        Some(Step::RefuseMerge(step)) => step.region_id,
        None => 0,
    })
}
