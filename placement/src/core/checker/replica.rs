//! The replica checker: as many voters as are wanted, on stores that stay.
//!
//! In this order: a voter on a lost store is replaced, by a standby learner where there is one; a
//! learner on a lost store is dropped; what is on a leaving store moves, leadership first; missing
//! voters are added, surplus ones removed in pairs.

use std::collections::BTreeSet;

use quorate_proto::{Peer, Role, StoreId};

use super::Verdict;
use super::target::{in_words, select_target};
use crate::core::lifecycle::{Aim, Record, ReplicaRole, State};
use crate::core::operators::{Draft, Goal};
use crate::core::tree::RegionInfo;
use crate::core::view::ClusterView;

const BY: &str = "replica-checker";

/// What the checker looks at beside the region.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The cluster.
    pub view: &'a ClusterView,
    /// Stores that will not come back, or have been silent for too long.
    pub lost: &'a BTreeSet<StoreId>,
    /// Stores that leave on request and are not lost.
    pub leaving: &'a BTreeSet<StoreId>,
    /// Those of them that still lead a region which another store could lead.
    pub leading: &'a BTreeSet<StoreId>,
    /// Wanted voters.
    pub target: usize,
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
    let lost = |peer: &&&Peer| around.lost.contains(&peer.store);
    if voters.iter().filter(lost).count() * 2 >= voters.len().max(1) {
        let count = voters.iter().filter(lost).count();
        return Verdict::Stuck(format!(
            "{count} of {} voters are on lost stores: without a majority nothing can be changed",
            voters.len()
        ));
    }
    if let Some(gone) = voters.iter().find(lost) {
        return replace(around, info, gone.store, "which is lost");
    }
    let learners = region.peers.iter().filter(|peer| peer.role == Role::Learner);
    for learner in learners.clone() {
        if around.lost.contains(&learner.store) {
            let from = learner.store;
            return repair(
                info,
                Goal::RemoveReplica { from },
                format!("the learner on {from} is on a lost store"),
            );
        }
    }
    if let Some(leaving) = voters
        .iter()
        .chain(&learners.collect::<Vec<_>>())
        .find(|peer| around.leaving.contains(&peer.store))
    {
        return leave(around, info, leaving);
    }
    let coming = around.records.iter().filter(|record| is_coming(record)).count();
    if voters.len() + coming < around.target {
        let reason = format!("{} of {} voters", voters.len() + coming, around.target);
        return match select_target(around.view, info, None) {
            Ok(to) => repair(info, Goal::AddReplica { to, role: ReplicaRole::Standard }, reason),
            Err(why) => {
                Verdict::Stuck(format!("{reason}; no store for another: {}", in_words(&why)))
            }
        };
    }
    if voters.len() > around.target {
        return surplus(around, info, &voters);
    }
    Verdict::Fine
}

fn repair(info: &RegionInfo, goal: Goal, reason: String) -> Verdict {
    let (region, epoch) = (info.region.id, info.region.epoch);
    Verdict::Repair(Draft { region, epoch, goal, by: BY, reason })
}

/// A learner that shall vote and is not one of the voters yet.
fn is_coming(record: &Record) -> bool {
    let shall_vote = matches!(record.aim, Aim::Vote { replacing: None });
    shall_vote
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
    match select_target(around.view, info, Some(from)) {
        Ok(to) => repair(info, Goal::MoveReplica { from, to }, reason),
        Err(why) => Verdict::Stuck(format!("{reason}; no store for another: {}", in_words(&why))),
    }
}

/// Leadership first, of all regions; then the replicas.
fn leave(around: Surroundings<'_>, info: &RegionInfo, peer: &Peer) -> Verdict {
    let from = peer.store;
    if info.leader.is_some_and(|leader| leader.store == from) {
        let able = info.region.peers.iter().find(|other| {
            other.store != from
                && info.can_lead_on(other.store)
                && around.view.stores.get(&other.store).is_some_and(|store| store.is_eligible())
        });
        if let Some(able) = able {
            let goal = Goal::TransferLeader { from, to: able.store };
            return repair(info, goal, format!("{from} is leaving: leaders go first"));
        }
    }
    if around.leading.contains(&from) {
        return Verdict::Stuck(format!("{from} is leaving: its leaders go first"));
    }
    if peer.role == Role::Voter {
        return replace(around, info, from, "which is leaving");
    }
    match select_target(around.view, info, Some(from)) {
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

/// The voter on the store with the most leaders goes, never the region's leader; its partner is
/// chosen by the controller.
fn surplus(around: Surroundings<'_>, info: &RegionInfo, voters: &[&Peer]) -> Verdict {
    let load = |store: StoreId| around.view.stores.get(&store).map_or(0, |store| store.leads.len());
    let others = voters.iter().filter(|peer| info.leader.is_none_or(|leader| leader.id != peer.id));
    match others.max_by_key(|peer| (load(peer.store), peer.store)) {
        Some(peer) => repair(
            info,
            Goal::RemoveReplica { from: peer.store },
            format!("{} voters, {} are wanted", voters.len(), around.target),
        ),
        None => Verdict::Fine,
    }
}
