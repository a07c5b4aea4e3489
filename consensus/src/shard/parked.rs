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
/// The caller is told again of a group that is still not here after this long.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Messages kept for one group; the newest beyond are dropped (Raft sends again).
const PER_GROUP: usize = 16;
/// Groups with kept messages.
const GROUPS: usize = 4_096;

#[derive(Debug)]
struct Place {
    since: Instant,
    asked: Instant,
    kept: Vec<(NodeId, Envelope)>,
}

#[derive(Debug, Default)]
pub(super) struct Parked {
    groups: BTreeMap<RegionId, Place>,
}

impl Parked {
    /// Keeps a message. True where somebody should find out why the group is not here.
    pub(super) fn park(
        &mut self,
        group: RegionId,
        from: NodeId,
        envelope: Envelope,
        now: Instant,
    ) -> bool {
        if self.groups.len() >= GROUPS && !self.groups.contains_key(&group) {
            return false;
        }
        let place = self.groups.entry(group).or_insert(Place {
            since: now,
            asked: Instant::default(),
            kept: Vec::new(),
        });
        if place.kept.len() < PER_GROUP {
            place.kept.push((from, envelope));
        }
        let ask = place.asked == Instant::default() || now.since(place.asked) >= ASK_AGAIN;
        if ask {
            place.asked = now;
        }
        ask
    }

    pub(super) fn take(&mut self, group: RegionId) -> Vec<(NodeId, Envelope)> {
        self.groups.remove(&group).map(|place| place.kept).unwrap_or_default()
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.groups.retain(|_, place| now.since(place.since) < KEEP);
    }
}
