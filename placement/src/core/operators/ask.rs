//! What is under way and what has ended, for those who ask.

use std::collections::{BTreeMap, BTreeSet};

use quorate_proto::{RegionId, StoreId};

use super::{Ended, Goal, Operator, Operators, Step, UnderWay};

impl Operators {
    /// The region's operator.
    pub fn of(&self, region: RegionId) -> Option<&Operator> {
        self.under_way.get(&region).map(|under_way| &under_way.operator)
    }

    /// The merge by which that region takes another one in.
    pub fn takes_in(&self, target: RegionId) -> Option<&Operator> {
        let mut sources = self.pairs.sources(target).filter_map(|source| self.of(source));
        sources.find(|operator| matches!(operator.goal, Goal::MergeInto { .. }))
    }

    /// Regions with a merge, or its roll-back, that waits for what `target` does.
    pub fn sources_of(&self, target: RegionId) -> impl Iterator<Item = RegionId> {
        self.pairs.sources(target)
    }

    /// True where an order to enter a joint configuration may lie in the region's log.
    pub fn may_be_entering(&self, region: RegionId) -> bool {
        self.under_way.get(&region).is_some_and(UnderWay::may_be_entering)
    }

    /// Regions whose leadership is about to go to that store.
    pub fn transfers_to(&self, store: StoreId) -> impl Iterator<Item = RegionId> {
        let step = Step::TransferLeader { to: store };
        let goes =
            move |under_way: &&UnderWay| under_way.step.as_ref().is_some_and(|(is, _)| *is == step);
        self.under_way.values().filter(goes).map(|under_way| under_way.operator.region)
    }

    /// All under way, in order of their regions.
    pub fn iter(&self) -> impl Iterator<Item = &Operator> {
        self.under_way.values().map(|under_way| &under_way.operator)
    }

    /// All under way, with what they wait for.
    pub fn under_way(&self) -> impl Iterator<Item = &UnderWay> {
        self.under_way.values()
    }

    /// Those that ended last, oldest first.
    pub fn ended(&self) -> impl DoubleEndedIterator<Item = &Ended> {
        self.ended.iter()
    }

    /// How many ended in each way in this term.
    pub fn ends(&self) -> &BTreeMap<&'static str, u64> {
        &self.ends
    }

    /// Regions that a scheduler leaves alone.
    pub fn busy(&self, now_ms: u64) -> BTreeSet<RegionId> {
        let resting = self.resting.iter().filter(|(_, until_ms)| now_ms < **until_ms);
        let own = self.under_way.keys().chain(resting.map(|(region, _)| region)).copied();
        own.chain(self.pairs.targets().filter(|target| self.takes_in(*target).is_some())).collect()
    }

    /// Stores that could not take a replica of a region and are not tried again yet: how often in
    /// a row, and for how many milliseconds more.
    pub fn failed(&self, now_ms: u64) -> BTreeMap<(RegionId, StoreId), (u32, u64)> {
        self.failures.resting(now_ms)
    }

    /// True for a region whose operator has just failed.
    pub fn rests(&self, region: RegionId, now_ms: u64) -> bool {
        self.resting.get(&region).is_some_and(|until_ms| now_ms < *until_ms)
    }
}
