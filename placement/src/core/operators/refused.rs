//! Why an operator was not taken, in words that say what to do.

use quorate_proto::{NodeId, RegionId, StoreId};
use thiserror::Error;

use super::MAX_OPERATORS;
use crate::core::lifecycle::CannotBe;
use crate::core::merge::rules::CannotMerge;

/// Why an operator was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// One at a time.
    #[error("{region} is busy with operator {operator} ({reason}); try again once it has ended")]
    Busy {
        /// The region.
        region: RegionId,
        /// What it is busy with.
        operator: u64,
        /// Why that was begun.
        reason: String,
    },
    /// Too many under way.
    #[error("{MAX_OPERATORS} operators are under way; try again later")]
    Full,
    /// Not in the tree.
    #[error("{0} is not known; `quorate region list` shows those that are")]
    UnknownRegion(RegionId),
    /// Nobody to send an order to.
    #[error("{0} has no known leader now; try again in a few seconds")]
    NoLeader(RegionId),
    /// No replica can go there.
    #[error("{0} {1}: name a store that is up; `quorate store list` shows them")]
    NoStore(StoreId, &'static str),
    /// Nothing to cancel.
    #[error("{0} has no operator under way")]
    Idle(RegionId),
    /// The region is busy with others of its replicas.
    #[error(
        "operator {operator} of {region} ({what}) is not about {store}; cancel it with `quorate \
         operator cancel {operator}`"
    )]
    NotAbout {
        /// The region.
        region: RegionId,
        /// The one that was named.
        store: StoreId,
        /// What the region is busy with.
        operator: u64,
        /// What that is for.
        what: String,
    },
    /// A rule stands in the way.
    #[error(transparent)]
    Rule(#[from] CannotBe),
    /// A rule stands in the way.
    #[error(transparent)]
    Merge(#[from] CannotMerge),
    /// An older form of the cluster.
    #[error(
        "regions are merged from cluster_version 4 on: run the newer program on all members of \
         placement and on all stores, then `quorate settings set cluster_version=4`"
    )]
    OldMerges,
    /// An older form of the cluster.
    #[error(
        "replicas are changed from cluster_version 2 on: run the newer program on all members of \
         placement, then set cluster_version to 2"
    )]
    OldVersion,
    /// An older form of the cluster.
    #[error(
        "placement's own members are changed from cluster_version 3 on: run the newer program on \
         all of them, then set cluster_version to 3"
    )]
    OldMembers,
    /// Somebody of placement must vote.
    #[error(
        "no voter of placement would be left: let another member join and put it in the place of the \
         last one, or let two join"
    )]
    LoneMember,
    /// Nobody of that number.
    #[error("placement-{} is no member of placement; `quorate member list placement` shows them", .0.0)]
    NoMember(NodeId),
    /// Nothing of that name, or it has ended.
    #[error("operator {0} is not under way")]
    UnknownOperator(u64),
    /// It only goes forward now.
    #[error("operator {0} cannot be cancelled: {1}")]
    Forward(u64, &'static str),
}
