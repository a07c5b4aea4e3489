//! The roll-back of what an operator has begun.

use quorate_proto::{NodeId, Role};

use super::{Aim, Group, Record, State};

/// The records once `operator` is given up: before the joint change everything goes back to what
/// it was; after it, what is left to do is done. Its reason is kept.
pub fn cancel(
    group: &Group,
    records: &[Record],
    operator: u64,
    why: &str,
    now_ms: u64,
) -> Vec<Record> {
    let votes = |node: NodeId| group.on(node).is_some_and(|member| member.role != Role::Learner);
    let mut kept = records.to_vec();
    for record in &mut kept {
        // A standby learner that was to replace somebody stands by again.
        if let Aim::Vote { replacing: Some(old) } = record.aim
            && record.operator != operator
            && records.iter().any(|other| other.node == old && other.operator == operator)
            && !votes(record.node)
        {
            record.aim = Aim::Vote { replacing: None };
            record.enter(State::StandbyLearner, why, now_ms);
        }
        if record.operator != operator {
            continue;
        }
        record.operator = 0;
        if let Some(former) = record.former.take()
            && !votes(record.node)
        {
            record.aim = former;
            let state = match former {
                Aim::Learn => State::KeepAsLearner,
                Aim::Vote { .. } | Aim::Leave { .. } => State::StandbyLearner,
            };
            record.enter(state, why, now_ms);
            continue;
        }
        match (record.aim, record.state) {
            // A new learner goes again; one that may still appear is noticed by its record.
            (Aim::Vote { .. } | Aim::Learn, State::Joining { .. }) => {
                record.aim = Aim::Leave { replaced_by: None };
                record.enter(State::Removed, why, now_ms);
            }
            (Aim::Vote { .. } | Aim::Learn, _) if !votes(record.node) => {
                record.aim = Aim::Leave { replaced_by: None };
                why.clone_into(&mut record.reason);
            }
            // It was demoted already: the rest is done.
            (Aim::Leave { .. }, _) if !votes(record.node) => {
                record.aim = Aim::Leave { replaced_by: None };
            }
            // A voter stays one.
            (Aim::Vote { .. } | Aim::Learn | Aim::Leave { .. }, _) => {
                record.aim = Aim::Vote { replacing: None };
                record.enter(State::Active, why, now_ms);
            }
        }
    }
    kept.retain(|record| record.state != State::Active || !matches!(record.aim, Aim::Vote { .. }));
    kept
}
