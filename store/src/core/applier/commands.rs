//! One entry: its commands, in order, into the batch.

use std::sync::Arc;

use quorate_consensus::engine::{Cf, EngineError};
use quorate_consensus::node::Outcome;
use quorate_consensus::shard::Committed;
use quorate_proto::Region;
use quorate_proto::wire::command::{Command, Write};

use super::{Answer, Answered, Applier, Slot, Work, undetermined};
use crate::core::command::Commands;
use crate::core::directory::{Written, outside};
use crate::core::error::RegionError;
use crate::core::keys::corrupt;

impl<T> Work<T> {
    /// Adds what an entry does to the batch, its answers to those that wait for the write.
    pub(super) fn entry(
        &mut self,
        slot: &mut Slot,
        applier: &mut Applier,
        entry: Committed<T>,
        written: &mut Written,
        outcome: &mut Outcome,
    ) -> Result<(), EngineError> {
        slot.index = entry.index;
        slot.term = entry.term;
        let mut tokens = entry.tokens.into_iter();
        for command in Commands::new(entry.data) {
            let command = command.map_err(|error| {
                corrupt(&format!("entry {} of {}", entry.index, slot.region.id), &error)
            })?;
            if slot.merging.is_none() {
                // A region that is stopped has no time: whoever takes it in need not have applied
                // all that was refused since.
                slot.time_ms = slot.time_ms.max(command.time_ms);
            }
            let answer = match check_kind(&slot.region, &command, entry.changes_members) {
                Ok(()) => self.command(slot, applier, command, written, outcome)?,
                Err(refused) => Err(refused),
            };
            let answer = match answer {
                Ok(()) => Answer::Done,
                Err(refused) => Answer::Refused(refused),
            };
            if let Some(token) = tokens.next() {
                self.answers.push(Answered { token, answer });
            }
        }
        self.answers.extend(tokens.map(undetermined));
        Ok(())
    }

    fn command(
        &mut self,
        slot: &mut Slot,
        applier: &mut Applier,
        command: Command,
        written: &mut Written,
        outcome: &mut Outcome,
    ) -> Result<Result<(), RegionError>, EngineError> {
        if command.version != slot.region.epoch.version {
            let directory = &applier.directory;
            return Ok(Err(directory.epoch_not_match(&slot.region, command.version)));
        }
        if let Some(rollback) = command.rollback_merge {
            return Ok(self.rollback_merge(slot, rollback));
        }
        if slot.merging.is_some() {
            return Ok(Err(RegionError::Merging(slot.region.id)));
        }
        if let Err(refused) = check_writes(&slot.region, &command.writes) {
            return Ok(Err(refused));
        }
        for write in command.writes {
            self.write(write, written);
        }
        if let Some(range) = command.delete_range
            && let Err(refused) =
                self.delete_range(&slot.region, applier.engine.as_ref(), range, written)?
        {
            return Ok(Err(refused));
        }
        if let Some(change) = command.change_peers {
            return Ok(self.change_peers(slot, command.conf_ver, change));
        }
        if let Some(prepare) = command.prepare_merge {
            return Ok(self.prepare_merge(slot, command.conf_ver, prepare));
        }
        if let Some(commit) = command.commit_merge {
            return self.commit_merge(slot, applier, command.conf_ver, commit, outcome);
        }
        if command.refuse_merge.is_some() {
            return Ok(self.refuse_merge(slot, command.conf_ver));
        }
        match command.split {
            Some(split) => self.split(slot, &applier.directory, command.conf_ver, split),
            None => Ok(Ok(())),
        }
    }

    fn write(&mut self, write: Write, written: &mut Written) {
        if write.delete {
            written.deletes += 1;
            self.batch.delete(Cf::Data, write.key);
        } else {
            written.puts += 1;
            written.bytes += (write.key.len() + write.value.len()) as u64;
            self.batch.put(Cf::Data, write.key, write.value);
        }
    }
}

/// All keys inside, or none is written. The version says so already; a command that lies about it
/// must not reach another region's data.
fn check_writes(region: &Arc<Region>, writes: &[Write]) -> Result<(), RegionError> {
    match writes.iter().find(|write| !region.range.contains(&write.key)) {
        Some(write) => Err(outside(region, &write.key)),
        None => Ok(()),
    }
}

/// Raft and the state machine change members together or not at all: a change comes in an entry of
/// its own kind, and nothing else does.
fn check_kind(
    region: &Region,
    command: &Command,
    changes_members: bool,
) -> Result<(), RegionError> {
    let reason = match (command.change_peers.is_some(), changes_members) {
        (true, true) | (false, false) => return Ok(()),
        (true, false) => "it came in an entry that raft takes for a write",
        (false, true) => "raft takes its entry for a change of members, and it is none",
    };
    Err(RegionError::BadPeers { region: region.id, reason: reason.to_owned() })
}
