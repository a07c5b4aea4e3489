//! Merges as the leader pursues them: orders, ends, and what people hear of it.
//!
//! A region that is stopped while nobody merges it gets an operator that lets it go on, whatever
//! stopped it.

use quorate_consensus::time::Instant;
use quorate_proto::{RegionId, StoreId};

use super::Leader;
use crate::core::checker::{Verdict, merge as checker};
use crate::core::command::MERGES_SINCE;
use crate::core::events::Severity;
use crate::core::merge::rules::{self, CannotMerge};
use crate::core::merge::{self, Next};
use crate::core::operators::{Draft, End, Goal, Operator, Refused};
use crate::core::state::State;
use crate::core::tree::{Merging, RegionInfo};

const BY: &str = "merge-checker";

impl Leader {
    /// True once merges are a part of the cluster's form: those that have begun are pursued.
    pub(super) fn knows_merges(state: &State) -> bool {
        state.cluster().is_some_and(|cluster| cluster.version >= MERGES_SINCE)
    }

    /// True where a merge may begin: all members and stores know them. An older store would take the commands of a
    /// merge for empty ones; one that is silent has no part in any.
    pub(super) fn may_merge(&self, state: &State) -> bool {
        let is_older = |store: &StoreId| {
            self.stores.last(*store).is_some_and(|heard| heard.stats.known_version < MERGES_SINCE)
        };
        Self::knows_merges(state) && !state.stores().keys().any(is_older)
    }

    /// Goes on with a region's merge, or begins to let it go on. False where it has no part in
    /// one as the source.
    pub(super) fn advance_merge(&mut self, state: &State, region: RegionId, now: Instant) -> bool {
        let now_ms = self.time_ms(now);
        let stopped = self.tree.get(region).and_then(|info| info.merging);
        let operator = self.operators.of(region).cloned();
        match (operator, stopped) {
            (Some(operator), _) if operator.goal.merges_with().is_some() => {
                self.pursue_merge(state, &operator, now_ms);
            }
            (Some(_), Some(merging)) => {
                let why = format!("{region} is stopped, to be taken in by {}", merging.target);
                self.give_up(region, End::Failed(why), now_ms);
                self.touched.insert(region);
            }
            (None, Some(merging)) => self.let_go_on(region, &merging, now_ms),
            (Some(_) | None, None) => return false,
        }
        true
    }

    fn pursue_merge(&mut self, state: &State, operator: &Operator, now_ms: u64) {
        let region = operator.region;
        match merge::next(&self.tree, operator, now_ms) {
            Next::Over(end) => return self.end_merge(operator, end, now_ms),
            Next::GiveUp(end) => return self.give_up_merge(region, end, now_ms),
            Next::Wait(why) => self.operators.direct(region, None, why),
            Next::Order { at, epoch, step } => {
                let is_durable = state.operators().get(&operator.id) == self.operators.of(region);
                let (step, waits) = match is_durable {
                    true => (Some((step, epoch)), String::new()),
                    false => (None, "what is planned to be replicated".to_owned()),
                };
                self.operators.direct_to(region, at, step, waits);
            }
        }
        // Only a roll-back has not ended by then.
        if now_ms >= operator.deadline_ms {
            self.operators.extend(region, now_ms);
            let text = format!(
                "{region} is to {} for long now: it goes on once the leaders of both answer",
                operator.goal
            );
            self.tell(Severity::Critical, "merge-stuck", text, region, now_ms);
        }
    }

    fn let_go_on(&mut self, region: RegionId, merging: &Merging, now_ms: u64) {
        let Some(info) = self.tree.get(region) else { return };
        let target = merging.target;
        let draft = Draft {
            region,
            epoch: info.region.epoch,
            goal: Goal::RollBackMerge { target, start: info.region.range.start.clone() },
            by: BY,
            reason: "it is stopped, and nobody merges it".to_owned(),
        };
        let what = format!("{}: {}", draft.goal, draft.reason);
        // It has none, which is all that could stand in the way.
        if self.operators.begin(draft, now_ms).is_ok() {
            self.history.note(region, BY, what, now_ms);
            self.touched.insert(region);
        }
    }

    fn end_merge(&mut self, operator: &Operator, end: End, now_ms: u64) {
        let region = operator.region;
        self.touched.insert(region);
        let Some(target) = operator.goal.merges_with() else { return };
        // A roll-back that came too late is a merge, too.
        let (at, kind, text) = if merge::is_taken_in(&self.tree, operator) {
            (target, "merged", format!("{target} took {region} in"))
        } else if end == End::Done {
            let text = format!("{region} goes on: {target} did not take it in");
            (region, "merge-rolled-back", text)
        } else {
            (region, "merge-overtaken", format!("{region} {}: {end}", operator.goal))
        };
        self.history.note(at, &operator.by, text.clone(), now_ms);
        self.tell(Severity::Info, kind, text, region, now_ms);
        self.operators.end(region, end, now_ms);
    }

    /// A merge shall not come about any more. Where an order of it is out, it ends once nothing of
    /// that can take effect.
    pub(super) fn give_up_merge(&mut self, region: RegionId, why: End, now_ms: u64) {
        self.touched.insert(region);
        let Some(operator) = self.operators.of(region) else { return };
        let (id, by, what) = (operator.id, operator.by.clone(), operator.goal.to_string());
        let target = self.tree.get(region).and_then(|info| info.merging).map(|it| it.target);
        if !self.operators.turn_back(region, &why, target, now_ms) {
            return self.give_up(region, why, now_ms);
        }
        let text = format!("{what}: {why}; operator {id} rolls it back");
        self.history.note(region, &by, text.clone(), now_ms);
        if why != End::Cancelled {
            let text = format!("{region} {text}");
            self.tell(Severity::Warning, "operator-failed", text, region, now_ms);
        }
    }

    /// Begins a merge that was checked.
    pub(super) fn begin_merge(
        &mut self,
        state: &State,
        draft: Draft,
        now: Instant,
    ) -> Result<u64, Refused> {
        if !self.may_merge(state) {
            return Err(Refused::OldMerges);
        }
        let (region, now_ms) = (draft.region, self.time_ms(now));
        let text = format!("{region} is to {}: {}", draft.goal, draft.reason);
        let id = self.operators.begin(draft, now_ms)?;
        self.tell(Severity::Info, "merge-begun", text, region, now_ms);
        self.touched.insert(region);
        Ok(id)
    }

    /// A merge on request, into the neighbour that suits best where none is named. The operator,
    /// and the neighbour.
    ///
    /// # Errors
    /// The rule that stands in the way.
    pub fn merge(
        &mut self,
        state: &State,
        region: RegionId,
        into: Option<RegionId>,
        now: Instant,
    ) -> Result<(u64, RegionId), Refused> {
        let now_ms = self.time_ms(now);
        self.settle(state);
        let source = self.tree.get(region).cloned().ok_or(Refused::UnknownRegion(region))?;
        let checked = self.choose(state, &source, into, now);
        let target = match checked {
            Ok(target) => target,
            Err(why) => {
                let what = format!("merge: on request; refused: {why}");
                self.history.note(region, "request", what, now_ms);
                return Err(why);
            }
        };
        let draft = Draft {
            region,
            epoch: source.region.epoch,
            goal: Goal::MergeInto { target, start: source.region.range.start.clone() },
            by: "request",
            reason: "on request".to_owned(),
        };
        let what = format!("{}: {}", draft.goal, draft.reason);
        let begun = self.begin(state, draft, false, now);
        let what = match &begun {
            Ok(_) => what,
            Err(why) => format!("{what}; refused: {why}"),
        };
        self.history.note(region, "request", what, now_ms);
        Ok((begun?, target))
    }

    /// The neighbour that is named, or the best of those that may take it in.
    fn choose(
        &self,
        state: &State,
        source: &RegionInfo,
        into: Option<RegionId>,
        now: Instant,
    ) -> Result<RegionId, Refused> {
        if !self.may_merge(state) {
            return Err(Refused::OldMerges);
        }
        let view = self.view(state, now);
        let id = source.region.id;
        let check = |target: &RegionInfo| -> Result<(), Refused> {
            rules::check(&view, source, target)?;
            self.operators.may_merge(id, target.region.id)?;
            for region in [id, target.region.id] {
                if self.is_on_its_way(region) {
                    return Err(CannotMerge::OnItsWay(region).into());
                }
            }
            Ok(())
        };
        if let Some(target) = into {
            let info = self.tree.get(target).ok_or(Refused::UnknownRegion(target))?;
            check(info)?;
            return Ok(target);
        }
        let (right, left) = merge::neighbours(&self.tree, source);
        let mut first = None;
        let mut able: Vec<&RegionInfo> = Vec::new();
        for target in [right, left].into_iter().flatten().filter(|info| !info.is_sentinel()) {
            match check(target) {
                Ok(()) => able.push(target),
                Err(why) => first = first.or(Some(why)),
            }
        }
        let best = able.into_iter().min_by_key(|target| checker::preference(source, target));
        match (best, first) {
            (Some(best), _) => Ok(best.region.id),
            (None, Some(why)) => Err(why),
            (None, None) if source.is_sentinel() => Err(CannotMerge::Sentinel(id).into()),
            (None, None) => Err(CannotMerge::NoNeighbour(id).into()),
        }
    }

    /// True where a replica of it has not arrived, or has not gone, or waits for a partner.
    pub(super) fn is_on_its_way(&self, region: RegionId) -> bool {
        self.members.of(region).iter().any(|record| record.is_on_its_way())
    }

    /// What the merge checker says of a region, in words; nothing of one that is large enough.
    pub fn merge_advice(&self, state: &State, region: RegionId, now: Instant) -> Option<String> {
        let info = self.tree.get(region)?;
        if !self.may_merge(state) || self.operators.may_begin(region).is_err() {
            return None;
        }
        let view = self.view(state, now);
        let on_its_way = |region| self.is_on_its_way(region);
        let around = checker::Surroundings {
            view: &view,
            tree: &self.tree,
            ages: &self.ages,
            on_its_way: &on_its_way,
            now_ms: self.time_ms(now),
        };
        match checker::check(around, info) {
            Verdict::Fine => None,
            Verdict::Stuck(why) => Some(format!("it is small, but {why}")),
            Verdict::Repair(draft) => Some(format!("{} is due: {}", draft.goal, draft.reason)),
        }
    }
}
