//! What is worth an event beyond lifecycles: stores that fall silent, regions that lose their
//! leader or their quorum.
//!
//! It compares what is with what it saw last. A new leader of placement begins with what it finds
//! and tells nothing of it.

use std::collections::{BTreeMap, BTreeSet};

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
    /// Regions in a joint configuration: since when, and whether that was told.
    joint: BTreeMap<RegionId, (u64, bool)>,
}

/// A region that is in a joint configuration for longer is told of, in milliseconds: leaving one
/// takes well below a second.
const JOINT_FOR_LONG_MS: u64 = 30_000;

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

    /// Whether a region is in a joint configuration now.
    pub fn joint(&mut self, region: RegionId, is_joint: bool, at_ms: u64) -> Option<News> {
        if !is_joint {
            self.joint.remove(&region);
            return None;
        }
        let (since_ms, told) = self.joint.entry(region).or_insert((at_ms, false));
        if *told || at_ms.saturating_sub(*since_ms) < JOINT_FOR_LONG_MS {
            return None;
        }
        *told = true;
        Some(News {
            at_ms,
            severity: Severity::Critical,
            kind: "joint-stuck".to_owned(),
            text: format!(
                "{region} is in a joint configuration for long: it needs both majorities to leave it"
            ),
            region,
            node: NodeId(0),
        })
    }

    /// The region is gone.
    pub fn forget(&mut self, region: RegionId) {
        self.led.remove(&region);
        self.leaderless.remove(&region);
        self.no_quorum.remove(&region);
        self.joint.remove(&region);
    }

    /// Regions without a live majority.
    pub fn without_quorum(&self) -> &BTreeSet<RegionId> {
        &self.no_quorum
    }
}
