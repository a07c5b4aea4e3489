//! What was decided about a region, refused, or is waited for: the last few of each.
//!
//! The leader's own. The next one begins with what is replicated anyway: the events of each region,
//! the operators under way with their reasons, and the last that ended with what became of them.
//! Verdicts on what stands in the way are soon made anew.

use std::collections::{BTreeMap, VecDeque};

use quorate_proto::RegionId;

use super::operators::{Ended, Operator};
use super::state::State;

/// Decisions kept for a region.
pub const KEPT_PER_REGION: usize = 16;
/// Regions with decisions; the one that was silent for longest makes way.
pub const MAX_REGIONS: usize = 4_096;

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// When it was made last, in placement time.
    pub at_ms: u64,
    /// By which checker, scheduler or person.
    pub by: String,
    /// What, and why, in words.
    pub what: String,
}

/// All decisions. See the module.
#[derive(Clone, Debug, Default)]
pub struct History {
    regions: BTreeMap<RegionId, VecDeque<Decision>>,
}

impl History {
    /// What a former leader's decisions have left in the log.
    pub fn of_former(state: &State) -> Self {
        let events = state.events().after(0, 0).into_iter().map(|event| event.news);
        let told = events.map(|news| (news.at_ms, news.region, news.kind, news.text));
        let begun = |operator: &Operator| {
            let what = format!("{}: {}", operator.goal, operator.reason);
            (operator.began_ms, operator.region, operator.by.clone(), what)
        };
        let over = |ended: &Ended| {
            let Ended { operator, end, at_ms } = ended;
            let what = format!("{}: {end}", operator.goal);
            [begun(operator), (*at_ms, operator.region, operator.by.clone(), what)]
        };
        let ended = state.ended().iter().flat_map(over);
        let under_way = state.operators().values().map(begun);
        let mut all: Vec<_> = told.chain(ended).chain(under_way).collect();
        all.sort_by_key(|(at_ms, ..)| *at_ms);
        let mut history = Self::default();
        for (at_ms, region, by, what) in all {
            if region != RegionId(0) {
                history.note(region, &by, what, at_ms);
            }
        }
        history
    }

    /// Notes a decision; one like the last only renews its time.
    pub fn note(&mut self, region: RegionId, by: &str, what: impl Into<String>, at_ms: u64) {
        let what = what.into();
        if !self.regions.contains_key(&region) && self.regions.len() >= MAX_REGIONS {
            let last = |decisions: &VecDeque<Decision>| {
                decisions.back().map_or(0, |decision| decision.at_ms)
            };
            let oldest = self.regions.iter().min_by_key(|(_, decisions)| last(decisions));
            if let Some(oldest) = oldest.map(|(region, _)| *region) {
                self.regions.remove(&oldest);
            }
        }
        let decisions = self.regions.entry(region).or_default();
        if let Some(last) = decisions.back_mut()
            && last.by == by
            && last.what == what
        {
            last.at_ms = at_ms;
            return;
        }
        if decisions.len() == KEPT_PER_REGION {
            decisions.pop_front();
        }
        decisions.push_back(Decision { at_ms, by: by.to_owned(), what });
    }

    /// A region's, oldest first.
    pub fn of(&self, region: RegionId) -> impl Iterator<Item = &Decision> {
        self.regions.get(&region).into_iter().flatten()
    }

    /// The region is gone.
    pub fn forget(&mut self, region: RegionId) {
        self.regions.remove(&region);
    }
}
