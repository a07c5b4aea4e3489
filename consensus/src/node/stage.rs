//! Writing the chunks of one transfer to its staged file, on a thread of its own.

use std::sync::Arc;

use quorate_proto::wire::peer::SnapshotChunk;
use tokio::sync::{mpsc, oneshot};

use super::receive::Receiver;
use crate::transfer::{Arrival, Ended, Position, Staging, Taken};

/// See the module.
pub(super) struct Writing {
    pub(super) receiver: Arc<Receiver>,
    pub(super) arrival: Arrival,
}

impl Writing {
    /// Opens the file and says through `opened` which chunk it lacks; then takes chunks until the
    /// last one. Returns how far it is durable.
    pub(super) fn run(
        self,
        expected: Position,
        opened: oneshot::Sender<u64>,
        chunks: mpsc::Receiver<SnapshotChunk>,
    ) -> (Position, Ended) {
        let (engine, bytes) = (&*self.receiver.engine, self.receiver.checkpoint_bytes);
        let mut staging = match Staging::open(engine, self.arrival.clone(), expected, bytes) {
            Ok(staging) => staging,
            Err(error) => return (Position::default(), Ended::Failed(error.to_string())),
        };
        self.receiver.progressed(&self.arrival.id, staging.position());
        // Nobody listens where the call was given up; then there are no chunks either.
        let _ = opened.send(staging.position().next);
        match self.write(&mut staging, chunks) {
            Ok(()) => (staging.position(), staging.finish(engine)),
            Err(Ended::Broken(reason)) => staging.keep(reason),
            Err(ended) => (staging.position(), ended),
        }
    }

    fn write(
        &self,
        staging: &mut Staging,
        mut chunks: mpsc::Receiver<SnapshotChunk>,
    ) -> Result<(), Ended> {
        while let Some(chunk) = chunks.blocking_recv() {
            let length = chunk.data.len() as u64;
            let taken = staging.take(chunk)?;
            self.receiver.counters.snapshot_chunks_received.add(1);
            self.receiver.counters.snapshot_bytes_received.add(length);
            self.receiver.progressed(&self.arrival.id, staging.position());
            match taken {
                Taken::More => {}
                Taken::Last => return Ok(()),
            }
        }
        Err(Ended::Broken("the transfer broke off".to_owned()))
    }
}
