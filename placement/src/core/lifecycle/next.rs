//! The next primitive step of a group.
//!
//! In this order: a joint configuration is completed; what must go, goes; swaps; growth;
//! demotions; one join at a time, first in first out.

use quorate_proto::{NodeId, PeerId, Role};

use super::batch::{choose, safe_batch};
use super::change::{Change, Next};
use super::group::Member;
use super::proof::{can_commit, proof};
use super::step::{Look, ready_since};
use super::{Aim, Record, State};

/// Decides for a group that has a leader; marks those it chooses or lets wait.
pub(super) fn next(look: &mut Look<'_>) -> Next {
    if look.group.is_joint() {
        return complete(look);
    }
    if let Err(no_quorum) = can_commit(look.group) {
        return match look.records.is_empty() {
            true => Next::Nothing,
            false => Next::Wait(no_quorum.to_string()),
        };
    }
    let mut waits = Vec::new();
    for decide in [removal, swap, growth, demotion, join] {
        match decide(look) {
            Next::Nothing => {}
            Next::Wait(why) => waits.push(why),
            step @ (Next::Change(_) | Next::Transfer { .. }) => return step,
        }
    }
    match waits.is_empty() {
        true => Next::Nothing,
        false => Next::Wait(waits.join("; ")),
    }
}

/// Forward, always.
fn complete(look: &Look<'_>) -> Next {
    let group = look.group;
    if group.led_by().is_some_and(|leader| leader.role == Role::DemotingVoter) {
        return hand_over(look, &[], "the joint configuration demotes the leader");
    }
    match can_commit(group) {
        Ok(()) => Next::Change(Change::LeaveJoint),
        Err(why) => Next::Wait(format!("the joint configuration cannot be left: {why}")),
    }
}

/// Leadership goes to a voter that stays.
fn hand_over(look: &Look<'_>, leaving: &[PeerId], why: &str) -> Next {
    let group = look.group;
    let stays = |member: &&Member| match member.role {
        Role::Voter | Role::IncomingVoter => {
            Some(member.peer) != group.leader && !leaving.contains(&member.peer)
        }
        Role::Learner | Role::DemotingVoter => false,
    };
    let such = |fits: fn(&Member) -> bool| -> Vec<&Member> {
        group.members.iter().filter(stays).filter(|member| fits(member)).collect()
    };
    let mut able = such(|member| member.can_lead);
    if able.is_empty() && group.is_joint() {
        // It has to be left, also where all the others are behind or about to stop.
        able = such(|member| member.alive);
    }
    // Where all have to go, one of them leads until it is its turn. Plain voters before incoming
    // ones, which have just caught up.
    able.sort_by_key(|member| {
        (member.leaves, member.role != Role::Voter, member.leaders, member.node)
    });
    match able.first() {
        Some(member) => Next::Transfer { to: member.node, why: why.to_owned() },
        None => Next::Wait(format!("{why}, and no other voter is able to lead now")),
    }
}

/// Learners that have to go: zombies, those on request, those in whose place somebody is.
fn removal(look: &mut Look<'_>) -> Next {
    let group = look.group;
    let goes = |record: &&Record| {
        let Some(member) = group.on(record.node) else { return false };
        if member.role != Role::Learner {
            return false;
        }
        match (record.state, record.aim) {
            (State::Zombie | State::Removed, _) => true,
            (_, Aim::Leave { replaced_by: None }) => true,
            (_, Aim::Leave { replaced_by: Some(by) }) => is_in_place(look, by),
            (_, Aim::Vote { .. } | Aim::Learn) => false,
        }
    };
    match look.records.iter().find(goes) {
        Some(record) => Next::Change(Change::RemoveLearner { peer: record.peer }),
        None => Next::Nothing,
    }
}

/// True where that member votes, or stays a learner and has caught up.
fn is_in_place(look: &Look<'_>, node: NodeId) -> bool {
    let votes = look.group.on(node).is_some_and(|member| member.role == Role::Voter);
    let settled = |record: &Record| {
        record.node == node
            && match (record.aim, record.state) {
                (Aim::Vote { replacing: Some(_) }, _) => false,
                (_, State::KeepAsLearner | State::Ready { .. } | State::Pairing { .. }) => true,
                (
                    _,
                    State::Joining { .. }
                    | State::Syncing
                    | State::Promoting { .. }
                    | State::StandbyLearner
                    | State::Active
                    | State::Zombie
                    | State::Removed,
                ) => false,
            }
    };
    votes || look.records.iter().any(settled)
}

/// One for one.
fn swap(look: &mut Look<'_>) -> Next {
    let mut waits = Next::Nothing;
    for at in 0..look.records.len() {
        let record = &look.records[at];
        let Aim::Vote { replacing: Some(old) } = record.aim else { continue };
        let Some(voter) = look.group.on(old).filter(|member| member.role == Role::Voter) else {
            // Nobody to replace any more: it is growth, if there is room, or it stands by.
            if look.group.on(record.node).is_some() {
                look.records[at].aim = Aim::Vote { replacing: None };
            }
            continue;
        };
        let Some(ready_ms) = ready_since(record.state).filter(|_| !record.held) else { continue };
        let (node, peer) = (record.node, record.peer);
        // The only voter has nobody to hand over to: it does so in the joint configuration.
        if look.group.leader == Some(voter.peer) && look.group.voters().count() > 1 {
            let why = format!("{} leads and is about to be replaced", look.group.name(old));
            return hand_over(look, &[voter.peer], &why);
        }
        let (promote, demote) = (vec![peer], vec![voter.peer]);
        match proof(look.group, &promote, &demote) {
            Ok(()) => {
                let why = format!("takes the place of {}", look.group.name(old));
                look.records[at].enter(State::Promoting { ready_ms }, why, look.now_ms);
                return Next::Change(Change::EnterJoint { promote, demote });
            }
            Err(why) => {
                look.records[at].reason = why.to_string();
                waits = Next::Wait(format!("{} waits: {why}", look.group.name(node)));
            }
        }
    }
    waits
}

/// By an even number, or by one where the number of voters is even.
fn growth(look: &mut Look<'_>) -> Next {
    let group = look.group;
    let (voters, target) = (group.voters().count(), group.target);
    let candidates: Vec<(&Record, &Member)> = look
        .records
        .iter()
        .filter(|record| matches!(record.aim, Aim::Vote { replacing: None }) && !record.held)
        .filter_map(|record| group.on(record.node).map(|member| (record, member)))
        .filter(|(record, member)| {
            member.role == Role::Learner && is_candidate(look, record, member)
        })
        .collect();
    let batch = safe_batch(voters, candidates.len(), target);
    let chosen: Vec<(NodeId, PeerId)> = choose(group, candidates, batch)
        .into_iter()
        .map(|(record, member)| (record.node, member.peer))
        .collect();
    if !chosen.is_empty() {
        let promote: Vec<PeerId> = chosen.iter().map(|(_, peer)| *peer).collect();
        let names = group.names(chosen.iter().map(|(node, _)| *node));
        return match proof(group, &promote, &[]) {
            Ok(()) => {
                for (node, _) in chosen {
                    enter_promoting(look, node, &format!("{names} are promoted together"));
                }
                Next::Change(Change::EnterJoint { promote, demote: Vec::new() })
            }
            Err(why) => Next::Wait(format!("{names} wait: {why}")),
        };
    }
    wait_for_partners(look, voters, target)
}

fn is_candidate(look: &Look<'_>, record: &Record, member: &Member) -> bool {
    match record.state {
        State::Ready { .. } | State::Pairing { .. } | State::Promoting { .. } => true,
        // One that waits is looked at anew whenever there is a place.
        State::StandbyLearner => {
            record.pace.ready(member, look.group, look.limits, look.now_ms).is_ok()
        }
        State::Joining { .. }
        | State::Syncing
        | State::KeepAsLearner
        | State::Active
        | State::Zombie
        | State::Removed => false,
    }
}

fn enter_promoting(look: &mut Look<'_>, node: NodeId, why: &str) {
    let now_ms = look.now_ms;
    if let Some(record) = look.records.iter_mut().find(|record| record.node == node) {
        let ready_ms = ready_since(record.state).unwrap_or(now_ms);
        record.enter(State::Promoting { ready_ms }, why, now_ms);
    }
}

/// Those that are ready and not promoted now: what for.
fn wait_for_partners(look: &mut Look<'_>, voters: usize, target: usize) -> Next {
    let mut waits = Next::Nothing;
    for at in 0..look.records.len() {
        let record = &look.records[at];
        if record.aim != (Aim::Vote { replacing: None }) || record.held {
            continue;
        }
        let node = record.node;
        match record.state {
            State::Ready { ready_ms } if voters < target => {
                let deadline_ms = look.now_ms + look.limits.pairing_ms;
                let why = format!("waits for a partner (voters {voters}, target {target})");
                let state = State::Pairing { ready_ms, deadline_ms };
                look.records[at].enter(state, why, look.now_ms);
                waits = Next::Wait(format!("{} waits for a partner", look.group.name(node)));
            }
            State::Pairing { .. } => {
                waits = Next::Wait(format!("{} waits for a partner", look.group.name(node)));
            }
            State::Ready { .. } => {
                look.records[at].reason = format!("there are {voters} voters, {target} are wanted");
            }
            State::Syncing => {
                waits = Next::Wait(format!(
                    "{} catches up: {}",
                    look.group.name(node),
                    look.records[at].reason
                ));
            }
            State::Joining { .. }
            | State::Promoting { .. }
            | State::StandbyLearner
            | State::KeepAsLearner
            | State::Active
            | State::Zombie
            | State::Removed => {}
        }
    }
    waits
}

/// Voters that shall go, or shall learn, without a replacement: in a number that leaves an odd one.
fn demotion(look: &mut Look<'_>) -> Next {
    let group = look.group;
    let goes = |record: &&Record| match record.aim {
        Aim::Leave { replaced_by: None } | Aim::Learn => !record.held,
        Aim::Leave { replaced_by: Some(_) } | Aim::Vote { .. } => false,
    };
    let demote: Vec<&Member> = look
        .records
        .iter()
        .filter(goes)
        .filter_map(|record| group.on(record.node))
        .filter(|member| member.role == Role::Voter)
        .collect();
    if demote.is_empty() {
        return Next::Nothing;
    }
    let names = group.names(demote.iter().map(|member| member.node));
    let peers: Vec<PeerId> = demote.iter().map(|member| member.peer).collect();
    if group.leader.is_some_and(|leader| peers.contains(&leader)) {
        return hand_over(look, &peers, &format!("{names} shall not vote any more"));
    }
    match proof(group, &[], &peers) {
        Ok(()) => Next::Change(Change::EnterJoint { promote: Vec::new(), demote: peers }),
        Err(why) => Next::Wait(format!("{names} cannot be demoted: {why}")),
    }
}

/// The first that waits to join.
fn join(look: &mut Look<'_>) -> Next {
    let joins = |record: &&Record| matches!(record.state, State::Joining { .. });
    let first =
        look.records.iter().filter(joins).min_by_key(|record| (record.joined_ms, record.node));
    let Some(first) = first else {
        return match look.records.iter().find(|record| {
            record.state == State::Syncing && !matches!(record.aim, Aim::Vote { replacing: None })
        }) {
            Some(record) => {
                let name = look.group.name(record.node);
                Next::Wait(format!("{name} catches up: {}", record.reason))
            }
            None => Next::Nothing,
        };
    };
    match first.peer {
        PeerId(0) => Next::Wait("an id is set aside for the new peer".to_owned()),
        peer => Next::Change(Change::AddLearner { node: first.node, peer }),
    }
}
