//! Messages for groups that are not hosted yet, kept for a moment.
//!
//! A region splits on all replicas, but not at the same time: its new leader's first messages may
//! arrive before the local replica has applied the split. Dropping them would cost an election
//! timeout. The staged file of a snapshot nobody waited for is handed back, to be removed.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_proto::wire::peer::Envelope;
use quorate_proto::{NodeId, PeerId, RegionId};

use crate::group::staged_file;
use crate::time::Instant;

/// Longest stay.
const KEEP: Duration = Duration::from_secs(3);
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
    kept: Vec<(NodeId, Envelope)>,
}

fn size_of(envelope: &Envelope) -> usize {
    envelope.entries.iter().map(|entry| entry.data.len()).sum()
}

impl Parked {
    /// Keeps a message, or returns the staged file that came with it.
    pub(super) fn park(
        &mut self,
        group: RegionId,
        from: NodeId,
        envelope: Envelope,
        now: Instant,
    ) -> Option<String> {
        let size = size_of(&envelope);
        let is_full = self.groups.len() >= GROUPS && !self.groups.contains_key(&group);
        if is_full || self.bytes + size > BYTES {
            return staged_file(&envelope);
        }
        let place =
            self.groups.entry(group).or_insert_with(|| Place { since: now, kept: Vec::new() });
        if place.kept.len() >= PER_GROUP {
            return staged_file(&envelope);
        }
        self.bytes += size;
        place.kept.push((from, envelope));
        None
    }

    /// Hands out what was kept for a group, in order.
    pub(super) fn take(&mut self, group: RegionId) -> Vec<(NodeId, Envelope)> {
        let kept = self.groups.remove(&group).map(|place| place.kept).unwrap_or_default();
        self.bytes -= kept.iter().map(|(_, envelope)| size_of(envelope)).sum::<usize>();
        kept
    }

    /// Drops what was kept for too long.
    pub(super) fn expire(&mut self, now: Instant) -> Expired {
        let mut expired = Expired::default();
        self.groups.retain(|group, place| {
            let keep = now.since(place.since) < KEEP;
            if !keep {
                self.bytes -= place.kept.iter().map(|(_, kept)| size_of(kept)).sum::<usize>();
                expired.files.extend(place.kept.iter().filter_map(|(_, kept)| staged_file(kept)));
                if let Some((_, last)) = place.kept.last() {
                    expired.strangers.push((*group, PeerId(last.to_peer)));
                }
            }
            keep
        });
        expired
    }
}

/// What was kept for too long.
#[derive(Debug, Default)]
pub(super) struct Expired {
    /// Staged files that came with it, to be removed.
    pub(super) files: Vec<String>,
    /// Whom it was for.
    pub(super) strangers: Vec<(RegionId, PeerId)>,
}
