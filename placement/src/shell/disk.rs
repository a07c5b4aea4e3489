//! What a member keeps beside the replicated state, and how it opens its folder.
//!
//! In the engine's meta column family: `identity` (which member of which group, written once; by
//! one that joins twice: before it asks for its id, and with it; and whenever it has moved), `folders` (the data folders that the
//! group was founded with; before that: this one),
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

use super::founding::Folders;
use crate::core::command::Member;
use crate::core::state::State;
use crate::error::PlacementError;

/// Newest format of a folder that this version reads.
const FORMAT: u32 = 2;
/// Of a founding member's folder.
const FOUNDING: u32 = 1;
/// Of a folder that joined: an older version would take it for one with another group's list.
const JOINED: u32 = 2;

const IDENTITY: &[u8] = b"identity";
const FOLDERS: &[u8] = b"folders";
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
    /// The group as it was first started.
    pub(crate) first: Vec<Member>,
}

/// Which member a folder is.
#[derive(Debug)]
pub(crate) struct Identity {
    /// Its id; 0 while it has asked to join and has no answer yet.
    pub(crate) member: NodeId,
    /// The group as it was first started; of one that joined, those it was told of.
    pub(crate) first: Vec<Member>,
    /// How it joined; a founding member did not.
    pub(crate) joined: Option<Joined>,
}

/// How a member joined a running group.
#[derive(Clone, Debug)]
pub(crate) struct Joined {
    /// Drawn once for the folder. Never 0.
    pub(crate) data_id: u64,
    /// By what members know each other; 0 until it is told.
    pub(crate) fingerprint: u64,
    /// Its name; empty until it has an id, where nobody chose one.
    pub(crate) name: String,
    /// Where the others reach it.
    pub(crate) address: String,
}

/// Reads the folder of a founding member, or begins one for a member of `group`.
///
/// # Errors
/// The folder is another member's, another group's, a store's, or damaged.
pub(crate) fn open(
    engine: &Arc<dyn Engine>,
    folder: &Path,
    id: NodeId,
    group: &[Member],
) -> Result<Opened, PlacementError> {
    let first = match identity(engine.as_ref(), folder)? {
        Some(known) if known.member != id => {
            let (found, configured) = (known.member.0, id.0);
            let folder = folder.display().to_string();
            return Err(PlacementError::OtherMember { folder, found, configured });
        }
        Some(known) => known.first,
        None => {
            must_be_empty(engine.as_ref(), folder)?;
            // A group that begins alone is told from one that lost its disk by its folder, too.
            let folders = match group.len() {
                1 => Folders::from([(id, waiting(engine.as_ref(), folder)?)]),
                _ => Folders::new(),
            };
            begin(engine.as_ref(), id, group, &folders)?;
            group.to_vec()
        }
    };
    let (applied, state) = load(engine, folder)?;
    if !is_same_group(&first, group) && !is_same_group(&applied.members, group) {
        return Err(PlacementError::MembersChanged {
            first: list(&first),
            present: list(&applied.members),
            now: list(group),
        });
    }
    Ok(Opened { applied, state, first })
}

/// Reads what a folder holds that has been begun.
///
/// # Errors
/// It is damaged.
pub(crate) fn load(
    engine: &Arc<dyn Engine>,
    folder: &Path,
) -> Result<(Applied, State), PlacementError> {
    let shown = folder.display().to_string();
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
    Ok((applied, state))
}

/// Which member the folder is, if it has been begun.
///
/// # Errors
/// The engine cannot be read, or the identity in it.
pub(crate) fn identity(
    engine: &dyn Engine,
    folder: &Path,
) -> Result<Option<Identity>, PlacementError> {
    let shown = folder.display().to_string();
    let Some(bytes) = engine.get(Cf::Meta, IDENTITY)? else { return Ok(None) };
    let known: wire::Identity = decode(&shown, "its identity", &bytes)?;
    if known.format > FORMAT {
        let found = known.format;
        return Err(PlacementError::NewerFormat { folder: shown, found, known: FORMAT });
    }
    let wire::Identity { member_id, initial_members, data_id, fingerprint, name, address, .. } =
        known;
    let joined = (data_id != 0).then_some(Joined { data_id, fingerprint, name, address });
    let first = members_from_wire(&shown, initial_members)?;
    Ok(Some(Identity { member: NodeId(member_id), first, joined }))
}

/// Begins the folder of one that is about to ask.
///
/// # Errors
/// Something else lives there.
pub(crate) fn begin_joining(
    engine: &dyn Engine,
    folder: &Path,
    joined: &Joined,
) -> Result<(), PlacementError> {
    must_be_empty(engine, folder)?;
    let mut batch = WriteBatch::new();
    batch.delete(Cf::Meta, FOLDERS);
    put_joined(NodeId(0), joined, &[], &mut batch);
    Ok(engine.write_synced(batch)?)
}

/// It has its id. The group's state comes by a snapshot.
///
/// # Errors
/// The engine failed.
pub(crate) fn joined(
    engine: &dyn Engine,
    member: NodeId,
    joined: &Joined,
    told: &[Member],
) -> Result<(), PlacementError> {
    let mut batch = WriteBatch::new();
    put_joined(member, joined, told, &mut batch);
    let nothing = Applied { index: LogIndex(0), term: Term(0), members: Vec::new() };
    put_applied(&nothing, &mut batch);
    Ok(engine.write_synced(batch)?)
}

/// The group knows the member at the address in `joined` from now on.
///
/// # Errors
/// The engine failed.
pub(crate) fn moved(
    engine: &dyn Engine,
    member: NodeId,
    joined: &Joined,
    told: &[Member],
) -> Result<(), PlacementError> {
    let mut batch = WriteBatch::new();
    put_joined(member, joined, told, &mut batch);
    Ok(engine.write_synced(batch)?)
}

fn put_joined(member: NodeId, joined: &Joined, told: &[Member], batch: &mut WriteBatch) {
    let identity = wire::Identity {
        format: JOINED,
        member_id: member.0,
        initial_members: told.iter().map(Into::into).collect(),
        data_id: joined.data_id,
        fingerprint: joined.fingerprint,
        name: joined.name.clone(),
        address: joined.address.clone(),
    };
    batch.put(Cf::Meta, IDENTITY, identity.encode_to_vec());
}

fn is_same_group(one: &[Member], other: &[Member]) -> bool {
    let places = |group: &[Member]| -> Vec<(NodeId, String)> {
        group.iter().map(|member| (member.id, member.address.clone())).collect()
    };
    places(one) == places(other)
}

fn must_be_empty(engine: &dyn Engine, folder: &Path) -> Result<(), PlacementError> {
    match is_empty(engine)? {
        true => Ok(()),
        false => Err(PlacementError::ForeignFolder { folder: folder.display().to_string() }),
    }
}

fn is_empty(engine: &dyn Engine) -> Result<bool, EngineError> {
    let mut empty = true;
    for cf in Cf::ALL {
        engine.scan(cf, b"", b"", Direction::Forward, &mut |key, _| {
            // One that only waited for its group to be founded has done nothing yet.
            let waited = cf == Cf::Meta && key == FOLDERS;
            empty &= waited;
            if waited { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
    }
    Ok(empty)
}

/// The number of a folder that waits for its group to be founded; drawn and kept at the first call.
///
/// # Errors
/// Something else lives there, or it is damaged.
pub(crate) fn waiting(engine: &dyn Engine, folder: &Path) -> Result<u64, PlacementError> {
    must_be_empty(engine, folder)?;
    if let Some(number) = folders(engine, folder)?.values().next() {
        return Ok(*number);
    }
    let number = rand::random::<u64>().max(1);
    let mut batch = WriteBatch::new();
    // It is not known yet as whom it is founded: 0 stands for that.
    put_folders(&Folders::from([(NodeId(0), number)]), &mut batch);
    engine.write_synced(batch)?;
    Ok(number)
}

/// The folders that the group was founded with; none where that was not kept.
///
/// # Errors
/// The record is damaged.
pub(crate) fn folders(engine: &dyn Engine, folder: &Path) -> Result<Folders, PlacementError> {
    let shown = folder.display().to_string();
    let Some(bytes) = engine.get(Cf::Meta, FOLDERS)? else { return Ok(Folders::new()) };
    let known: wire::FoundingFolders = decode(&shown, "the list of founding folders", &bytes)?;
    Ok(known.folders.iter().map(|one| (NodeId(one.member_id), one.number)).collect())
}

fn put_folders(folders: &Folders, batch: &mut WriteBatch) {
    let one = |(member, number): (&NodeId, &u64)| wire::FoundingFolder {
        member_id: member.0,
        number: *number,
    };
    let folders = wire::FoundingFolders { folders: folders.iter().map(one).collect() };
    batch.put(Cf::Meta, FOLDERS, folders.encode_to_vec());
}

/// Begins the folder of a founding member, in a group that is founded with these `folders`.
///
/// # Errors
/// The engine failed.
pub(crate) fn begin(
    engine: &dyn Engine,
    id: NodeId,
    group: &[Member],
    folders: &Folders,
) -> Result<(), EngineError> {
    let identity = wire::Identity {
        format: FOUNDING,
        member_id: id.0,
        initial_members: group.iter().map(Into::into).collect(),
        ..wire::Identity::default()
    };
    let (index, term) = (LogIndex(INITIAL_INDEX), Term(INITIAL_INDEX));
    let mut batch = WriteBatch::new();
    batch.put(Cf::Meta, IDENTITY, identity.encode_to_vec());
    put_folders(folders, &mut batch);
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
