//! Receiving snapshots: chunks are checked and written to a staged file of the engine.
//!
//! What a broken call has brought is made durable and gone on with by the next call of the same
//! transfer, also after a restart of this process. What nobody goes on with is removed.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use prost::Message;
use quorate_proto::wire::peer::snapshot_answer::Answer as WireAnswer;
use quorate_proto::wire::peer::{
    Envelope, SnapshotAnswer, SnapshotBusy, SnapshotChunk, SnapshotGoOn, SnapshotHeader,
    SnapshotResult, StagedTransfer,
};
use quorate_proto::{NodeId, PeerId, RegionId};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tonic::{Status, Streaming};

use super::stage::Writing;
use super::{Counters, SnapshotProgress, background, clock};
use crate::engine::Engine;
use crate::group::staged_file;
use crate::transfer::{
    Answer, Arrival, Ended, Position, ReceiveDesk, SnapshotOptions, TokenBucket, Verdict,
};

/// A sender that is silent for longer has gone.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(20);
/// Chunks between the network and the disk.
const QUEUE: usize = 4;
/// How long a call that was given up may take to notice.
const TAKE_OVER: Duration = Duration::from_secs(5);
/// Between two looks for what nobody goes on with.
const SWEEP: Duration = Duration::from_secs(1);
/// How long going down waits for the calls to end.
const CLOSING: Duration = Duration::from_secs(10);

/// Says whether a snapshot may come in.
pub(super) type Admit = Box<dyn Fn(&Envelope) -> Result<(), String> + Send + Sync>;
/// Hands the message of a snapshot that is here to its group; false where that cannot take it.
pub(super) type Deliver = Box<dyn Fn(NodeId, Envelope) -> bool + Send + Sync>;
/// Where a call's answers go.
pub(super) type Answers = mpsc::Sender<Result<SnapshotAnswer, Status>>;

/// See the module.
pub(super) struct Receiver {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) counters: Arc<Counters>,
    pub(super) checkpoint_bytes: u64,
    admit: Admit,
    deliver: Deliver,
    bucket: Mutex<TokenBucket>,
    state: Mutex<State>,
    /// A call ended.
    ended: Notify,
    closed: Condvar,
}

struct State {
    desk: ReceiveDesk,
    /// What stops the running calls.
    stops: HashMap<String, watch::Sender<bool>>,
    closed: bool,
}

impl Receiver {
    /// Finds what earlier runs of the process have left.
    pub(super) fn new(
        options: &SnapshotOptions,
        engine: Arc<dyn Engine>,
        admit: Admit,
        deliver: Deliver,
        counters: Arc<Counters>,
    ) -> Self {
        let mut desk = ReceiveDesk::new(options.receiving, options.resume());
        match engine.unfinished() {
            Ok(found) => {
                for (id, note) in found {
                    match StagedTransfer::decode(note) {
                        Ok(staged) => desk.restore(id, &staged, clock::now()),
                        Err(_) => remove(&*engine, &id),
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "cannot look for unfinished snapshots"),
        }
        Self {
            engine,
            counters,
            checkpoint_bytes: options.checkpoint_bytes(),
            admit,
            deliver,
            bucket: Mutex::new(TokenBucket::new(options.receive_mib_per_sec << 20)),
            state: Mutex::new(State { desk, stops: HashMap::new(), closed: false }),
            ended: Notify::new(),
            closed: Condvar::new(),
        }
    }

    /// Takes one call, to its end.
    pub(super) async fn receive(
        self: Arc<Self>,
        from: NodeId,
        header: SnapshotHeader,
        chunks: Streaming<SnapshotChunk>,
        answers: Answers,
    ) {
        let answer = match self.try_receive(from, header, chunks, &answers).await {
            Ok(answer) => Ok(SnapshotAnswer { answer: Some(answer) }),
            Err(reason) => Err(Status::aborted(reason)),
        };
        // Where the sender has gone, it asks again.
        let _ = answers.send(answer).await;
    }

    /// The last answer; `Err` where the sender may go on.
    async fn try_receive(
        self: &Arc<Self>,
        from: NodeId,
        header: SnapshotHeader,
        chunks: Streaming<SnapshotChunk>,
        answers: &Answers,
    ) -> Result<WireAnswer, String> {
        let Some(message) = header.message else {
            return Ok(result(Err("a snapshot without its message".to_owned())));
        };
        let Some(id) = staged_file(&message) else {
            return Ok(result(Err("the snapshot has no proper name".to_owned())));
        };
        if let Err(reason) = (self.admit)(&message) {
            return Ok(result(Err(reason)));
        }
        let arrival = Arrival {
            id,
            group: RegionId(message.group),
            to: PeerId(message.to_peer),
            from,
            total_bytes: header.total_bytes,
        };
        let (position, stopped) = match self.arrive(&arrival).await {
            Ok(admitted) => admitted,
            Err(answer) => return Ok(answer),
        };
        let (position, ended) = self.take(&arrival, position, stopped, chunks, answers).await;
        self.conclude(&arrival.id, position, ended, from, message)
    }

    /// Waits for an earlier call of the same transfer to notice that it is over.
    async fn arrive(
        &self,
        arrival: &Arrival,
    ) -> Result<(Position, watch::Receiver<bool>), WireAnswer> {
        let busy = |wait: Duration| {
            let retry_after_ms = wait.as_millis() as u64;
            WireAnswer::Busy(SnapshotBusy { retry_after_ms })
        };
        let deadline = tokio::time::Instant::now() + TAKE_OVER;
        loop {
            let ended = self.ended.notified();
            {
                let mut state = self.state.lock();
                if state.closed {
                    return Err(busy(Duration::from_millis(500)));
                }
                match state.desk.arrive(arrival.clone(), clock::now()) {
                    Answer::GoOn { from, gone } => {
                        let (stop, stopped) = watch::channel(false);
                        state.stops.insert(arrival.id.clone(), stop);
                        for id in &gone {
                            state.stop(id);
                        }
                        drop(state);
                        // Those that run are removed when they have stopped.
                        gone.iter().for_each(|id| self.discard(id));
                        return Ok((from, stopped));
                    }
                    Answer::Busy(wait) => return Err(busy(wait)),
                    Answer::Finished => return Err(result(Ok(()))),
                    Answer::TakeOver => state.stop(&arrival.id),
                }
            }
            if tokio::time::timeout_at(deadline, ended).await.is_err() {
                return Err(busy(TAKE_OVER));
            }
        }
    }

    /// Takes chunks until the last one, or until the call breaks off.
    async fn take(
        self: &Arc<Self>,
        arrival: &Arrival,
        position: Position,
        mut stopped: watch::Receiver<bool>,
        mut chunks: Streaming<SnapshotChunk>,
        answers: &Answers,
    ) -> (Position, Ended) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (opened, opening) = oneshot::channel();
        let writing = Writing { receiver: Arc::clone(self), arrival: arrival.clone() };
        let mut writing =
            background::spawn("snapshot-receive", move || writing.run(position, opened, receiver));
        if let Ok(next_sequence) = opening.await {
            let go_on = WireAnswer::GoOn(SnapshotGoOn { next_sequence });
            let _ = answers.send(Ok(SnapshotAnswer { answer: Some(go_on) })).await;
        }
        let mut sender = Some(sender);
        let mut broken = None;
        loop {
            tokio::select! {
                biased;
                ended = &mut writing => return match ended {
                    Ok((position, Ended::Broken(reason))) => {
                        (position, Ended::Broken(broken.unwrap_or(reason)))
                    }
                    Ok(ended) => ended,
                    Err(_) => {
                        let reason = "no thread to write it".to_owned();
                        (Position::default(), Ended::Failed(reason))
                    }
                },
                () = told_to_stop(&mut stopped), if sender.is_some() => {
                    broken = Some("the call was given up".to_owned());
                    sender = None;
                }
                next = self.next(&mut chunks), if sender.is_some() => match next {
                    Ok(chunk) => {
                        let last = chunk.last;
                        if let Some(sender) = &sender {
                            // Where it fails the writing has ended, and says why.
                            let _ = sender.send(chunk).await;
                        }
                        if last {
                            sender = None;
                        }
                    }
                    Err(reason) => {
                        broken = Some(reason);
                        sender = None;
                    }
                },
            }
        }
    }

    /// The next chunk, when its bytes may come in.
    async fn next(&self, chunks: &mut Streaming<SnapshotChunk>) -> Result<SnapshotChunk, String> {
        match tokio::time::timeout(CHUNK_TIMEOUT, chunks.message()).await {
            Ok(Ok(Some(chunk))) => {
                let wait = self.bucket.lock().take(chunk.data.len() as u64, clock::now());
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                Ok(chunk)
            }
            Ok(Ok(None)) => Err("the sender ended the call".to_owned()),
            Ok(Err(status)) => Err(status.message().to_owned()),
            Err(_) => Err("the sender is silent".to_owned()),
        }
    }

    fn conclude(
        &self,
        id: &str,
        position: Position,
        ended: Ended,
        from: NodeId,
        message: Envelope,
    ) -> Result<WireAnswer, String> {
        let verdict = self.state.lock().desk.ended(id, ended, position, clock::now());
        let (answer, keep) = match verdict {
            Verdict::Deliver => {
                let taken = (self.deliver)(from, message);
                let handed = self.state.lock().desk.handed_over(id, taken, clock::now());
                self.counters.snapshots_received.add(u64::from(taken));
                (Ok(result(handed)), taken)
            }
            Verdict::Abort { reason, keep } => (Err(reason), keep),
            Verdict::Refuse(reason) => (Ok(result(Err(reason))), false),
        };
        if !keep {
            self.discard(id);
        }
        self.state.lock().stops.remove(id);
        self.ended.notify_waiters();
        self.closed.notify_all();
        answer
    }

    /// So much of a transfer is staged.
    pub(super) fn progressed(&self, id: &str, position: Position) {
        self.state.lock().desk.progressed(id, position, clock::now());
    }

    /// Removes a staged file that nobody will install.
    fn discard(&self, id: &str) {
        remove(&*self.engine, id);
    }

    /// Snapshots that come in, and unfinished ones, by turn.
    pub(super) fn list(&self) -> Vec<SnapshotProgress> {
        let state = self.state.lock();
        let shown = |(arrival, position, running): (&Arrival, Position, bool)| {
            let (group, peer, node) = (arrival.group, arrival.to, arrival.from);
            let (bytes, sending, queue) = (position.bytes, false, 0);
            let total_bytes = arrival.total_bytes.max(bytes);
            SnapshotProgress { group, peer, node, sending, running, bytes, total_bytes, queue }
        };
        state.desk.transfers().into_iter().map(shown).collect()
    }

    /// Ends all calls; what they brought is durable when this returns. Blocks.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        for stop in state.stops.values() {
            stop.send_replace(true);
        }
        let deadline = std::time::Instant::now() + CLOSING;
        while state.desk.running() > 0 {
            if self.closed.wait_until(&mut state, deadline).timed_out() {
                tracing::warn!("stopping with snapshots that still come in");
                return;
            }
        }
    }
}

impl State {
    fn stop(&self, id: &str) {
        if let Some(stop) = self.stops.get(id) {
            stop.send_replace(true);
        }
    }
}

/// Removes what nobody goes on with, until the receiver is gone.
pub(super) async fn sweep(receiver: Weak<Receiver>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(receiver) = receiver.upgrade() else { return };
        let gone = receiver.state.lock().desk.expire(clock::now());
        if gone.is_empty() {
            continue;
        }
        receiver.counters.snapshots_abandoned.add(gone.len() as u64);
        tracing::info!(count = gone.len(), "removing snapshots that nobody goes on with");
        let _ = background::spawn("snapshot-sweep", move || {
            gone.iter().for_each(|id| receiver.discard(id));
        })
        .await;
    }
}

async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    // The other end goes only with the call's own end.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn remove(engine: &dyn Engine, id: &str) {
    if let Err(error) = engine.discard_staged(id) {
        tracing::warn!(id, %error, "could not remove a snapshot nobody wants");
    }
}

fn result(outcome: Result<(), String>) -> WireAnswer {
    let accepted = outcome.is_ok();
    WireAnswer::Result(SnapshotResult { accepted, reason: outcome.err().unwrap_or_default() })
}
