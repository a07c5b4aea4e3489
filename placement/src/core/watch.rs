//! What is worth an event beyond lifecycles: stores that fall silent, regions that lose their
//! leader or their quorum.
//!
//! It compares what is with what it saw last. A new leader of placement begins with what it finds
//! and tells nothing of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_proto::{NodeId, RegionId, StoreId, Term};

use super::events::{News, Severity};
use super::stores::StoreState;

/// See the module.
#[derive(Debug, Default)]
pub struct Watch {
    stores: BTreeMap<StoreId, StoreState>,
    led: BTreeMap<RegionId, (StoreId, Term)>,
    leaderless: BTreeSet<RegionId>,
    no_quorum: BTreeSet<RegionId>,
    /// Regions that are stopped for a merge, and since when.
    stopped: BTreeMap<RegionId, u64>,
}

/// A region that a merge has stopped for longer counts as unavailable: a merge takes well below a
/// second while all replicas answer, and clients try again meanwhile.
pub const STOPPED_FOR_LONG: Duration = Duration::from_secs(10);

impl Watch {
    /// A store as it is now.
    pub fn store(&mut self, store: StoreId, state: StoreState, at_ms: u64) -> Option<News> {
        let before = self.stores.insert(store, state)?;
        if before == state {
            return None;
        }
        let (severity, kind, what) = match state {
            StoreState::Joining => return None,
            StoreState::Up => (Severity::Info, "store-up", "is up"),
            StoreState::Suspect => (Severity::Warning, "store-suspect", "is silent, suspected"),
            StoreState::Down => {
                (Severity::Critical, "store-down", "is down, its replicas are replaced")
            }
            StoreState::Leaving => (Severity::Info, "store-leaving", "is leaving"),
            StoreState::Left => (Severity::Info, "store-left", "has left"),
        };
        let text = format!("{store} {what}");
        let (kind, node) = (kind.to_owned(), NodeId::from(store));
        Some(News { at_ms, severity, kind, text, region: RegionId(0), node })
    }

    /// A region's leader as it was just reported.
    pub fn leader(
        &mut self,
        region: RegionId,
        store: StoreId,
        term: Term,
        at_ms: u64,
    ) -> Option<News> {
        let before = self.led.insert(region, (store, term));
        let back = self.leaderless.remove(&region);
        let changed = before.is_some_and(|before| before != (store, term));
        (changed || back).then(|| News {
            at_ms,
            severity: Severity::Info,
            kind: "leader-elected".to_owned(),
            text: format!("{region} is led by {store} in {term}"),
            region,
            node: store.into(),
        })
    }

    /// A region as it is now: whether somebody alive leads it, and how many of its voters are
    /// alive.
    pub fn region(
        &mut self,
        region: RegionId,
        led: bool,
        (alive, voters): (usize, usize),
        at_ms: u64,
    ) -> Vec<News> {
        let mut news = Vec::new();
        let mut tell = |severity, kind: &str, text| {
            let kind = kind.to_owned();
            news.push(News { at_ms, severity, kind, text, region, node: NodeId(0) });
        };
        // Only what was led once in this term of placement's leadership can be lost.
        if !led && self.led.contains_key(&region) && self.leaderless.insert(region) {
            let last = self.led[&region].0;
            tell(
                Severity::Warning,
                "leader-lost",
                format!("{region} has no leader; {last} was the last one"),
            );
        }
        if alive * 2 <= voters {
            if self.no_quorum.insert(region) {
                tell(
                    Severity::Critical,
                    "quorum-lost",
                    format!("{region} lost its quorum: {alive} of {voters} voters are alive"),
                );
            }
        } else if self.no_quorum.remove(&region) {
            tell(
                Severity::Info,
                "quorum-regained",
                format!("{region} has a quorum again: {alive} of {voters} voters are alive"),
            );
        }
        news
    }

    /// The region is gone.
    pub fn forget(&mut self, region: RegionId) {
        self.led.remove(&region);
        self.leaderless.remove(&region);
        self.no_quorum.remove(&region);
        self.stopped.remove(&region);
    }

    /// Whether a region is stopped for a merge now.
    pub fn stopped(&mut self, region: RegionId, is_stopped: bool, at_ms: u64) {
        match is_stopped {
            true => {
                self.stopped.entry(region).or_insert(at_ms);
            }
            false => {
                self.stopped.remove(&region);
            }
        }
    }

    /// How many are stopped for longer than [`STOPPED_FOR_LONG`].
    pub fn stopped_for_long(&self, now_ms: u64) -> usize {
        let long = u64::try_from(STOPPED_FOR_LONG.as_millis()).unwrap_or(u64::MAX);
        self.stopped.values().filter(|since_ms| now_ms.saturating_sub(**since_ms) >= long).count()
    }

    /// Regions without a live majority.
    pub fn without_quorum(&self) -> &BTreeSet<RegionId> {
        &self.no_quorum
    }
}
