//! What people ask for: checked first, refused with the rule that stands in the way.

use quorate_consensus::time::Instant;
use quorate_proto::{NodeId, RegionId, Role, StoreId};
use thiserror::Error;

use super::Leader;
use crate::core::lifecycle::{self, CannotBe, ReplicaRole, Wish};
use crate::core::operators::{Draft, End, Goal, Operator, Refused};
use crate::core::state::State;
use crate::core::stores::StoreState;

/// Why leadership of a region cannot be moved.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransferRefusal {
    /// Not in the tree.
    #[error("{0} is not known; `quorate region list` shows those that are")]
    UnknownRegion(RegionId),
    /// Nobody to send the order to.
    #[error("{0} has no known leader now; try again in a few seconds")]
    NoLeader(RegionId),
    /// No voter there, or one that is behind.
    #[error("{region} has no up-to-date voter on {to}; its voters are on {voters}")]
    NotAble {
        /// The region.
        region: RegionId,
        /// Where it should go.
        to: StoreId,
        /// Where it could.
        voters: String,
    },
    /// It has one already.
    #[error(transparent)]
    Operator(#[from] Refused),
}

/// What a person wants of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberAction {
    /// The learner becomes a voter, with a partner.
    Promote,
    /// The voter becomes a learner, with a partner.
    Demote,
    /// It is left as it is.
    Hold,
    /// It goes on.
    Release,
    /// What it is on its way to is given up.
    Cancel,
    /// It goes.
    Remove,
    /// Another one comes in its place.
    Replace {
        /// On which store.
        with: StoreId,
    },
}

impl Leader {
    /// Begins a split on request.
    ///
    /// # Errors
    /// The region is busy, or too much is under way.
    pub fn split(&mut self, draft: Draft, now: Instant) -> Result<u64, Refused> {
        let now_ms = self.time_ms(now);
        let (region, goal) = (draft.region, draft.goal.clone());
        let id = self.operators.begin(draft, now_ms)?;
        if let (Some(info), Goal::Split { keys }) = (self.tree.get(region), goal) {
            self.ages.split_on_request(info.region.range.clone(), &keys, now_ms);
        }
        Ok(id)
    }

    /// Begins a transfer of leadership on request; `None` where it is there already. A transfer
    /// that balancing began makes way.
    ///
    /// # Errors
    /// The rule that stands in the way.
    pub fn transfer(
        &mut self,
        region: RegionId,
        to: StoreId,
        now: Instant,
    ) -> Result<Option<u64>, TransferRefusal> {
        let info = self.tree.get(region).ok_or(TransferRefusal::UnknownRegion(region))?;
        let from = info.leader.ok_or(TransferRefusal::NoLeader(region))?.store;
        if from == to && info.led {
            return Ok(None);
        }
        if !info.can_lead_on(to) {
            let able = info.region.peers.iter().filter(|peer| info.can_lead_on(peer.store));
            let voters = able.map(|peer| peer.store.to_string()).collect::<Vec<_>>().join(", ");
            return Err(TransferRefusal::NotAble { region, to, voters });
        }
        let draft = Draft {
            region,
            epoch: info.region.epoch,
            goal: Goal::TransferLeader { from, to },
            by: "request",
            reason: format!("transfer to {to} on request"),
        };
        let now_ms = self.time_ms(now);
        let busy = self.operators.of(region).map(|operator| &operator.goal);
        if matches!(busy, Some(Goal::TransferLeader { .. })) {
            self.operators.end(region, End::Overtaken, now_ms);
        }
        Ok(Some(self.operators.begin(draft, now_ms)?))
    }

    /// Begins an operator. A change of members is checked against the rules of lifecycles first,
    /// and leaves its records; `force` overrides what a person may override.
    ///
    /// # Errors
    /// The rule that stands in the way; nothing changes.
    pub fn begin(
        &mut self,
        state: &State,
        draft: Draft,
        force: bool,
        now: Instant,
    ) -> Result<u64, Refused> {
        let (region, now_ms) = (draft.region, self.time_ms(now));
        self.operators.may_begin(region)?;
        if draft.goal.merges_with().is_some() {
            return self.begin_merge(state, draft, now);
        }
        if !draft.goal.changes_members() {
            return self.operators.begin(draft, now_ms);
        }
        if !Self::may_plan(state) {
            return Err(Refused::OldVersion);
        }
        self.settle(state);
        let info = self.tree.get(region).cloned().ok_or(Refused::UnknownRegion(region))?;
        let group = self.group(state, &info, now);
        if group.leader.is_none() {
            return Err(Refused::NoLeader(region));
        }
        let Some(wish) = wish_of(&draft.goal, force) else {
            return self.operators.begin(draft, now_ms);
        };
        let goal = draft.goal.clone();
        let limits = state.settings().limits();
        let records = self.members.of(region);
        // The id is not known before the operator has begun, and it begins only where this holds.
        lifecycle::wish(&group, records, &wish, 0, &limits, now_ms)?;
        let id = self.operators.begin(draft, now_ms)?;
        let records = lifecycle::wish(&group, self.members.of(region), &wish, id, &limits, now_ms)?;
        self.members.put(region, records);
        self.limits.began(&goal, info.stats.bytes, now);
        self.touched.insert(region);
        Ok(id)
    }

    /// Replicas on request: one more, one less, or one moved.
    ///
    /// # Errors
    /// The rule that stands in the way.
    pub fn change_replica(
        &mut self,
        state: &State,
        region: RegionId,
        goal: Goal,
        force: bool,
        now: Instant,
    ) -> Result<u64, Refused> {
        let info = self.tree.get(region).cloned().ok_or(Refused::UnknownRegion(region))?;
        let to = match &goal {
            Goal::AddReplica { to, .. } | Goal::MoveReplica { to, .. } => Some(*to),
            Goal::TransferLeader { .. }
            | Goal::Split { .. }
            | Goal::RemoveReplica { .. }
            | Goal::Promote { .. }
            | Goal::Demote { .. }
            | Goal::LeaveJoint
            | Goal::MergeInto { .. }
            | Goal::RollBackMerge { .. } => None,
        };
        if let Some(to) = to {
            let doing = state.stores().get(&to).map(|store| self.stores.state(store, now));
            match doing {
                Some(StoreState::Up) => {}
                None => return Err(Refused::NoStore(to, "is not known to this cluster")),
                Some(
                    StoreState::Joining
                    | StoreState::Suspect
                    | StoreState::Down
                    | StoreState::Leaving
                    | StoreState::Left,
                ) => return Err(Refused::NoStore(to, "is not up")),
            }
        }
        let mut reason = "on request".to_owned();
        if let Ok(partners) = self.partners(state, region, &goal, force, now)
            && !partners.is_empty()
        {
            let names: Vec<String> = partners.iter().map(ToString::to_string).collect();
            let names = names.join(", ");
            reason = format!("on request, and {names} with it: voters go in pairs");
        }
        let epoch = info.region.epoch;
        let what = format!("{goal}: {reason}");
        let draft = Draft { region, epoch, goal, by: "request", reason };
        let begun = self.begin(state, draft, force, now);
        let now_ms = self.time_ms(now);
        match &begun {
            Ok(_) => self.history.note(region, "request", what, now_ms),
            Err(why) => {
                self.history.note(region, "request", format!("{what}; refused: {why}"), now_ms)
            }
        }
        begun
    }

    /// The stores whose voters go together with those that the goal names, because an odd number has
    /// to stay. Nothing begins.
    ///
    /// # Errors
    /// The rule that stands in the way of the goal.
    pub fn partners(
        &self,
        state: &State,
        region: RegionId,
        goal: &Goal,
        force: bool,
        now: Instant,
    ) -> Result<Vec<StoreId>, Refused> {
        let info = self.tree.get(region).ok_or(Refused::UnknownRegion(region))?;
        let group = self.group(state, info, now);
        let Some(wish) = wish_of(goal, force) else { return Ok(Vec::new()) };
        let (limits, now_ms) = (state.settings().limits(), self.time_ms(now));
        let partners =
            lifecycle::partners(&group, self.members.of(region), &wish, &limits, now_ms)?;
        Ok(partners.into_iter().map(StoreId::from).collect())
    }

    /// As [`Leader::partners`], of what may be wanted of one replica.
    ///
    /// # Errors
    /// The rule that stands in the way.
    pub fn go_along(
        &self,
        state: &State,
        (region, store): (RegionId, StoreId),
        action: MemberAction,
        force: bool,
        now: Instant,
    ) -> Result<Vec<StoreId>, Refused> {
        let goal = match action {
            MemberAction::Demote => Goal::Demote { stores: vec![store] },
            MemberAction::Remove => Goal::RemoveReplica { from: store },
            MemberAction::Promote
            | MemberAction::Replace { .. }
            | MemberAction::Hold
            | MemberAction::Release
            | MemberAction::Cancel => return Ok(Vec::new()),
        };
        self.partners(state, region, &goal, force, now)
    }

    /// Something is wanted of one replica; the operator that it led to, 0 for none.
    ///
    /// # Errors
    /// The rule that stands in the way.
    pub fn change_member(
        &mut self,
        state: &State,
        region: RegionId,
        store: StoreId,
        action: MemberAction,
        force: bool,
        now: Instant,
    ) -> Result<u64, Refused> {
        let goal = match action {
            MemberAction::Promote => Goal::Promote { stores: vec![store] },
            MemberAction::Demote => Goal::Demote { stores: vec![store] },
            MemberAction::Remove => Goal::RemoveReplica { from: store },
            MemberAction::Replace { with } => Goal::MoveReplica { from: store, to: with },
            MemberAction::Hold | MemberAction::Release => {
                self.hold(region, store.into(), action == MemberAction::Hold, now)?;
                return Ok(0);
            }
            MemberAction::Cancel => {
                let operator = self.operators.of(region).ok_or(Refused::Idle(region))?;
                let id = operator.id;
                let node = NodeId::from(store);
                // A voter goes with a partner, which the goal does not name.
                let records = self.members.of(region).iter();
                let mut its = records.filter(|record| record.operator == id);
                if !operator.goal.concerns(store) && !its.any(|record| record.node == node) {
                    let what = operator.goal.to_string();
                    return Err(Refused::NotAbout { region, store, operator: id, what });
                }
                self.cancel(id, now)?;
                return Ok(id);
            }
        };
        self.change_replica(state, region, goal, force, now)
    }

    pub(super) fn hold(
        &mut self,
        region: RegionId,
        node: NodeId,
        held: bool,
        now: Instant,
    ) -> Result<(), Refused> {
        let now_ms = self.time_ms(now);
        let mut records = self.members.of(region).to_vec();
        let record = records.iter_mut().find(|record| record.node == node);
        let Some(record) = record else {
            let name = lifecycle::name(region, node);
            return Err(CannotBe::NotA(name, "member on its way", lifecycle::title(region)).into());
        };
        record.held = held;
        self.members.put(region, records);
        let what = format!(
            "{} is {}",
            lifecycle::name(region, node),
            if held { "held" } else { "released" }
        );
        self.history.note(region, "request", what, now_ms);
        self.touched.insert(region);
        Ok(())
    }

    /// Gives an operator up: what it began goes back to what it was.
    ///
    /// # Errors
    /// It is not under way, or goes only forward now.
    pub fn cancel(&mut self, id: u64, now: Instant) -> Result<(), Refused> {
        let now_ms = self.time_ms(now);
        let operator: Operator =
            self.operator(id).ok_or(Refused::UnknownOperator(id))?.operator.clone();
        let region = operator.region;
        let joint = self.tree.get(region).is_some_and(|info| {
            info.region.peers.iter().any(|peer| match peer.role {
                Role::IncomingVoter | Role::DemotingVoter => true,
                Role::Voter | Role::Learner => false,
            })
        });
        if joint && operator.goal.changes_members() {
            let why = "a joint configuration is always completed";
            return Err(Refused::Forward(id, why));
        }
        match &operator.goal {
            Goal::RemoveReplica { from } => {
                let learns = self.tree.get(region).is_some_and(|info| {
                    info.region.peer_on(*from).is_none_or(|peer| peer.role == Role::Learner)
                });
                if learns {
                    return Err(Refused::Forward(id, "a learner is removed in one step"));
                }
            }
            Goal::RollBackMerge { .. } => {
                return Err(Refused::Forward(id, "a region that is stopped has to go on"));
            }
            Goal::MergeInto { .. } => {
                self.give_up_merge(region, End::Cancelled, now_ms);
                return Ok(());
            }
            Goal::TransferLeader { .. }
            | Goal::Split { .. }
            | Goal::AddReplica { .. }
            | Goal::MoveReplica { .. }
            | Goal::Promote { .. }
            | Goal::Demote { .. }
            | Goal::LeaveJoint => {}
        }
        self.give_up(region, End::Cancelled, now_ms);
        self.touched.insert(region);
        Ok(())
    }
}

fn wish_of(goal: &Goal, force: bool) -> Option<Wish> {
    let nodes = |stores: &[StoreId]| stores.iter().map(|store| NodeId::from(*store)).collect();
    Some(match goal {
        Goal::AddReplica { to, role } => {
            let role: ReplicaRole = *role;
            Wish::Add { node: NodeId::from(*to), role }
        }
        Goal::MoveReplica { from, to } => {
            Wish::Move { from: NodeId::from(*from), to: NodeId::from(*to) }
        }
        Goal::RemoveReplica { from } => Wish::Remove { node: NodeId::from(*from), force },
        Goal::Promote { stores } => Wish::Promote { nodes: nodes(stores) },
        Goal::Demote { stores } => Wish::Demote { nodes: nodes(stores), force },
        Goal::TransferLeader { .. }
        | Goal::Split { .. }
        | Goal::LeaveJoint
        | Goal::MergeInto { .. }
        | Goal::RollBackMerge { .. } => return None,
    })
}
