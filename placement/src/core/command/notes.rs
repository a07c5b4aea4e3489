//! What came with version 5, on the wire: how operators ended, and where the replicas of a store that
//! leaves should go. And which version a plan needs.

use quorate_proto::StoreId;
use quorate_proto::wire::placement_state as wire;

use super::{BadCommand, NOTES_SINCE, PLANS_SINCE, Plan};
use crate::core::lifecycle::Record;
use crate::core::operators::{End, Ended, Operator};
use crate::core::state::StoreLife;

impl Plan {
    /// The cluster version that introduced the newest form in it.
    pub(super) fn since(&self) -> u32 {
        let lifecycles = self.lifecycles.iter().map(|(_, records)| lifecycle_since(records));
        let operators = self.operators.iter().map(Operator::since);
        let notes = self.notes.first().map(|_| NOTES_SINCE);
        operators.chain(lifecycles).chain(notes).max().unwrap_or(PLANS_SINCE)
    }
}

/// The cluster version that introduced the newest form in a group's records.
pub(crate) fn lifecycle_since(records: &[Record]) -> u32 {
    match records.iter().any(|record| record.was_ready_ms.is_some()) {
        true => NOTES_SINCE,
        false => PLANS_SINCE,
    }
}

pub(crate) fn ended_to_wire(ended: &Ended, number: u64) -> wire::EndedOperator {
    let (end, why) = match &ended.end {
        End::Done => (wire::End::Done, ""),
        End::Overtaken => (wire::End::Overtaken, ""),
        End::TimedOut => (wire::End::TimedOut, ""),
        End::Cancelled => (wire::End::Cancelled, ""),
        End::Refused(why) => (wire::End::Refused, why.as_str()),
        End::Failed(why) => (wire::End::Failed, why.as_str()),
    };
    wire::EndedOperator {
        operator: Some((&ended.operator).into()),
        end: end.into(),
        why: why.to_owned(),
        at_ms: ended.at_ms,
        number,
    }
}

pub(crate) fn ended_from_wire(wire: wire::EndedOperator) -> Result<(u64, Ended), BadCommand> {
    let end = wire::End::try_from(wire.end);
    let end = match end.map_err(|_| BadCommand::Bound("how an operator ended"))? {
        wire::End::Done => End::Done,
        wire::End::Overtaken => End::Overtaken,
        wire::End::TimedOut => End::TimedOut,
        wire::End::Cancelled => End::Cancelled,
        wire::End::Refused => End::Refused(wire.why),
        wire::End::Failed => End::Failed(wire.why),
    };
    let operator = wire.operator.ok_or(BadCommand::Missing("the operator that ended"))?;
    Ok((wire.number, Ended { operator: operator.try_into()?, end, at_ms: wire.at_ms }))
}

/// The cluster version that introduced the form of a store's stage of life.
pub(crate) fn life_since(life: StoreLife) -> u32 {
    match life {
        StoreLife::Joining | StoreLife::Active => 1,
        StoreLife::Leaving { to: None, .. } | StoreLife::Left => PLANS_SINCE,
        StoreLife::Leaving { to: Some(_), .. } => NOTES_SINCE,
    }
}

/// A store's stage of life, and where its replicas should go; 0 for wherever.
pub(crate) fn life_to_wire(life: StoreLife) -> (wire::StoreLife, u64) {
    match life {
        StoreLife::Joining => (wire::StoreLife::Joining, 0),
        StoreLife::Active => (wire::StoreLife::Active, 0),
        StoreLife::Leaving { dead, to } => {
            let life = if dead { wire::StoreLife::Dead } else { wire::StoreLife::Leaving };
            (life, to.map_or(0, StoreId::get))
        }
        StoreLife::Left => (wire::StoreLife::Left, 0),
    }
}

pub(crate) fn life_from_wire(life: i32, to: u64) -> Result<StoreLife, BadCommand> {
    let life = wire::StoreLife::try_from(life)
        .map_err(|_| BadCommand::Bound("a store's stage of life"))?;
    let to = (to != 0).then_some(StoreId(to));
    Ok(match life {
        wire::StoreLife::Joining => StoreLife::Joining,
        wire::StoreLife::Active => StoreLife::Active,
        wire::StoreLife::Leaving => StoreLife::Leaving { dead: false, to },
        wire::StoreLife::Dead => StoreLife::Leaving { dead: true, to },
        wire::StoreLife::Left => StoreLife::Left,
    })
}
