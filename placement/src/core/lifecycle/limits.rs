//! The limits of a lifecycle, each a setting of the cluster.

/// In milliseconds unless named otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a join may take to be seen in the applied configuration.
    pub join_ms: u64,
    /// How long a ready learner waits for a partner.
    pub pairing_ms: u64,
    /// How long a learner may be ready without being promoted.
    pub promotion_ms: u64,
    /// A learner that is behind and has not progressed for so long is stale. A running snapshot
    /// progresses with every chunk, so its limit follows its size and rate.
    pub stall_ms: u64,
    /// A learner without contact for so long is removed.
    pub zombie_ms: u64,
    /// At the measured rate a ready learner catches up within this: an election timeout.
    pub catch_up_ms: u64,
    /// Most entries a ready learner may lack, whatever its rate, and most committed ones that it
    /// may have and not have applied; at most [`MAX_LAG`].
    pub max_lag: u64,
    /// A ready learner was heard of within this.
    pub contact_ms: u64,
    /// How long all that must hold before a learner counts as ready.
    pub stable_ms: u64,
}

impl Default for Limits {
    /// Join, pairing and promotion are the membership specification's; catch-up is the shortest
    /// election timeout of our groups; the rest is chosen: a report comes every second, so a
    /// window of two sees two of them.
    fn default() -> Self {
        Self {
            join_ms: 30_000,
            pairing_ms: 120_000,
            promotion_ms: 300_000,
            stall_ms: 60_000,
            zombie_ms: 600_000,
            catch_up_ms: 600,
            max_lag: MAX_LAG,
            contact_ms: 5_000,
            stable_ms: 2_000,
        }
    }
}

/// The group's leader promotes no learner that lacks more entries than this, or has not applied so
/// many ([`quorate_consensus::shard::MAX_BEHIND`]), so none counts as ready before.
pub const MAX_LAG: u64 = quorate_consensus::shard::MAX_BEHIND;

/// A record of a removed member is kept so long, so that a late configuration entry which brings
/// it back is noticed and undone.
pub(super) const REMEMBER_REMOVED_MS: u64 = 600_000;
