//! Operators, lifecycles and events on the wire: the same form in commands and in records.

use quorate_proto::wire::placement_state as wire;
use quorate_proto::{Epoch, NodeId, PeerId, RegionId, StoreId, Term};

use super::notes::{ended_from_wire, ended_to_wire};
use super::{BadCommand, MERGES_SINCE, PLANS_SINCE, Plan};
use crate::core::ended::MAX_NOTES;
use crate::core::events::{Batch, Event, MAX_BATCH, News, Severity};
use crate::core::lifecycle::{Aim, Pace, Record, ReplicaRole, State};
use crate::core::operators::{Goal, Operator};

impl From<&Plan> for wire::SavePlan {
    fn from(plan: &Plan) -> Self {
        Self {
            operators: plan.operators.iter().map(Into::into).collect(),
            ended: plan.ended.clone(),
            lifecycles: plan
                .lifecycles
                .iter()
                .map(|(region, records)| lifecycle_to_wire(*region, records))
                .collect(),
            term: plan.events.term.0,
            first_news: plan.events.first,
            news: plan.events.news.iter().map(Into::into).collect(),
            notes: plan.notes.iter().map(|ended| ended_to_wire(ended, 0)).collect(),
        }
    }
}

impl TryFrom<wire::SavePlan> for Plan {
    type Error = BadCommand;

    fn try_from(wire: wire::SavePlan) -> Result<Self, BadCommand> {
        if wire.news.len() > MAX_BATCH {
            return Err(BadCommand::Bound("news of one batch"));
        }
        if wire.notes.len() > MAX_NOTES {
            return Err(BadCommand::Bound("notes of one batch"));
        }
        let news = wire.news.into_iter().map(News::try_from).collect::<Result<_, _>>()?;
        Ok(Self {
            operators: wire
                .operators
                .into_iter()
                .map(Operator::try_from)
                .collect::<Result<_, _>>()?,
            ended: wire.ended,
            lifecycles: wire
                .lifecycles
                .into_iter()
                .map(lifecycle_from_wire)
                .collect::<Result<_, _>>()?,
            events: Batch { term: Term(wire.term), first: wire.first_news, news },
            notes: wire
                .notes
                .into_iter()
                .map(|note| ended_from_wire(note).map(|(_, ended)| ended))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl Operator {
    /// The cluster version that introduced the form of its goal.
    pub(crate) fn since(&self) -> u32 {
        match self.goal.merges_with() {
            Some(_) => MERGES_SINCE,
            None => PLANS_SINCE,
        }
    }
}

impl From<&Operator> for wire::Operator {
    fn from(operator: &Operator) -> Self {
        Self {
            id: operator.id,
            region_id: operator.region.0,
            epoch: Some(operator.epoch.into()),
            goal: Some(wire::Goal { kind: Some(goal_to_wire(&operator.goal)) }),
            by: operator.by.clone(),
            reason: operator.reason.clone(),
            began_ms: operator.began_ms,
            deadline_ms: operator.deadline_ms,
        }
    }
}

impl TryFrom<wire::Operator> for Operator {
    type Error = BadCommand;

    fn try_from(wire: wire::Operator) -> Result<Self, BadCommand> {
        let goal = wire.goal.and_then(|goal| goal.kind).ok_or(BadCommand::Missing("a goal"))?;
        Ok(Self {
            id: wire.id,
            region: RegionId(wire.region_id),
            epoch: wire.epoch.map(Epoch::from).ok_or(BadCommand::Missing("an epoch"))?,
            goal: goal_from_wire(goal),
            by: wire.by,
            reason: wire.reason,
            began_ms: wire.began_ms,
            deadline_ms: wire.deadline_ms,
        })
    }
}

fn goal_to_wire(goal: &Goal) -> wire::goal::Kind {
    let numbers = |stores: &[StoreId]| stores.iter().map(|store| store.0).collect();
    match goal {
        Goal::TransferLeader { from, to } => {
            let (from, to) = (from.0, to.0);
            wire::goal::Kind::TransferLeader(wire::goal::TransferLeader { from, to })
        }
        Goal::Split { keys } => wire::goal::Kind::Split(wire::goal::Split { keys: keys.clone() }),
        Goal::AddReplica { to, role } => {
            let analytics = *role == ReplicaRole::Analytics;
            wire::goal::Kind::AddReplica(wire::goal::AddReplica { to: to.0, analytics })
        }
        Goal::MoveReplica { from, to } => {
            let (from, to) = (from.0, to.0);
            wire::goal::Kind::MoveReplica(wire::goal::MoveReplica { from, to })
        }
        Goal::RemoveReplica { from } => {
            wire::goal::Kind::RemoveReplica(wire::goal::RemoveReplica { from: from.0 })
        }
        Goal::Promote { stores } => {
            wire::goal::Kind::Promote(wire::goal::Promote { stores: numbers(stores) })
        }
        Goal::Demote { stores } => {
            wire::goal::Kind::Demote(wire::goal::Demote { stores: numbers(stores) })
        }
        Goal::LeaveJoint => wire::goal::Kind::LeaveJoint(wire::goal::LeaveJoint {}),
        Goal::MergeInto { target, start } => {
            let (target, start) = (target.0, start.clone());
            wire::goal::Kind::MergeInto(wire::goal::MergeInto { target, start })
        }
        Goal::RollBackMerge { target, start } => {
            let (target, start) = (target.0, start.clone());
            wire::goal::Kind::RollBackMerge(wire::goal::RollBackMerge { target, start })
        }
    }
}

fn goal_from_wire(goal: wire::goal::Kind) -> Goal {
    let stores = |numbers: Vec<u64>| numbers.into_iter().map(StoreId).collect();
    match goal {
        wire::goal::Kind::TransferLeader(goal) => {
            Goal::TransferLeader { from: StoreId(goal.from), to: StoreId(goal.to) }
        }
        wire::goal::Kind::Split(goal) => Goal::Split { keys: goal.keys },
        wire::goal::Kind::AddReplica(goal) => Goal::AddReplica {
            to: StoreId(goal.to),
            role: match goal.analytics {
                true => ReplicaRole::Analytics,
                false => ReplicaRole::Standard,
            },
        },
        wire::goal::Kind::MoveReplica(goal) => {
            Goal::MoveReplica { from: StoreId(goal.from), to: StoreId(goal.to) }
        }
        wire::goal::Kind::RemoveReplica(goal) => Goal::RemoveReplica { from: StoreId(goal.from) },
        wire::goal::Kind::Promote(goal) => Goal::Promote { stores: stores(goal.stores) },
        wire::goal::Kind::Demote(goal) => Goal::Demote { stores: stores(goal.stores) },
        wire::goal::Kind::LeaveJoint(wire::goal::LeaveJoint {}) => Goal::LeaveJoint,
        wire::goal::Kind::MergeInto(goal) => {
            Goal::MergeInto { target: RegionId(goal.target), start: goal.start }
        }
        wire::goal::Kind::RollBackMerge(goal) => {
            Goal::RollBackMerge { target: RegionId(goal.target), start: goal.start }
        }
    }
}

pub(crate) fn lifecycle_to_wire(region: RegionId, records: &[Record]) -> wire::GroupLifecycle {
    wire::GroupLifecycle {
        region_id: region.0,
        members: records.iter().map(record_to_wire).collect(),
    }
}

pub(crate) fn lifecycle_from_wire(
    wire: wire::GroupLifecycle,
) -> Result<(RegionId, Vec<Record>), BadCommand> {
    let records = wire.members.into_iter().map(record_from_wire).collect::<Result<_, _>>()?;
    Ok((RegionId(wire.region_id), records))
}

fn record_to_wire(record: &Record) -> wire::Lifecycle {
    let (aim, aim_node) = aim_to_wire(record.aim);
    let (state, ready_ms, deadline_ms) = match record.state {
        State::Joining { deadline_ms } => (wire::LifecycleState::StateJoining, 0, deadline_ms),
        State::Syncing => (wire::LifecycleState::Syncing, 0, 0),
        State::Ready { ready_ms } => (wire::LifecycleState::Ready, ready_ms, 0),
        State::Pairing { ready_ms, deadline_ms } => {
            (wire::LifecycleState::Pairing, ready_ms, deadline_ms)
        }
        State::Promoting { ready_ms } => (wire::LifecycleState::Promoting, ready_ms, 0),
        State::StandbyLearner => (wire::LifecycleState::StandbyLearner, 0, 0),
        State::KeepAsLearner => (wire::LifecycleState::KeepAsLearner, 0, 0),
        State::Active => (wire::LifecycleState::StateActive, 0, 0),
        State::Zombie => (wire::LifecycleState::Zombie, 0, 0),
        State::Removed => (wire::LifecycleState::Removed, 0, 0),
    };
    wire::Lifecycle {
        node_id: record.node.0,
        peer_id: record.peer.0,
        aim: aim.into(),
        aim_node,
        state: state.into(),
        ready_ms,
        deadline_ms,
        since_ms: record.since_ms,
        joined_ms: record.joined_ms,
        held: record.held,
        reason: record.reason.clone(),
        operator_id: record.operator,
        seen_conf_ver: record.seen,
        stale: record.stale,
        former: record.former.map(|former| {
            let (aim, node_id) = aim_to_wire(former);
            wire::FormerAim { aim: aim.into(), node_id }
        }),
        was_ready_ms: record.was_ready_ms.map_or(0, |(since_ms, _)| since_ms),
        lapsed_ms: record.was_ready_ms.map_or(0, |(_, until_ms)| until_ms),
    }
}

fn aim_to_wire(aim: Aim) -> (wire::LifecycleAim, u64) {
    let number = |node: Option<NodeId>| node.map_or(0, NodeId::get);
    match aim {
        Aim::Vote { replacing } => (wire::LifecycleAim::Vote, number(replacing)),
        Aim::Learn => (wire::LifecycleAim::Learn, 0),
        Aim::Leave { replaced_by } => (wire::LifecycleAim::Leave, number(replaced_by)),
    }
}

fn aim_from_wire(aim: i32, node: u64) -> Result<Aim, BadCommand> {
    let other = (node != 0).then_some(NodeId(node));
    let bad = |_| BadCommand::Bound("a lifecycle's aim or state");
    Ok(match wire::LifecycleAim::try_from(aim).map_err(bad)? {
        wire::LifecycleAim::Vote => Aim::Vote { replacing: other },
        wire::LifecycleAim::Learn => Aim::Learn,
        wire::LifecycleAim::Leave => Aim::Leave { replaced_by: other },
    })
}

fn record_from_wire(wire: wire::Lifecycle) -> Result<Record, BadCommand> {
    let bad = |_| BadCommand::Bound("a lifecycle's aim or state");
    let aim = aim_from_wire(wire.aim, wire.aim_node)?;
    let former = wire.former.map(|former| aim_from_wire(former.aim, former.node_id)).transpose()?;
    let (ready_ms, deadline_ms) = (wire.ready_ms, wire.deadline_ms);
    let state = match wire::LifecycleState::try_from(wire.state).map_err(bad)? {
        wire::LifecycleState::StateJoining => State::Joining { deadline_ms },
        wire::LifecycleState::Syncing => State::Syncing,
        wire::LifecycleState::Ready => State::Ready { ready_ms },
        wire::LifecycleState::Pairing => State::Pairing { ready_ms, deadline_ms },
        wire::LifecycleState::Promoting => State::Promoting { ready_ms },
        wire::LifecycleState::StandbyLearner => State::StandbyLearner,
        wire::LifecycleState::KeepAsLearner => State::KeepAsLearner,
        wire::LifecycleState::StateActive => State::Active,
        wire::LifecycleState::Zombie => State::Zombie,
        wire::LifecycleState::Removed => State::Removed,
    };
    Ok(Record {
        node: NodeId(wire.node_id),
        peer: PeerId(wire.peer_id),
        aim,
        state,
        since_ms: wire.since_ms,
        joined_ms: wire.joined_ms,
        former,
        stale: wire.stale,
        was_ready_ms: (wire.lapsed_ms != 0).then_some((wire.was_ready_ms, wire.lapsed_ms)),
        held: wire.held,
        reason: wire.reason,
        operator: wire.operator_id,
        seen: wire.seen_conf_ver,
        pace: Pace::new(wire.since_ms),
    })
}

impl From<&News> for wire::News {
    fn from(news: &News) -> Self {
        let severity = match news.severity {
            Severity::Info => wire::Severity::Info,
            Severity::Warning => wire::Severity::Warning,
            Severity::Critical => wire::Severity::Critical,
        };
        Self {
            at_ms: news.at_ms,
            severity: severity.into(),
            kind: news.kind.clone(),
            text: news.text.clone(),
            region_id: news.region.0,
            node_id: news.node.0,
        }
    }
}

impl TryFrom<wire::News> for News {
    type Error = BadCommand;

    fn try_from(wire: wire::News) -> Result<Self, BadCommand> {
        let severity = wire::Severity::try_from(wire.severity);
        Ok(Self {
            at_ms: wire.at_ms,
            severity: match severity.map_err(|_| BadCommand::Bound("a severity"))? {
                wire::Severity::Info => Severity::Info,
                wire::Severity::Warning => Severity::Warning,
                wire::Severity::Critical => Severity::Critical,
            },
            kind: wire.kind,
            text: wire.text,
            region: RegionId(wire.region_id),
            node: NodeId(wire.node_id),
        })
    }
}

pub(crate) fn event_to_wire(event: &Event) -> wire::StoredEvent {
    wire::StoredEvent {
        sequence: event.sequence,
        news: Some((&event.news).into()),
        term: event.term.0,
        number: event.number,
    }
}

pub(crate) fn event_from_wire(wire: wire::StoredEvent) -> Result<Event, BadCommand> {
    let news = wire.news.ok_or(BadCommand::Missing("its news"))?.try_into()?;
    Ok(Event { sequence: wire.sequence, news, term: Term(wire.term), number: wire.number })
}

pub(crate) fn setting_to_wire(
    (name, value): (impl Into<String>, impl Into<String>),
) -> wire::Setting {
    wire::Setting { name: name.into(), value: value.into() }
}
