//! What the engine has of a group's log, for whoever applies it beside the group itself.
//!
//! A region that is taken in by its neighbour is brought up to its last entry by the neighbour's
//! state machine, whatever its own group knows to be committed by then. That is sound only up to an
//! entry that is known to be committed and to be durable in this engine: up to there a log never
//! changes again. Entries that are not applied are never truncated.

use std::ops::ControlFlow;

use bytes::Bytes;
use quorate_proto::{LogIndex, RegionId, Term};
use raft::eraftpb::EntryType;

use super::records::{self, BadRecord};
use crate::engine::{Cf, Direction, EngineError, Reader};
use crate::shard::Committed;

/// The entries of a group behind `after`, up to and including `to`, without tokens: as many as fit
/// into `bytes`, at least one. Never empty where `after` is below `to`.
///
/// # Errors
/// The engine, an entry that cannot be read, or one that is missing ([`EngineError::Corrupt`]).
pub fn durable_entries<T>(
    reader: &dyn Reader,
    group: RegionId,
    after: LogIndex,
    to: LogIndex,
    bytes: usize,
) -> Result<Vec<Committed<T>>, EngineError> {
    let mut entries = Vec::new();
    let mut size = 0;
    let mut bad: Option<String> = None;
    let (low, high) = (after.0 + 1, to.0 + 1);
    reader.scan(
        Cf::Raft,
        &records::entry_key(group, low),
        &records::entry_key(group, high),
        Direction::Forward,
        &mut |key, value| {
            let index = records::entry_index(key).unwrap_or(0);
            let expected = low + entries.len() as u64;
            if index != expected {
                bad = Some(format!("entry {expected} is missing"));
                return ControlFlow::Break(());
            }
            size += value.len();
            if !entries.is_empty() && size > bytes {
                return ControlFlow::Break(());
            }
            match parse(group, index, value) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    bad = Some(error.to_string());
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        },
    )?;
    let missing = || (entries.is_empty() && low < high).then(|| format!("entry {low} is missing"));
    match bad.or_else(missing) {
        Some(reason) => Err(EngineError::Corrupt { what: format!("log of {group}"), reason }),
        None => Ok(entries),
    }
}

fn parse<T>(group: RegionId, index: u64, value: &[u8]) -> Result<Committed<T>, BadRecord> {
    let entry = records::parse_entry(group, index, Bytes::copy_from_slice(value))?;
    let (data, changes_members) = match entry.entry_type {
        EntryType::EntryNormal => (entry.data, false),
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => (entry.context, true),
    };
    let (index, term) = (LogIndex(index), Term(entry.term));
    Ok(Committed { index, term, data, tokens: Vec::new(), changes_members })
}

/// True where the engine has any record of a group: log, hard state or truncated state.
///
/// # Errors
/// The engine.
pub fn has_records(reader: &dyn Reader, group: RegionId) -> Result<bool, EngineError> {
    let (start, end) = records::group_bounds(group);
    let mut found = false;
    reader.scan(Cf::Raft, &start, &end, Direction::Forward, &mut |_, _| {
        found = true;
        ControlFlow::Break(())
    })?;
    Ok(found)
}

#[cfg(test)]
#[path = "history_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
