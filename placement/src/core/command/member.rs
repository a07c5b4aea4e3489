//! Members of the placement group: who they are, how a process asks to be one, why it may not.

use quorate_consensus::shard;
use quorate_proto::wire::metapb::PeerRole;
use quorate_proto::wire::placement_state as wire;
use quorate_proto::{NodeId, PeerId, Role};
use thiserror::Error;

use super::BadCommand;

/// Since when the placement group changes its members while it runs.
pub const MEMBERS_SINCE: u32 = 3;
/// Since when one that joined may move to another address.
pub const MOVES_SINCE: u32 = 5;
/// Most processes that may wait to become members.
pub const MAX_WAITING: usize = 16;

/// A member of the placement group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Names its process and its peer.
    pub id: NodeId,
    /// For people.
    pub name: String,
    /// `HOST:PORT` where clients, stores and the other members reach it.
    pub address: String,
    /// What it may do in the group's configuration.
    pub role: Role,
}

impl Member {
    /// A member of the Raft group: its peer has its id.
    pub fn peer(id: NodeId, role: Role) -> shard::Member {
        shard::Member { peer: PeerId(id.0), node: id, role }
    }

    /// As a member of the Raft group.
    pub fn raft(&self) -> shard::Member {
        Self::peer(self.id, self.role)
    }

    /// True where it has a vote, in the older or the newer configuration.
    pub fn votes(&self) -> bool {
        match self.role {
            Role::Voter | Role::IncomingVoter | Role::DemotingVoter => true,
            Role::Learner => false,
        }
    }
}

/// What a process says of itself when it asks to become a member, or whether it still is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoiningMember {
    /// The cluster that it belongs to; 0: it does not know yet.
    pub cluster_id: u64,
    /// Its id; `None`: it has none yet.
    pub id: Option<NodeId>,
    /// For people; empty: `placement-ID`.
    pub name: String,
    /// `HOST:PORT`.
    pub address: String,
    /// Drawn once for its data folder; 0 of a founding member, which has an id.
    pub data_id: u64,
}

/// A process that asked to become a member, and what became of it. Kept for good, so that its id
/// is never given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: NodeId,
    /// For people.
    pub name: String,
    /// `HOST:PORT`.
    pub address: String,
    /// Of its data folder; 0 of a founding member.
    pub data_id: u64,
    /// It was a member, and its return is refused.
    pub left: bool,
}

impl Candidate {
    /// As a member with that role.
    pub fn member(&self, role: Role) -> Member {
        Member { id: self.id, name: self.name.clone(), address: self.address.clone(), role }
    }
}

/// Why a process may not become, or be, a member of the placement group.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MemberRefusal {
    /// There is no cluster yet.
    #[error("the placement group is still starting; try again in a second")]
    NotInitialized,
    /// Not this cluster.
    #[error(
        "the member belongs to cluster {theirs}, this is cluster {ours}: name members of its own \
         cluster in join, or start it with an empty data folder"
    )]
    WrongCluster {
        /// The member's.
        theirs: u64,
        /// Ours.
        ours: u64,
    },
    /// An older form of the cluster.
    #[error(
        "placement changes its members from cluster_version {MEMBERS_SINCE} on: run the newer \
         program on all members, then `quorate settings set cluster_version={MEMBERS_SINCE}`"
    )]
    OldVersion,
    /// Another one is there, and alive.
    #[error(
        "{address} is the address of placement-{}, which is alive: give the new member another \
         address, or stop placement-{} first", member.0, member.0
    )]
    AddressInUse {
        /// Who has it.
        member: NodeId,
        /// The address.
        address: String,
    },
    /// It was taken out.
    #[error(
        "placement-{} was taken out of this placement group: start it with an empty data folder \
         and join, and it gets an id of its own", .0.0
    )]
    Left(NodeId),
    /// An id that this group never gave.
    #[error(
        "placement-{} is no member of this placement group: its data folder comes from somewhere \
         else; start it with an empty data folder and join", .0.0
    )]
    Unknown(NodeId),
    /// It is a member somewhere else, and the cluster's form is too old for it to move.
    #[error(
        "placement-{} is a member at {address}: start it with that address; members move to another \
         one from cluster_version {MOVES_SINCE} on: run the newer program on all members, then \
         `quorate settings set cluster_version={MOVES_SINCE}`", member.0
    )]
    Moved {
        /// Which member.
        member: NodeId,
        /// Where the others reach it.
        address: String,
    },
    /// It is a member somewhere else, and was heard of a moment ago.
    #[error(
        "placement-{} runs at {address}, or did until a moment ago: it moves once it is not heard of \
         there any more; two processes never run from copies of one data folder", member.0
    )]
    StillThere {
        /// Which member.
        member: NodeId,
        /// Where the others reach it.
        address: String,
    },
    /// Too many at once.
    #[error("{MAX_WAITING} processes wait to become members already; try again later")]
    TooMany,
    /// Something is missing from the request.
    #[error("a member joins with {0}")]
    Incomplete(&'static str),
}

impl From<&Member> for wire::Member {
    fn from(member: &Member) -> Self {
        Self {
            id: member.id.0,
            name: member.name.clone(),
            address: member.address.clone(),
            role: role_to_wire(member.role).into(),
        }
    }
}

impl TryFrom<wire::Member> for Member {
    type Error = BadCommand;

    fn try_from(wire: wire::Member) -> Result<Self, BadCommand> {
        if wire.id == 0 || wire.address.is_empty() {
            return Err(BadCommand::Missing("a member's id or address"));
        }
        let role = role_from_wire(wire.role)?;
        Ok(Self { id: NodeId(wire.id), name: wire.name, address: wire.address, role })
    }
}

impl From<&Candidate> for wire::Candidate {
    fn from(candidate: &Candidate) -> Self {
        Self {
            id: candidate.id.0,
            name: candidate.name.clone(),
            address: candidate.address.clone(),
            data_id: candidate.data_id,
            left: candidate.left,
        }
    }
}

impl From<wire::Candidate> for Candidate {
    fn from(wire: wire::Candidate) -> Self {
        let wire::Candidate { id, name, address, data_id, left } = wire;
        Self { id: NodeId(id), name, address, data_id, left }
    }
}

/// Roles as a command that changes them carries them.
pub(super) fn roles_to_wire(members: &[(NodeId, Role)]) -> Vec<wire::Member> {
    let member = |(id, role): &(NodeId, Role)| wire::Member {
        id: id.0,
        role: role_to_wire(*role).into(),
        ..wire::Member::default()
    };
    members.iter().map(member).collect()
}

/// Roles from the wire.
pub(super) fn roles_from_wire(members: &[wire::Member]) -> Result<Vec<(NodeId, Role)>, BadCommand> {
    members.iter().map(|member| Ok((NodeId(member.id), role_from_wire(member.role)?))).collect()
}

fn role_to_wire(role: Role) -> PeerRole {
    match role {
        Role::Voter => PeerRole::Voter,
        Role::Learner => PeerRole::Learner,
        Role::IncomingVoter => PeerRole::IncomingVoter,
        Role::DemotingVoter => PeerRole::DemotingVoter,
    }
}

fn role_from_wire(role: i32) -> Result<Role, BadCommand> {
    Ok(match PeerRole::try_from(role).map_err(|_| BadCommand::Bound("a member's role"))? {
        PeerRole::Voter => Role::Voter,
        PeerRole::Learner => Role::Learner,
        PeerRole::IncomingVoter => Role::IncomingVoter,
        PeerRole::DemotingVoter => Role::DemotingVoter,
    })
}
