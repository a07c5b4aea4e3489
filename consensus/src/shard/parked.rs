//! Messages for groups that are not hosted yet, kept for a moment.
//!
//! A region splits on all replicas, but not at the same time: its new leader's first messages may
//! arrive before the local replica has applied the split. Dropping them would cost an election
//! timeout. The staged file of a snapshot nobody waited for is handed back, to be removed.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_proto::wire::peer::Envelope;
use quorate_proto::{NodeId, RegionId};

use crate::group::staged_file;
use crate::time::Instant;

/// Longest stay.
const KEEP: Duration = Duration::from_secs(3);
/// The caller is told again of a group that is still not here after this long; at first sooner, since
/// whoever knows about a new replica may hear of it a little later than its messages arrive.
const ASK_AGAIN: Duration = Duration::from_millis(500);
const ASK_SOON: Duration = Duration::from_millis(100);
/// Messages kept for one group; the newest beyond are dropped (Raft sends again).
const PER_GROUP: usize = 16;
/// Groups with kept messages.
const GROUPS: usize = 4_096;
/// Bytes of entries kept for all groups together.
const BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct Parked {
    groups: BTreeMap<RegionId, Place>,
    bytes: usize,
}

#[derive(Debug)]
struct Place {
    since: Instant,
    /// When the caller was told last, and how often.
    asked: Option<(Instant, u32)>,
    kept: Vec<(NodeId, Envelope)>,
}

/// What became of a message that was to be kept.
#[derive(Debug, Default)]
pub(super) struct Parking {
    /// The staged file that came with it, where it was not kept.
    pub(super) discard: Option<String>,
    /// Somebody should find out why the group is not here.
    pub(super) ask: bool,
}

fn size_of(envelope: &Envelope) -> usize {
    envelope.entries.iter().map(|entry| entry.data.len()).sum()
}

impl Parked {
    /// Keeps a message for a while.
    pub(super) fn park(
        &mut self,
        group: RegionId,
        from: NodeId,
        envelope: Envelope,
        now: Instant,
    ) -> Parking {
        let size = size_of(&envelope);
        let is_full = self.groups.len() >= GROUPS && !self.groups.contains_key(&group);
        if is_full || self.bytes + size > BYTES {
            return Parking { discard: staged_file(&envelope), ask: false };
        }
        let fresh = || Place { since: now, asked: None, kept: Vec::new() };
        let place = self.groups.entry(group).or_insert_with(fresh);
        let times = place.asked.map_or(0, |(_, times)| times);
        let pause = (ASK_SOON * times).min(ASK_AGAIN);
        let ask = place.asked.is_none_or(|(asked, _)| now.since(asked) >= pause);
        if ask {
            place.asked = Some((now, times + 1));
        }
        if place.kept.len() >= PER_GROUP {
            return Parking { discard: staged_file(&envelope), ask };
        }
        self.bytes += size;
        place.kept.push((from, envelope));
        Parking { discard: None, ask }
    }

    /// Hands out what was kept for a group, in order.
    pub(super) fn take(&mut self, group: RegionId) -> Vec<(NodeId, Envelope)> {
        let kept = self.groups.remove(&group).map(|place| place.kept).unwrap_or_default();
        self.bytes -= kept.iter().map(|(_, envelope)| size_of(envelope)).sum::<usize>();
        kept
    }

    /// Drops what was kept for too long; returns the staged files that came with it.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<String> {
        let mut files = Vec::new();
        self.groups.retain(|_, place| {
            let keep = now.since(place.since) < KEEP;
            if !keep {
                self.bytes -= place.kept.iter().map(|(_, kept)| size_of(kept)).sum::<usize>();
                files.extend(place.kept.iter().filter_map(|(_, kept)| staged_file(kept)));
            }
            keep
        });
        files
    }
}

#[cfg(test)]
#[path = "parked_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
