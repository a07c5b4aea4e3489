//! Domain values on their way to the wire.

use quorate_proto::wire::{metapb, pdpb};
use tonic::Status;

use crate::core::command::{JoinRefusal, Member, MemberRefusal, labels_to_wire};
use crate::core::leader::{RemoveRefusal, TransferRefusal};
use crate::core::operators::Refused;
use crate::core::split::SplitRefusal;
use crate::core::state::{Store, StoreLife};
use crate::core::tree::RegionInfo;

/// A store, as clients and stores see it.
pub(crate) fn store(store: &Store) -> metapb::Store {
    // Without an address nobody can be sent there; clients leave such stores alone.
    let state = match store.life {
        StoreLife::Left => metapb::StoreState::Tombstone,
        StoreLife::Joining | StoreLife::Active | StoreLife::Leaving { .. } => {
            if store.address.is_empty() {
                metapb::StoreState::Offline
            } else {
                metapb::StoreState::Up
            }
        }
    };
    let node_state = match store.life {
        StoreLife::Joining => metapb::NodeState::Preparing,
        StoreLife::Active => metapb::NodeState::Serving,
        StoreLife::Leaving { .. } => metapb::NodeState::Removing,
        StoreLife::Left => metapb::NodeState::Removed,
    };
    metapb::Store {
        id: store.id.0,
        address: store.address.clone(),
        state: state.into(),
        labels: labels_to_wire(&store.labels),
        version: store.version.clone(),
        peer_address: store.address.clone(),
        status_address: store.status_address.clone(),
        node_state: node_state.into(),
    }
}

/// The leader to name to a client: the last known one, or a first guess before any was reported.
pub(crate) fn leader(info: &RegionInfo) -> Option<metapb::Peer> {
    info.leader.or(info.region.peers.first().copied()).map(Into::into)
}

fn pending(info: &RegionInfo) -> Vec<metapb::Peer> {
    let peers = info.region.peers.iter().filter(|peer| info.pending.contains(&peer.id));
    peers.map(|peer| (*peer).into()).collect()
}

fn down(info: &RegionInfo) -> Vec<pdpb::PeerStats> {
    let peers = info.region.peers.iter().filter(|peer| info.down.contains(&peer.id));
    peers.map(|peer| pdpb::PeerStats { peer: Some((*peer).into()), down_seconds: 0 }).collect()
}

/// The answer to a lookup of one region.
pub(crate) fn found(
    header: Option<pdpb::ResponseHeader>,
    info: Option<&RegionInfo>,
) -> pdpb::GetRegionResponse {
    let Some(info) = info else {
        return pdpb::GetRegionResponse { header, ..Default::default() };
    };
    pdpb::GetRegionResponse {
        header,
        region: Some((&info.region).into()),
        leader: leader(info),
        down_peers: down(info),
        pending_peers: pending(info),
    }
}

/// A region in a list.
pub(crate) fn listed(info: &RegionInfo) -> pdpb::Region {
    pdpb::Region {
        region: Some((&info.region).into()),
        leader: leader(info),
        down_peers: down(info),
        pending_peers: pending(info),
    }
}

/// A member of the placement group.
pub(crate) fn member(member: &Member) -> pdpb::Member {
    let url = format!("http://{}", member.address);
    pdpb::Member {
        name: member.name.clone(),
        member_id: member.id.0,
        peer_urls: vec![url.clone()],
        client_urls: vec![url],
    }
}

/// A request for another cluster.
pub(crate) fn wrong_cluster(theirs: u64, ours: u64) -> Status {
    Status::failed_precondition(wrong_cluster_words(theirs, ours))
}

/// A request for another cluster, in words.
pub(crate) fn wrong_cluster_words(theirs: u64, ours: u64) -> String {
    format!(
        "the request is for cluster {theirs}, this is cluster {ours}: check the placement addresses"
    )
}

impl From<JoinRefusal> for Status {
    fn from(refusal: JoinRefusal) -> Self {
        let words = refusal.to_string();
        match refusal {
            JoinRefusal::NotInitialized => Status::unavailable(words),
            JoinRefusal::WrongCluster { .. } | JoinRefusal::Left { .. } => {
                Status::failed_precondition(words)
            }
            JoinRefusal::IdInUse { .. } | JoinRefusal::AddressInUse { .. } => {
                Status::already_exists(words)
            }
            JoinRefusal::UnknownStore { .. } => Status::not_found(words),
            JoinRefusal::Incomplete(_) => Status::invalid_argument(words),
        }
    }
}

impl From<MemberRefusal> for Status {
    fn from(refusal: MemberRefusal) -> Self {
        let words = refusal.to_string();
        match refusal {
            // To be asked again.
            MemberRefusal::NotInitialized | MemberRefusal::StillThere { .. } => {
                Status::unavailable(words)
            }
            MemberRefusal::WrongCluster { .. }
            | MemberRefusal::OldVersion
            | MemberRefusal::Moved { .. } => Status::failed_precondition(words),
            MemberRefusal::Left(_) | MemberRefusal::Unknown(_) => Status::not_found(words),
            MemberRefusal::AddressInUse { .. } => Status::already_exists(words),
            MemberRefusal::TooMany => Status::resource_exhausted(words),
            MemberRefusal::Incomplete(_) => Status::invalid_argument(words),
        }
    }
}

impl From<SplitRefusal> for Status {
    fn from(refusal: SplitRefusal) -> Self {
        let words = refusal.to_string();
        match refusal {
            SplitRefusal::Nothing
            | SplitRefusal::TooManyKeys(_)
            | SplitRefusal::EmptyKey
            | SplitRefusal::LongKey(_)
            | SplitRefusal::Sentinel(_) => Status::invalid_argument(words),
            SplitRefusal::UnknownRegion(_) => Status::not_found(words),
            SplitRefusal::NoRegion(_) => Status::unavailable(words),
        }
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let words = refused.to_string();
        match refused {
            Refused::Busy { .. } | Refused::Full => Status::resource_exhausted(words),
            Refused::UnknownRegion(_) | Refused::UnknownOperator(_) | Refused::NoMember(_) => {
                Status::not_found(words)
            }
            Refused::NoLeader(_) => Status::unavailable(words),
            Refused::NoStore(..)
            | Refused::Idle(_)
            | Refused::NotAbout { .. }
            | Refused::Rule(_)
            | Refused::Merge(_)
            | Refused::OldMerges
            | Refused::OldVersion
            | Refused::OldMembers
            | Refused::LoneMember
            | Refused::Forward(..) => Status::failed_precondition(words),
        }
    }
}

impl From<RemoveRefusal> for Status {
    fn from(refusal: RemoveRefusal) -> Self {
        let words = refusal.to_string();
        match refusal {
            RemoveRefusal::Unknown(_) => Status::not_found(words),
            RemoveRefusal::Left(_)
            | RemoveRefusal::NotLeaving(_)
            | RemoveRefusal::NoRoom { .. }
            | RemoveRefusal::NoPlace { .. }
            | RemoveRefusal::Needed { .. }
            | RemoveRefusal::NotUp(_)
            | RemoveRefusal::OldReplace
            | RemoveRefusal::Alive(_) => Status::failed_precondition(words),
            RemoveRefusal::Operator(refused) => refused.into(),
        }
    }
}

impl From<TransferRefusal> for Status {
    fn from(refusal: TransferRefusal) -> Self {
        let words = refusal.to_string();
        match refusal {
            TransferRefusal::UnknownRegion(_) => Status::not_found(words),
            TransferRefusal::NoLeader(_) => Status::unavailable(words),
            TransferRefusal::NotAble { .. } => Status::failed_precondition(words),
            TransferRefusal::Operator(refused) => refused.into(),
        }
    }
}
