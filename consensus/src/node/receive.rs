//! Receiving a snapshot: chunks are checked and written to a staged file of the engine.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use quorate_proto::wire::peer::{Envelope, SnapshotChunk};
use tokio::sync::{Semaphore, mpsc};
use tonic::{Status, Streaming};

use super::Counters;
use crate::engine::Engine;
use crate::group::staged_file;

/// Snapshots received at once.
const RECEIVING: usize = 2;
/// A sender that is silent for longer has gone.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(20);
/// Chunks between the network and the disk.
const QUEUE: usize = 4;

/// Says whether a snapshot may come in.
pub(super) type Admit = Box<dyn Fn(&Envelope) -> Result<(), String> + Send + Sync>;

/// See the module.
pub(super) struct Receiver {
    engine: Arc<dyn Engine>,
    admit: Admit,
    places: Arc<Semaphore>,
    counters: Arc<Counters>,
}

impl Receiver {
    pub(super) fn new(engine: Arc<dyn Engine>, admit: Admit, counters: Arc<Counters>) -> Self {
        Self { engine, admit, places: Arc::new(Semaphore::new(RECEIVING)), counters }
    }

    /// Receives all chunks; the staged file, whose name is returned, is durable then.
    pub(super) async fn receive(
        &self,
        message: &Envelope,
        mut chunks: Streaming<SnapshotChunk>,
    ) -> Result<String, String> {
        let Ok(_place) = self.places.try_acquire() else {
            return Err("too many snapshots are being received here".into());
        };
        let id = staged_file(message).ok_or("the snapshot has no proper name")?;
        (self.admit)(message)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let engine = self.engine.clone();
        let name = id.clone();
        let writer = tokio::task::spawn_blocking(move || write(&*engine, &name, receiver));
        let mut sequence = 0;
        let mut broken = None;
        loop {
            let next = tokio::time::timeout(CHUNK_TIMEOUT, chunks.message()).await;
            match next.unwrap_or_else(|_| Err(Status::deadline_exceeded("the sender is silent"))) {
                Ok(Some(chunk)) => {
                    if chunk.sequence != sequence || crc32fast::hash(&chunk.data) != chunk.crc {
                        broken = Some(format!("chunk {sequence} is damaged or out of order"));
                        break;
                    }
                    sequence += 1;
                    let last = chunk.last;
                    if sender.send(chunk).await.is_err() || last {
                        break;
                    }
                }
                Ok(None) => break,
                Err(status) => {
                    broken = Some(status.message().to_owned());
                    break;
                }
            }
        }
        drop(sender);
        let written = writer.await.map_err(|error| error.to_string())?;
        match (broken, written) {
            (None, Ok(())) => {
                self.counters.snapshots_received.add(1);
                Ok(id)
            }
            // An unfinished file leaves nothing behind.
            (None, Err(reason)) => Err(reason),
            (Some(reason), Err(_)) => Err(reason),
            (Some(reason), Ok(())) => {
                self.discard(id).await;
                Err(reason)
            }
        }
    }

    /// Removes a staged file that nobody will install.
    pub(super) async fn discard(&self, id: String) {
        let engine = self.engine.clone();
        let removed = tokio::task::spawn_blocking(move || engine.discard_staged(&id)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(%error, "could not remove a snapshot nobody wants");
        }
    }
}

fn write(
    engine: &dyn Engine,
    name: &str,
    mut chunks: mpsc::Receiver<SnapshotChunk>,
) -> Result<(), String> {
    let mut stage = engine.stage(name).map_err(|error| error.to_string())?;
    let mut records = 0;
    while let Some(chunk) = chunks.blocking_recv() {
        let mut data = chunk.data;
        while !data.is_empty() {
            let (key, value) = record(&mut data).ok_or("a record is cut off")?;
            stage.put(&key, &value).map_err(|error| error.to_string())?;
            records += 1;
        }
        if chunk.last {
            if records != chunk.records {
                return Err(format!("{records} records came, {} were sent", chunk.records));
            }
            return stage.finish().map(|_| ()).map_err(|error| error.to_string());
        }
    }
    Err("the transfer broke off".into())
}

fn record(data: &mut Bytes) -> Option<(Bytes, Bytes)> {
    if data.len() < 8 {
        return None;
    }
    let (key, value) = (data.get_u32_le() as usize, data.get_u32_le() as usize);
    if data.len() < key.checked_add(value)? {
        return None;
    }
    Some((data.split_to(key), data.split_to(value)))
}
