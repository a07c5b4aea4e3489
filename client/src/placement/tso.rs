//! Timestamps: all callers share one stream. Whoever waits when the last batch was answered is in
//! the next one, so that any number of callers costs one small message for each round trip.

use std::{
    sync::Weak,
    time::{Duration, Instant},
};

use quorate_proto::wire::pdpb::{self, pd_client::PdClient};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::debug;

use super::{Timestamp, leader::Core};
use crate::{
    Error, Result,
    backoff::{Backoff, Pace},
};

/// Callers that may wait for a timestamp; more wait for a place.
const WAITING: usize = 65_536;
/// Timestamps asked for at once: they count within one millisecond, which holds 2¹⁸.
const BATCH: usize = 10_000;
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(1);

/// Where callers queue.
#[derive(Clone)]
pub(super) struct Queue {
    callers: mpsc::Sender<oneshot::Sender<Timestamp>>,
}

struct Stream {
    requests: mpsc::Sender<pdpb::TsoRequest>,
    answers: Streaming<pdpb::TsoResponse>,
}

impl Queue {
    /// Starts the task that serves it; it ends with the last handle.
    pub(super) fn start(core: Weak<Core>) -> Self {
        let (callers, waiting) = mpsc::channel(WAITING);
        if let Some(runtime) = core.upgrade().map(|core| core.runtime().clone()) {
            runtime.spawn(serve(core, waiting));
        }
        Self { callers }
    }

    /// The next timestamp.
    pub(super) async fn next(&self, allowed: Duration) -> Result<Timestamp> {
        let (caller, timestamp) = oneshot::channel();
        let asked = async {
            self.callers.send(caller).await.ok()?;
            timestamp.await.ok()
        };
        match tokio::time::timeout(allowed, asked).await {
            Ok(Some(timestamp)) => Ok(timestamp),
            Ok(None) | Err(_) => Err(Error::Timeout {
                operation: "timestamp",
                after: allowed,
                last: "placement gave none".to_owned(),
            }),
        }
    }
}

async fn serve(core: Weak<Core>, mut callers: mpsc::Receiver<oneshot::Sender<Timestamp>>) {
    let mut waiting: Vec<oneshot::Sender<Timestamp>> = Vec::new();
    let mut stream = None;
    let mut backoff = Backoff::new(rand::random());
    while callers.recv_many(&mut waiting, BATCH).await > 0 {
        loop {
            waiting.retain(|caller| !caller.is_closed());
            if waiting.is_empty() {
                break;
            }
            let Some(core) = core.upgrade() else { return };
            match batch(&core, &mut stream, waiting.len()).await {
                Ok(first) => {
                    for (offset, caller) in waiting.drain(..).enumerate() {
                        let logical = first.logical + offset as u64;
                        // A caller that gave up leaves a gap, which is harmless.
                        let _ = caller.send(Timestamp { logical, ..first });
                    }
                    backoff = Backoff::new(rand::random());
                    break;
                }
                Err(reason) => {
                    debug!(%reason, "no timestamps");
                    stream = None;
                    drop(core);
                    tokio::time::sleep(backoff.next(Pace::Ordinary, Duration::ZERO)).await;
                }
            }
        }
    }
}

/// Asks for `count` timestamps; the first of them.
async fn batch(
    core: &Core,
    stream: &mut Option<Stream>,
    count: usize,
) -> Result<Timestamp, String> {
    let open = match stream {
        Some(open) => open,
        None => stream.insert(open(core).await?),
    };
    let count = count as u32;
    let request = pdpb::TsoRequest { header: core.header(), count };
    open.requests.send(request).await.map_err(|_| "the stream has ended".to_owned())?;
    let answer = tokio::time::timeout(ANSWER, open.answers.message())
        .await
        .map_err(|_| "no answer in time".to_owned())?
        .map_err(|status| status.to_string())?
        .ok_or("placement ended the stream")?;
    if let Some(error) = answer.header.and_then(|header| header.error) {
        return Err(error.message);
    }
    let last = answer.timestamp.ok_or("an answer without a timestamp")?;
    // `logical` is the last one allocated.
    let (physical, logical) = (u64::try_from(last.physical), u64::try_from(last.logical));
    match (physical, logical) {
        (Ok(physical_ms), Ok(logical))
            if answer.count == count && logical + 1 >= u64::from(count) =>
        {
            Ok(Timestamp { physical_ms, logical: logical + 1 - u64::from(count) })
        }
        (_, _) => Err("an answer that does not fit its request".to_owned()),
    }
}

async fn open(core: &Core) -> Result<Stream, String> {
    let (requests, outgoing) = mpsc::channel(1);
    // Some servers answer a stream only after its first message, which comes from here too.
    let first = pdpb::TsoRequest { header: core.header(), count: 1 };
    requests.send(first).await.map_err(|_| "the stream has ended".to_owned())?;
    let opened = core.once("timestamp", |channel| async move {
        PdClient::new(channel).tso(ReceiverStream::new(outgoing)).await
    });
    let mut answers = opened.await.map_err(|error| error.to_string())?;
    let deadline = Instant::now() + ANSWER;
    match tokio::time::timeout_at(deadline.into(), answers.message()).await {
        Ok(Ok(Some(_))) => Ok(Stream { requests, answers }),
        Ok(Ok(None)) => Err("placement ended the stream".to_owned()),
        Ok(Err(status)) => Err(status.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}
