//! Whether a change of members has reached its goal.

use quorate_proto::{NodeId, Role, StoreId};

use crate::core::lifecycle::{Change, Group, Next, Record, State};
use crate::core::operators::Goal;

/// What became of a goal: nothing yet, done, or why it cannot be reached.
pub(super) type Outcome = Option<Result<(), String>>;

/// Judges a goal by the group as reported, its records, and what they want next.
pub(super) fn outcome(goal: &Goal, group: &Group, records: &[Record], next: &Next) -> Outcome {
    if group.is_joint() {
        return None;
    }
    let role = |store: &StoreId| group.on(NodeId::from(*store)).map(|member| member.role);
    let record =
        |store: &StoreId| records.iter().find(|record| record.node == NodeId::from(*store));
    let done = |is: bool| is.then_some(Ok(()));
    match goal {
        // Not pursued by lifecycles.
        Goal::TransferLeader { .. }
        | Goal::Split { .. }
        | Goal::MergeInto { .. }
        | Goal::RollBackMerge { .. } => None,
        Goal::AddReplica { to, .. } => arrived(role(to), record(to), next),
        Goal::MoveReplica { from, to } => match (role(from), role(to)) {
            (None, Some(_)) => Some(Ok(())),
            (None, None) if record(to).is_none_or(is_over) => {
                Some(Err(format!("neither {from} nor {to} has a replica any more")))
            }
            // It votes: the rest is forward only.
            (Some(_), Some(Role::Voter)) => None,
            (Some(_) | None, _) => match record(to) {
                None => Some(Err(format!("{to} is not on its way any more"))),
                Some(record) => stuck(record),
            },
        },
        Goal::RemoveReplica { from } => {
            let leaving = records.iter().any(|record| {
                record.operator != 0
                    && record.operator == operator_of(records, *from)
                    && group.on(record.node).is_some()
            });
            done(role(from).is_none() && !leaving)
        }
        Goal::Promote { stores } => {
            if stores.iter().all(|store| role(store) == Some(Role::Voter)) {
                return Some(Ok(()));
            }
            let learners = stores.iter().filter(|store| role(store) != Some(Role::Voter));
            for store in learners {
                match record(store) {
                    None => return Some(Err(format!("{store} is not on its way any more"))),
                    Some(record) => {
                        if let Some(over) = stuck(record) {
                            return Some(over);
                        }
                    }
                }
            }
            None
        }
        Goal::Demote { stores } => {
            done(stores.iter().all(|store| role(store) != Some(Role::Voter)))
        }
        Goal::LeaveJoint => Some(Ok(())),
    }
}

fn operator_of(records: &[Record], store: StoreId) -> u64 {
    let of = records.iter().find(|record| record.node == NodeId::from(store));
    of.map_or(0, |record| record.operator)
}

fn is_over(record: &Record) -> bool {
    record.state == State::Removed
}

/// A new replica has arrived once it is settled: a voter, a learner for good, or one that waits
/// for a partner or for its time.
fn arrived(role: Option<Role>, record: Option<&Record>, next: &Next) -> Outcome {
    let Some(record) = record else {
        return match role {
            Some(_) => Some(Ok(())),
            None => Some(Err("it is not on its way any more".to_owned())),
        };
    };
    match record.state {
        State::Joining { .. } | State::Syncing | State::Promoting { .. } => None,
        // About to be promoted together with others.
        State::Ready { .. } => match next {
            Next::Change(Change::EnterJoint { .. }) | Next::Transfer { .. } => None,
            Next::Change(
                Change::AddLearner { .. } | Change::LeaveJoint | Change::RemoveLearner { .. },
            )
            | Next::Nothing
            | Next::Wait(_) => Some(Ok(())),
        },
        State::StandbyLearner if record.stale => Some(Err(record.reason.clone())),
        State::Pairing { .. } | State::StandbyLearner | State::KeepAsLearner | State::Active => {
            Some(Ok(()))
        }
        State::Zombie | State::Removed => Some(Err(record.reason.clone())),
    }
}

/// A member that will not be promoted any more.
fn stuck(record: &Record) -> Outcome {
    match record.state {
        State::StandbyLearner | State::Zombie | State::Removed => Some(Err(record.reason.clone())),
        State::Joining { .. }
        | State::Syncing
        | State::Ready { .. }
        | State::Pairing { .. }
        | State::Promoting { .. }
        | State::KeepAsLearner
        | State::Active => None,
    }
}
