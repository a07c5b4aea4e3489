//! Peers that are spoken to and are not here, and groups that are gone.

use quorate_proto::wire::metapb;
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{NodeId, PeerId, RegionId};

use super::{Outgoing, Plane};

/// Somebody speaks to a peer that this process does not host (it may host an older one of the same
/// group, which is to be destroyed then). The region may be about to split off here; or the peer was
/// added and is to be created; or this process missed the split, was given the rest of the parent by
/// a snapshot, and has to create the peer without data ([`Event::Create`] with nothing applied and no members), which
/// its leader then sends a snapshot. The caller finds out which (it knows who has which range).
/// Said again, at growing intervals up to half a second, for as long as messages come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stranger {
    /// The group.
    pub group: RegionId,
    /// The peer that is spoken to.
    pub peer: PeerId,
    /// The process that speaks.
    pub from: NodeId,
    /// The peer that speaks.
    pub from_peer: PeerId,
    /// It only asks whether the group is still there: nobody waits for the peer.
    pub asks: bool,
}

impl Stranger {
    /// The answer where the group is gone: `region`, as it was at last, was taken in by `into`.
    pub fn answer_merged(&self, into: RegionId, region: metapb::Region) -> Outgoing {
        let Stranger { group, peer, from, from_peer, asks: _ } = *self;
        let envelope = Envelope {
            kind: crate::group::MERGED,
            group: group.0,
            from_peer: peer.0,
            to_peer: from_peer.0,
            merged_into: into.0,
            region: Some(region),
            ..Envelope::default()
        };
        Outgoing { to: from, plane: Plane::Control, envelope }
    }
}

/// Another process says that a group is gone for good: the state machine of another one has taken
/// it in. The group may be here all the same, far behind. The caller decides what becomes of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// The group that is gone.
    pub group: RegionId,
    /// The one that took it in.
    pub into: RegionId,
    /// Its description when it ended, as it came from the network.
    pub region: metapb::Region,
}
