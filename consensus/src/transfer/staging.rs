//! The receiver's chunks: checked one by one, and put into the staged file of their transfer.
//!
//! What is durable, as of the last checkpoint, is what the next call goes on behind; a chunk is
//! taken where it is the next one and as it was sent. A digest of all of them ends the transfer.

use bytes::{Buf, Bytes};
use prost::Message;
use quorate_proto::wire::peer::{SnapshotChunk, StagedTransfer};

use super::{Arrival, Ended, Position, fold};
use crate::engine::{Engine, EngineError, Stage};

/// A staged file, and where it stands.
pub struct Staging {
    arrival: Arrival,
    stage: Box<dyn Stage>,
    position: Position,
    /// As of the last checkpoint.
    durable: Position,
    checkpoint_bytes: u64,
}

/// A chunk was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Others follow.
    More,
    /// It was the last one, and all that was sent is here: see [`Staging::finish`].
    Last,
}

impl Staging {
    /// Opens the file of a transfer that is `expected` to stand there. What the disk has counts,
    /// not what is remembered. A checkpoint is made after so many bytes.
    ///
    /// # Errors
    /// The file can be neither read nor created.
    pub fn open(
        engine: &dyn Engine,
        arrival: Arrival,
        expected: Position,
        checkpoint_bytes: u64,
    ) -> Result<Self, EngineError> {
        let resumed = match expected.next {
            0 => None,
            _ => engine.resume_stage(&arrival.id)?,
        };
        if let Some((stage, note)) = resumed
            && let Ok(staged) = StagedTransfer::decode(note)
        {
            return Ok(Self::new(arrival, stage, Position::of(&staged), checkpoint_bytes));
        }
        let stage = engine.stage(&arrival.id)?;
        Ok(Self::new(arrival, stage, Position::default(), checkpoint_bytes))
    }

    /// Of a file that is durable up to there.
    pub fn new(
        arrival: Arrival,
        stage: Box<dyn Stage>,
        durable: Position,
        checkpoint_bytes: u64,
    ) -> Self {
        Self { arrival, stage, position: durable, durable, checkpoint_bytes }
    }

    /// How far it has come. Not all of that is durable.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    /// How the call ends: [`Ended::Broken`] where the chunk is not the next one or was damaged on
    /// its way (it is sent again: see [`Staging::keep`]); [`Ended::Failed`] where no later chunk
    /// makes it good.
    pub fn take(&mut self, chunk: SnapshotChunk) -> Result<Taken, Ended> {
        let failed = |error: EngineError| Ended::Failed(error.to_string());
        let next = self.position.next;
        if chunk.sequence != next || crc32fast::hash(&chunk.data) != chunk.crc {
            return Err(Ended::Broken(format!("chunk {next} is damaged or out of order")));
        }
        let length = chunk.data.len() as u64;
        let (mut data, mut records) = (chunk.data, 0);
        while !data.is_empty() {
            let record = take_record(&mut data);
            let (key, value) =
                record.ok_or_else(|| Ended::Failed("a record is cut off".to_owned()))?;
            self.stage.put(&key, &value).map_err(failed)?;
            records += 1;
        }
        self.position = Position {
            next: next + 1,
            records: self.position.records + records,
            bytes: self.position.bytes + length,
            digest: fold(self.position.digest, chunk.crc),
        };
        if chunk.last {
            let (position, records) = (self.position, chunk.records);
            if position.records != records || position.digest != chunk.digest {
                let came = position.records;
                return Err(Ended::Failed(format!(
                    "what came is not what was sent: {came} records of {records}"
                )));
            }
            return Ok(Taken::Last);
        }
        if self.position.bytes - self.durable.bytes >= self.checkpoint_bytes {
            self.checkpoint().map_err(failed)?;
        }
        Ok(Taken::More)
    }

    fn checkpoint(&mut self) -> Result<(), EngineError> {
        let note = self.arrival.note(self.position);
        self.stage.checkpoint(&note.encode_to_vec())?;
        self.durable = self.position;
        Ok(())
    }

    /// The call broke off: makes durable what came, so that the next one goes on from there.
    /// Returns up to where it is durable.
    pub fn keep(mut self, reason: String) -> (Position, Ended) {
        if self.position != self.durable
            && let Err(error) = self.checkpoint()
        {
            return (self.durable, Ended::Failed(error.to_string()));
        }
        (self.durable, Ended::Broken(reason))
    }

    /// The last chunk was taken: the file is complete and durable, or it failed.
    pub fn finish(self, engine: &dyn Engine) -> Ended {
        let finished = self.stage.finish();
        match finished.and_then(|_| engine.prepare_ingest(&self.arrival.id)) {
            Ok(()) => Ended::Finished,
            Err(error) => Ended::Failed(error.to_string()),
        }
    }
}

/// Takes the next record off a chunk; `None` where it is cut off.
fn take_record(data: &mut Bytes) -> Option<(Bytes, Bytes)> {
    if data.len() < 8 {
        return None;
    }
    let (key, value) = (data.get_u32_le() as usize, data.get_u32_le() as usize);
    if data.len() < key.checked_add(value)? {
        return None;
    }
    Some((data.split_to(key), data.split_to(value)))
}

#[cfg(test)]
#[path = "staging_tests.rs"]
mod tests;
