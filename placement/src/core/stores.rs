//! Which stores are alive, as the leader of placement hears them.
//!
//! Soft: a new leader grants every store the full silence before it suspects it, counted from the
//! moment it began to lead.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_consensus::time::Instant;
use quorate_proto::StoreId;

use super::report::StoreStats;
use super::state::{Store, StoreLife};

/// Silence after which a store is suspected: nothing is moved to it, its leaders count as lost.
pub const SUSPECT_AFTER: Duration = Duration::from_secs(20);
/// Silence after which a store is given up.
pub const DOWN_AFTER: Duration = Duration::from_secs(30 * 60);

/// How a store is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreState {
    /// It has its id, and has not reported yet.
    Joining,
    /// It reports.
    Up,
    /// Silent for [`SUSPECT_AFTER`].
    Suspect,
    /// Silent for [`DOWN_AFTER`].
    Down,
    /// Its replicas go elsewhere, on request.
    Leaving,
    /// It is out for good.
    Left,
}

impl StoreState {
    /// The word that people read.
    pub const fn name(self) -> &'static str {
        match self {
            StoreState::Joining => "Joining",
            StoreState::Up => "Up",
            StoreState::Suspect => "Suspect",
            StoreState::Down => "Down",
            StoreState::Leaving => "Leaving",
            StoreState::Left => "Left",
        }
    }

    /// All names, in the order of a life.
    pub const NAMES: [&'static str; 6] = ["Joining", "Up", "Suspect", "Down", "Leaving", "Left"];
}

/// What a store's stream has brought in this term of leadership.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// Its process.
    pub incarnation: u64,
    /// When it was last heard of.
    pub at: Instant,
    /// Its last numbers.
    pub stats: StoreStats,
    /// True once it has told all the regions it leads.
    pub complete: bool,
    /// Operations a second between its last two reports.
    pub operations_per_second: u64,
    /// False once its stream has ended and no other has begun.
    pub connected: bool,
}

/// All stores' liveness.
#[derive(Debug)]
pub struct Stores {
    since: Instant,
    heard: BTreeMap<StoreId, Heard>,
    suspect_after: Duration,
    down_after: Duration,
}

impl Stores {
    /// For a leader that begins at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            heard: BTreeMap::new(),
            suspect_after: SUSPECT_AFTER,
            down_after: DOWN_AFTER,
        }
    }

    /// Other limits than the defaults.
    pub fn set_limits(&mut self, suspect_after: Duration, down_after: Duration) {
        self.suspect_after = suspect_after;
        self.down_after = down_after;
    }

    /// A report came in. `full` where it told all the regions the store leads.
    pub fn heard(
        &mut self,
        store: StoreId,
        incarnation: u64,
        stats: StoreStats,
        full: bool,
        now: Instant,
    ) {
        let before = self.heard.get(&store).filter(|heard| heard.incarnation == incarnation);
        let complete = full || before.is_some_and(|heard| heard.complete);
        let operations_per_second = before.map_or(0, |heard| {
            let done = stats.operations.saturating_sub(heard.stats.operations);
            match u64::try_from(now.since(heard.at).as_millis()).unwrap_or(u64::MAX) {
                // Pushed reports follow each other closely; a rate needs some time between.
                0..100 => heard.operations_per_second,
                millis => done.saturating_mul(1_000) / millis,
            }
        });
        let heard =
            Heard { incarnation, at: now, stats, complete, operations_per_second, connected: true };
        self.heard.insert(store, heard);
    }

    /// Its stream ended: it may have stopped, or look for this leader anew.
    pub fn disconnected(&mut self, store: StoreId) {
        if let Some(heard) = self.heard.get_mut(&store) {
            heard.connected = false;
        }
    }

    /// What was last heard of a store in this term of leadership.
    pub fn last(&self, store: StoreId) -> Option<&Heard> {
        self.heard.get(&store)
    }

    /// How long a store has been silent, or this leader has been leading without hearing of it.
    pub fn silence(&self, store: StoreId, now: Instant) -> Duration {
        now.since(self.heard.get(&store).map_or(self.since, |heard| heard.at))
    }

    /// How a store is doing.
    pub fn state(&self, store: &Store, now: Instant) -> StoreState {
        match store.life {
            StoreLife::Left => return StoreState::Left,
            StoreLife::Leaving { .. } => return StoreState::Leaving,
            StoreLife::Joining | StoreLife::Active => {}
        }
        let silence = self.silence(store.id, now);
        if silence >= self.down_after {
            StoreState::Down
        } else if silence >= self.suspect_after {
            StoreState::Suspect
        } else if store.life == StoreLife::Joining {
            StoreState::Joining
        } else {
            StoreState::Up
        }
    }

    /// True where the store serves: not suspected, not out.
    pub fn serves(&self, store: &Store, now: Instant) -> bool {
        let counts = match store.life {
            StoreLife::Left | StoreLife::Leaving { dead: true, .. } => false,
            StoreLife::Joining | StoreLife::Active | StoreLife::Leaving { dead: false, .. } => true,
        };
        counts && self.silence(store.id, now) < self.suspect_after
    }

    /// True where the store will not come back, or has been silent for so long that it counts as
    /// lost: its replicas are replaced.
    pub fn is_lost(&self, store: &Store, now: Instant) -> bool {
        match store.life {
            StoreLife::Left | StoreLife::Leaving { dead: true, .. } => true,
            StoreLife::Joining | StoreLife::Active | StoreLife::Leaving { dead: false, .. } => {
                self.silence(store.id, now) >= self.down_after
            }
        }
    }

    /// True where the store is connected and has been heard of lately.
    pub fn is_alive(&self, store: StoreId, now: Instant) -> bool {
        self.heard.get(&store).is_some_and(|heard| heard.connected)
            && self.silence(store, now) < self.suspect_after
    }
}
