//! Operators: what placement is about to do to regions, until a report shows it done.
//!
//! The only part of the core that acts on regions. An operator belongs to one region and has a
//! [`Goal`]; its next [`Step`] is derived from the region as reported, and sent to the store that
//! leads the region, again and again until its effect is seen, the region changes otherwise, or
//! the deadline passes. A store refuses a step where the epoch has moved on, so sending one twice
//! does no harm.
//!
//! Transfers and splits are one step each and are pursued here. Who replicates a region is
//! pursued by its lifecycles, which name the step ([`Operators::direct`]); merges by
//! [`merge`](super::merge), some of whose steps go to the leader of the other region
//! ([`Operators::direct_to`]).
//!
//! Bounded: one operator a region, to which the target of a merge counts too, [`MAX_OPERATORS`] in
//! all; a region whose operator failed is left alone for [`REST_AFTER_FAILURE`], and the store that
//! did not get its replica for longer each time. The last [`REMEMBERED`] that ended are kept with
//! what became of them, and replicated ([`ended`](super::ended)): who leads placement next tells of
//! them, and leaves alone what they left alone.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quorate_proto::{Epoch, RegionId, StoreId, Term};

mod ask;
mod ended;
mod failures;
mod goal;
mod order;
mod pairs;
mod refused;
mod sending;
mod story;
mod under_way;

use super::tree::RegionInfo;
pub use ended::{End, Ended};
use failures::Failures;
pub use goal::{Draft, Goal, ReplicaRole};
pub use order::{Order, Step};
use pairs::Pairs;
pub use refused::Refused;
pub use story::{Story, story};
pub use under_way::UnderWay;

/// Most operators under way.
pub const MAX_OPERATORS: usize = 256;
/// How long a transfer of leadership may take: an election and a report.
pub const TRANSFER_DEADLINE: Duration = Duration::from_secs(5);
/// How long a split may take.
pub const SPLIT_DEADLINE: Duration = Duration::from_secs(20);
/// How long a change of replicas may go without progress.
pub const CHANGE_DEADLINE: Duration = Duration::from_secs(600);
/// How long a merge may take, from its beginning on. A region that is stopped by then goes on: it
/// takes well below a second, and where a replica has fallen silent since, nobody should wait.
pub const MERGE_DEADLINE: Duration = Duration::from_secs(4);
/// How long the roll-back of a merge takes at most while the leaders of both regions are well;
/// it goes on beyond, loudly.
pub const ROLL_BACK_DEADLINE: Duration = Duration::from_secs(60);
/// How long a change of replicas may take in all, however well it gets on: what a large region
/// needs behind a long queue of snapshots. A learner that is slower than the writes never arrives.
pub const CHANGE_AT_MOST: Duration = Duration::from_secs(2 * 3_600);
/// How long a region is left alone after an operator of its own failed.
pub const REST_AFTER_FAILURE: Duration = Duration::from_secs(15);
/// Time after which an order that has shown no effect is sent again.
pub const RESEND_AFTER: Duration = Duration::from_secs(2);
/// Operators that are remembered after they ended.
pub const REMEMBERED: usize = 256;
/// Refusals of one step, at one epoch, after which an operator is given up.
pub const MAX_REFUSALS: u32 = 10;

/// An operator, as far as it is replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Unique over all leaders of placement.
    pub id: u64,
    /// Of which region.
    pub region: RegionId,
    /// At which epoch it began.
    pub epoch: Epoch,
    /// What for.
    pub goal: Goal,
    /// Who wants it.
    pub by: String,
    /// Why, in words.
    pub reason: String,
    /// When it began, in placement time.
    pub began_ms: u64,
    /// When it is given up, unless it gets on meanwhile.
    pub deadline_ms: u64,
}

/// All operators. See the module.
#[derive(Debug)]
pub struct Operators {
    next_id: u64,
    under_way: BTreeMap<RegionId, UnderWay>,
    pairs: Pairs,
    resting: BTreeMap<RegionId, u64>,
    failures: Failures,
    ended: VecDeque<Ended>,
    ends: BTreeMap<&'static str, u64>,
    destroys: Vec<(StoreId, Order)>,
}

impl Operators {
    /// For the leader of `term`, with those that a former leader had begun, each of which gets its
    /// whole time anew, and with those that `ended` last, oldest first.
    pub fn new<'a>(
        term: Term,
        begun: impl IntoIterator<Item = &'a Operator>,
        ended: impl IntoIterator<Item = &'a Ended>,
        now_ms: u64,
    ) -> Self {
        let ended: VecDeque<Ended> = ended.into_iter().cloned().collect();
        let mut failures = Failures::default();
        ended.iter().for_each(|over| failures.ended(over));
        let rests = |over: &Ended| {
            let until_ms = over.rests_until_ms().filter(|until_ms| now_ms < *until_ms)?;
            Some((over.operator.region, until_ms))
        };
        let mut pairs = Pairs::default();
        let again = |operator: &Operator| {
            pairs.add(operator);
            let mut operator = operator.clone();
            operator.deadline_ms = operator.deadline_ms.max(now_ms + operator.goal.time_ms());
            (operator.region, UnderWay { ordered: true, ..UnderWay::new(operator) })
        };
        Self {
            next_id: term.0 << 32,
            under_way: begun.into_iter().map(again).collect(),
            pairs,
            resting: ended.iter().filter_map(rests).collect(),
            failures,
            ended,
            ends: BTreeMap::new(),
            destroys: Vec::new(),
        }
    }

    /// Whether an operator on that region could begin.
    ///
    /// # Errors
    /// The region has one, or there are too many.
    pub fn may_begin(&self, region: RegionId) -> Result<(), Refused> {
        if let Some(busy) = self.of(region).or_else(|| self.takes_in(region)) {
            let (operator, reason) = (busy.id, busy.reason.clone());
            return Err(Refused::Busy { region, operator, reason });
        }
        if self.room() == 0 {
            return Err(Refused::Full);
        }
        Ok(())
    }

    /// Whether a merge of two regions could begin.
    ///
    /// # Errors
    /// One of them has an operator, or takes part in another merge that has not ended, be it as the
    /// target of a roll-back; or there are too many.
    pub fn may_merge(&self, source: RegionId, target: RegionId) -> Result<(), Refused> {
        for region in [source, target] {
            self.may_begin(region)?;
            let other = self.pairs.sources(region).find_map(|other| self.of(other));
            if let Some(busy) = other {
                let (operator, reason) = (busy.id, busy.reason.clone());
                return Err(Refused::Busy { region, operator, reason });
            }
        }
        Ok(())
    }

    /// Begins an operator; its id.
    ///
    /// # Errors
    /// The region has one, or there are too many.
    pub fn begin(&mut self, draft: Draft, now_ms: u64) -> Result<u64, Refused> {
        let Draft { region, epoch, goal, by, reason } = draft;
        match &goal {
            Goal::MergeInto { target, .. } => self.may_merge(region, *target)?,
            // Nothing may keep a region stopped: neither its own neighbours nor all the others.
            Goal::RollBackMerge { .. } => {
                if let Some(busy) = self.of(region) {
                    let (operator, reason) = (busy.id, busy.reason.clone());
                    return Err(Refused::Busy { region, operator, reason });
                }
            }
            Goal::TransferLeader { .. }
            | Goal::Split { .. }
            | Goal::AddReplica { .. }
            | Goal::MoveReplica { .. }
            | Goal::RemoveReplica { .. }
            | Goal::Promote { .. }
            | Goal::Demote { .. }
            | Goal::LeaveJoint => self.may_begin(region)?,
        }
        let id = self.fresh_id();
        let deadline_ms = now_ms + goal.time_ms();
        let by = by.to_owned();
        let operator =
            Operator { id, region, epoch, goal, by, reason, began_ms: now_ms, deadline_ms };
        self.pairs.add(&operator);
        self.under_way.insert(region, UnderWay::new(operator));
        Ok(id)
    }

    /// An id that no operator of any leader has: also for what is done without an operator.
    pub fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// How many more may begin.
    pub fn room(&self) -> usize {
        MAX_OPERATORS.saturating_sub(self.under_way.len())
    }

    /// A region's report was taken into the tree: ends its transfer or split where that shows it
    /// done, or overtaken. A step of a change of members that it shows done is not sent again.
    pub fn observe(&mut self, info: &RegionInfo, now_ms: u64) {
        if let Some(under_way) = self.under_way.get_mut(&info.region.id) {
            under_way.drop_done(info);
        }
        let Some(operator) = self.of(info.region.id) else { return };
        let same_version = info.region.epoch.version == operator.epoch.version;
        let leader = info.leader.map(|leader| leader.store);
        let end = match &operator.goal {
            Goal::TransferLeader { to, .. } if leader == Some(*to) => End::Done,
            Goal::TransferLeader { from, .. } if leader != Some(*from) => End::Overtaken,
            Goal::TransferLeader { .. } if info.region.epoch != operator.epoch => End::Overtaken,
            Goal::TransferLeader { .. } => return,
            Goal::Split { .. } if same_version => return,
            Goal::Split { keys } if keys.is_empty() => End::Done,
            // Whichever part keeps the region's id.
            Goal::Split { keys }
                if keys.contains(&info.region.range.end)
                    || keys.contains(&info.region.range.start) =>
            {
                End::Done
            }
            Goal::Split { .. } => End::Overtaken,
            Goal::AddReplica { .. }
            | Goal::MoveReplica { .. }
            | Goal::RemoveReplica { .. }
            | Goal::Promote { .. }
            | Goal::Demote { .. }
            | Goal::LeaveJoint
            | Goal::MergeInto { .. }
            | Goal::RollBackMerge { .. } => return,
        };
        self.end(info.region.id, end, now_ms);
    }

    /// Ends transfers and splits whose deadline has passed, and all whose region is gone, but
    /// merges, of which that is the end.
    pub fn expire(&mut self, gone: impl Fn(RegionId) -> bool, now_ms: u64) {
        let over = |operator: &Operator| {
            if gone(operator.region) && operator.goal.merges_with().is_none() {
                return Some(End::Overtaken);
            }
            let late = now_ms >= operator.deadline_ms && operator.goal.is_one_step();
            late.then_some(End::TimedOut)
        };
        let ends: Vec<(RegionId, End)> = self
            .iter()
            .filter_map(|operator| over(operator).map(|end| (operator.region, end)))
            .collect();
        for (region, end) in ends {
            self.end(region, end, now_ms);
        }
        self.resting.retain(|_, until_ms| now_ms < *until_ms);
    }

    /// Ends the region's operator.
    pub fn end(&mut self, region: RegionId, end: End, now_ms: u64) {
        let Some(UnderWay { operator, .. }) = self.under_way.remove(&region) else { return };
        self.pairs.remove(&operator);
        *self.ends.entry(end.name()).or_default() += 1;
        let over = Ended { operator, end, at_ms: now_ms }.brief();
        if let Some(until_ms) = over.rests_until_ms() {
            self.resting.insert(region, until_ms);
        }
        self.failures.ended(&over);
        if self.ended.len() >= REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back(over);
    }

    /// Says what the region's operator does now: a step at an epoch, or what it waits for.
    pub fn direct(&mut self, region: RegionId, step: Option<(Step, Epoch)>, waits_for: String) {
        self.direct_to(region, region, step, waits_for);
    }

    /// As [`Self::direct`], with a step for the leader of the region `at`.
    pub fn direct_to(
        &mut self,
        region: RegionId,
        at: RegionId,
        step: Option<(Step, Epoch)>,
        waits_for: String,
    ) {
        let Some(under_way) = self.under_way.get_mut(&region) else { return };
        if under_way.step != step || under_way.at != at {
            under_way.step = step;
            under_way.at = at;
            under_way.sent = None;
            under_way.refusals = 0;
        } else if under_way.refusals > 0 && under_way.operator.goal.merges_with().is_some() {
            // Why the store refuses it tells more.
            return;
        }
        under_way.waits_for = waits_for;
    }

    /// A merge is given up: its operator rolls it back from here on, for `target` where it is
    /// stopped for that one. False, and nothing is changed, where no order of it went out.
    pub fn turn_back(
        &mut self,
        region: RegionId,
        why: &End,
        stopped_for: Option<RegionId>,
        now_ms: u64,
    ) -> bool {
        let Some(under_way) = self.under_way.get_mut(&region) else { return false };
        let Goal::MergeInto { target, start } = under_way.operator.goal.clone() else {
            return false;
        };
        if !under_way.ordered && stopped_for.is_none() {
            return false;
        }
        self.pairs.remove(&under_way.operator);
        let target = stopped_for.unwrap_or(target);
        let mut operator = under_way.operator.clone();
        operator.goal = Goal::RollBackMerge { target, start };
        operator.reason = format!("{}; {why}", operator.reason);
        operator.deadline_ms = now_ms + operator.goal.time_ms();
        self.pairs.add(&operator);
        *under_way = UnderWay { ordered: true, ..UnderWay::new(operator) };
        true
    }

    /// The region's operator gets on: it has all its time again, up to [`CHANGE_AT_MOST`] since it
    /// began; a roll-back of a merge has no last moment. False where that leaves it no more than it
    /// has.
    pub fn extend(&mut self, region: RegionId, now_ms: u64) -> bool {
        let Some(under_way) = self.under_way.get_mut(&region) else { return false };
        let operator = &mut under_way.operator;
        let latest_ms = match operator.goal {
            Goal::RollBackMerge { .. } => u64::MAX,
            Goal::TransferLeader { .. }
            | Goal::Split { .. }
            | Goal::AddReplica { .. }
            | Goal::MoveReplica { .. }
            | Goal::RemoveReplica { .. }
            | Goal::Promote { .. }
            | Goal::Demote { .. }
            | Goal::LeaveJoint
            | Goal::MergeInto { .. } => operator.began_ms + millis(CHANGE_AT_MOST),
        };
        let deadline_ms = (now_ms + operator.goal.time_ms()).min(latest_ms);
        let is_later = deadline_ms > operator.deadline_ms;
        operator.deadline_ms = operator.deadline_ms.max(deadline_ms);
        is_later
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
