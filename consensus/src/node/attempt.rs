//! One attempt to deliver a snapshot: a call that goes on where the receiver says.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_proto::wire::peer::peer_client::PeerClient;
use quorate_proto::wire::peer::snapshot_answer::Answer;
use quorate_proto::wire::peer::{
    Envelope, SnapshotAnswer, SnapshotChunk, SnapshotHeader, SnapshotMeta,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::links::connect;
use super::transmit::{Progress, Transmitter};
use super::{SnapshotSource, background, clock};
use crate::engine::Cf;
use crate::shard::{MakeSnapshot, Plane, conf_of};
use crate::transfer::{Cutter, Marks, Outcome, Ticket, announce};

/// Bytes of records in one chunk.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks between the disk and the network.
const QUEUE: usize = 4;
/// A receiver that has not said where to go on for so long hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A group's data at one moment, and how far it was read.
pub(super) struct Picture {
    message: Envelope,
    source: SnapshotSource,
    marks: Marks,
    /// Roughly the bytes of all chunks; 0 until it was looked up.
    total: u64,
}

impl Picture {
    /// Of the sender's transfer of that number.
    pub(super) fn new(
        make: &MakeSnapshot,
        incarnation: u64,
        number: u64,
        source: SnapshotSource,
    ) -> Self {
        let meta = SnapshotMeta {
            id: String::new(),
            index: source.index.0,
            term: source.term.0,
            conf: Some(conf_of(&source.members)),
            state: source.state.clone(),
        };
        let message = announce(make, incarnation, number, meta);
        let marks = Marks::new(source.start.clone());
        Self { message, source, marks, total: 0 }
    }
}

/// See the module.
pub(super) struct Attempt {
    pub(super) transmitter: Arc<Transmitter>,
    pub(super) ticket: Ticket,
    pub(super) progress: Arc<Progress>,
}

impl Attempt {
    /// Runs to its end. The picture comes back unless the thread that reads it has gone.
    pub(super) async fn run(
        self,
        make: &MakeSnapshot,
        picture: Picture,
        mut stopped: watch::Receiver<bool>,
    ) -> (Option<Picture>, Outcome) {
        // The estimate costs a hundred reads.
        let engine = Arc::clone(&self.transmitter.engine);
        let sized = background::spawn("snapshot-size", move || {
            let mut picture = picture;
            if picture.total == 0 {
                let source = &picture.source;
                let size = engine.approximate_size(Cf::Data, &source.start, &source.end);
                picture.total = size.unwrap_or(0).max(1);
            }
            picture
        });
        let Ok(picture) = sized.await else {
            return (None, Outcome::Broken("no thread to read it".to_owned()));
        };
        self.progress.total.store(picture.total, Ordering::Relaxed);
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => (None, Outcome::Stopped),
            ended = self.call(make, picture) => ended,
        }
    }

    async fn call(&self, make: &MakeSnapshot, mut picture: Picture) -> (Option<Picture>, Outcome) {
        let header = SnapshotHeader {
            hello: Some(self.transmitter.identity.hello(make.node, Plane::Bulk)),
            message: Some(picture.message.clone()),
            total_bytes: picture.total,
        };
        let (chunks, mut answers) = match self.open(make, header).await {
            Ok(call) => call,
            Err(outcome) => return (Some(picture), outcome),
        };
        let first = tokio::time::timeout(ANSWER_TIMEOUT, answers.message()).await;
        let from = match first {
            Err(_) => {
                let reason = "the receiver does not say where to go on".to_owned();
                return (Some(picture), Outcome::Broken(reason));
            }
            Ok(Ok(Some(SnapshotAnswer { answer: Some(Answer::GoOn(go_on)) }))) => {
                go_on.next_sequence
            }
            Ok(answer) => return (Some(picture), outcome_of(answer)),
        };
        if picture.marks.at(from).is_none() {
            let reason = format!("the receiver has more than was sent: chunk {from} is the next");
            return (Some(picture), Outcome::Refused(reason));
        }
        if from > 0 {
            self.transmitter.counters.snapshots_resumed.add(1);
        }
        self.transmitter.progressed(self.ticket);
        let (transmitter, progress) = (Arc::clone(&self.transmitter), Arc::clone(&self.progress));
        let ticket = self.ticket;
        let reading = background::spawn("snapshot-send", move || {
            let reading = Reading { transmitter: &transmitter, progress: &progress, ticket };
            let read = reading.run(&mut picture, from, &chunks);
            (picture, read)
        });
        let outcome = outcome_of(answers.message().await);
        // Ends the call, and with it the reading.
        drop(answers);
        match reading.await {
            // What cannot be read here matters more than that the receiver saw the end of it.
            Ok((picture, Err(reason))) if !matches!(outcome, Outcome::Delivered) => {
                (Some(picture), reason.map_or(outcome, Outcome::Refused))
            }
            Ok((picture, _)) => (Some(picture), outcome),
            Err(_) => (None, outcome),
        }
    }

    async fn open(
        &self,
        make: &MakeSnapshot,
        header: SnapshotHeader,
    ) -> Result<(mpsc::Sender<SnapshotChunk>, Streaming<SnapshotAnswer>), Outcome> {
        let address = self.transmitter.addresses.address(make.node);
        let address =
            address.ok_or_else(|| Outcome::Broken("its address is not known".to_owned()))?;
        let channel = connect(&address).await.map_err(Outcome::Broken)?;
        let (chunks, receiver) = mpsc::channel(QUEUE);
        let first = SnapshotChunk { header: Some(header), ..SnapshotChunk::default() };
        // There is room: it is the first.
        let _ = chunks.try_send(first);
        let call = PeerClient::new(channel).snapshot(ReceiverStream::new(receiver)).await;
        match call {
            Ok(answers) => Ok((chunks, answers.into_inner())),
            Err(status) => Err(outcome_of(Err(status))),
        }
    }
}

fn outcome_of(answer: Result<Option<SnapshotAnswer>, Status>) -> Outcome {
    match answer {
        Ok(Some(answer)) => Outcome::of(answer),
        Ok(None) => Outcome::Broken("the receiver ended the call".to_owned()),
        Err(status) => match status.code() {
            // Who we are, or how we speak: no later attempt will be better.
            Code::FailedPrecondition | Code::InvalidArgument | Code::Unimplemented => {
                Outcome::Refused(status.message().to_owned())
            }
            _ => Outcome::Broken(status.message().to_owned()),
        },
    }
}

/// Reads a picture, on a thread of its own.
struct Reading<'a> {
    transmitter: &'a Transmitter,
    progress: &'a Progress,
    ticket: Ticket,
}

impl Reading<'_> {
    /// Sends the chunks from `sequence` on. `Err(None)`: nobody takes them any more.
    fn run(
        &self,
        picture: &mut Picture,
        sequence: u64,
        chunks: &mpsc::Sender<SnapshotChunk>,
    ) -> Result<(), Option<String>> {
        let (marks, source) = (&mut picture.marks, &picture.source);
        let mut cutter = Cutter::new(marks, sequence, CHUNK_BYTES).ok_or(None)?;
        let mut gone = false;
        source
            .reader
            .sweep(Cf::Data, &cutter.start(), &source.end, &mut |key, value| {
                if let Some(chunk) = cutter.put(key, value) {
                    gone = !self.send(chunk, cutter.bytes(), chunks);
                }
                if gone { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .map_err(|error| Some(error.to_string()))?;
        if gone {
            return Err(None);
        }
        let before = cutter.bytes();
        let chunk = cutter.finish();
        let bytes = before + chunk.data.len() as u64;
        if self.send(chunk, bytes, chunks) { Ok(()) } else { Err(None) }
    }

    /// Sends one chunk when its time has come; `sent`: bytes of all up to and with it.
    fn send(&self, chunk: SnapshotChunk, sent: u64, chunks: &mpsc::Sender<SnapshotChunk>) -> bool {
        let length = chunk.data.len() as u64;
        let wait = self.transmitter.bucket.lock().take(length, clock::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        if chunks.blocking_send(chunk).is_err() {
            return false;
        }
        self.transmitter.counters.snapshot_chunks_sent.add(1);
        self.transmitter.counters.snapshot_bytes_sent.add(length);
        self.progress.sent.store(sent, Ordering::Relaxed);
        self.transmitter.progressed(self.ticket);
        true
    }
}
