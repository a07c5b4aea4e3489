//! Store limits: how fast replicas are added to a store and removed from it.
//!
//! Every addition sends a snapshot and ingests it, every removal deletes a range; many at once take
//! disk and network from the requests of clients. So each store has two token buckets, one for
//! additions and one for removals. A full region ([`FULL_REGION_BYTES`]) costs one token, a smaller
//! one its part, but at least [`SMALLEST_COST`]: a configuration change costs something however
//! little the region holds. A bucket holds what it gains in [`BURST`], and never less than one
//! token.
//!
//! A bucket that has any tokens may be drawn from, into debt by less than one region: so a large
//! region is not kept waiting for ever by small ones. Tokens are taken when an operator begins, by
//! whoever begins it; checkers and schedulers only look.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_consensus::time::Instant;
use quorate_proto::StoreId;

use super::operators::Goal;

/// The size at which regions are split by default.
pub const FULL_REGION_BYTES: u64 = 96 * 1024 * 1024;
/// The part of a token that even an empty region costs.
pub const SMALLEST_COST: f64 = 0.05;
/// Time whose gain a bucket holds.
pub const BURST: Duration = Duration::from_secs(10);

/// How much a store may be burdened with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LimitRates {
    /// Full regions a minute that may be added to a store.
    pub additions: f64,
    /// Full regions a minute that may be removed from a store.
    pub removals: f64,
    /// Snapshots on their way to or from a store, from which on it gets and gives no more.
    pub snapshots: u32,
    /// Replicas on their way to a store, from which on no more are begun.
    pub arriving: usize,
}

impl Default for LimitRates {
    /// 15 a minute is the default of TiKV's placement driver, 25 MB a second with full regions.
    fn default() -> Self {
        Self { additions: 15.0, removals: 15.0, snapshots: 8, arriving: 16 }
    }
}

/// Which of a store's buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Burden {
    /// A replica comes.
    Addition,
    /// A replica goes.
    Removal,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// The buckets of all stores. See the module.
#[derive(Debug, Default)]
pub struct Limits {
    rates: LimitRates,
    buckets: BTreeMap<(StoreId, Burden), Bucket>,
}

/// What a replica of that size costs, in tokens.
pub fn cost(bytes: u64) -> f64 {
    (bytes as f64 / FULL_REGION_BYTES as f64).clamp(SMALLEST_COST, 1.0)
}

impl Limits {
    /// Full buckets.
    pub fn new(rates: LimitRates) -> Self {
        Self { rates, buckets: BTreeMap::new() }
    }

    /// The rates in force.
    pub fn rates(&self) -> LimitRates {
        self.rates
    }

    /// Other rates from now on; what was taken stays taken.
    pub fn set_rates(&mut self, rates: LimitRates) {
        self.rates = rates;
    }

    fn per_second(&self, burden: Burden) -> f64 {
        let per_minute = match burden {
            Burden::Addition => self.rates.additions,
            Burden::Removal => self.rates.removals,
        };
        per_minute.max(0.0) / 60.0
    }

    /// Tokens in a store's bucket; it may be drawn from while there are any.
    pub fn tokens(&self, store: StoreId, burden: Burden, now: Instant) -> f64 {
        let gain = self.per_second(burden);
        if gain == 0.0 {
            return 0.0;
        }
        let most = (gain * BURST.as_secs_f64()).max(1.0);
        match self.buckets.get(&(store, burden)) {
            Some(bucket) => (bucket.tokens + gain * now.since(bucket.at).as_secs_f64()).min(most),
            None => most,
        }
    }

    fn take(&mut self, store: StoreId, burden: Burden, bytes: u64, now: Instant) {
        let tokens = self.tokens(store, burden, now) - cost(bytes);
        self.buckets.insert((store, burden), Bucket { tokens, at: now });
    }

    /// An operator for a region of that size begins: takes what it costs.
    pub fn began(&mut self, goal: &Goal, bytes: u64, now: Instant) {
        match goal {
            Goal::AddReplica { to, .. } => self.take(*to, Burden::Addition, bytes, now),
            Goal::MoveReplica { from, to } => {
                self.take(*from, Burden::Removal, bytes, now);
                self.take(*to, Burden::Addition, bytes, now);
            }
            Goal::RemoveReplica { from } => self.take(*from, Burden::Removal, bytes, now),
            Goal::TransferLeader { .. }
            | Goal::Split { .. }
            | Goal::Promote { .. }
            | Goal::Demote { .. }
            | Goal::LeaveJoint
            | Goal::MergeInto { .. }
            | Goal::RollBackMerge { .. } => {}
        }
    }
}
