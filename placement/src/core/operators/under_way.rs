//! An operator under way: its step, to whom it went, and what becomes of it.

use quorate_proto::{Epoch, RegionId, StoreId};

use super::{Goal, Operator, Order, RESEND_AFTER, Step, millis};
use crate::core::lifecycle::Change;
use crate::core::tree::RegionInfo;

/// An operator under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// What is replicated of it.
    pub operator: Operator,
    /// What it waits for, in words; empty: for the effect of its order.
    pub waits_for: String,
    /// The step to carry out now, and at which epoch.
    pub(super) step: Option<(Step, Epoch)>,
    /// To the leader of which region: its own, or the target of its merge.
    pub(super) at: RegionId,
    /// To whom it went last, and when.
    pub(super) sent: Option<(StoreId, u64)>,
    /// An order of it went out, from this leader of placement or from a former one.
    pub(super) ordered: bool,
    /// How often the step was refused.
    pub(super) refusals: u32,
    /// Orders to enter a joint configuration that were sent at this epoch and not refused.
    pub(super) entering: Option<(Epoch, u32)>,
}

impl UnderWay {
    pub(super) fn new(operator: Operator) -> Self {
        let step = match &operator.goal {
            Goal::TransferLeader { to, .. } => Some(Step::TransferLeader { to: *to }),
            Goal::Split { keys } => Some(Step::Split { keys: keys.clone() }),
            Goal::AddReplica { .. }
            | Goal::MoveReplica { .. }
            | Goal::RemoveReplica { .. }
            | Goal::Promote { .. }
            | Goal::Demote { .. }
            | Goal::LeaveJoint
            | Goal::MergeInto { .. }
            | Goal::RollBackMerge { .. } => None,
        };
        let step = step.map(|step| (step, operator.epoch));
        let (at, waits_for) = (operator.region, String::new());
        let (sent, ordered, refusals, entering) = (None, false, 0, None);
        Self { operator, waits_for, step, at, sent, ordered, refusals, entering }
    }

    /// The epoch at which the step enters a joint configuration, where it does.
    fn enters_at(&self) -> Option<Epoch> {
        match &self.step {
            Some((Step::Change(Change::EnterJoint { .. }), epoch)) => Some(*epoch),
            Some((
                Step::Change(
                    Change::AddLearner { .. } | Change::LeaveJoint | Change::RemoveLearner { .. },
                )
                | Step::TransferLeader { .. }
                | Step::Split { .. }
                | Step::Destroy { .. }
                | Step::PrepareMerge { .. }
                | Step::CommitMerge { .. }
                | Step::RollbackMerge { .. }
                | Step::RefuseMerge,
                _,
            ))
            | None => None,
        }
    }

    /// The step goes to that store.
    pub(super) fn sends(&mut self, store: StoreId, now_ms: u64) {
        self.sent = Some((store, now_ms));
        self.ordered = true;
        if let Some(epoch) = self.enters_at() {
            let before = self.entering.filter(|(at, _)| *at == epoch).map_or(0, |(_, sent)| sent);
            self.entering = Some((epoch, before.saturating_add(1)));
        }
    }

    /// A store refused the step.
    pub(super) fn is_refused(&mut self) {
        if let Some((_, sent)) = &mut self.entering {
            *sent = sent.saturating_sub(1);
        }
    }

    /// True where an order to enter a joint configuration may lie in a log and be applied yet: it
    /// was sent at the step's epoch, and nobody has refused it.
    pub(super) fn may_be_entering(&self) -> bool {
        self.entering.is_some_and(|(at, sent)| sent > 0 && self.enters_at() == Some(at))
    }

    pub(super) fn is_due(&self, store: StoreId, now_ms: u64) -> bool {
        self.step.is_some()
            && match self.sent {
                Some((to, at_ms)) => {
                    to != store || now_ms.saturating_sub(at_ms) >= millis(RESEND_AFTER)
                }
                None => true,
            }
    }

    pub(super) fn drop_done(&mut self, info: &RegionInfo) {
        let done = match &self.step {
            Some((Step::TransferLeader { to }, _)) => {
                info.leader.is_some_and(|leader| leader.store == *to)
            }
            Some((Step::Change(_), epoch)) => info.region.epoch != *epoch,
            Some((
                Step::Split { .. }
                | Step::Destroy { .. }
                | Step::PrepareMerge { .. }
                | Step::CommitMerge { .. }
                | Step::RollbackMerge { .. }
                | Step::RefuseMerge,
                _,
            ))
            | None => false,
        };
        if done && self.operator.goal.changes_members() {
            self.step = None;
        }
    }

    pub(super) fn order(&self) -> Option<Order> {
        let (step, epoch) = self.step.clone()?;
        let Operator { id, reason, .. } = &self.operator;
        Some(Order { operator: *id, region: self.at, epoch, reason: reason.clone(), step })
    }
}
