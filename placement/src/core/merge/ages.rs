//! How long regions have been as they are, and which boundaries people asked for.
//!
//! The leader's own: a new one counts from what it sees first, so that it merges nothing before it
//! has watched for as long. Bounded by the number of regions and by [`MAX_REQUESTED`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quorate_proto::{KeyRange, RegionId};

/// How long a region that was split on request is not merged again.
pub const SPARED_AFTER_REQUEST: Duration = Duration::from_secs(3_600);
/// Ranges split on request that are remembered; the oldest makes way.
pub const MAX_REQUESTED: usize = 1_024;

/// See the module.
#[derive(Debug, Default)]
pub struct Ages {
    /// The version that was seen last, and since when.
    since: BTreeMap<RegionId, (u64, u64)>,
    requested: VecDeque<(KeyRange, u64)>,
}

impl Ages {
    /// A region was reported in that version.
    pub fn seen(&mut self, region: RegionId, version: u64, now_ms: u64) {
        match self.since.get_mut(&region) {
            Some(known) if known.0 == version => {}
            Some(known) => *known = (version, now_ms),
            None => {
                self.since.insert(region, (version, now_ms));
            }
        }
    }

    /// The region is gone.
    pub fn forget(&mut self, region: RegionId) {
        self.since.remove(&region);
    }

    /// Milliseconds since its range was seen to change; 0 of one that was not reported yet.
    pub fn of(&self, region: RegionId, now_ms: u64) -> u64 {
        self.since.get(&region).map_or(0, |(_, since_ms)| now_ms.saturating_sub(*since_ms))
    }

    /// A region with this range is split on request.
    pub fn split_on_request(&mut self, range: KeyRange, now_ms: u64) {
        if self.requested.back().is_some_and(|(last, _)| *last == range) {
            return;
        }
        if self.requested.len() == MAX_REQUESTED {
            self.requested.pop_front();
        }
        self.requested.push_back((range, now_ms));
    }

    /// True where a boundary at that key may be one that somebody asked for lately.
    pub fn is_requested(&self, boundary: &[u8], now_ms: u64) -> bool {
        let spared_ms = u64::try_from(SPARED_AFTER_REQUEST.as_millis()).unwrap_or(u64::MAX);
        self.requested.iter().any(|(range, at_ms)| {
            now_ms.saturating_sub(*at_ms) < spared_ms && range.can_split_at(boundary)
        })
    }
}
