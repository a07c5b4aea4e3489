//! Writing the chunks of one transfer to its staged file, on a thread of its own.

use std::sync::Arc;

use prost::Message;
use quorate_proto::wire::peer::{SnapshotChunk, StagedTransfer};
use tokio::sync::{mpsc, oneshot};

use super::receive::{Receiver, note};
use crate::engine::{EngineError, Stage};
use crate::transfer::{Arrival, Position, fold, take_record};

/// How the writing ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The staged file is complete and durable.
    Finished,
    /// The call broke off, or a chunk was damaged; so far it is durable.
    Broken(String),
    /// It cannot become a snapshot any more.
    Failed(String),
}

/// See the module.
pub(super) struct Staging {
    pub(super) receiver: Arc<Receiver>,
    pub(super) arrival: Arrival,
}

/// A staged file, and where it stands.
struct Open {
    stage: Box<dyn Stage>,
    position: Position,
    /// As of the last checkpoint.
    durable: Position,
}

impl Staging {
    /// Opens the file and says through `opened` which chunk it lacks; then takes chunks until the
    /// last one. Returns how far it is durable.
    pub(super) fn run(
        self,
        expected: Position,
        opened: oneshot::Sender<u64>,
        chunks: mpsc::Receiver<SnapshotChunk>,
    ) -> (Position, Ended) {
        let mut open = match self.open(expected) {
            Ok(open) => open,
            Err(error) => return (Position::default(), Ended::Failed(error.to_string())),
        };
        self.receiver.progressed(&self.arrival.id, open.position);
        // Nobody listens where the call was given up; then there are no chunks either.
        let _ = opened.send(open.position.next);
        let ended = self.write(&mut open, chunks);
        match ended {
            Ok(true) => (open.position, self.finish(open)),
            Ok(false) => self.keep(open, "the transfer broke off".to_owned()),
            Err(Damage::Chunk(reason)) => self.keep(open, reason),
            Err(Damage::Whole(reason)) => (open.position, Ended::Failed(reason)),
        }
    }

    /// What the disk has counts, not what is remembered.
    fn open(&self, expected: Position) -> Result<Open, EngineError> {
        let engine = &self.receiver.engine;
        let resumed = match expected.next {
            0 => None,
            _ => engine.resume_stage(&self.arrival.id)?,
        };
        if let Some((stage, note)) = resumed
            && let Ok(staged) = StagedTransfer::decode(note)
        {
            let position = Position {
                next: staged.next_sequence,
                records: staged.records,
                bytes: staged.bytes,
                digest: staged.digest,
            };
            return Ok(Open { stage, position, durable: position });
        }
        let stage = engine.stage(&self.arrival.id)?;
        Ok(Open { stage, position: Position::default(), durable: Position::default() })
    }

    /// True where the last chunk came.
    fn write(
        &self,
        open: &mut Open,
        mut chunks: mpsc::Receiver<SnapshotChunk>,
    ) -> Result<bool, Damage> {
        let whole = |error: EngineError| Damage::Whole(error.to_string());
        while let Some(chunk) = chunks.blocking_recv() {
            let next = open.position.next;
            if chunk.sequence != next || crc32fast::hash(&chunk.data) != chunk.crc {
                return Err(Damage::Chunk(format!("chunk {next} is damaged or out of order")));
            }
            let length = chunk.data.len() as u64;
            let (mut data, mut records) = (chunk.data, 0);
            while !data.is_empty() {
                let record = take_record(&mut data);
                let (key, value) =
                    record.ok_or_else(|| Damage::Whole("a record is cut off".to_owned()))?;
                open.stage.put(&key, &value).map_err(whole)?;
                records += 1;
            }
            open.position = Position {
                next: next + 1,
                records: open.position.records + records,
                bytes: open.position.bytes + length,
                digest: fold(open.position.digest, chunk.crc),
            };
            self.receiver.counters.snapshot_chunks_received.add(1);
            self.receiver.counters.snapshot_bytes_received.add(length);
            self.receiver.progressed(&self.arrival.id, open.position);
            if chunk.last {
                let (position, records) = (open.position, chunk.records);
                if position.records != records || position.digest != chunk.digest {
                    let came = position.records;
                    return Err(Damage::Whole(format!(
                        "what came is not what was sent: {came} records of {records}"
                    )));
                }
                return Ok(true);
            }
            if open.position.bytes - open.durable.bytes >= self.receiver.checkpoint_bytes {
                self.checkpoint(open).map_err(whole)?;
            }
        }
        Ok(false)
    }

    fn checkpoint(&self, open: &mut Open) -> Result<(), EngineError> {
        open.stage.checkpoint(&note(&self.arrival, open.position))?;
        open.durable = open.position;
        Ok(())
    }

    /// Makes durable what came, so that the next call goes on from there.
    fn keep(&self, mut open: Open, reason: String) -> (Position, Ended) {
        if open.position != open.durable
            && let Err(error) = self.checkpoint(&mut open)
        {
            return (open.durable, Ended::Failed(error.to_string()));
        }
        (open.durable, Ended::Broken(reason))
    }

    fn finish(&self, open: Open) -> Ended {
        let name = &self.arrival.id;
        let finished = open.stage.finish();
        match finished.and_then(|_| self.receiver.engine.prepare_ingest(name)) {
            Ok(()) => Ended::Finished,
            Err(error) => Ended::Failed(error.to_string()),
        }
    }
}

/// What is wrong with what came.
enum Damage {
    /// One chunk; it is sent again.
    Chunk(String),
    /// Everything, or the disk: no later chunk makes it good.
    Whole(String),
}
