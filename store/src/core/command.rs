//! What is in a region's log: requests become commands, commands become writes.
//!
//! A command is a protobuf message (`quorate.command.Command`) with its length in front, so that
//! several stand in one log entry, one behind another. [`put_all`] and [`delete_all`] encode it by
//! hand: a value is copied once, from the request into the entry, its byte of flags added on the
//! way. [`Commands`] parses without copying: keys and values share the memory of the entry.
//!
//! Every bound of `limits` is checked here, so what is in a log is known to be within them.

use bytes::Bytes;
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use quorate_proto::limits::{MAX_BATCH_ITEMS, MAX_ENTRY_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES};
use quorate_proto::wire::command::{
    ChangePeers, Command, CommitMerge, DeleteRange, PrepareMerge, RefuseMerge, RollbackMerge,
    Split, SplitTo,
};
use quorate_proto::{Epoch, LogIndex, Peer, Region, RegionId};
use thiserror::Error;

use super::keys::PLAIN;

/// What a proposer puts on a command: which region it checked against, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Version of the region epoch.
    pub version: u64,
    /// Configuration version of the epoch; matters to splits and changes of peers only.
    pub conf_ver: u64,
    /// Placement time, milliseconds since the Unix epoch.
    pub time_ms: u64,
}

/// Why a request cannot become a command. The words go to the user.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommandError {
    /// The key is empty.
    #[error("an empty key cannot be stored: give it at least one byte")]
    EmptyKey,
    /// The key is too long.
    #[error("a key of {0} bytes is over the limit of {MAX_KEY_BYTES}: shorten it")]
    KeyTooLong(usize),
    /// The value is too long.
    #[error("a value of {0} bytes is over the limit of {MAX_VALUE_BYTES}: store it in parts")]
    ValueTooLong(usize),
    /// Too many pairs or keys at once.
    #[error("{0} items in one batch are over the limit of {MAX_BATCH_ITEMS}: send fewer at once")]
    TooManyItems(usize),
    /// All of it together is too large.
    #[error("a batch of {0} bytes is over the limit of {MAX_ENTRY_BYTES}: send less at once")]
    TooLarge(usize),
    /// The range to delete ends before it starts.
    #[error("the end of the range is not above its start: nothing to delete")]
    EmptyRange,
    /// A split without keys, or with keys that do not ascend.
    #[error("a split needs keys in ascending order, without duplicates")]
    BadSplitKeys,
}

/// Checks a key that is to be stored.
///
/// # Errors
/// It is empty or too long.
pub fn check_key(key: &[u8]) -> Result<(), CommandError> {
    if key.is_empty() {
        return Err(CommandError::EmptyKey);
    }
    check_bound(key)
}

/// Checks the bound of a range: any key, or empty for none.
///
/// # Errors
/// It is too long.
pub fn check_bound(key: &[u8]) -> Result<(), CommandError> {
    if key.len() > MAX_KEY_BYTES { Err(CommandError::KeyTooLong(key.len())) } else { Ok(()) }
}

/// The command that stores one pair.
///
/// # Errors
/// Key or value is out of bounds.
pub fn put(stamp: Stamp, key: &[u8], value: &[u8]) -> Result<Bytes, CommandError> {
    put_all(stamp, &[(key, value)])
}

/// The command that stores pairs, all of them or none. A key that comes twice gets the later value.
///
/// # Errors
/// A key or value is out of bounds, or they are too many or too large together.
pub fn put_all<K, V>(stamp: Stamp, pairs: &[(K, V)]) -> Result<Bytes, CommandError>
where
    K: AsRef<[u8]>,
    V: AsRef<[u8]>,
{
    for (_, value) in pairs {
        let length = value.as_ref().len();
        if length > MAX_VALUE_BYTES {
            return Err(CommandError::ValueTooLong(length));
        }
    }
    encode_writes(stamp, pairs, |(key, value)| (key.as_ref(), Some(value.as_ref())))
}

/// The command that removes one key.
///
/// # Errors
/// The key is out of bounds.
pub fn delete(stamp: Stamp, key: &[u8]) -> Result<Bytes, CommandError> {
    delete_all(stamp, &[key])
}

/// The command that removes keys, all of them or none. Keys that are not there are fine.
///
/// # Errors
/// A key is out of bounds, or they are too many or too large together.
pub fn delete_all<K: AsRef<[u8]>>(stamp: Stamp, keys: &[K]) -> Result<Bytes, CommandError> {
    encode_writes(stamp, keys, |key| (key.as_ref(), None))
}

/// The command that removes all keys of `[start, end)`; an empty `end` means the region's end.
///
/// # Errors
/// A bound is too long, or nothing lies between them.
pub fn delete_range(stamp: Stamp, start: &[u8], end: &[u8]) -> Result<Bytes, CommandError> {
    check_bound(start)?;
    check_bound(end)?;
    if !end.is_empty() && start >= end {
        return Err(CommandError::EmptyRange);
    }
    let (start, end) = (Bytes::copy_from_slice(start), Bytes::copy_from_slice(end));
    encode_admin(Command { delete_range: Some(DeleteRange { start, end }), ..stamped(stamp) })
}

/// The command that splits the region. Propose it with `suspends_lease`.
///
/// # Errors
/// No children, keys out of bounds or order, or too many of them.
pub fn split(stamp: Stamp, children: Vec<SplitTo>) -> Result<Bytes, CommandError> {
    if children.is_empty() || !children.is_sorted_by(|left, right| left.key < right.key) {
        return Err(CommandError::BadSplitKeys);
    }
    children.iter().try_for_each(|child| check_key(&child.key))?;
    encode_admin(Command { split: Some(Split { children }), ..stamped(stamp) })
}

/// The command that makes `peers` those of the region. It goes with a change of the group's
/// members, never as a proposal of its own.
///
/// # Errors
/// There are too many of them.
pub fn change_peers(stamp: Stamp, peers: &[Peer]) -> Result<Bytes, CommandError> {
    let peers = peers.iter().map(|peer| (*peer).into()).collect();
    encode_admin(Command { change_peers: Some(ChangePeers { peers }), ..stamped(stamp) })
}

/// The command that stops the region, to be taken in by `target` at that epoch. Propose it with
/// `suspends_lease`.
///
/// # Errors
/// None so far: it is small.
pub fn prepare_merge(
    stamp: Stamp,
    target: RegionId,
    target_epoch: Epoch,
) -> Result<Bytes, CommandError> {
    let prepare = PrepareMerge { target_id: target.0, target_epoch: Some(target_epoch.into()) };
    encode_admin(Command { prepare_merge: Some(prepare), ..stamped(stamp) })
}

/// The command by which the region takes `source` in, which was stopped by its entry `frozen`.
/// Propose it with `suspends_lease`.
///
/// # Errors
/// The description is too large.
pub fn commit_merge(
    stamp: Stamp,
    source: &Region,
    frozen: LogIndex,
) -> Result<Bytes, CommandError> {
    let commit = CommitMerge { source: Some(source.into()), frozen_index: frozen.0 };
    encode_admin(Command { commit_merge: Some(commit), ..stamped(stamp) })
}

/// The command that lets the region go on, which was stopped by its entry `frozen`: the target, as
/// it was seen at `target_epoch`, will never take it in.
///
/// # Errors
/// None so far: it is small.
pub fn rollback_merge(
    stamp: Stamp,
    frozen: LogIndex,
    target_epoch: Epoch,
) -> Result<Bytes, CommandError> {
    let target_epoch = Some(target_epoch.into());
    let rollback = RollbackMerge { frozen_index: frozen.0, target_epoch };
    encode_admin(Command { rollback_merge: Some(rollback), ..stamped(stamp) })
}

/// The command that raises the version of the region, so that it takes nobody in that is stopped
/// for it now.
///
/// # Errors
/// None so far: it is small.
pub fn refuse_merge(stamp: Stamp) -> Result<Bytes, CommandError> {
    encode_admin(Command { refuse_merge: Some(RefuseMerge {}), ..stamped(stamp) })
}

fn stamped(stamp: Stamp) -> Command {
    let Stamp { version, conf_ver, time_ms } = stamp;
    Command { version, conf_ver, time_ms, ..Command::default() }
}

fn encode_admin(command: Command) -> Result<Bytes, CommandError> {
    let bytes = Bytes::from(command.encode_length_delimited_to_vec());
    if bytes.len() > MAX_ENTRY_BYTES { Err(CommandError::TooLarge(bytes.len())) } else { Ok(bytes) }
}

/// Tags of the fields that are encoded by hand: number shifted by three, plus the wire type.
mod tag {
    pub(super) const VERSION: u8 = 1 << 3;
    pub(super) const CONF_VER: u8 = 2 << 3;
    pub(super) const TIME_MS: u8 = 3 << 3;
    pub(super) const WRITES: u8 = (4 << 3) | 2;
    pub(super) const KEY: u8 = (1 << 3) | 2;
    pub(super) const VALUE: u8 = (2 << 3) | 2;
    pub(super) const DELETE: u8 = 3 << 3;
}

/// Encodes writes as prost would, in one allocation and with one copy of each key and value.
fn encode_writes<I>(
    stamp: Stamp,
    items: &[I],
    view: impl Fn(&I) -> (&[u8], Option<&[u8]>),
) -> Result<Bytes, CommandError> {
    if items.len() > MAX_BATCH_ITEMS {
        return Err(CommandError::TooManyItems(items.len()));
    }
    let header = [
        (tag::VERSION, stamp.version),
        (tag::CONF_VER, stamp.conf_ver),
        (tag::TIME_MS, stamp.time_ms),
    ];
    let mut length = 0;
    for (_, number) in header {
        length += if number == 0 { 0 } else { 1 + encoded_len_varint(number) };
    }
    for item in items {
        let (key, value) = view(item);
        check_key(key)?;
        length += field_len(write_len(key, value));
    }
    if length > MAX_ENTRY_BYTES {
        return Err(CommandError::TooLarge(length));
    }
    let mut out = Vec::with_capacity(length + encoded_len_varint(length as u64));
    encode_varint(length as u64, &mut out);
    for (tag, number) in header {
        if number != 0 {
            out.push(tag);
            encode_varint(number, &mut out);
        }
    }
    for item in items {
        let (key, value) = view(item);
        put_len(&mut out, tag::WRITES, write_len(key, value));
        put_len(&mut out, tag::KEY, key.len());
        out.extend_from_slice(key);
        match value {
            Some(value) => {
                put_len(&mut out, tag::VALUE, value.len() + 1);
                out.extend_from_slice(value);
                out.push(PLAIN);
            }
            None => out.extend_from_slice(&[tag::DELETE, 1]),
        }
    }
    Ok(Bytes::from(out))
}

/// Length of a field of that many bytes, with tag and length in front.
fn field_len(bytes: usize) -> usize {
    1 + encoded_len_varint(bytes as u64) + bytes
}

fn write_len(key: &[u8], value: Option<&[u8]>) -> usize {
    field_len(key.len()) + value.map_or(2, |value| field_len(value.len() + 1))
}

fn put_len(out: &mut Vec<u8>, tag: u8, length: usize) {
    out.push(tag);
    encode_varint(length as u64, out);
}

/// The commands of one log entry, in order. Keys and values share the entry's memory.
#[derive(Debug, Clone)]
pub struct Commands {
    rest: Bytes,
}

/// An entry that no version of ours wrote.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a log entry holds no command: {0}")]
pub struct InvalidCommand(String);

impl Commands {
    /// Reads an entry's data; empty data has no commands.
    pub fn new(data: Bytes) -> Self {
        Self { rest: data }
    }
}

impl Iterator for Commands {
    type Item = Result<Command, InvalidCommand>;

    /// After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let command = Command::decode_length_delimited(&mut self.rest);
        if command.is_err() {
            self.rest.clear();
        }
        Some(command.map_err(|error| InvalidCommand(error.to_string())))
    }
}
