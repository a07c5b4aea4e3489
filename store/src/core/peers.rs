//! Placement's steps about who replicates a region, made into changes of its peers.
//!
//! A step names what is to change; a change names all peers afterwards, to Raft (as members of the
//! group) and to the state machine (in the command that goes with it). Both refuse what is no legal
//! step; here it is refused first, with the same words.

use bytes::Bytes;
use quorate_consensus::shard::{
    MAX_BEHIND, Member, MembersRefusal, check_members, replaces_only_voter,
};
use quorate_consensus::view::GroupView;
use quorate_proto::wire::placement::change_peers_step::Change as Step;
use quorate_proto::{Epoch, Peer, PeerId, Region, RegionId, Role, StoreId};
use thiserror::Error;

use super::command::{self, CommandError};
use super::directory::{Admitted, LocalRegion, State, members};
use super::error::RegionError;

/// What the leader does about a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeersPlan {
    /// Propose a change of the group's members.
    Change(PeersChange),
    /// The leader is about to lose its vote: hand leadership to this store first, which will get
    /// the step again.
    HandOver(StoreId),
}

/// A change to propose: see `Event::ChangeMembers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeersChange {
    /// Everybody afterwards.
    pub members: Vec<Member>,
    /// What the state machine applies.
    pub command: Bytes,
}

/// Why a step is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PeersError {
    /// An id of nothing.
    #[error("the step names no store or no replica")]
    NoId,
    /// The replica is none.
    #[error("{peer} is no replica of {region}")]
    NoPeer {
        /// The region.
        region: RegionId,
        /// The replica.
        peer: PeerId,
    },
    /// Only learners are promoted, only voters demoted, only learners removed.
    #[error("{peer} of {region} is {} at the moment", role(*.is))]
    Role {
        /// The region.
        region: RegionId,
        /// The replica.
        peer: PeerId,
        /// Its role.
        is: Role,
    },
    /// Nothing to leave.
    #[error("{0} is in no joint configuration")]
    NotJoint(RegionId),
    /// No store could lead the region afterwards.
    #[error("{0} has no other voter that could take leadership over now")]
    NoSuccessor(RegionId),
    /// The voter lacks too much, or is silent.
    #[error("{peer} of {region} cannot take leadership over: {reason}")]
    NotReady {
        /// The region.
        region: RegionId,
        /// The replica.
        peer: PeerId,
        /// Why not.
        reason: String,
    },
    /// A rule stands in the way.
    #[error(transparent)]
    Members(#[from] MembersRefusal),
    /// The region changed meanwhile, or is led elsewhere.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The command is out of bounds.
    #[error(transparent)]
    Command(#[from] CommandError),
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Voter => "a voter",
        Role::Learner => "a learner",
        Role::IncomingVoter => "on its way in",
        Role::DemotingVoter => "on its way out",
    }
}

/// What the leader of `admitted` does about a step.
///
/// # Errors
/// Which rule stands in the way; nothing is to be proposed.
pub fn plan(admitted: &Admitted, step: &Step, time_ms: u64) -> Result<PeersPlan, PeersError> {
    admitted.check_leader()?;
    let region = &admitted.region;
    if admitted.local.merging().is_some() {
        return Err(RegionError::Merging(region.id).into());
    }
    if !admitted.unchanged() {
        let current = admitted.local.region().unwrap_or_else(|| region.clone());
        return Err(RegionError::EpochNotMatch { current: vec![current] }.into());
    }
    let peers = peers_after(region, step)?;
    let after = Region { peers, ..region.as_ref().clone() };
    let wanted = members(&after);
    check_members(&members(region), &wanted)?;
    let stays = after.peer(admitted.local.peer()).is_some_and(keeps_its_vote);
    // The only voter has nobody to hand over to before it is in a joint configuration with another.
    if !stays && !replaces_only_voter(&members(region), &wanted) {
        let next = successor(region, &after, admitted.local.view());
        return next.map(PeersPlan::HandOver).ok_or(PeersError::NoSuccessor(region.id));
    }
    let command = command::change_peers(admitted.stamp(time_ms), &after.peers)?;
    Ok(PeersPlan::Change(PeersChange { members: wanted, command }))
}

fn keeps_its_vote(peer: &Peer) -> bool {
    match peer.role {
        Role::Voter | Role::IncomingVoter => true,
        Role::Learner | Role::DemotingVoter => false,
    }
}

/// Whether the voter `peer` can take leadership over now, as far as the leader knows.
///
/// # Errors
/// Why not.
pub fn check_successor(region: &Region, view: &GroupView, peer: &Peer) -> Result<(), PeersError> {
    match peer.role {
        Role::Voter | Role::IncomingVoter => {}
        Role::Learner | Role::DemotingVoter => {
            return Err(PeersError::Role { region: region.id, peer: peer.id, is: peer.role });
        }
    }
    let Some(replication) = view.replication() else { return Ok(()) };
    let Some(known) = replication.peers.iter().find(|known| known.peer == peer.id) else {
        return Ok(());
    };
    let behind = replication.last.0.saturating_sub(known.matched.0);
    let unapplied = replication.unapplied(known);
    let reason = if known.silent_since.is_some() {
        "it is silent".to_owned()
    } else if known.snapshot || behind > MAX_BEHIND {
        format!("it is {behind} entries behind")
    } else if unapplied > MAX_BEHIND {
        format!("it has the log but is {unapplied} entries behind in applying")
    } else {
        return Ok(());
    };
    Err(PeersError::NotReady { region: region.id, peer: peer.id, reason })
}

/// The store that should lead the region next: of those that vote now and `after` the step, the one
/// that has most of the log.
fn successor(region: &Region, after: &Region, view: &GroupView) -> Option<StoreId> {
    let replication = view.replication();
    let matched = |peer: &Peer| {
        let known = replication.as_ref()?.peers.iter().find(|known| known.peer == peer.id)?;
        Some(known.matched)
    };
    let stays = |peer: &Peer| after.peer(peer.id).is_some_and(keeps_its_vote);
    let fit = |peer: &&Peer| {
        peer.id != view.peer() && stays(peer) && check_successor(region, view, peer).is_ok()
    };
    region.peers.iter().filter(fit).max_by_key(|peer| matched(peer)).map(|peer| peer.store)
}

fn peers_after(region: &Region, step: &Step) -> Result<Vec<Peer>, PeersError> {
    let mut peers = region.peers.clone();
    match step {
        Step::AddLearner(step) => {
            if step.store_id == 0 || step.peer_id == 0 {
                return Err(PeersError::NoId);
            }
            let (id, store) = (PeerId(step.peer_id), StoreId(step.store_id));
            peers.push(Peer { id, store, role: Role::Learner });
        }
        Step::EnterJoint(step) => {
            for id in &step.promote {
                turn(region, &mut peers, *id, Role::Learner, Role::IncomingVoter)?;
            }
            for id in &step.demote {
                turn(region, &mut peers, *id, Role::Voter, Role::DemotingVoter)?;
            }
        }
        Step::LeaveJoint(_) => {
            let mut joint = false;
            for peer in &mut peers {
                let role = match peer.role {
                    Role::IncomingVoter => Role::Voter,
                    Role::DemotingVoter => Role::Learner,
                    role @ (Role::Voter | Role::Learner) => role,
                };
                joint |= role != peer.role;
                peer.role = role;
            }
            if !joint {
                return Err(PeersError::NotJoint(region.id));
            }
        }
        Step::RemoveLearner(step) => {
            turn(region, &mut peers, step.peer_id, Role::Learner, Role::Learner)?;
            peers.retain(|peer| peer.id.0 != step.peer_id);
        }
    }
    Ok(peers)
}

fn turn(
    region: &Region,
    peers: &mut [Peer],
    id: u64,
    from: Role,
    to: Role,
) -> Result<(), PeersError> {
    let (region, id) = (region.id, PeerId(id));
    let peer = peers.iter_mut().find(|peer| peer.id == id);
    let peer = peer.ok_or(PeersError::NoPeer { region, peer: id })?;
    if peer.role != from {
        return Err(PeersError::Role { region, peer: id, is: peer.role });
    }
    peer.role = to;
    Ok(())
}

/// Whether the local replica was removed by the configuration that a region without it has at
/// `epoch`: it knows an older one. One that knows the same or a newer configuration with itself in
/// it stays; one without data knows that by which it was let in, so that whoever speaks of a time
/// before it was added does not remove it.
pub fn was_removed(local: &LocalRegion, epoch: Epoch) -> bool {
    match &*local.state() {
        State::Uninitialized { since, .. } => since.conf_ver < epoch.conf_ver,
        // A region that is stopped changes no peers: who is without it has seen it go on.
        State::Serving(known)
        | State::Merging(known, _)
        | State::Installing(known)
        | State::Removing(known) => known.epoch.conf_ver < epoch.conf_ver,
        State::Tombstone => true,
    }
}

/// Whether `region`, as placement knows it, is a later configuration without the local replica.
pub fn is_removed(local: &LocalRegion, region: &Region) -> bool {
    region.peer(local.peer()).is_none() && was_removed(local, region.epoch)
}
