//! Commands on the wire.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use quorate_proto::wire::{metapb, placement_state as wire};
use quorate_proto::{InvalidRegion, Peer, PeerId, Region, RegionId, StoreId, Term};

use super::{
    BadCommand, CLUSTER_VERSION, Command, Joining, JoiningMember, MAX_IDS, MAX_SAVED_REGIONS,
    MEMBERS_SINCE, Member, PLANS_SINCE, SavedRegion, member, notes, plan,
};
use crate::core::settings;

impl Command {
    /// The cluster version that introduced this form.
    fn since(&self) -> u32 {
        match self {
            Command::Initialize { .. }
            | Command::JoinStore(_)
            | Command::ActivateStore(_)
            | Command::Bootstrap
            | Command::AllocateIds { .. }
            | Command::ExtendTime { .. }
            | Command::SaveRegions(_)
            | Command::RaiseSafePoint(_) => 1,
            Command::SavePlan(plan) => plan.since(),
            Command::ChangeStore { life, .. } => notes::life_since(*life).max(PLANS_SINCE),
            Command::ChangeSettings(_) => PLANS_SINCE,
            Command::JoinMember(_) | Command::ChangeMembers { .. } => MEMBERS_SINCE,
        }
    }

    /// The bytes to propose: the wire form with its length in front.
    pub fn encode(&self) -> Bytes {
        let kind = match self {
            Command::Initialize { cluster_id, members, initial_stores, replicas, version } => {
                wire::command::Kind::Initialize(wire::Initialize {
                    cluster_id: *cluster_id,
                    members: members.iter().map(Into::into).collect(),
                    initial_stores: *initial_stores,
                    replicas: *replicas,
                    cluster_version: *version,
                })
            }
            Command::JoinStore(joining) => wire::command::Kind::JoinStore(joining.into()),
            Command::ActivateStore(store) => {
                wire::command::Kind::ActivateStore(wire::ActivateStore { store_id: store.0 })
            }
            Command::Bootstrap => wire::command::Kind::Bootstrap(wire::Bootstrap {}),
            Command::AllocateIds { count } => {
                wire::command::Kind::AllocateIds(wire::AllocateIds { count: *count })
            }
            Command::ExtendTime { ceiling_ms } => {
                wire::command::Kind::ExtendTime(wire::ExtendTime { ceiling_ms: *ceiling_ms })
            }
            Command::SaveRegions(regions) => {
                let regions = regions.iter().map(Into::into).collect();
                wire::command::Kind::SaveRegions(wire::SaveRegions { regions })
            }
            Command::RaiseSafePoint(safe_point) => {
                wire::command::Kind::RaiseSafePoint(wire::RaiseSafePoint {
                    safe_point: *safe_point,
                })
            }
            Command::ChangeStore { store, life } => {
                let (life, to_store_id) = notes::life_to_wire(*life);
                let (store_id, life) = (store.0, life.into());
                wire::command::Kind::ChangeStore(wire::ChangeStore { store_id, life, to_store_id })
            }
            Command::SavePlan(plan) => wire::command::Kind::SavePlan(plan.into()),
            Command::ChangeSettings(settings) => {
                let settings = settings
                    .iter()
                    .map(|(name, value)| plan::setting_to_wire((name, value)))
                    .collect();
                wire::command::Kind::ChangeSettings(wire::ChangeSettings { settings })
            }
            Command::JoinMember(joining) => wire::command::Kind::JoinMember(wire::JoinMember {
                name: joining.name.clone(),
                address: joining.address.clone(),
                data_id: joining.data_id,
            }),
            Command::ChangeMembers { version, members } => {
                let (version, members) = (*version, member::roles_to_wire(members));
                wire::command::Kind::ChangeMembers(wire::ChangeMembers { version, members })
            }
        };
        let command = wire::Command { version: self.since(), kind: Some(kind) };
        command.encode_length_delimited_to_vec().into()
    }

    /// Takes the next command off the front of an entry's data.
    ///
    /// # Errors
    /// The bytes are no command of this or an earlier cluster version.
    pub fn decode(data: &mut Bytes) -> Result<Self, BadCommand> {
        let command = wire::Command::decode_length_delimited(data)
            .map_err(|error| BadCommand::Decode(error.to_string()))?;
        if command.version > CLUSTER_VERSION {
            return Err(BadCommand::Newer { found: command.version, known: CLUSTER_VERSION });
        }
        Ok(match command.kind.ok_or(BadCommand::Missing("its kind"))? {
            wire::command::Kind::Initialize(wire) => {
                if wire.cluster_id == 0 {
                    return Err(BadCommand::Missing("a cluster id"));
                }
                let members =
                    wire.members.into_iter().map(Member::try_from).collect::<Result<_, _>>()?;
                let (initial_stores, replicas) = (wire.initial_stores, wire.replicas);
                let cluster_id = wire.cluster_id;
                let version = wire.cluster_version.max(1);
                if version > CLUSTER_VERSION {
                    return Err(BadCommand::Newer { found: version, known: CLUSTER_VERSION });
                }
                Command::Initialize { cluster_id, members, initial_stores, replicas, version }
            }
            wire::command::Kind::JoinStore(wire) => Command::JoinStore(wire.into()),
            wire::command::Kind::ActivateStore(wire) => {
                Command::ActivateStore(StoreId(wire.store_id))
            }
            wire::command::Kind::Bootstrap(wire::Bootstrap {}) => Command::Bootstrap,
            wire::command::Kind::AllocateIds(wire::AllocateIds { count }) => {
                if count == 0 || count > MAX_IDS {
                    return Err(BadCommand::Bound("ids of one allocation"));
                }
                Command::AllocateIds { count }
            }
            wire::command::Kind::ExtendTime(wire::ExtendTime { ceiling_ms }) => {
                Command::ExtendTime { ceiling_ms }
            }
            wire::command::Kind::SaveRegions(wire) => {
                if wire.regions.len() > MAX_SAVED_REGIONS {
                    return Err(BadCommand::Bound("regions saved at once"));
                }
                let regions = wire.regions.into_iter().map(SavedRegion::try_from);
                Command::SaveRegions(regions.collect::<Result<_, _>>()?)
            }
            wire::command::Kind::RaiseSafePoint(wire) => Command::RaiseSafePoint(wire.safe_point),
            wire::command::Kind::ChangeStore(wire) => Command::ChangeStore {
                store: StoreId(wire.store_id),
                life: notes::life_from_wire(wire.life, wire.to_store_id)?,
            },
            wire::command::Kind::SavePlan(wire) => Command::SavePlan(wire.try_into()?),
            wire::command::Kind::ChangeSettings(wire) => {
                if wire.settings.len() > settings::KNOWN.len() {
                    return Err(BadCommand::Bound("settings changed at once"));
                }
                let settings = wire.settings.into_iter().map(|set| (set.name, set.value));
                Command::ChangeSettings(settings.collect())
            }
            wire::command::Kind::JoinMember(wire) => Command::JoinMember(JoiningMember {
                name: wire.name,
                address: wire.address,
                data_id: wire.data_id,
                ..JoiningMember::default()
            }),
            wire::command::Kind::ChangeMembers(wire) => Command::ChangeMembers {
                version: wire.version,
                members: member::roles_from_wire(&wire.members)?,
            },
        })
    }
}

impl From<&Joining> for wire::JoinStore {
    fn from(joining: &Joining) -> Self {
        Self {
            cluster_id: joining.cluster_id,
            store_id: joining.store.map_or(0, StoreId::get),
            address: joining.address.clone(),
            status_address: joining.status_address.clone(),
            labels: labels_to_wire(&joining.labels),
            version: joining.version.clone(),
            incarnation: joining.incarnation,
            data_id: joining.data_id,
        }
    }
}

impl From<wire::JoinStore> for Joining {
    fn from(wire: wire::JoinStore) -> Self {
        Self {
            cluster_id: wire.cluster_id,
            store: (wire.store_id != 0).then_some(StoreId(wire.store_id)),
            address: wire.address,
            status_address: wire.status_address,
            labels: labels_from_wire(wire.labels),
            version: wire.version,
            incarnation: wire.incarnation,
            data_id: wire.data_id,
        }
    }
}

impl From<&SavedRegion> for wire::SavedRegion {
    fn from(saved: &SavedRegion) -> Self {
        Self {
            region: Some((&saved.region).into()),
            leader: saved.leader.map(Into::into),
            term: saved.term.0,
            approximate_bytes: saved.bytes,
            approximate_keys: saved.keys,
        }
    }
}

impl TryFrom<wire::SavedRegion> for SavedRegion {
    type Error = BadCommand;

    fn try_from(wire: wire::SavedRegion) -> Result<Self, BadCommand> {
        let region = Region::try_from(wire.region.ok_or(BadCommand::Missing("a region"))?)?;
        Ok(Self {
            leader: leader_from_wire(&region, wire.leader)?,
            region,
            term: Term(wire.term),
            bytes: wire.approximate_bytes,
            keys: wire.approximate_keys,
        })
    }
}

/// Parses a leader, which must be one of the region's peers.
pub(crate) fn leader_from_wire(
    region: &Region,
    leader: Option<metapb::Peer>,
) -> Result<Option<Peer>, InvalidRegion> {
    let bad = |id: RegionId, why| InvalidRegion::BadPeer(id, why);
    let Some(leader) = leader else { return Ok(None) };
    match region.peer(PeerId(leader.id)) {
        Some(peer) if peer.store.0 == leader.store_id => Ok(Some(*peer)),
        Some(_) | None => Err(bad(region.id, "the leader is none of the peers")),
    }
}

/// Labels as the wire has them.
pub(crate) fn labels_to_wire(labels: &BTreeMap<String, String>) -> Vec<metapb::StoreLabel> {
    let label = |(key, value): (&String, &String)| metapb::StoreLabel {
        key: key.clone(),
        value: value.clone(),
    };
    labels.iter().map(label).collect()
}

/// Labels from the wire; of two with one key, the last one counts.
pub(crate) fn labels_from_wire(labels: Vec<metapb::StoreLabel>) -> BTreeMap<String, String> {
    labels.into_iter().map(|label| (label.key, label.value)).collect()
}
