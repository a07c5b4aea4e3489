//! How the replicated state lies in the engine's data column family.
//!
//! One record for each thing that changes on its own, so that a command writes little:
//! `cluster`, `counters`, `initial`, `settings`, `member/ID`, `candidate/ID`, `store/ID`, `region/ID`,
//! `operator/ID`, `ended/NUMBER`, `lifecycle/REGION`, `event/NUMBER` (ids big-endian). The whole column family is
//! what a snapshot of the group carries. Every record is versioned as commands are: by the cluster
//! version that introduced its form.

use std::ops::ControlFlow;

use bytes::Bytes;
use prost::Message;
use quorate_consensus::engine::{Cf, Direction, EngineError, Reader, WriteBatch};
use quorate_proto::wire::placement_state as wire;
use quorate_proto::{NodeId, Region, RegionId, Role, StoreId};

use super::command::{
    BadCommand, CLUSTER_VERSION, Candidate, MEMBERS_SINCE, Member, NOTES_SINCE, PLANS_SINCE,
    SavedRegion, labels_from_wire, labels_to_wire, leader_from_wire, notes, plan,
};
use super::events::Event;
use super::lifecycle;
use super::operators::{Ended, Operator};
use super::settings::Settings;
use super::state::{Cluster, Counters, Store};

/// One stored thing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    Cluster(Cluster),
    Counters(Counters),
    Initial(Vec<Region>),
    Member(Member),
    Candidate(Candidate),
    Store(Store),
    Region(SavedRegion),
    Operator(Operator),
    Ended(u64, Ended),
    Lifecycle(RegionId, Vec<lifecycle::Record>),
    Event(Event),
    Settings(Settings),
}

impl Record {
    fn key(&self) -> Bytes {
        match self {
            Record::Cluster(_) => Bytes::from_static(b"cluster"),
            Record::Counters(_) => Bytes::from_static(b"counters"),
            Record::Initial(_) => Bytes::from_static(b"initial"),
            Record::Member(member) => member_key(member.id),
            Record::Candidate(candidate) => candidate_key(candidate.id),
            Record::Store(store) => store_key(store.id),
            Record::Region(saved) => region_key(saved.region.id),
            Record::Operator(operator) => operator_key(operator.id),
            Record::Ended(number, _) => ended_key(*number),
            Record::Lifecycle(region, _) => lifecycle_key(*region),
            Record::Event(event) => event_key(event.sequence),
            Record::Settings(_) => Bytes::from_static(b"settings"),
        }
    }

    /// The cluster version that introduced this form.
    fn since(&self) -> u32 {
        match self {
            Record::Cluster(_) | Record::Initial(_) | Record::Region(_) => 1,
            Record::Counters(counters) => match counters.members_version {
                0 => 1,
                _ => MEMBERS_SINCE,
            },
            Record::Member(member) => match member.role {
                Role::Voter => 1,
                Role::Learner | Role::IncomingVoter | Role::DemotingVoter => MEMBERS_SINCE,
            },
            Record::Candidate(_) => MEMBERS_SINCE,
            Record::Store(store) => notes::life_since(store.life),
            Record::Operator(operator) => operator.since(),
            Record::Ended(..) => NOTES_SINCE,
            Record::Lifecycle(_, records) => notes::lifecycle_since(records),
            Record::Event(_) | Record::Settings(_) => PLANS_SINCE,
        }
    }

    /// Adds the record to a batch.
    pub(crate) fn put(&self, batch: &mut WriteBatch) {
        let kind = match self {
            Record::Cluster(cluster) => wire::record::Kind::Cluster(wire::Cluster {
                cluster_id: cluster.id,
                cluster_version: cluster.version,
                initial_stores: cluster.initial_stores,
                replicas: cluster.replicas,
            }),
            Record::Counters(counters) => wire::record::Kind::Counters(wire::Counters {
                last_id: counters.last_id,
                time_ceiling_ms: counters.time_ceiling_ms,
                safe_point: counters.safe_point,
                members_version: counters.members_version,
            }),
            Record::Initial(regions) => wire::record::Kind::Initial(wire::Initial {
                regions: regions.iter().map(Into::into).collect(),
            }),
            Record::Member(member) => wire::record::Kind::Member(member.into()),
            Record::Candidate(candidate) => wire::record::Kind::Candidate(candidate.into()),
            Record::Store(store) => wire::record::Kind::Store(store_to_wire(store)),
            Record::Region(saved) => wire::record::Kind::Region(saved.into()),
            Record::Operator(operator) => wire::record::Kind::Operator(operator.into()),
            Record::Ended(number, ended) => {
                wire::record::Kind::Ended(notes::ended_to_wire(ended, *number))
            }
            Record::Lifecycle(region, records) => {
                wire::record::Kind::Lifecycle(plan::lifecycle_to_wire(*region, records))
            }
            Record::Event(event) => wire::record::Kind::Event(plan::event_to_wire(event)),
            Record::Settings(settings) => {
                let settings = settings.changed().iter().map(plan::setting_to_wire).collect();
                wire::record::Kind::Settings(wire::ChangedSettings { settings })
            }
        };
        let record = wire::Record { version: self.since(), kind: Some(kind) };
        batch.put(Cf::Data, self.key(), record.encode_to_vec());
    }

    fn decode(value: &[u8]) -> Result<Self, BadCommand> {
        let record =
            wire::Record::decode(value).map_err(|error| BadCommand::Decode(error.to_string()))?;
        if record.version > CLUSTER_VERSION {
            return Err(BadCommand::Newer { found: record.version, known: CLUSTER_VERSION });
        }
        Ok(match record.kind.ok_or(BadCommand::Missing("its kind"))? {
            wire::record::Kind::Cluster(wire) => Record::Cluster(Cluster {
                id: wire.cluster_id,
                version: wire.cluster_version,
                initial_stores: wire.initial_stores,
                replicas: wire.replicas,
            }),
            wire::record::Kind::Counters(wire) => Record::Counters(Counters {
                last_id: wire.last_id,
                time_ceiling_ms: wire.time_ceiling_ms,
                safe_point: wire.safe_point,
                members_version: wire.members_version,
            }),
            wire::record::Kind::Initial(wire) => Record::Initial(
                wire.regions.into_iter().map(Region::try_from).collect::<Result<_, _>>()?,
            ),
            wire::record::Kind::Member(wire) => Record::Member(wire.try_into()?),
            wire::record::Kind::Candidate(wire) => Record::Candidate(wire.into()),
            wire::record::Kind::Store(wire) => Record::Store(store_from_wire(wire)?),
            wire::record::Kind::Region(wire) => {
                let region = wire.region.ok_or(BadCommand::Missing("a region"))?;
                let region = Region::try_from(region)?;
                Record::Region(SavedRegion {
                    leader: leader_from_wire(&region, wire.leader)?,
                    region,
                    term: wire.term.into(),
                    bytes: wire.approximate_bytes,
                    keys: wire.approximate_keys,
                })
            }
            wire::record::Kind::Operator(wire) => Record::Operator(wire.try_into()?),
            wire::record::Kind::Ended(wire) => {
                let (number, ended) = notes::ended_from_wire(wire)?;
                Record::Ended(number, ended)
            }
            wire::record::Kind::Lifecycle(wire) => {
                let (region, records) = plan::lifecycle_from_wire(wire)?;
                Record::Lifecycle(region, records)
            }
            wire::record::Kind::Event(wire) => Record::Event(plan::event_from_wire(wire)?),
            wire::record::Kind::Settings(wire) => {
                let settings = wire.settings.into_iter().map(|set| (set.name, set.value));
                Record::Settings(Settings::new(settings.collect()))
            }
        })
    }
}

fn store_to_wire(store: &Store) -> wire::Store {
    let (life, to_store_id) = notes::life_to_wire(store.life);
    wire::Store {
        id: store.id.0,
        address: store.address.clone(),
        status_address: store.status_address.clone(),
        labels: labels_to_wire(&store.labels),
        version: store.version.clone(),
        incarnation: store.incarnation,
        data_id: store.data_id,
        life: life.into(),
        to_store_id,
    }
}

fn store_from_wire(wire: wire::Store) -> Result<Store, BadCommand> {
    let life = notes::life_from_wire(wire.life, wire.to_store_id)?;
    Ok(Store {
        id: StoreId(wire.id),
        address: wire.address,
        status_address: wire.status_address,
        labels: labels_from_wire(wire.labels),
        version: wire.version,
        incarnation: wire.incarnation,
        data_id: wire.data_id,
        life,
    })
}

/// Removes a region's record.
pub(crate) fn delete_region(batch: &mut WriteBatch, region: RegionId) {
    batch.delete(Cf::Data, region_key(region));
}

/// Removes a member's record.
pub(crate) fn delete_member(batch: &mut WriteBatch, id: NodeId) {
    batch.delete(Cf::Data, member_key(id));
}

/// Removes an operator's record.
pub(crate) fn delete_operator(batch: &mut WriteBatch, id: u64) {
    batch.delete(Cf::Data, operator_key(id));
}

/// Removes the record of an operator that ended.
pub(crate) fn delete_ended(batch: &mut WriteBatch, number: u64) {
    batch.delete(Cf::Data, ended_key(number));
}

/// Removes the record of a group's lifecycles.
pub(crate) fn delete_lifecycle(batch: &mut WriteBatch, region: RegionId) {
    batch.delete(Cf::Data, lifecycle_key(region));
}

/// Removes an event's record.
pub(crate) fn delete_event(batch: &mut WriteBatch, sequence: u64) {
    batch.delete(Cf::Data, event_key(sequence));
}

/// Visits all records, of each kind in the order of their numbers.
///
/// # Errors
/// The engine cannot be read, or holds what is no record of this or an earlier version.
pub(crate) fn visit(reader: &dyn Reader, mut each: impl FnMut(Record)) -> Result<(), EngineError> {
    let mut bad = None;
    reader.scan(Cf::Data, b"", b"", Direction::Forward, &mut |key, value| match Record::decode(
        value,
    ) {
        Ok(record) if record.key() == key => {
            each(record);
            ControlFlow::Continue(())
        }
        Ok(_) => {
            bad = Some((key.to_vec(), "it lies under another's key".to_owned()));
            ControlFlow::Break(())
        }
        Err(error) => {
            bad = Some((key.to_vec(), error.to_string()));
            ControlFlow::Break(())
        }
    })?;
    match bad {
        None => Ok(()),
        Some((key, reason)) => Err(EngineError::Fatal {
            during: format!("loading placement's record {}", quorate_proto::key::display(&key)),
            reason,
        }),
    }
}

fn member_key(id: NodeId) -> Bytes {
    numbered(b"member/", id.0)
}

fn candidate_key(id: NodeId) -> Bytes {
    numbered(b"candidate/", id.0)
}

fn store_key(id: StoreId) -> Bytes {
    numbered(b"store/", id.0)
}

fn region_key(id: RegionId) -> Bytes {
    numbered(b"region/", id.0)
}

fn operator_key(id: u64) -> Bytes {
    numbered(b"operator/", id)
}

fn ended_key(number: u64) -> Bytes {
    numbered(b"ended/", number)
}

fn lifecycle_key(region: RegionId) -> Bytes {
    numbered(b"lifecycle/", region.0)
}

fn event_key(sequence: u64) -> Bytes {
    numbered(b"event/", sequence)
}

fn numbered(prefix: &[u8], number: u64) -> Bytes {
    let mut key = Vec::with_capacity(prefix.len() + 8);
    key.extend_from_slice(prefix);
    key.extend_from_slice(&number.to_be_bytes());
    key.into()
}
