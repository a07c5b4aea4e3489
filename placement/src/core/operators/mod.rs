//! Operators: what placement has told stores to do, until a report shows it done.
//!
//! The only part of the core that acts on regions. An operator belongs to one region at one epoch,
//! is sent to the store that leads the region, again and again until it is seen done, is
//! overtaken, or its deadline passes. Its steps are idempotent, so sending one twice does no harm;
//! a store refuses it where the epoch has moved on.
//!
//! Bounded: one operator a region, [`MAX_OPERATORS`] in all; a region whose operator failed is
//! left alone for [`REST_AFTER_FAILURE`]. The last [`REMEMBERED`] that ended are kept with what
//! became of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use quorate_consensus::time::Instant;
use quorate_proto::{Epoch, RegionId, StoreId, Term};
use thiserror::Error;

mod goal;

use super::tree::{RegionInfo, RegionTree};
pub use goal::{Draft, Goal, ReplicaRole};

/// Most operators under way.
pub const MAX_OPERATORS: usize = 256;
/// How long a scheduler's transfer may take: an election and a report.
pub const TRANSFER_DEADLINE: Duration = Duration::from_secs(5);
/// How long a split may take.
pub const SPLIT_DEADLINE: Duration = Duration::from_secs(20);
/// How long a region is left alone after an operator of its own failed.
pub const REST_AFTER_FAILURE: Duration = Duration::from_secs(15);
/// Time after which an order that has shown no effect is sent again.
pub const RESEND_AFTER: Duration = Duration::from_secs(2);
/// Operators that are remembered after they ended.
pub const REMEMBERED: usize = 256;

/// An operator under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Unique over all leaders of placement.
    pub id: u64,
    /// Of which region.
    pub region: RegionId,
    /// At which epoch.
    pub epoch: Epoch,
    /// What for.
    pub goal: Goal,
    /// Who wants it.
    pub by: &'static str,
    /// Why, in words.
    pub reason: String,
    /// When it is given up.
    pub deadline: Instant,
    sent: Option<(StoreId, Instant)>,
}

/// What became of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A report showed it done.
    Done,
    /// The region changed otherwise meanwhile.
    Overtaken,
    /// It was not seen done in time.
    TimedOut,
}

/// An operator that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The operator.
    pub operator: Operator,
    /// What became of it.
    pub end: End,
}

/// Why an operator was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// One at a time.
    #[error("{region} is busy with operator {operator} ({reason}); try again once it has ended")]
    Busy {
        /// The region.
        region: RegionId,
        /// What it is busy with.
        operator: u64,
        /// Why that was begun.
        reason: String,
    },
    /// Too many under way.
    #[error("{MAX_OPERATORS} operators are under way; try again later")]
    Full,
}

/// All operators. See the module.
#[derive(Debug)]
pub struct Operators {
    next_id: u64,
    under_way: BTreeMap<RegionId, Operator>,
    resting: BTreeMap<RegionId, Instant>,
    ended: VecDeque<Ended>,
}

impl Operators {
    /// None under way, for the leader of `term`.
    pub fn new(term: Term) -> Self {
        Self {
            next_id: term.0 << 32,
            under_way: BTreeMap::new(),
            resting: BTreeMap::new(),
            ended: VecDeque::new(),
        }
    }

    /// Begins an operator; its id.
    ///
    /// # Errors
    /// The region has one, or there are too many.
    pub fn begin(&mut self, draft: Draft, deadline: Instant) -> Result<u64, Refused> {
        let Draft { region, epoch, goal, by, reason } = draft;
        if let Some(busy) = self.under_way.get(&region) {
            let (operator, reason) = (busy.id, busy.reason.clone());
            return Err(Refused::Busy { region, operator, reason });
        }
        if self.room() == 0 {
            return Err(Refused::Full);
        }
        self.next_id += 1;
        let id = self.next_id;
        let operator = Operator { id, region, epoch, goal, by, reason, deadline, sent: None };
        self.under_way.insert(region, operator);
        Ok(id)
    }

    /// How many more may begin.
    pub fn room(&self) -> usize {
        MAX_OPERATORS - self.under_way.len()
    }

    /// A region's report was taken into the tree: ends its operator where that shows it done, or
    /// overtaken.
    pub fn observe(&mut self, info: &RegionInfo, now: Instant) {
        let Some(operator) = self.under_way.get(&info.region.id) else { return };
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
            | Goal::LeaveJoint => return,
        };
        self.end(info.region.id, end, now);
    }

    /// Ends operators whose deadline has passed, or whose region is gone.
    pub fn expire(&mut self, tree: &RegionTree, now: Instant) {
        let over = |operator: &Operator| {
            if tree.get(operator.region).is_none() {
                Some(End::Overtaken)
            } else {
                (now >= operator.deadline).then_some(End::TimedOut)
            }
        };
        let ends: Vec<(RegionId, End)> = self
            .under_way
            .values()
            .filter_map(|operator| over(operator).map(|end| (operator.region, end)))
            .collect();
        for (region, end) in ends {
            self.end(region, end, now);
        }
        self.resting.retain(|_, until| now < *until);
    }

    /// Ends the region's operator before its time.
    pub fn cancel(&mut self, region: RegionId, now: Instant) {
        if self.under_way.contains_key(&region) {
            self.end(region, End::Overtaken, now);
        }
    }

    fn end(&mut self, region: RegionId, end: End, now: Instant) {
        let Some(operator) = self.under_way.remove(&region) else { return };
        match end {
            End::Done | End::Overtaken => {}
            End::TimedOut => {
                self.resting.insert(region, now + REST_AFTER_FAILURE);
            }
        }
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back(Ended { operator, end });
    }

    /// The stores that lead regions with an operator that is due to be sent.
    pub fn due(&self, tree: &RegionTree, now: Instant) -> BTreeSet<StoreId> {
        let due = self.under_way.values().filter_map(|operator| {
            let leader = tree.get(operator.region)?.leader?.store;
            operator.is_due(leader, now).then_some(leader)
        });
        due.collect()
    }

    /// Operators to send to `store` now, at most `limit`; they count as sent.
    pub fn send(
        &mut self,
        store: StoreId,
        tree: &RegionTree,
        limit: usize,
        now: Instant,
    ) -> Vec<Operator> {
        let leads = |region| {
            tree.get(region).and_then(|info| info.leader).is_some_and(|peer| peer.store == store)
        };
        let mut orders = Vec::new();
        for operator in self.under_way.values_mut() {
            if orders.len() == limit {
                break;
            }
            if operator.is_due(store, now) && leads(operator.region) {
                operator.sent = Some((store, now));
                orders.push(operator.clone());
            }
        }
        orders
    }

    /// A store's stream is new: what went to it over the old one may be lost.
    pub fn resend(&mut self, store: StoreId) {
        for operator in self.under_way.values_mut() {
            if operator.sent.is_some_and(|(to, _)| to == store) {
                operator.sent = None;
            }
        }
    }

    /// The region's operator.
    pub fn of(&self, region: RegionId) -> Option<&Operator> {
        self.under_way.get(&region)
    }

    /// All under way, in order of their regions.
    pub fn iter(&self) -> impl Iterator<Item = &Operator> {
        self.under_way.values()
    }

    /// Those that ended last, oldest first.
    pub fn ended(&self) -> impl Iterator<Item = &Ended> {
        self.ended.iter()
    }

    /// Regions that a scheduler leaves alone.
    pub fn busy(&self, now: Instant) -> BTreeSet<RegionId> {
        let resting = self.resting.iter().filter(|(_, until)| now < **until);
        self.under_way.keys().chain(resting.map(|(region, _)| region)).copied().collect()
    }
}

impl Operator {
    fn is_due(&self, store: StoreId, now: Instant) -> bool {
        match self.sent {
            Some((to, at)) => to != store || now.since(at) >= RESEND_AFTER,
            None => true,
        }
    }
}
