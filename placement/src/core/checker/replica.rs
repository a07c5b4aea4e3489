//! The replica checker: the replicas that the rules want, on stores that stay.
//!
//! In this order: a voter on a lost store is replaced, by a standby learner where there is one; a
//! learner on a lost store is dropped; what is on a leaving store moves, leadership first; missing
//! replicas are added, surplus voters removed in pairs; what stands in the wrong place, or too
//! close to the others, moves.

use std::collections::BTreeSet;

use quorate_proto::{Peer, Role, StoreId};

use super::Verdict;
use crate::core::filter::{better_isolated, in_words, select_surplus, select_target_for};
use crate::core::lifecycle::{Aim, Record, ReplicaRole, State};
use crate::core::operators::{Draft, Goal};
use crate::core::replacement;
use crate::core::rule::RuleRole;
use crate::core::rule::fit::fit;
use crate::core::tree::RegionInfo;
use crate::core::view::ClusterView;

/// As people know it.
pub const NAME: &str = "replica-checker";

/// What the checker looks at beside the region.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The cluster.
    pub view: &'a ClusterView,
    /// Stores that will not come back, or have been silent for too long.
    pub lost: &'a BTreeSet<StoreId>,
    /// Stores that leave on request and are not lost.
    pub leaving: &'a BTreeSet<StoreId>,
    /// Those of them that evict-leader still takes leaders from.
    pub leading: &'a BTreeSet<StoreId>,
    /// The region's lifecycles.
    pub records: &'a [Record],
}

/// Checks a region.
pub fn check(around: Surroundings<'_>, info: &RegionInfo) -> Verdict {
    let region = &info.region;
    let is_joint = region.peers.iter().any(|peer| match peer.role {
        Role::IncomingVoter | Role::DemotingVoter => true,
        Role::Voter | Role::Learner => false,
    });
    if is_joint || !info.led {
        return Verdict::Fine;
    }
    let voters: Vec<&Peer> = region.peers.iter().filter(|peer| peer.role == Role::Voter).collect();
    let is_lost = |peer: &&&Peer| around.lost.contains(&peer.store);
    let count = voters.iter().filter(is_lost).count();
    if count * 2 >= voters.len().max(1) {
        return Verdict::Stuck(format!(
            "{count} of {} voters are on lost stores: without a majority nothing can be changed",
            voters.len()
        ));
    }
    if let Some(gone) = voters.iter().find(is_lost) {
        return replace(around, info, gone.store, "which is lost");
    }
    let learners = || region.peers.iter().filter(|peer| peer.role == Role::Learner);
    if let Some(gone) = learners().find(|peer| around.lost.contains(&peer.store)) {
        let from = gone.store;
        let reason = format!("the learner on {from} is on a lost store");
        return repair(info, Goal::RemoveReplica { from }, reason);
    }
    let mut all = voters.iter().copied().chain(learners());
    if let Some(leaving) = all.find(|peer| around.leaving.contains(&peer.store)) {
        return leave(around, info, leaving, voters.len());
    }
    let rules = around.view.rules_of(info);
    let fit = fit(rules, &region.peers, around.view);
    let coming = around.records.iter().filter(|record| is_coming(record)).count();
    let wanted = region.range.start.as_ref();
    let wanted = around.view.policy.rules.voters_at(wanted) as usize;
    if voters.len() + coming < wanted {
        let reason = format!("{} of {wanted} voters", voters.len() + coming);
        return add(around, info, ReplicaRole::Standard, reason);
    }
    if let Some(from) = select_surplus(around.view, info).filter(|_| voters.len() > wanted) {
        let reason = format!("{} voters, {wanted} are wanted", voters.len());
        return repair(info, Goal::RemoveReplica { from }, reason);
    }
    if let Some(misplaced) = fit.misplaced.first() {
        return replace(around, info, misplaced.store, "where the rules want none");
    }
    let lacks_learners = fit
        .lacking()
        .filter(|(rule, _)| rule.role == RuleRole::Learners)
        .map(|(_, n)| n)
        .sum::<u32>();
    let syncing = around.records.iter().filter(|record| record.aim == Aim::Learn).count();
    let analytics = learners().count();
    if lacks_learners > 0 && syncing <= analytics {
        let reason = format!("the rules want {lacks_learners} more learners");
        return add(around, info, ReplicaRole::Analytics, reason);
    }
    // Only where nothing else is on its way: a move for the sake of place can wait.
    if coming == 0
        && let Some((from, to)) = better_isolated(around.view, info)
    {
        let reason = format!("on {to} it stands farther from the others than on {from}");
        return repair(info, Goal::MoveReplica { from, to }, reason);
    }
    Verdict::Fine
}

fn repair(info: &RegionInfo, goal: Goal, reason: String) -> Verdict {
    let (region, epoch) = (info.region.id, info.region.epoch);
    Verdict::Repair(Draft { region, epoch, goal, by: NAME, reason })
}

fn add(around: Surroundings<'_>, info: &RegionInfo, role: ReplicaRole, reason: String) -> Verdict {
    let rule = match role {
        ReplicaRole::Standard => RuleRole::Voters,
        ReplicaRole::Analytics => RuleRole::Learners,
    };
    match select_target_for(around.view, info, rule, None) {
        Ok(to) => repair(info, Goal::AddReplica { to, role }, reason),
        Err(why) => Verdict::Stuck(format!("{reason}; no store for another: {}", in_words(&why))),
    }
}

/// A learner that shall vote and is not one of the voters yet; not one that does not get on.
fn is_coming(record: &Record) -> bool {
    let shall_vote = matches!(record.aim, Aim::Vote { replacing: None });
    shall_vote
        && !record.stale
        && match record.state {
            State::Joining { .. }
            | State::Syncing
            | State::Ready { .. }
            | State::Pairing { .. }
            | State::Promoting { .. }
            | State::StandbyLearner => true,
            State::KeepAsLearner | State::Active | State::Zombie | State::Removed => false,
        }
}

/// A standby learner is the first choice; then any store that may have a replica.
fn replace(around: Surroundings<'_>, info: &RegionInfo, from: StoreId, why: &str) -> Verdict {
    let stands_by = around.records.iter().find(|record| {
        let store = StoreId::from(record.node);
        let there = info.region.peer_on(store).is_some_and(|peer| peer.role == Role::Learner);
        there
            && !record.held
            && is_coming(record)
            && !around.lost.contains(&store)
            && !around.leaving.contains(&store)
    });
    let reason = format!("a voter is on {from}, {why}");
    if let Some(record) = stands_by {
        let to = StoreId::from(record.node);
        let reason = format!("{reason}; {to} stands by");
        return repair(info, Goal::MoveReplica { from, to }, reason);
    }
    match replacement::select(around.view, info, from) {
        Ok(to) => repair(info, Goal::MoveReplica { from, to }, reason),
        Err(why) => Verdict::Stuck(format!("{reason}; no store for another: {}", in_words(&why))),
    }
}

/// Leaders first, which are evict-leader's to move; then the replicas. Of more than are wanted
/// nothing takes its place.
fn leave(around: Surroundings<'_>, info: &RegionInfo, peer: &Peer, voters: usize) -> Verdict {
    let from = peer.store;
    if around.leading.contains(&from) {
        return Verdict::Stuck(format!("{from} is leaving: its leaders go first"));
    }
    let wanted = around.view.policy.rules.voters_at(&info.region.range.start) as usize;
    if peer.role == Role::Voter && voters > wanted {
        let reason = format!("{voters} voters, {wanted} are wanted, and {from} is leaving");
        return repair(info, Goal::RemoveReplica { from }, reason);
    }
    if peer.role == Role::Voter {
        return replace(around, info, from, "which is leaving");
    }
    match select_target_for(around.view, info, RuleRole::Learners, Some(from)) {
        Ok(to) => repair(
            info,
            Goal::MoveReplica { from, to },
            format!("a learner is on {from}, which is leaving"),
        ),
        Err(_) => repair(
            info,
            Goal::RemoveReplica { from },
            format!("the learner on {from}, which is leaving, has nowhere to go"),
        ),
    }
}
