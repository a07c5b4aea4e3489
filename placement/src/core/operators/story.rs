//! An operator told as a list of steps, with how many of them are done.

use quorate_proto::{Region, Role, StoreId};

use super::Goal;
use crate::core::lifecycle::{Record, ReplicaRole, State};

/// The steps in words; the first `done` of them are done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    /// All of them.
    pub steps: Vec<String>,
    /// How many are done.
    pub done: usize,
}

impl Story {
    fn then(&mut self, step: String, done: bool) {
        // A step counts as done only after those before it.
        if done && self.done == self.steps.len() {
            self.done += 1;
        }
        self.steps.push(step);
    }
}

/// Tells a goal against the region as reported and its lifecycles.
pub fn story(goal: &Goal, region: &Region, records: &[Record]) -> Story {
    let role = |store: StoreId| region.peer_on(store).map(|peer| peer.role);
    let is_there = |store| role(store).is_some();
    let votes = |store| role(store) == Some(Role::Voter);
    let is_joint = region.peers.iter().any(|peer| match peer.role {
        Role::IncomingVoter | Role::DemotingVoter => true,
        Role::Voter | Role::Learner => false,
    });
    let synced = |store: StoreId| {
        let record = records.iter().find(|record| record.node.0 == store.0);
        let by_record = record.map(|record| match record.state {
            State::Joining { .. } | State::Syncing | State::Zombie | State::Removed => false,
            State::Ready { .. }
            | State::Pairing { .. }
            | State::Promoting { .. }
            | State::StandbyLearner
            | State::KeepAsLearner
            | State::Active => true,
        });
        is_there(store) && by_record.unwrap_or(true)
    };
    let enters = |store| match role(store) {
        Some(Role::IncomingVoter | Role::DemotingVoter) => true,
        Some(Role::Voter | Role::Learner) | None => false,
    };
    let mut story = Story::default();
    match goal {
        Goal::TransferLeader { from, to } => {
            story.then(format!("transfer leadership from {from} to {to}"), false);
        }
        Goal::Split { .. } => story.then(goal.to_string(), false),
        Goal::AddReplica { to, role } => {
            story.then(format!("add a learner on {to}"), is_there(*to));
            story.then(format!("sync {to}"), synced(*to));
            match role {
                ReplicaRole::Standard => story
                    .then(format!("promote {to} with a partner, or let it stand by"), votes(*to)),
                ReplicaRole::Analytics => story.then(format!("{to} stays a learner"), synced(*to)),
            }
        }
        Goal::MoveReplica { from, to } => {
            let was_learner = role(*from) == Some(Role::Learner) && !votes(*to);
            story.then(format!("add a learner on {to}"), is_there(*to));
            story.then(format!("sync {to}"), synced(*to));
            let stays_learner = records
                .iter()
                .any(|record| record.node.0 == to.0 && record.role() == ReplicaRole::Analytics);
            if !stays_learner {
                let entered = enters(*to) || votes(*to);
                story.then(format!("enter a joint configuration: {to} in, {from} out"), entered);
                story.then("leave the joint configuration".to_owned(), votes(*to) && !is_joint);
            }
            let removed = !is_there(*from) && !was_learner;
            story.then(format!("remove the learner on {from}"), removed);
            story.then(format!("destroy what is left on {from}"), removed);
        }
        Goal::RemoveReplica { from } => {
            story.then(format!("{from} votes no more"), !votes(*from));
            story.then(format!("remove the learner on {from}"), !is_there(*from));
            story.then(format!("destroy what is left on {from}"), !is_there(*from));
        }
        Goal::Promote { stores } => {
            let entered = stores.iter().all(|store| enters(*store) || votes(*store));
            let done = stores.iter().all(|store| votes(*store)) && !is_joint;
            story.then(format!("enter a joint configuration to {goal}"), entered);
            story.then("leave the joint configuration".to_owned(), done);
        }
        Goal::Demote { stores } => {
            let entered = stores.iter().all(|store| !votes(*store));
            story.then(format!("enter a joint configuration to {goal}"), entered);
            story.then("leave the joint configuration".to_owned(), entered && !is_joint);
        }
        Goal::LeaveJoint => story.then("leave the joint configuration".to_owned(), !is_joint),
        // Told of both regions: see `super::super::merge`.
        Goal::MergeInto { .. } | Goal::RollBackMerge { .. } => story.then(goal.to_string(), false),
    }
    story
}
