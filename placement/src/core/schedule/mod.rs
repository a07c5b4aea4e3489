//! Schedulers: they move load between stores that are well. What is broken is the checkers' matter.
//!
//! A scheduler reads a [`ClusterView`] and returns drafts with a reason; the operator controller
//! alone acts. They plan in this order, each counting with what the ones before drafted:
//! [`evict_leader`], [`hot_region`], [`balance_region`], [`balance_leader`].
//!
//! # Why planning ends
//! With the load as it is, every draft of every scheduler lowers one **potential**, compared from
//! left to right:
//!
//! (*E*, Φ, *U*, *B*, *L*)
//!
//! * *E*: leaders on stores that shall lead nothing. Lowered by evict-leader; nobody moves a leader
//!   there.
//! * Φ: how unevenly hot load lies (see [`hot_region`]). Lowered by hot-region; the others leave hot
//!   regions alone, save that evict-leader takes any leader.
//! * *U*: 0 while all replica counts are within the tolerance, else the sum of their squares; *B*:
//!   the sum of the squared bytes (see [`balance_region`]). Lowered by balance-region; moves of
//!   leaders do not touch them.
//! * *L*: the sum of the squared leader counts. Lowered by balance-leader.
//!
//! Beside it, the isolation of a region's voters never gets worse. So the schedulers cannot undo
//! each other's moves, and a cluster whose load stands still comes to rest. What keeps it at rest
//! while the load moves a little are the tolerances (counts, bytes), the gap and the margin (hot
//! load), and the time a hot region rests.

pub mod balance_leader;
pub mod balance_region;
mod candidate;
pub mod evict_leader;
pub mod hot_region;
mod sheet;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_consensus::time::Instant;
use quorate_proto::{RegionId, StoreId};
use thiserror::Error;

pub use super::filter::{Filtered, select_target};
pub use sheet::{MAX_EVICTIONS, MAX_MOVES, MAX_TRANSFERS};

use super::operators::Draft;
use super::view::ClusterView;
use candidate::Search;
use hot_region::HotRegion;
use sheet::Sheet;

/// How long a region that was moved is spared while others will do.
pub const LATELY: Duration = Duration::from_secs(15 * 60);

/// All schedulers, in the order in which they plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    EvictLeader,
    HotRegion,
    BalanceRegion,
    BalanceLeader,
}

impl Kind {
    const ALL: [Kind; 4] =
        [Kind::EvictLeader, Kind::HotRegion, Kind::BalanceRegion, Kind::BalanceLeader];

    const fn name(self) -> &'static str {
        match self {
            Kind::EvictLeader => evict_leader::NAME,
            Kind::HotRegion => hot_region::NAME,
            Kind::BalanceRegion => balance_region::NAME,
            Kind::BalanceLeader => balance_leader::NAME,
        }
    }
}

/// No scheduler has that name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "there is no scheduler {0:?}; there are evict-leader, hot-region, balance-region and \
     balance-leader"
)]
pub struct UnknownScheduler(pub String);

/// How a scheduler is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerStatus {
    /// Its name.
    pub name: &'static str,
    /// True where somebody has paused it.
    pub paused: bool,
    /// Operators it has drafted since this leader of placement began.
    pub begun: u64,
    /// What it did, or why it did nothing, at its last plan.
    pub last: String,
}

impl SchedulerStatus {
    /// Of one that has done nothing yet.
    pub fn new(name: &'static str) -> Self {
        Self { name, paused: false, begun: 0, last: "has not planned yet".to_owned() }
    }
}

/// The schedulers, and what they remember between plans.
#[derive(Debug)]
pub struct Schedulers {
    status: [SchedulerStatus; 4],
    hot: HotRegion,
    lately: BTreeMap<RegionId, Instant>,
    search: Search,
}

impl Default for Schedulers {
    fn default() -> Self {
        Self {
            status: Kind::ALL.map(|kind| SchedulerStatus::new(kind.name())),
            hot: HotRegion::default(),
            lately: BTreeMap::new(),
            search: Search::default(),
        }
    }
}

impl Schedulers {
    /// Drafts for at most `room` operators, none of them for a region that is busy.
    pub fn plan(&mut self, view: &ClusterView, room: usize, now: Instant) -> Vec<Draft> {
        let no_leaders: BTreeSet<StoreId> = evict_leader::leaving(view).collect();
        self.hot.look(view, now);
        // While hot-region is paused, the others move hot regions as any other.
        let resting = self.status[Kind::HotRegion as usize].paused;
        let hot = if resting { BTreeSet::new() } else { self.hot.regions() };
        self.lately.retain(|_, at| now.since(*at) < LATELY);
        let mut sheet = Sheet::new(view, &no_leaders, &hot, &self.lately, room);
        for (kind, status) in Kind::ALL.into_iter().zip(&mut self.status) {
            if status.paused {
                "is paused".clone_into(&mut status.last);
                continue;
            }
            let before = sheet.drafted();
            status.last = match kind {
                Kind::EvictLeader => evict_leader::plan(&mut sheet),
                Kind::HotRegion => self.hot.plan(&mut sheet, now),
                Kind::BalanceRegion => balance_region::plan(&mut sheet, &mut self.search, now),
                Kind::BalanceLeader => balance_leader::plan(&mut sheet),
            };
            status.begun += (sheet.drafted() - before) as u64;
        }
        let drafts = sheet.into_drafts();
        self.lately.extend(drafts.iter().map(|draft| (draft.region, now)));
        drafts
    }

    /// Pauses a scheduler, or lets it go on.
    ///
    /// # Errors
    /// There is none with that name.
    pub fn set_paused(&mut self, name: &str, paused: bool) -> Result<(), UnknownScheduler> {
        let status = self.status.iter_mut().find(|status| status.name == name);
        let status = status.ok_or_else(|| UnknownScheduler(name.to_owned()))?;
        status.paused = paused;
        Ok(())
    }

    /// All schedulers, in the order in which they plan.
    pub fn list(&self) -> &[SchedulerStatus] {
        &self.status
    }
}
