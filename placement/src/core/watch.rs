//! What is worth an event beyond lifecycles: stores that join and fall silent, regions that lose
//! their leader or their quorum, members of placement that fall silent.
//!
//! It compares what is with what it saw last. A new leader of placement begins with what it finds
//! and tells nothing of it. What happens to many regions at once is told of their store: leaders
//! that were elected, and logs that were truncated.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_proto::{NodeId, RegionId, StoreId, Term};

use super::events::{News, Severity};
use super::partition::names;
use super::report::StoreStats;
use super::state::{State, StoreLife};
use super::stores::StoreState;

/// Time between two events of a store's truncated logs, in milliseconds.
const COMPACTED_EVERY_MS: u64 = 60_000;

/// What a store's counters said when its truncated logs were told last, and when that was.
#[derive(Clone, Copy, Debug)]
struct Compacted {
    incarnation: u64,
    truncations: u64,
    entries: u64,
    at_ms: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Watch {
    /// `None`: it was there when this leader began, and has not been looked at.
    stores: BTreeMap<StoreId, Option<StoreState>>,
    compacted: BTreeMap<StoreId, Compacted>,
    /// Members of placement: whether they are silent.
    members: BTreeMap<NodeId, bool>,
    /// Regions with a new leader since the last look, by its store.
    elected: BTreeMap<StoreId, BTreeMap<RegionId, Term>>,
    led: BTreeMap<RegionId, (StoreId, Term)>,
    leaderless: BTreeSet<RegionId>,
    no_quorum: BTreeSet<RegionId>,
    /// When a region was last seen without a leader or without a live majority.
    unsteady: BTreeMap<RegionId, u64>,
    /// Regions that are stopped for a merge, and since when.
    stopped: BTreeMap<RegionId, u64>,
    /// Regions in a joint configuration: since when, and whether that was told.
    joint: BTreeMap<RegionId, (u64, bool)>,
}

/// A region that is in a joint configuration for longer is told of, in milliseconds: leaving one
/// takes well below a second.
const JOINT_FOR_LONG_MS: u64 = 30_000;

/// A region that a merge has stopped for longer counts as unavailable: a merge takes well below a
/// second while all replicas answer, and clients try again meanwhile.
pub const STOPPED_FOR_LONG: Duration = Duration::from_secs(10);

impl Watch {
    /// For a leader that begins with this state.
    pub fn new(state: &State) -> Self {
        let is_new = |life: StoreLife| match life {
            StoreLife::Joining => true,
            StoreLife::Active | StoreLife::Leaving { .. } | StoreLife::Left => false,
        };
        let known = state.stores().values().filter(|store| !is_new(store.life));
        Self { stores: known.map(|store| (store.id, None)).collect(), ..Self::default() }
    }

    /// A store as it is now.
    pub fn store(&mut self, store: StoreId, state: StoreState, at_ms: u64) -> Option<News> {
        let before = match self.stores.insert(store, Some(state)) {
            Some(Some(before)) => before,
            // As it was found.
            Some(None) => return None,
            // It came since then.
            None => StoreState::Joining,
        };
        if before == state {
            return None;
        }
        let (severity, kind, what) = match state {
            StoreState::Joining => return None,
            StoreState::Up if before == StoreState::Joining => {
                (Severity::Info, "store-joined", "has joined the cluster")
            }
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

    /// The logs that a store has truncated, by its counters: told once a minute at most.
    pub fn compacted(
        &mut self,
        store: StoreId,
        (incarnation, stats): (u64, StoreStats),
        at_ms: u64,
    ) -> Option<News> {
        let (truncations, entries) = (stats.log_truncations, stats.log_truncated_entries);
        let is = Compacted { incarnation, truncations, entries, at_ms };
        let was = *self.compacted.entry(store).or_insert(is);
        if was.incarnation != incarnation {
            // It has started anew, and counts from zero.
            self.compacted.insert(store, is);
            return None;
        }
        let seconds = at_ms.saturating_sub(was.at_ms) / 1_000;
        let went = entries.saturating_sub(was.entries);
        if went == 0 || at_ms.saturating_sub(was.at_ms) < COMPACTED_EVERY_MS {
            return None;
        }
        self.compacted.insert(store, is);
        let times = truncations.saturating_sub(was.truncations);
        Some(News {
            at_ms,
            severity: Severity::Info,
            kind: "log-compacted".to_owned(),
            text: format!(
                "{store} compacted logs of its regions: {went} entries in {times} steps within \
                 {seconds} s"
            ),
            region: RegionId(0),
            node: store.into(),
        })
    }

    /// A member of placement, called `name`, as it is now.
    pub fn member(
        &mut self,
        (member, name): (NodeId, &str),
        silent: bool,
        at_ms: u64,
    ) -> Option<News> {
        let before = self.members.insert(member, silent)?;
        let (severity, kind, what) = match (before, silent) {
            (false, true) => (Severity::Warning, "placement-member-silent", "is silent"),
            (true, false) => (Severity::Info, "placement-member-back", "is heard again"),
            (true, true) | (false, false) => return None,
        };
        let text = format!("{name} {what}");
        let kind = kind.to_owned();
        Some(News { at_ms, severity, kind, text, region: RegionId(0), node: member })
    }

    /// Members of placement that are no more.
    pub fn keep_members(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.members.retain(|member, _| is_member(*member));
    }

    /// A region's leader as it was just reported; told with the next look.
    pub fn leader(&mut self, region: RegionId, store: StoreId, term: Term) {
        let before = self.led.insert(region, (store, term));
        let back = self.leaderless.remove(&region);
        if let Some((last, _)) = before.filter(|before| back || *before != (store, term)) {
            if let Some(regions) = self.elected.get_mut(&last) {
                regions.remove(&region);
            }
            self.elected.entry(store).or_default().insert(region, term);
        }
    }

    /// The leaders that were elected since the last look: one event for each store.
    pub fn leaders(&mut self, at_ms: u64) -> Vec<News> {
        let elected = std::mem::take(&mut self.elected).into_iter();
        let news = |(store, regions): (StoreId, BTreeMap<RegionId, Term>)| {
            let (first, term) = regions.first_key_value()?;
            let (text, region) = match regions.len() {
                1 => (format!("{first} is led by {store} in {term}"), *first),
                many => {
                    let named = names(regions.keys());
                    (format!("{many} regions are led by {store}: {named}"), RegionId(0))
                }
            };
            let (severity, kind) = (Severity::Info, "leader-elected".to_owned());
            Some(News { at_ms, severity, kind, text, region, node: store.into() })
        };
        elected.filter_map(news).collect()
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
        if !led || alive * 2 <= voters {
            self.unsteady.insert(region, at_ms);
        }
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
        for regions in self.elected.values_mut() {
            regions.remove(&region);
        }
        self.leaderless.remove(&region);
        self.no_quorum.remove(&region);
        self.unsteady.remove(&region);
        self.joint.remove(&region);
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

    /// When a region was last seen without a leader or without a live majority, in placement time.
    pub fn unsteady_ms(&self, region: RegionId) -> Option<u64> {
        self.unsteady.get(&region).copied()
    }

    /// Regions without a live majority.
    pub fn without_quorum(&self) -> &BTreeSet<RegionId> {
        &self.no_quorum
    }
}
