//! How long regions have been as they are, and which boundaries people asked for.
//!
//! The leader's own: a new one counts from what it sees first, so that it merges nothing before it
//! has watched for as long. Bounded by the number of regions and by [`MAX_REQUESTED`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::{KeyRange, RegionId, Term};

use crate::core::tree::RegionInfo;

/// How long regions that were split on request are not merged again.
pub const SPARED_AFTER_REQUEST: Duration = Duration::from_secs(3_600);
/// Splits on request that are remembered; the oldest makes way.
pub const MAX_REQUESTED: usize = 4_096;

/// See the module.
#[derive(Debug, Default)]
pub struct Ages {
    /// The version and the term that were seen last, and since when.
    since: BTreeMap<RegionId, (u64, Term, u64)>,
    /// How often a replica of a region has moved towards its neighbour's, in that version.
    moved: BTreeMap<RegionId, (u64, usize)>,
    requested: VecDeque<(Requested, u64)>,
}

/// What a split on request made.
#[derive(Debug)]
enum Requested {
    /// A boundary at this key.
    At(Bytes),
    /// One somewhere inside.
    Within(KeyRange),
}

impl Ages {
    /// A region was reported. One counts anew once its range has changed, and once it has another
    /// leader, who may not know its size yet.
    pub fn seen(&mut self, info: &RegionInfo, now_ms: u64) {
        let (version, term) = (info.region.epoch.version, info.term);
        let known = self.since.entry(info.region.id).or_insert((version, term, now_ms));
        if (known.0, known.1) != (version, term) {
            *known = (version, term, now_ms);
        }
    }

    /// The region is gone.
    pub fn forget(&mut self, region: RegionId) {
        self.since.remove(&region);
        self.moved.remove(&region);
    }

    /// A replica of it moves towards those of the neighbour that is to take it in.
    pub fn moves_closer(&mut self, info: &RegionInfo) {
        let moved = self.moves(info) + 1;
        self.moved.insert(info.region.id, (info.region.epoch.version, moved));
    }

    /// How often one has, since its range changed last.
    pub fn moves(&self, info: &RegionInfo) -> usize {
        let known = self.moved.get(&info.region.id);
        known.filter(|known| known.0 == info.region.epoch.version).map_or(0, |known| known.1)
    }

    /// Milliseconds since it was seen to change; 0 of one that was not reported yet.
    pub fn of(&self, region: RegionId, now_ms: u64) -> u64 {
        self.since.get(&region).map_or(0, |(.., since_ms)| now_ms.saturating_sub(*since_ms))
    }

    /// A region with this range is split on request: at these keys, or in half.
    pub fn split_on_request(&mut self, range: KeyRange, keys: &[Bytes], now_ms: u64) {
        let made = match keys.is_empty() {
            true => vec![Requested::Within(range)],
            false => keys.iter().cloned().map(Requested::At).collect(),
        };
        self.requested.extend(made.into_iter().map(|one| (one, now_ms)));
        let surplus = self.requested.len().saturating_sub(MAX_REQUESTED);
        self.requested.drain(..surplus);
    }

    /// True where a boundary at that key is, or may be, one that somebody asked for lately.
    pub fn is_requested(&self, boundary: &[u8], now_ms: u64) -> bool {
        let spared_ms = u64::try_from(SPARED_AFTER_REQUEST.as_millis()).unwrap_or(u64::MAX);
        self.requested.iter().any(|(made, at_ms)| {
            now_ms.saturating_sub(*at_ms) < spared_ms
                && match made {
                    Requested::At(key) => key == boundary,
                    Requested::Within(range) => range.can_split_at(boundary),
                }
        })
    }
}
