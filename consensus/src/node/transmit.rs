//! Sending a snapshot: a consistent picture of a group's data, in checksummed chunks.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use futures::StreamExt;
use quorate_proto::wire::peer::peer_client::PeerClient;
use quorate_proto::wire::peer::{Envelope, SnapshotChunk, SnapshotHeader, SnapshotMeta};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::links::{Identity, connect};
use super::{Addresses, Counters, SnapshotSource};
use crate::engine::{Cf, Direction};
use crate::shard::{MakeSnapshot, Plane, conf_of};

/// Snapshots sent at once.
const SENDING: usize = 2;
/// Bytes of records in one chunk.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks between the disk and the network.
const QUEUE: usize = 4;
const RAFT_MSG_SNAPSHOT: u32 = 7;

/// See the module.
pub(super) struct Transmitter {
    identity: Identity,
    runtime: Handle,
    addresses: Arc<dyn Addresses>,
    places: Arc<Semaphore>,
    counters: Arc<Counters>,
}

impl Transmitter {
    pub(super) fn new(
        identity: Identity,
        runtime: Handle,
        addresses: Arc<dyn Addresses>,
        counters: Arc<Counters>,
    ) -> Self {
        let places = Arc::new(Semaphore::new(SENDING));
        Self { identity, runtime, addresses, places, counters }
    }

    /// Sends in the background, then says whether it was delivered. Where too many are under way
    /// it says so at once, and Raft asks again.
    pub(super) fn send(
        &self,
        make: MakeSnapshot,
        source: SnapshotSource,
        done: impl FnOnce(bool) + Send + 'static,
    ) {
        let (Ok(place), Some(address)) =
            (self.places.clone().try_acquire_owned(), self.addresses.address(make.node))
        else {
            done(false);
            return;
        };
        let (identity, counters) = (self.identity, self.counters.clone());
        self.runtime.spawn(async move {
            let outcome = transmit(identity, &address, &make, source).await;
            drop(place);
            match &outcome {
                Ok(()) => {
                    counters.snapshots_sent.add(1);
                    tracing::info!(group = %make.group, to = %make.node, "sent a snapshot");
                }
                Err(reason) => {
                    tracing::warn!(group = %make.group, to = %make.node, %reason, "snapshot not delivered");
                }
            }
            done(outcome.is_ok());
        });
    }
}

async fn transmit(
    identity: Identity,
    address: &str,
    make: &MakeSnapshot,
    source: SnapshotSource,
) -> Result<(), String> {
    let id = format!("{}-{}-{}-{:x}", make.group, make.to, source.index.0, identity.incarnation);
    let message = Envelope {
        group: make.group.0,
        from_peer: make.from.0,
        to_peer: make.to.0,
        kind: RAFT_MSG_SNAPSHOT,
        term: make.term.0,
        snapshot: Some(SnapshotMeta {
            id,
            index: source.index.0,
            term: source.term.0,
            conf: Some(conf_of(&source.members)),
            state: source.state.clone(),
        }),
        ..Envelope::default()
    };
    let header = SnapshotHeader {
        hello: Some(identity.hello(make.node, Plane::Bulk)),
        message: Some(message),
    };
    let channel = connect(address).await?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let reading = tokio::task::spawn_blocking(move || read(&source, &sender));
    let first = SnapshotChunk { header: Some(header), ..SnapshotChunk::default() };
    let chunks = futures::stream::iter([first]).chain(ReceiverStream::new(receiver));
    let answer = PeerClient::new(channel).snapshot(chunks).await;
    reading.await.map_err(|error| error.to_string())??;
    let answer = answer.map_err(|status| status.message().to_owned())?.into_inner();
    if answer.accepted { Ok(()) } else { Err(answer.reason) }
}

fn read(source: &SnapshotSource, chunks: &mpsc::Sender<SnapshotChunk>) -> Result<(), String> {
    let mut data = BytesMut::with_capacity(CHUNK_BYTES + 4096);
    let (mut sequence, mut records, mut gone) = (0, 0, false);
    let mut send = |data: &mut BytesMut, last, records| {
        let data = data.split().freeze();
        let crc = crc32fast::hash(&data);
        let chunk = SnapshotChunk { header: None, sequence, data, crc, last, records };
        sequence += 1;
        chunks.blocking_send(chunk).is_ok()
    };
    source
        .reader
        .scan(Cf::Data, &source.start, &source.end, Direction::Forward, &mut |key, value| {
            data.put_u32_le(key.len() as u32);
            data.put_u32_le(value.len() as u32);
            data.put_slice(key);
            data.put_slice(value);
            records += 1;
            if data.len() >= CHUNK_BYTES && !send(&mut data, false, 0) {
                gone = true;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })
        .map_err(|error| error.to_string())?;
    if gone || !send(&mut data, true, records) {
        return Err("the receiver broke off".into());
    }
    Ok(())
}
