//! What the cluster wants, as planning needs it: rules, failure domains, tolerances.
//!
//! Plain numbers with their defaults; whoever keeps the cluster's settings builds one of these and
//! hands it to every [`super::view::ClusterView`].

use super::labels::Levels;
use super::limit::FULL_REGION_BYTES;
use super::rule::{BadRules, RuleSet};

/// What is wanted. See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Replicas of each key range.
    pub rules: RuleSet,
    /// Failure domains, widest first.
    pub levels: Levels,
    /// When stores are uneven.
    pub balance: Tolerances,
    /// When load is uneven.
    pub hot: HotSettings,
    /// Which regions are merged.
    pub merge: MergeSettings,
    /// Part of a store's disk that must stay free for it to get replicas.
    pub min_free: f64,
}

impl Policy {
    /// The defaults, with that many voters for every region.
    ///
    /// # Errors
    /// The number is even, 0, or too large.
    pub fn of_replicas(replicas: u32) -> Result<Self, BadRules> {
        Ok(Self {
            rules: RuleSet::of_replicas(replicas)?,
            levels: Levels::default(),
            balance: Tolerances::default(),
            hot: HotSettings::default(),
            merge: MergeSettings::default(),
            // CockroachDB's: a store that is 95 % full gets no more.
            min_free: 0.05,
        })
    }
}

/// How far stores may differ before anything is moved. All are parts of the mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerances {
    /// In leaders.
    pub leaders: f64,
    /// In replicas.
    pub replicas: f64,
    /// In bytes.
    pub bytes: f64,
    /// In bytes, whatever the mean is: less is not worth a snapshot.
    pub bytes_floor: u64,
}

impl Default for Tolerances {
    /// 4 % in counts: well within the 10 % by which stores may differ. Sizes are reported roughly
    /// and change all the time, so they get 10 %.
    fn default() -> Self {
        Self { leaders: 0.04, replicas: 0.04, bytes: 0.10, bytes_floor: 4 * FULL_REGION_BYTES }
    }
}

impl Tolerances {
    /// By how many two stores may differ that have `mean` on average; never less than one, which
    /// no move can even out.
    pub fn counts(part: f64, mean: f64) -> usize {
        ((mean * part) as usize).max(1)
    }
}

/// Which regions are merged without being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeSettings {
    /// False: none.
    pub enabled: bool,
    /// A region of more bytes is not taken in.
    pub max_bytes: u64,
    /// A region of more keys is not taken in.
    pub max_keys: u64,
    /// Milliseconds for which both must have had the same range and leader.
    pub min_age_ms: u64,
    /// Merges under way, from which on no more are begun.
    pub at_once: usize,
}

impl Default for MergeSettings {
    /// Sizes, age and number are TiKV's (`max-merge-region-size`, `max-merge-region-keys`,
    /// `split-merge-interval`, `merge-schedule-limit`).
    fn default() -> Self {
        Self {
            enabled: true,
            max_bytes: 20 * 1024 * 1024,
            max_keys: 200_000,
            min_age_ms: 3_600_000,
            at_once: 8,
        }
    }
}

/// Which regions are hot, and when they are moved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HotSettings {
    /// Part of a store's mean load from which on one region is hot. It stays hot down to half of
    /// that.
    pub share: f64,
    /// Writes a second (see [`super::load::Load::writes`]) below which none is hot by writes.
    pub min_writes: f64,
    /// Keys read a second below which none is hot by reads.
    pub min_reads: f64,
    /// Cores below which none is hot by processor time.
    pub min_cores: f64,
    /// By how much of a store's mean load two stores must differ.
    pub gap: f64,
    /// Part of the improvement that must be left when all numbers are wrong by it.
    pub margin: f64,
}

impl Default for HotSettings {
    /// A tenth of a store's load is what one move can change noticeably; rates are means over a
    /// minute, which repeat within 20 %.
    fn default() -> Self {
        Self {
            share: 0.10,
            min_writes: 256.0,
            min_reads: 2_048.0,
            min_cores: 0.05,
            gap: 0.20,
            margin: 0.20,
        }
    }
}
