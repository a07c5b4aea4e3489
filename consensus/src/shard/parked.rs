//! Messages for groups that are not hosted yet, kept for a moment.
//!
//! A region splits on all replicas, but not at the same time: its new leader's first messages may
//! arrive before the local replica has applied the split. Dropping them would cost an election
//! timeout.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_proto::wire::peer::Envelope;
use quorate_proto::{NodeId, RegionId};

use crate::time::Instant;

/// Longest stay.
const KEEP: Duration = Duration::from_secs(3);
/// Messages kept for one group; the newest beyond are dropped (Raft sends again).
const PER_GROUP: usize = 16;
/// Groups with kept messages.
const GROUPS: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Parked {
    groups: BTreeMap<RegionId, (Instant, Vec<(NodeId, Envelope)>)>,
}

impl Parked {
    pub(super) fn park(&mut self, group: RegionId, from: NodeId, envelope: Envelope, now: Instant) {
        if self.groups.len() >= GROUPS && !self.groups.contains_key(&group) {
            return;
        }
        let (_, kept) = self.groups.entry(group).or_insert((now, Vec::new()));
        if kept.len() < PER_GROUP {
            kept.push((from, envelope));
        }
    }

    pub(super) fn take(&mut self, group: RegionId) -> Vec<(NodeId, Envelope)> {
        self.groups.remove(&group).map(|(_, kept)| kept).unwrap_or_default()
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.groups.retain(|_, (since, _)| now.since(*since) < KEEP);
    }
}
