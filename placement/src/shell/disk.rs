//! What a member keeps beside the replicated state, and how it opens its folder.
//!
//! In the engine's meta column family: `identity` (which member of which group, written once),
//! `applied` (how far the state machine is, in one batch with what it applied) and, while a
//! received snapshot replaces the data, `installing`. An installation that a crash interrupted is
//! finished at the next start: the staged file outlives the crash, and only then is removed.

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use prost::Message;
use quorate_consensus::engine::{Cf, Direction, Engine, EngineError, WriteBatch};
use quorate_proto::limits::INITIAL_INDEX;
use quorate_proto::wire::placement_state as wire;
use quorate_proto::{LogIndex, NodeId, Term};

use crate::core::command::Member;
use crate::core::state::State;
use crate::error::PlacementError;

/// Format of the folder.
const FORMAT: u32 = 1;

const IDENTITY: &[u8] = b"identity";
const APPLIED: &[u8] = b"applied";
const INSTALLING: &[u8] = b"installing";

/// How far the state machine is, and who is in the group there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Applied {
    pub(crate) index: LogIndex,
    pub(crate) term: Term,
    pub(crate) members: Vec<Member>,
}

/// What a folder held.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) applied: Applied,
    pub(crate) state: State,
}

/// Reads a folder, or begins one for a member of `group`.
///
/// # Errors
/// The folder is another member's, another group's, a store's, or damaged.
pub(crate) fn open(
    engine: &Arc<dyn Engine>,
    folder: &Path,
    id: NodeId,
    group: &[Member],
) -> Result<Opened, PlacementError> {
    let shown = folder.display().to_string();
    match engine.get(Cf::Meta, IDENTITY)? {
        Some(bytes) => check(&shown, &bytes, id, group)?,
        None if is_empty(engine.as_ref())? => begin(engine.as_ref(), id, group)?,
        None => return Err(PlacementError::ForeignFolder { folder: shown }),
    }
    if let Some(bytes) = engine.get(Cf::Meta, INSTALLING)? {
        let what = "the mark of an unfinished installation";
        let mark: wire::Installing = decode(&shown, what, &bytes)?;
        let applied = mark.applied.ok_or_else(|| damaged(&shown, what))?;
        finish_install(engine.as_ref(), &mark.file, &applied_from_wire(&shown, applied)?)?;
        tracing::info!(file = %mark.file, "finished the installation of a snapshot");
    }
    let what = "the record of what is applied";
    let bytes = engine.get(Cf::Meta, APPLIED)?.ok_or_else(|| damaged(&shown, what))?;
    let applied = applied_from_wire(&shown, decode(&shown, what, &bytes)?)?;
    let state = State::load(engine.as_ref())?;
    Ok(Opened { applied, state })
}

/// The group that this folder belongs to, if it has been started before.
///
/// # Errors
/// The engine cannot be read, or the identity in it.
pub(crate) fn first_group(
    engine: &dyn Engine,
    folder: &Path,
) -> Result<Option<Vec<Member>>, PlacementError> {
    let shown = folder.display().to_string();
    let Some(bytes) = engine.get(Cf::Meta, IDENTITY)? else { return Ok(None) };
    let identity: wire::Identity = decode(&shown, "its identity", &bytes)?;
    Ok(Some(members_from_wire(&shown, identity.initial_members)?))
}

fn check(shown: &str, bytes: &[u8], id: NodeId, group: &[Member]) -> Result<(), PlacementError> {
    let identity: wire::Identity = decode(shown, "its identity", bytes)?;
    if identity.format > FORMAT {
        let (folder, found) = (shown.to_owned(), identity.format);
        return Err(PlacementError::NewerFormat { folder, found, known: FORMAT });
    }
    if identity.member_id != id.0 {
        let (folder, found) = (shown.to_owned(), identity.member_id);
        return Err(PlacementError::OtherMember { folder, found, configured: id.0 });
    }
    let first = members_from_wire(shown, identity.initial_members)?;
    let places = |group: &[Member]| -> Vec<(NodeId, String)> {
        group.iter().map(|member| (member.id, member.address.clone())).collect()
    };
    if places(&first) != places(group) {
        return Err(PlacementError::MembersChanged { first: list(&first), now: list(group) });
    }
    Ok(())
}

fn is_empty(engine: &dyn Engine) -> Result<bool, EngineError> {
    let mut empty = true;
    for cf in Cf::ALL {
        engine.scan(cf, b"", b"", Direction::Forward, &mut |_, _| {
            empty = false;
            ControlFlow::Break(())
        })?;
    }
    Ok(empty)
}

fn begin(engine: &dyn Engine, id: NodeId, group: &[Member]) -> Result<(), EngineError> {
    let identity = wire::Identity {
        format: FORMAT,
        member_id: id.0,
        initial_members: group.iter().map(Into::into).collect(),
    };
    let (index, term) = (LogIndex(INITIAL_INDEX), Term(INITIAL_INDEX));
    let mut batch = WriteBatch::new();
    batch.put(Cf::Meta, IDENTITY, identity.encode_to_vec());
    put_applied(&Applied { index, term, members: group.to_vec() }, &mut batch);
    engine.write_synced(batch)
}

/// Adds the record of what is applied to the batch that applies it.
pub(crate) fn put_applied(applied: &Applied, batch: &mut WriteBatch) {
    batch.put(Cf::Meta, APPLIED, applied_to_wire(applied).encode_to_vec());
}

/// Replaces the data by a staged snapshot. `consensus` goes into the first write.
///
/// # Errors
/// The engine failed: the process must stop. The next start goes on.
pub(crate) fn install(
    engine: &dyn Engine,
    file: &str,
    applied: &Applied,
    consensus: WriteBatch,
) -> Result<(), EngineError> {
    let mark = wire::Installing { file: file.to_owned(), applied: Some(applied_to_wire(applied)) };
    let mut batch = consensus;
    batch.put(Cf::Meta, INSTALLING, mark.encode_to_vec());
    engine.write_synced(batch)?;
    finish_install(engine, file, applied)
}

fn finish_install(engine: &dyn Engine, file: &str, applied: &Applied) -> Result<(), EngineError> {
    engine.ingest(file, b"", b"")?;
    let mut batch = WriteBatch::new();
    put_applied(applied, &mut batch);
    batch.delete(Cf::Meta, INSTALLING);
    engine.write_synced(batch)?;
    engine.discard_staged(file)
}

fn applied_to_wire(applied: &Applied) -> wire::Applied {
    wire::Applied {
        index: applied.index.0,
        term: applied.term.0,
        members: applied.members.iter().map(Into::into).collect(),
    }
}

fn applied_from_wire(shown: &str, wire: wire::Applied) -> Result<Applied, PlacementError> {
    Ok(Applied {
        index: LogIndex(wire.index),
        term: Term(wire.term),
        members: members_from_wire(shown, wire.members)?,
    })
}

fn members_from_wire(
    shown: &str,
    members: Vec<wire::Member>,
) -> Result<Vec<Member>, PlacementError> {
    let members = members.into_iter().map(Member::try_from).collect::<Result<_, _>>();
    members.map_err(|error| damaged(shown, &format!("its list of members: {error}")))
}

fn decode<T: Message + Default>(
    shown: &str,
    what: &str,
    bytes: &[u8],
) -> Result<T, PlacementError> {
    T::decode(bytes).map_err(|error| damaged(shown, &format!("{what}: {error}")))
}

fn damaged(shown: &str, what: &str) -> PlacementError {
    PlacementError::Damaged { folder: shown.to_owned(), what: what.to_owned() }
}

/// A group as its members are configured.
pub(crate) fn list(group: &[Member]) -> String {
    let one = |member: &Member| format!("{}={}", member.id.0, member.address);
    group.iter().map(one).collect::<Vec<_>>().join(",")
}

/// Tells groups apart before they have a cluster id: equal on members that were started with one
/// list. FNV-1a; never 0.
pub(crate) fn fingerprint(group: &[Member]) -> u64 {
    let hash = list(group).bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    hash.max(1)
}
