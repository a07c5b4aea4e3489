//! Receiving a snapshot: chunks are checked and written to a staged file of the engine.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use quorate_proto::wire::peer::{Envelope, SnapshotChunk};
use quorate_proto::{PeerId, RegionId};
use tokio::sync::{Semaphore, mpsc};
use tonic::Streaming;

use super::Counters;
use crate::engine::Engine;

/// Snapshots received at once.
const RECEIVING: usize = 2;
/// Chunks between the network and the disk.
const QUEUE: usize = 4;

/// Whether the state machine takes a snapshot of a group, for a peer, with that description.
pub(super) type Admit = Arc<dyn Fn(RegionId, PeerId, &Bytes) -> Result<(), String> + Send + Sync>;

/// See the module.
pub(super) struct Receiver {
    engine: Arc<dyn Engine>,
    places: Arc<Semaphore>,
    counters: Arc<Counters>,
    admit: Admit,
}

impl Receiver {
    pub(super) fn new(engine: Arc<dyn Engine>, counters: Arc<Counters>, admit: Admit) -> Self {
        Self { engine, places: Arc::new(Semaphore::new(RECEIVING)), counters, admit }
    }

    /// Receives all chunks; the staged file is durable when it returns.
    pub(super) async fn receive(
        &self,
        message: &Envelope,
        mut chunks: Streaming<SnapshotChunk>,
    ) -> Result<(), String> {
        let Ok(_place) = self.places.try_acquire() else {
            return Err("too many snapshots are being received here".into());
        };
        let id = message.snapshot.as_ref().map(|meta| meta.id.clone()).unwrap_or_default();
        if id.is_empty()
            || id.len() > 100
            || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        {
            return Err("the snapshot has no proper name".into());
        }
        let state = message.snapshot.as_ref().map(|meta| meta.state.clone()).unwrap_or_default();
        (self.admit)(RegionId(message.group), PeerId(message.to_peer), &state)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let engine = self.engine.clone();
        let name = id.clone();
        let writer = tokio::task::spawn_blocking(move || write(&*engine, &name, receiver));
        let mut sequence = 0;
        let mut broken = None;
        loop {
            match chunks.message().await {
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
                Ok(())
            }
            (Some(reason), _) | (None, Err(reason)) => {
                let _ = self.engine.discard_staged(&id);
                Err(reason)
            }
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
