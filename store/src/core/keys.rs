//! Where things lie in the engine, and what a stored value looks like.
//!
//! [`Cf::Meta`] holds, each under one letter, the identity of the store (`i`), and for each region
//! its state (`r`, then the region id) and what it has applied (`a`, then the id). Ids are eight
//! bytes, big-endian, so that one scan finds them in order.
//!
//! [`Cf::Data`] holds users' keys as they are. A stored value is the user's value followed by one
//! byte of flags: zero for a plain one. Other flags are those of later versions, which may put
//! more in front of that byte, so an unknown one is an error, never ignored.

use std::ops::ControlFlow;

use bytes::Bytes;
use prost::Message;
use quorate_consensus::engine::{Cf, Direction, EngineError, Reader, WriteBatch};
use quorate_proto::limits::MAX_KEY_BYTES;
use quorate_proto::wire::command::{ApplyState, RegionState, StoreIdent};
use quorate_proto::{KeyRange, RegionId};

/// Format of the data folder that this version reads and writes.
pub const FORMAT: u32 = 1;
/// The flags of a stored value that is nothing but a value.
pub const PLAIN: u8 = 0;

const IDENT: &[u8] = b"i";
const REGION: u8 = b'r';
const APPLY: u8 = b'a';

/// Length of a key that names a region.
const REGION_KEY: usize = 9;

fn region_key(letter: u8, region: RegionId) -> Bytes {
    let mut key = [letter; REGION_KEY];
    key[1..].copy_from_slice(&region.0.to_be_bytes());
    Bytes::copy_from_slice(&key)
}

/// Where a region's [`RegionState`] lies in [`Cf::Meta`].
pub fn region_state(region: RegionId) -> Bytes {
    region_key(REGION, region)
}

/// Where a region's [`ApplyState`] lies in [`Cf::Meta`].
pub fn apply_state(region: RegionId) -> Bytes {
    region_key(APPLY, region)
}

/// The identity of the store, if its folder has one.
///
/// # Errors
/// The stored bytes cannot be read or parsed, or a later version wrote them.
pub fn read_ident(reader: &dyn Reader) -> Result<Option<StoreIdent>, EngineError> {
    let Some(bytes) = reader.get(Cf::Meta, IDENT)? else { return Ok(None) };
    let ident =
        StoreIdent::decode(bytes).map_err(|error| corrupt("the store's identity", &error))?;
    if ident.format > FORMAT {
        let path = "this store's folder".to_owned();
        return Err(EngineError::Newer { path, found: ident.format, supported: FORMAT });
    }
    Ok(Some(ident))
}

/// Adds the identity of the store to a batch.
pub fn put_ident(batch: &mut WriteBatch, ident: &StoreIdent) {
    batch.put(Cf::Meta, IDENT, ident.encode_to_vec());
}

/// Adds a region's state to a batch.
pub fn put_region_state(batch: &mut WriteBatch, region: RegionId, state: &RegionState) {
    batch.put(Cf::Meta, region_state(region), state.encode_to_vec());
}

/// Adds what a region has applied to a batch.
pub fn put_apply_state(batch: &mut WriteBatch, region: RegionId, state: &ApplyState) {
    batch.put(Cf::Meta, apply_state(region), state.encode_to_vec());
}

/// All stored region states, by ascending id.
///
/// # Errors
/// The stored bytes cannot be read or parsed.
pub fn region_states(reader: &dyn Reader) -> Result<Vec<(RegionId, RegionState)>, EngineError> {
    scan(reader, REGION, "a region's state")
}

/// All stored applied indexes, by ascending id.
///
/// # Errors
/// The stored bytes cannot be read or parsed.
pub fn apply_states(reader: &dyn Reader) -> Result<Vec<(RegionId, ApplyState)>, EngineError> {
    scan(reader, APPLY, "a region's applied index")
}

fn scan<M: Message + Default>(
    reader: &dyn Reader,
    letter: u8,
    what: &str,
) -> Result<Vec<(RegionId, M)>, EngineError> {
    let mut found = Vec::new();
    let mut bad = None;
    reader.scan(Cf::Meta, &[letter], &[letter + 1], Direction::Forward, &mut |key, value| {
        let id: Result<[u8; 8], _> = key[1..].try_into();
        let reason = match (id, M::decode(value)) {
            (Ok(id), Ok(message)) => {
                found.push((RegionId(u64::from_be_bytes(id)), message));
                return ControlFlow::Continue(());
            }
            (Err(_), _) => format!("its key has {} bytes instead of {REGION_KEY}", key.len()),
            (Ok(_), Err(error)) => error.to_string(),
        };
        bad = Some(EngineError::Corrupt { what: what.to_owned(), reason });
        ControlFlow::Break(())
    })?;
    bad.map_or(Ok(found), Err)
}

/// Adds the removal of all data of a range to a batch.
pub fn delete_data(batch: &mut WriteBatch, range: &KeyRange) {
    let end = if range.end.is_empty() { ceiling() } else { range.end.clone() };
    batch.delete_range(Cf::Data, range.start.clone(), end);
}

/// Above every key that can be stored.
fn ceiling() -> Bytes {
    static CEILING: [u8; MAX_KEY_BYTES + 1] = [0xff; MAX_KEY_BYTES + 1];
    Bytes::from_static(&CEILING)
}

/// The user's part of a stored value; shares its memory.
///
/// # Errors
/// [`EngineError::Corrupt`] for an empty stored value or flags this version does not know.
pub fn user_value(stored: Bytes) -> Result<Bytes, EngineError> {
    let length = user_len(&stored)?;
    Ok(stored.slice(..length))
}

/// How long the user's part of a stored value is.
///
/// # Errors
/// As [`user_value`].
pub fn user_len(stored: &[u8]) -> Result<usize, EngineError> {
    let reason = match stored.split_last() {
        Some((&PLAIN, value)) => return Ok(value.len()),
        Some((flags, _)) => format!("unknown flags {flags:#04x}: a later version wrote it"),
        None => "it lacks its byte of flags".to_owned(),
    };
    Err(EngineError::Corrupt { what: "a stored value".to_owned(), reason })
}

/// An error for stored bytes that cannot be parsed.
pub(crate) fn corrupt(what: &str, reason: &dyn std::fmt::Display) -> EngineError {
    EngineError::Corrupt { what: what.to_owned(), reason: reason.to_string() }
}
