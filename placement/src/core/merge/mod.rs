//! Merges: what is to be done next to have a region taken in by its neighbour, or to let it go on.
//!
//! Derived, again and again, from the two regions as they are reported and from the operator's goal;
//! nothing is remembered (`docs/adr/0040`). Two goals, so that every operator only goes one way:
//! * [`Goal::MergeInto`]: the source stops ([`Step::PrepareMerge`]); once all its replicas have its
//!   log, the target takes it in ([`Step::CommitMerge`]). It ends when the target has the source's
//!   keys. It is given up when it takes too long, when the target changes otherwise, or on request,
//!   whether or not the source is stopped by then.
//! * [`Goal::RollBackMerge`], of every region that is stopped while nobody merges it: the target
//!   raises its version, so that no merge which was planned before can come about
//!   ([`Step::RefuseMerge`]); then the source goes on ([`Step::RollbackMerge`]). It has no end but
//!   that: nothing stays stopped while the leaders of both regions live.
//!
//! A region that is gone from the tree was replaced there by one of a higher version that has its
//! keys: where that is the target, the merge came about.
//!
//! [`rules`] says which two regions may be merged at all, [`ages`] which are left alone for now.

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
    /// It has ended.
    Over(End),
}

/// What a store said to the step that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried<'a> {
    /// The step.
    pub step: &'a Step,
    /// True where it was refused, and has not been carried out since.
    pub refused: bool,
}

/// What a merge, or its roll-back, needs now. Anything else is over.
pub fn next(
    tree: &RegionTree,
    operator: &Operator,
    tried: Option<Tried<'_>>,
    now_ms: u64,
) -> Next {
    match &operator.goal {
        Goal::MergeInto { target, .. } => merge(tree, operator, *target, now_ms),
        Goal::RollBackMerge { target, .. } => roll_back(tree, operator, *target, tried),
        Goal::TransferLeader { .. }
        | Goal::Split { .. }
        | Goal::AddReplica { .. }
        | Goal::MoveReplica { .. }
        | Goal::RemoveReplica { .. }
        | Goal::Promote { .. }
        | Goal::Demote { .. }
        | Goal::LeaveJoint => Next::Over(End::Overtaken),
    }
}

/// True where the operator's region is gone and its target has its keys. The version tells the
/// target from what it was before the region was split from it.
pub fn is_taken_in(tree: &RegionTree, operator: &Operator) -> bool {
    let (target, start) = match &operator.goal {
        Goal::MergeInto { target, start } | Goal::RollBackMerge { target, start } => {
            (*target, start)
        }
        Goal::TransferLeader { .. }
        | Goal::Split { .. }
        | Goal::AddReplica { .. }
        | Goal::MoveReplica { .. }
        | Goal::RemoveReplica { .. }
        | Goal::Promote { .. }
        | Goal::Demote { .. }
        | Goal::LeaveJoint => return false,
    };
    tree.get(operator.region).is_none()
        && tree.find(start).is_some_and(|info| {
            info.region.id == target && info.region.epoch.version > operator.epoch.version
        })
}

fn merge(tree: &RegionTree, operator: &Operator, target: RegionId, now_ms: u64) -> Next {
    let late = now_ms >= operator.deadline_ms;
    let Some(source) = tree.get(operator.region) else {
        return Next::Over(match is_taken_in(tree, operator) {
            true => End::Done,
            false => End::Overtaken,
        });
    };
    let id = source.region.id;
    match source.merging {
        Some(merging) if merging.target != target => Next::Over(End::Overtaken),
        Some(merging) => commit(tree, source, &merging, late),
        None if late => Next::Over(End::TimedOut),
        // What a former leader of placement saved does not say whether it is stopped.
        None if !source.led => Next::Wait(format!("a leader of {id} that reports")),
        None if source.region.epoch != operator.epoch => Next::Over(End::Overtaken),
        None => {
            let failed = |why: String| Next::Over(End::Failed(why));
            let Some(neighbour) = tree.get(target) else {
                return failed(format!("{target} is gone"));
            };
            if !neighbour.led {
                return Next::Wait(format!("a leader of {target} that reports"));
            }
            if let Err(why) = rules::pair(source, neighbour) {
                return failed(why.to_string());
            }
            let target_epoch = neighbour.region.epoch;
            let step = Step::PrepareMerge { target, target_epoch };
            Next::Order { at: id, epoch: source.region.epoch, step }
        }
    }
}

/// The source is stopped.
fn commit(tree: &RegionTree, source: &RegionInfo, merging: &Merging, late: bool) -> Next {
    let (id, target) = (source.region.id, merging.target);
    if late {
        return Next::Over(End::TimedOut);
    }
    match standing(tree, merging) {
        Standing::Gone => Next::Over(End::Failed(format!("{target} is gone"))),
        Standing::Beyond(_) => Next::Over(End::Failed(format!("{target} changed meanwhile"))),
        Standing::Unknown => unknown(target),
        Standing::There if !merging.everywhere => Next::Wait(format!(
            "every replica of {id} having its log up to entry {}",
            merging.frozen.0
        )),
        Standing::There => Next::Order {
            at: target,
            epoch: merging.target_epoch,
            step: Step::CommitMerge { source: source.region.clone(), frozen: merging.frozen },
        },
    }
}

fn roll_back(
    tree: &RegionTree,
    operator: &Operator,
    target: RegionId,
    tried: Option<Tried<'_>>,
) -> Next {
    let Some(source) = tree.get(operator.region) else { return Next::Over(End::Overtaken) };
    let id = source.region.id;
    let Some(merging) = &source.merging else {
        return match source.led {
            true => Next::Over(End::Done),
            false => Next::Wait(format!("a leader of {id} that reports")),
        };
    };
    let proof = match standing(tree, merging) {
        Standing::There => {
            let (epoch, step) = (merging.target_epoch, Step::RefuseMerge);
            return Next::Order { at: merging.target, epoch, step };
        }
        Standing::Unknown => return unknown(target),
        Standing::Beyond(info) => info,
        Standing::Gone => match heir(tree, source, merging) {
            Some(info) => info,
            None => return Next::Wait(format!("a report of {target}, or of who has its keys")),
        },
    };
    let epoch = source.region.epoch;
    if let Some(to) = better_placed(source, proof, tried) {
        return Next::Order { at: id, epoch, step: Step::TransferLeader { to } };
    }
    let step = Step::RollbackMerge { frozen: merging.frozen, target: proof.region.clone() };
    Next::Order { at: id, epoch, step }
}

/// The target, against the epoch that it was to take the source in at.
enum Standing<'a> {
    /// At exactly that epoch.
    There,
    /// At a later one, and without the source's keys, since the source is still in the tree.
    Beyond(&'a RegionInfo),
    /// Known from before.
    Unknown,
    /// Not in the tree.
    Gone,
}

fn standing<'a>(tree: &'a RegionTree, merging: &Merging) -> Standing<'a> {
    let Some(target) = tree.get(merging.target) else { return Standing::Gone };
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

/// A neighbour of the source that may have the keys of the target, which is gone.
fn heir<'a>(
    tree: &'a RegionTree,
    source: &RegionInfo,
    merging: &Merging,
) -> Option<&'a RegionInfo> {
    let (right, left) = neighbours(tree, source);
    let newer =
        |info: &&RegionInfo| info.region.epoch.version > merging.target_epoch.version;
    right.filter(newer).or(left.filter(newer))
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

/// A store whose replica of the target jumped over that epoch by a snapshot, or lags, can prove
/// nothing and refuses. The store that leads the target can: the source is led there, then.
fn better_placed(
    source: &RegionInfo,
    target: &RegionInfo,
    tried: Option<Tried<'_>>,
) -> Option<quorate_proto::StoreId> {
    let to = target.leader?.store;
    if source.leader.is_some_and(|leader| leader.store == to) || !source.can_lead_on(to) {
        return None;
    }
    let Tried { step, refused } = tried?;
    let hands_over = match step {
        Step::TransferLeader { .. } => !refused,
        Step::RollbackMerge { .. } => refused,
        Step::Split { .. }
        | Step::Change(_)
        | Step::Destroy { .. }
        | Step::PrepareMerge { .. }
        | Step::CommitMerge { .. }
        | Step::RefuseMerge => false,
    };
    hands_over.then_some(to)
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
                Standing::Beyond(_) | Standing::Gone => true,
            });
            vec![
                (format!("{target} will not take {id} in any more"), refused),
                (format!("{id} goes on"), merging.is_none()),
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
