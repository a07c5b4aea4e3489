//! How a group's log and hard state lie in the `raft` column family.
//!
//! Keys are the group id (big-endian) and a tag, so that everything of a group is together and
//! entries are in order of their index. Every record starts with a byte that names its version.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_proto::RegionId;
use raft::eraftpb::{Entry, EntryType, HardState};

use crate::engine::{Cf, WriteBatch};

const HARD_STATE: u8 = 1;
const TRUNCATED: u8 = 2;
const ENTRY: u8 = 3;
const END: u8 = 4;

const VERSION: u8 = 1;
const HAS_CONTEXT: u8 = 0x80;

/// A record that this version cannot read.
#[derive(Debug, thiserror::Error)]
#[error("{group}: the {what} record is damaged or of a newer version")]
pub(crate) struct BadRecord {
    pub(crate) group: RegionId,
    pub(crate) what: &'static str,
}

fn tagged(group: RegionId, tag: u8) -> Bytes {
    let mut key = [0; 9];
    key[..8].copy_from_slice(&group.0.to_be_bytes());
    key[8] = tag;
    Bytes::copy_from_slice(&key)
}

pub(crate) fn hard_state_key(group: RegionId) -> Bytes {
    tagged(group, HARD_STATE)
}

pub(crate) fn truncated_key(group: RegionId) -> Bytes {
    tagged(group, TRUNCATED)
}

pub(crate) fn entry_key(group: RegionId, index: u64) -> Bytes {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&group.0.to_be_bytes());
    key[8] = ENTRY;
    key[9..].copy_from_slice(&index.to_be_bytes());
    Bytes::copy_from_slice(&key)
}

/// First and one-past-last key of all entries of a group.
pub(crate) fn entry_bounds(group: RegionId) -> (Bytes, Bytes) {
    (tagged(group, ENTRY), tagged(group, END))
}

/// Adds the removal of all records of a group to a batch: log, hard state, truncated state. Only
/// once the group is gone from its shard, or its next write would bring some of it back.
pub fn forget_group(group: RegionId, batch: &mut WriteBatch) {
    let (start, end) = group_bounds(group);
    batch.delete_range(Cf::Raft, start, end);
}

/// First and one-past-last key of everything of a group.
pub(crate) fn group_bounds(group: RegionId) -> (Bytes, Bytes) {
    (tagged(group, 0), tagged(group, u8::MAX))
}

pub(crate) fn put_hard_state(group: RegionId, state: &HardState, batch: &mut WriteBatch) {
    let mut value = BytesMut::with_capacity(25);
    value.put_u8(VERSION);
    value.put_u64(state.term);
    value.put_u64(state.vote);
    value.put_u64(state.commit);
    batch.put(Cf::Raft, hard_state_key(group), value.freeze());
}

pub(crate) fn parse_hard_state(group: RegionId, value: &[u8]) -> Result<HardState, BadRecord> {
    let [term, vote, commit] = numbers(value).ok_or(BadRecord { group, what: "hard state" })?;
    let mut state = HardState::default();
    state.set_term(term);
    state.set_vote(vote);
    state.set_commit(commit);
    Ok(state)
}

pub(crate) fn put_truncated(group: RegionId, index: u64, term: u64, batch: &mut WriteBatch) {
    let mut value = BytesMut::with_capacity(17);
    value.put_u8(VERSION);
    value.put_u64(index);
    value.put_u64(term);
    batch.put(Cf::Raft, truncated_key(group), value.freeze());
}

pub(crate) fn parse_truncated(group: RegionId, value: &[u8]) -> Result<(u64, u64), BadRecord> {
    let [index, term] = numbers(value).ok_or(BadRecord { group, what: "truncated state" })?;
    Ok((index, term))
}

fn numbers<const N: usize>(value: &[u8]) -> Option<[u64; N]> {
    if value.len() != 1 + 8 * N || value[0] != VERSION {
        return None;
    }
    let mut numbers = [0; N];
    for (number, bytes) in numbers.iter_mut().zip(value[1..].chunks_exact(8)) {
        *number = u64::from_be_bytes(bytes.try_into().ok()?);
    }
    Some(numbers)
}

/// `[version][kind, high bit: has a context][term][context length u32, context]?[data]`
pub(crate) fn put_entry(group: RegionId, entry: &Entry, batch: &mut WriteBatch) {
    let mut value = BytesMut::with_capacity(14 + entry.context.len() + entry.data.len());
    value.put_u8(VERSION);
    let kind = entry.entry_type as u8;
    if entry.context.is_empty() {
        value.put_u8(kind);
        value.put_u64(entry.term);
    } else {
        value.put_u8(kind | HAS_CONTEXT);
        value.put_u64(entry.term);
        value.put_u32(u32::try_from(entry.context.len()).unwrap_or(u32::MAX));
        value.put_slice(&entry.context);
    }
    value.put_slice(&entry.data);
    batch.put(Cf::Raft, entry_key(group, entry.index), value.freeze());
}

pub(crate) fn parse_entry(group: RegionId, index: u64, value: Bytes) -> Result<Entry, BadRecord> {
    parse_entry_inner(index, value).ok_or(BadRecord { group, what: "log entry" })
}

fn parse_entry_inner(index: u64, value: Bytes) -> Option<Entry> {
    if value.len() < 10 || value[0] != VERSION {
        return None;
    }
    let mut entry = Entry::default();
    entry.set_entry_type(entry_kind(u32::from(value[1] & !HAS_CONTEXT))?);
    entry.term = u64::from_be_bytes(value[2..10].try_into().ok()?);
    entry.index = index;
    let mut at = 10;
    if value[1] & HAS_CONTEXT != 0 {
        let length = u32::from_be_bytes(value.get(10..14)?.try_into().ok()?) as usize;
        at = 14usize.checked_add(length)?;
        if at > value.len() {
            return None;
        }
        entry.context = value.slice(14..at);
    }
    entry.data = value.slice(at..);
    Some(entry)
}

/// The kind of a log entry from its number.
pub(crate) fn entry_kind(number: u32) -> Option<EntryType> {
    match number {
        0 => Some(EntryType::EntryNormal),
        1 => Some(EntryType::EntryConfChange),
        2 => Some(EntryType::EntryConfChangeV2),
        _ => None,
    }
}

/// The term of a stored entry, without its data.
pub(crate) fn entry_term(group: RegionId, value: &[u8]) -> Result<u64, BadRecord> {
    value
        .get(2..10)
        .filter(|_| value[0] == VERSION)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_be_bytes)
        .ok_or(BadRecord { group, what: "log entry" })
}

/// The index in an entry's key.
pub(crate) fn entry_index(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(9..17)?.try_into().ok()?))
}

#[cfg(test)]
#[path = "records_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
