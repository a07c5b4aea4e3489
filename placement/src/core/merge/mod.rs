//! Merges: what is to be done next to have a region taken in by its neighbour, or to let it go on.
//!
//! Derived, again and again, from the two regions as they are reported and from the operator's goal;
//! nothing is remembered (`docs/adr/0040`). Two goals:
//! * [`Goal::MergeInto`]: the source stops ([`Step::PrepareMerge`]); once all its replicas have its
//!   log, the target takes it in ([`Step::CommitMerge`]). It ends when the target has the source's
//!   keys. When it takes too long, the target changes otherwise, or somebody asks for that, it is
//!   given up, and the same operator goes on with the other goal:
//! * [`Goal::RollBackMerge`]: of a source that is stopped, the target raises its version, so that no
//!   merge which was planned before can come about ([`Step::RefuseMerge`]), and then the source goes
//!   on ([`Step::RollbackMerge`]). A source that is not stopped may have the order to stop in its
//!   log yet: it raises its own version, after which that cannot apply.
//!
//! So an operator ends only where the source's keys are with another region in a higher version, or
//! where the source is reported to serve at another epoch than the one it was to stop at. Until
//! then neither region takes part in another merge ([`Operators::begin`]).
//!
//! What proves that a source may go on: its target is at a newer epoch than the one it was to take
//! the source in at, with a version below the source's, to which the stop has given a lead.
//!
//! [`rules`] says which two regions may be merged at all, [`ages`] which are left alone for now.
//!
//! [`Operators::begin`]: super::operators::Operators::begin

use quorate_proto::{Epoch, RegionId};

pub mod ages;
pub mod rules;

use super::operators::{End, Goal, Operator, Step, Story};
use super::tree::{Merging, RegionInfo, RegionTree};

/// What a merge needs now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// This step, by the leader of that region, at exactly that epoch.
    Order {
        /// The source or the target.
        at: RegionId,
        /// As reported.
        epoch: Epoch,
        /// What.
        step: Step,
    },
    /// Nothing can be done until this is so, in words.
    Wait(String),
    /// It cannot come about any more, for this reason: it is to be rolled back.
    GiveUp(End),
    /// It has ended.
    Over(End),
}

/// What a merge, or its roll-back, needs now. Anything else is over.
pub fn next(tree: &RegionTree, operator: &Operator, now_ms: u64) -> Next {
    let (is_merge, target, start) = match &operator.goal {
        Goal::MergeInto { target, start } => (true, *target, start),
        Goal::RollBackMerge { target, start } => (false, *target, start),
        Goal::TransferLeader { .. }
        | Goal::Split { .. }
        | Goal::AddReplica { .. }
        | Goal::MoveReplica { .. }
        | Goal::RemoveReplica { .. }
        | Goal::Promote { .. }
        | Goal::Demote { .. }
        | Goal::LeaveJoint => return Next::Over(End::Overtaken),
    };
    let id = operator.region;
    let Some(source) = tree.get(id) else {
        // Replaced there by a region that has its keys in a higher version, or never reported to
        // this leader of placement.
        let newer =
            tree.find(start).filter(|info| info.region.epoch.version > operator.epoch.version);
        return match newer {
            Some(info) if info.region.id == target && is_merge => Next::Over(End::Done),
            Some(_) => Next::Over(End::Overtaken),
            None => Next::Wait(format!("a report of {id}")),
        };
    };
    let late = is_merge && now_ms >= operator.deadline_ms;
    match &source.merging {
        _ if late => Next::GiveUp(End::TimedOut),
        // What a former leader of placement saved does not say whether it is stopped.
        None if !source.led => Next::Wait(format!("a leader of {id} that reports")),
        None if operator.epoch.is_stale_against(source.region.epoch) => {
            Next::Over(match is_merge {
                true => End::Overtaken,
                false => End::Done,
            })
        }
        // From a store that led it once.
        None if source.region.epoch != operator.epoch => {
            Next::Wait(format!("the newest epoch of {id}, which is not reported yet"))
        }
        None if is_merge => prepare(tree, source, target),
        None => Next::Order { at: id, epoch: source.region.epoch, step: Step::RefuseMerge },
        Some(merging) if is_merge => commit(tree, source, merging, target),
        Some(merging) => roll_back(tree, source, merging),
    }
}

/// True where the operator's region is gone and its target has its keys. The version tells the
/// target from what it was before the region was split from it.
pub fn is_taken_in(tree: &RegionTree, operator: &Operator) -> bool {
    // The merge asks that question; its roll-back only where it came too late.
    let (Goal::MergeInto { target, start } | Goal::RollBackMerge { target, start }) =
        &operator.goal
    else {
        return false;
    };
    tree.get(operator.region).is_none()
        && tree.find(start).is_some_and(|info| {
            info.region.id == *target && info.region.epoch.version > operator.epoch.version
        })
}

/// The source serves yet.
fn prepare(tree: &RegionTree, source: &RegionInfo, target: RegionId) -> Next {
    let Some(neighbour) = tree.get(target) else {
        return Next::GiveUp(End::Failed(format!("{target} is gone")));
    };
    if !neighbour.led {
        return Next::Wait(format!("a leader of {target} that reports"));
    }
    if let Err(why) = rules::pair(source, neighbour) {
        return Next::GiveUp(End::Failed(why.to_string()));
    }
    let target_epoch = neighbour.region.epoch;
    let step = Step::PrepareMerge { target, target_epoch };
    Next::Order { at: source.region.id, epoch: source.region.epoch, step }
}

/// The source is stopped.
fn commit(tree: &RegionTree, source: &RegionInfo, merging: &Merging, target: RegionId) -> Next {
    if merging.target != target {
        let why = format!("it is stopped for {}, not for {target}", merging.target);
        return Next::GiveUp(End::Failed(why));
    }
    match standing(tree, merging) {
        Standing::Beyond(_) => Next::GiveUp(End::Failed(format!("{target} changed meanwhile"))),
        Standing::Unknown => unknown(target),
        Standing::There if !merging.everywhere => Next::Wait(format!(
            "every replica of {} having its log up to entry {}",
            source.region.id, merging.frozen.0
        )),
        Standing::There => Next::Order {
            at: target,
            epoch: merging.target_epoch,
            step: Step::CommitMerge { source: source.region.clone(), frozen: merging.frozen },
        },
    }
}

/// The source is stopped and shall go on.
fn roll_back(tree: &RegionTree, source: &RegionInfo, merging: &Merging) -> Next {
    let (id, target) = (source.region.id, merging.target);
    match standing(tree, merging) {
        Standing::There => {
            let (epoch, step) = (merging.target_epoch, Step::RefuseMerge);
            Next::Order { at: target, epoch, step }
        }
        Standing::Unknown => unknown(target),
        Standing::Beyond(info) if info.region.epoch.version < source.region.epoch.version => {
            let (epoch, target) = (source.region.epoch, info.region.clone());
            let step = Step::RollbackMerge { frozen: merging.frozen, target };
            Next::Order { at: id, epoch, step }
        }
        // It was taken in, and the keys belong to somebody else by now.
        Standing::Beyond(_) => Next::Wait(format!("a report of who has the keys of {id} now")),
    }
}

/// The target, against the epoch that it was to take the source in at.
enum Standing<'a> {
    /// At exactly that epoch.
    There,
    /// At a newer one.
    Beyond(&'a RegionInfo),
    /// Not known since then.
    Unknown,
}

fn standing<'a>(tree: &'a RegionTree, merging: &Merging) -> Standing<'a> {
    let Some(target) = tree.get(merging.target) else { return Standing::Unknown };
    let epoch = target.region.epoch;
    if epoch == merging.target_epoch {
        Standing::There
    } else if epoch.is_stale_against(merging.target_epoch) {
        Standing::Unknown
    } else {
        Standing::Beyond(target)
    }
}

fn unknown(target: RegionId) -> Next {
    Next::Wait(format!("the newest epoch of {target}, which is not reported yet"))
}

/// The regions after and before one, where they are known.
pub fn neighbours<'a>(
    tree: &'a RegionTree,
    info: &RegionInfo,
) -> (Option<&'a RegionInfo>, Option<&'a RegionInfo>) {
    let range = &info.region.range;
    let right = tree.find(&range.end).filter(|other| other.region.range.start == range.end);
    let right = right.filter(|_| !range.end.is_empty());
    let left = tree.before(&range.start);
    (right.map(AsRef::as_ref), left.map(AsRef::as_ref))
}

/// A merge, or its roll-back, as a list of steps. `None` for other goals.
pub fn story(tree: &RegionTree, operator: &Operator) -> Option<Story> {
    let id = operator.region;
    let source = tree.get(id);
    let merging = source.and_then(|source| source.merging);
    let over = is_taken_in(tree, operator);
    let steps = match &operator.goal {
        Goal::MergeInto { target, .. } => vec![
            (format!("{id} stops"), merging.is_some() || over),
            (
                format!("every replica of {id} has its log"),
                merging.is_some_and(|merging| merging.everywhere) || over,
            ),
            (format!("{target} takes {id} in"), over),
        ],
        Goal::RollBackMerge { target, .. } => {
            let refused = merging.is_none_or(|merging| match standing(tree, &merging) {
                Standing::There | Standing::Unknown => false,
                Standing::Beyond(_) => true,
            });
            let serves = source.is_some_and(|source| {
                source.merging.is_none() && source.region.epoch != operator.epoch
            });
            vec![
                (format!("{target} cannot take {id} in any more"), refused && source.is_some()),
                (format!("{id} goes on"), serves),
            ]
        }
        Goal::TransferLeader { .. }
        | Goal::Split { .. }
        | Goal::AddReplica { .. }
        | Goal::MoveReplica { .. }
        | Goal::RemoveReplica { .. }
        | Goal::Promote { .. }
        | Goal::Demote { .. }
        | Goal::LeaveJoint => return None,
    };
    let done = steps.iter().take_while(|(_, done)| *done).count();
    Some(Story { steps: steps.into_iter().map(|(step, _)| step).collect(), done })
}
