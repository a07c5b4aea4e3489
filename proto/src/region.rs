//! Regions, peers and epochs, parsed once from the wire.

use bytes::Bytes;
use thiserror::Error;

use crate::ids::{PeerId, RegionId, StoreId};
use crate::key;
use crate::wire::metapb;

/// What a peer may do in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Votes and counts in the quorum.
    Voter,
    /// Replicates without a vote.
    Learner,
    /// Joint configuration: becomes a voter when it is left.
    IncomingVoter,
    /// Joint configuration: becomes a learner when it is left.
    DemotingVoter,
}

/// One replica of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Never reused, not even after removal.
    pub id: PeerId,
    /// Where it lives.
    pub store: StoreId,
    /// Its role in the configuration.
    pub role: Role,
}

/// The version of a region's description. Both parts only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Counts configuration changes.
    pub conf_ver: u64,
    /// Counts splits and merges.
    pub version: u64,
}

impl Epoch {
    /// True where either part is behind `other`'s.
    pub fn is_stale_against(self, other: Epoch) -> bool {
        self.conf_ver < other.conf_ver || self.version < other.version
    }
}

/// A key range: start inclusive, end exclusive, an empty end unbounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// First key.
    pub start: Bytes,
    /// First key beyond; empty: no bound.
    pub end: Bytes,
}

impl KeyRange {
    /// A range from its two ends.
    pub fn new(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self { start: start.into(), end: end.into() }
    }
    /// True where `key` lies inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_ref() && (self.end.is_empty() || key < self.end.as_ref())
    }
    /// True where `key` is strictly between both ends, so that a split there leaves two parts.
    pub fn can_split_at(&self, key: &[u8]) -> bool {
        key > self.start.as_ref() && self.contains(key)
    }
    /// True where the ranges share a key.
    pub fn overlaps(&self, other: &KeyRange) -> bool {
        (self.end.is_empty() || other.start < self.end)
            && (other.end.is_empty() || self.start < other.end)
    }
    /// True where every key of `other` lies inside.
    pub fn covers(&self, other: &KeyRange) -> bool {
        other.start >= self.start
            && (self.end.is_empty() || (!other.end.is_empty() && other.end <= self.end))
    }
}

impl std::fmt::Display for KeyRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = if self.end.is_empty() { "∞".to_owned() } else { key::display(&self.end) };
        write!(f, "[{}, {end})", key::display(&self.start))
    }
}

/// A region: a key range and who replicates it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// Its id, unique in the cluster for good.
    pub id: RegionId,
    /// The keys it holds.
    pub range: KeyRange,
    /// Version of this description.
    pub epoch: Epoch,
    /// Its replicas.
    pub peers: Vec<Peer>,
}

impl Region {
    /// The peer on `store`, if there is one.
    pub fn peer_on(&self, store: StoreId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.store == store)
    }
    /// The peer with that id, if there is one.
    pub fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.id == id)
    }
}

/// Why a region from the wire was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidRegion {
    /// Id 0.
    #[error("region without an id")]
    NoId,
    /// The epoch is missing.
    #[error("{0} has no epoch")]
    NoEpoch(RegionId),
    /// Start is not below end.
    #[error("{0} has an empty key range")]
    EmptyRange(RegionId),
    /// A peer without an id or a store, an unknown role, or two peers on one store.
    #[error("{0} has a bad peer list: {1}")]
    BadPeer(RegionId, &'static str),
}

impl TryFrom<metapb::Region> for Region {
    type Error = InvalidRegion;

    fn try_from(wire: metapb::Region) -> Result<Self, InvalidRegion> {
        let id = RegionId(wire.id);
        if wire.id == 0 {
            return Err(InvalidRegion::NoId);
        }
        let epoch = wire.region_epoch.ok_or(InvalidRegion::NoEpoch(id))?.into();
        if !wire.end_key.is_empty() && wire.start_key >= wire.end_key {
            return Err(InvalidRegion::EmptyRange(id));
        }
        let mut peers = Vec::with_capacity(wire.peers.len());
        for peer in wire.peers {
            let peer = Peer::try_from(peer).map_err(|why| InvalidRegion::BadPeer(id, why))?;
            if peers.iter().any(|other: &Peer| other.store == peer.store || other.id == peer.id) {
                return Err(InvalidRegion::BadPeer(id, "two peers on one store or with one id"));
            }
            peers.push(peer);
        }
        Ok(Self { id, range: KeyRange::new(wire.start_key, wire.end_key), epoch, peers })
    }
}

impl From<&Region> for metapb::Region {
    fn from(region: &Region) -> Self {
        Self {
            id: region.id.0,
            start_key: region.range.start.clone(),
            end_key: region.range.end.clone(),
            region_epoch: Some(region.epoch.into()),
            peers: region.peers.iter().map(|peer| (*peer).into()).collect(),
        }
    }
}

impl TryFrom<metapb::Peer> for Peer {
    type Error = &'static str;

    fn try_from(wire: metapb::Peer) -> Result<Self, &'static str> {
        if wire.id == 0 || wire.store_id == 0 {
            return Err("a peer without an id or a store");
        }
        let role = match metapb::PeerRole::try_from(wire.role).map_err(|_| "an unknown role")? {
            metapb::PeerRole::Voter => Role::Voter,
            metapb::PeerRole::Learner => Role::Learner,
            metapb::PeerRole::IncomingVoter => Role::IncomingVoter,
            metapb::PeerRole::DemotingVoter => Role::DemotingVoter,
        };
        Ok(Self { id: PeerId(wire.id), store: StoreId(wire.store_id), role })
    }
}

impl From<Peer> for metapb::Peer {
    fn from(peer: Peer) -> Self {
        let role = match peer.role {
            Role::Voter => metapb::PeerRole::Voter,
            Role::Learner => metapb::PeerRole::Learner,
            Role::IncomingVoter => metapb::PeerRole::IncomingVoter,
            Role::DemotingVoter => metapb::PeerRole::DemotingVoter,
        };
        Self { id: peer.id.0, store_id: peer.store.0, role: role.into() }
    }
}

impl From<metapb::RegionEpoch> for Epoch {
    fn from(wire: metapb::RegionEpoch) -> Self {
        Self { conf_ver: wire.conf_ver, version: wire.version }
    }
}

impl From<Epoch> for metapb::RegionEpoch {
    fn from(epoch: Epoch) -> Self {
        Self { conf_ver: epoch.conf_ver, version: epoch.version }
    }
}
