//! Sending snapshots: the queue of those that Raft wants sent, and the attempts to deliver them.
//!
//! Each attempt is a call of its own over a connection of its own. A picture of the group's data
//! is taken when its turn has come, and kept while a broken transfer may still be gone on with, so
//! that all attempts send the same chunks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use super::attempt::{Attempt, Picture};
use super::links::Identity;
use super::{Addresses, Counters, SnapshotProgress, SnapshotSource, clock};
use crate::engine::Engine;
use crate::shard::{LeaderChange, MakeSnapshot};
use crate::transfer::{After, Outcome, SendQueue, SnapshotOptions, Ticket, TokenBucket};

/// Where the transmitter turns to.
pub(super) trait Client: Send + Sync + 'static {
    /// It is this snapshot's turn: hand its data to [`Transmitter::begin`], or call
    /// [`Transmitter::forget`].
    fn take_picture(&self, ticket: Ticket, make: MakeSnapshot);
    /// It was delivered, or not.
    fn sent(&self, make: &MakeSnapshot, delivered: bool);
}

/// See the module.
pub(super) struct Transmitter {
    pub(super) identity: Identity,
    pub(super) addresses: Arc<dyn Addresses>,
    pub(super) counters: Arc<Counters>,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) bucket: Mutex<TokenBucket>,
    runtime: Handle,
    client: Arc<dyn Client>,
    transfers: AtomicU64,
    state: Mutex<State>,
    /// A job was added, or a place is free.
    changed: Arc<Notify>,
}

struct State {
    queue: SendQueue,
    live: BTreeMap<Ticket, Live>,
    closed: bool,
}

/// A transfer whose picture was taken.
struct Live {
    progress: Arc<Progress>,
    /// Kept between two attempts.
    picture: Option<Picture>,
    stop: watch::Sender<bool>,
}

/// How far a transfer has come.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) sent: AtomicU64,
    pub(super) total: AtomicU64,
}

impl Transmitter {
    pub(super) fn new(
        options: &SnapshotOptions,
        identity: Identity,
        runtime: Handle,
        addresses: Arc<dyn Addresses>,
        counters: Arc<Counters>,
        engine: Arc<dyn Engine>,
        client: Arc<dyn Client>,
    ) -> Arc<Self> {
        let queue = SendQueue::new(options.sending, options.resume());
        let transmitter = Arc::new(Self {
            identity,
            addresses,
            counters,
            engine,
            bucket: Mutex::new(TokenBucket::new(options.send_mib_per_sec << 20)),
            runtime: runtime.clone(),
            client,
            transfers: AtomicU64::new(0),
            state: Mutex::new(State { queue, live: BTreeMap::new(), closed: false }),
            changed: Arc::new(Notify::new()),
        });
        runtime.spawn(dispatch(Arc::downgrade(&transmitter)));
        transmitter
    }

    /// Raft wants a snapshot sent; the client hears of the outcome. False: too many wait already.
    pub(super) fn ask(&self, make: MakeSnapshot) -> bool {
        let mut state = self.state.lock();
        let asked = state.queue.ask(make);
        if let Ok(Some(overtaken)) = asked {
            state.stop(overtaken);
        }
        drop(state);
        self.changed.notify_one();
        asked.is_ok()
    }

    /// The picture for a job whose turn it is.
    pub(super) fn begin(
        self: &Arc<Self>,
        ticket: Ticket,
        make: MakeSnapshot,
        source: SnapshotSource,
    ) {
        let number = self.transfers.fetch_add(1, Ordering::Relaxed) + 1;
        let picture = Picture::new(&make, self.identity.incarnation, number, source);
        let (stop, stopped) = watch::channel(false);
        let progress = Arc::new(Progress::default());
        {
            let mut state = self.state.lock();
            if state.closed || !state.queue.jobs().any(|(known, _, _)| known == ticket) {
                // It was overtaken meanwhile.
                return;
            }
            let live = Live { progress: Arc::clone(&progress), picture: None, stop };
            state.live.insert(ticket, live);
        }
        self.run(ticket, make, picture, progress, stopped);
    }

    /// There is nothing to send for that job.
    pub(super) fn forget(&self, ticket: Ticket) {
        self.state.lock().queue.ended(ticket);
        self.changed.notify_one();
    }

    /// A group's leader or term is another one: what is not wanted any more is stopped.
    pub(super) fn leader_changed(&self, change: &LeaderChange) {
        let mut state = self.state.lock();
        for ticket in state.queue.outdated(change.group, change.term, change.is_local) {
            state.stop(ticket);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// A chunk was taken by the receiver's connection.
    pub(super) fn progressed(&self, ticket: Ticket) {
        self.state.lock().queue.progressed(ticket, clock::now());
    }

    /// Snapshots under way and waiting, by turn.
    pub(super) fn list(&self) -> Vec<SnapshotProgress> {
        let state = self.state.lock();
        let mut ahead = 0_u64;
        let shown = |(ticket, make, running): (Ticket, &MakeSnapshot, bool)| {
            let queue = ahead.wrapping_add(state.queue.answers(ticket));
            let (mut bytes, mut total_bytes) = (0, 0);
            if let Some(live) = state.live.get(&ticket) {
                bytes = live.progress.sent.load(Ordering::Relaxed);
                total_bytes = live.progress.total.load(Ordering::Relaxed).max(bytes);
            }
            ahead = ahead.wrapping_add(bytes).wrapping_add(1);
            let (group, peer, node, sending) = (make.group, make.to, make.node, true);
            SnapshotProgress { group, peer, node, sending, running, bytes, total_bytes, queue }
        };
        state.queue.jobs().map(shown).collect()
    }

    /// Stops everything.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        for live in state.live.values() {
            live.stop.send_replace(true);
        }
        state.live.clear();
        self.changed.notify_one();
    }

    fn run(
        self: &Arc<Self>,
        ticket: Ticket,
        make: MakeSnapshot,
        picture: Picture,
        progress: Arc<Progress>,
        stopped: watch::Receiver<bool>,
    ) {
        let transmitter = Arc::clone(self);
        self.runtime.spawn(async move {
            let attempt = Attempt { transmitter: Arc::clone(&transmitter), ticket, progress };
            let (picture, outcome) = attempt.run(&make, picture, stopped).await;
            transmitter.attempted(ticket, &make, picture, outcome).await;
        });
    }

    async fn attempted(
        &self,
        ticket: Ticket,
        make: &MakeSnapshot,
        mut picture: Option<Picture>,
        outcome: Outcome,
    ) {
        let after = {
            let mut state = self.state.lock();
            let after = state.queue.attempted(ticket, &outcome, picture.is_some(), clock::now());
            match after {
                After::Again { keep: true } => {
                    if let Some(live) = state.live.get_mut(&ticket) {
                        live.picture = picture.take();
                    }
                }
                After::Again { keep: false } | After::Tell { .. } => {
                    state.live.remove(&ticket);
                }
                After::Nothing => {}
            }
            after
        };
        // It would hold back the engine.
        drop(picture);
        self.changed.notify_one();
        self.tell(make, &outcome, after);
        match after {
            After::Tell { delivered, wait } => {
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                self.client.sent(make, delivered);
            }
            After::Again { .. } | After::Nothing => {}
        }
    }

    fn tell(&self, make: &MakeSnapshot, outcome: &Outcome, after: After) {
        let (group, to) = (make.group, make.node);
        match outcome {
            Outcome::Delivered => {
                self.counters.snapshots_sent.add(1);
                tracing::info!(%group, %to, "sent a snapshot");
            }
            Outcome::Busy(_) => self.counters.snapshots_postponed.add(1),
            Outcome::Broken(reason) if matches!(after, After::Again { .. }) => {
                self.counters.snapshots_broken.add(1);
                tracing::info!(%group, %to, %reason, "a snapshot broke off; going on soon");
            }
            Outcome::Broken(reason) | Outcome::Refused(reason) => {
                self.counters.snapshots_failed.add(1);
                tracing::warn!(%group, %to, %reason, "snapshot not delivered");
            }
            Outcome::Stopped => tracing::info!(%group, %to, "stopped sending a snapshot"),
        }
    }
}

impl State {
    fn stop(&mut self, ticket: Ticket) {
        if let Some(live) = self.live.remove(&ticket) {
            live.stop.send_replace(true);
        }
    }
}

/// Starts the jobs whose turn has come, until the transmitter is gone.
async fn dispatch(transmitter: std::sync::Weak<Transmitter>) {
    /// It also looks whether the transmitter is still there.
    const LONGEST: Duration = Duration::from_secs(1);
    loop {
        let Some(this) = transmitter.upgrade() else { return };
        let wait = loop {
            let mut state = this.state.lock();
            if state.closed {
                return;
            }
            let now = clock::now();
            let Some((ticket, make)) = state.queue.next(now) else {
                break state.queue.next_time().map_or(LONGEST, |time| time.since(now).min(LONGEST));
            };
            let kept = state.live.get_mut(&ticket).and_then(|live| {
                let picture = live.picture.take()?;
                Some((picture, Arc::clone(&live.progress), live.stop.subscribe()))
            });
            drop(state);
            match kept {
                Some((picture, progress, stopped)) => {
                    this.run(ticket, make, picture, progress, stopped);
                }
                None => this.client.take_picture(ticket, make),
            }
        };
        // Not kept meanwhile: it holds the engine, which is to be closed with the node.
        let changed = Arc::clone(&this.changed);
        drop(this);
        let _ = tokio::time::timeout(wait, changed.notified()).await;
    }
}
