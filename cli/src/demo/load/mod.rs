//! Writes and reads that go on while a demo does things to the cluster, and are checked.
//!
//! The load works at **places**: keys of the data set, spread over the key space, so that every
//! region has some. Each place has one writer, which writes keys right behind the place's own, one
//! after the other; how long a place goes without an acknowledged write tells how long its region
//! could not be written. Readers read all those keys meanwhile, from leaders and from followers.
//! [`account`] says what they may find; in the end every key is read back.
//!
//! It runs on a thread and connections of its own: what the demo waits for does not slow it down.

mod account;
mod timeline;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use quorate_client::{Client, ClientOptions, Error, ReadOptions};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;

use self::account::{Slot, Violation};
pub(crate) use self::timeline::Timeline;
use crate::exit::{Failure, Outcome};

/// Keys that a writer writes in turn.
const KEYS: usize = 8;
/// Pause after each operation: bounds the rate, so that the machine has room for the cluster.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);
/// How long one operation may take with all its retries.
const DEADLINE: Duration = Duration::from_secs(20);
/// How far back a line about the load looks for gaps.
const LOOK_BACK: Duration = Duration::from_secs(10);
/// Violations that are kept with their words.
const MAX_WORDS: usize = 5;
/// Keys read back at once.
const PAGE: usize = 256;

/// When a writer writes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// So long after each answer.
    After(Duration),
    /// One write is due in every such time, answered or not, and its latency counts from when it
    /// was due: those that had to wait for a slow one are slow too, and none is left out.
    Every(Duration),
}

impl Pace {
    fn time(self) -> Duration {
        match self {
            Self::After(time) | Self::Every(time) => time,
        }
    }
    /// When the write after one that was due then, and was answered now, is due.
    fn next(self, due: Instant, now: Instant) -> Instant {
        match self {
            Self::After(time) => now + time,
            Self::Every(time) => due + time,
        }
    }
}

/// What all tasks share.
struct Shared {
    stop: AtomicBool,
    origin: Instant,
    pace: Pace,
    places: Vec<Bytes>,
    /// Places that are written now, and since when just these, in milliseconds after `origin`.
    busy: Vec<AtomicBool>,
    since_ms: AtomicU64,
    /// Slots of each place; those closed come first.
    slots: Vec<Mutex<Vec<Slot>>>,
    timeline: Mutex<Timeline>,
    reads: AtomicU64,
    undetermined: AtomicU64,
    failures: Mutex<BTreeMap<&'static str, u64>>,
    violations: Mutex<Vec<Violation>>,
    violated: AtomicU64,
}

/// A load that runs. Dropped without [`Load::stop`], it ends without a judgement.
pub(crate) struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Outcome<Tally>>>,
}

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Writes that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Of those: gone in the end.
    pub(crate) lost: u64,
    /// Reads that were answered.
    pub(crate) reads: u64,
    /// Answers that contradict the account.
    pub(crate) violated: u64,
    /// The first of them in words.
    pub(crate) words: Vec<String>,
    /// Writes of which nobody can say whether they were applied.
    pub(crate) undetermined: u64,
    /// Operations that failed, by kind.
    pub(crate) failures: BTreeMap<&'static str, u64>,
}

impl Load {
    /// Starts at these places, on a cluster with these placement members.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(
        placement: Vec<String>,
        places: &[Bytes],
        readers: u64,
        pace: Pace,
    ) -> Outcome<Self> {
        let slots = places.iter().map(|place| {
            Mutex::new((0..KEYS).map(|number| Slot::new(key(place, number, 0))).collect())
        });
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            origin: Instant::now(),
            pace,
            places: places.to_vec(),
            busy: places.iter().map(|_| AtomicBool::new(true)).collect(),
            since_ms: AtomicU64::new(0),
            slots: slots.collect(),
            timeline: Mutex::new(Timeline::new(places.len())),
            reads: AtomicU64::new(0),
            undetermined: AtomicU64::new(0),
            failures: Mutex::default(),
            violations: Mutex::default(),
            violated: AtomicU64::new(0),
        });
        let work = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(|error| Failure::error(format!("the load cannot run: {error}")))?;
                runtime.block_on(run(work, placement, readers))
            })
            .map_err(|error| Failure::error(format!("the load cannot be started: {error}")))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.shared.origin.elapsed()
    }

    /// From now on only these places are written; the others rest. All are read.
    pub(crate) fn focus(&self, places: &BTreeSet<usize>) {
        for (place, busy) in self.shared.busy.iter().enumerate() {
            busy.store(places.contains(&place), Ordering::Relaxed);
        }
        let now = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.shared.since_ms.store(now, Ordering::Relaxed);
    }

    /// The places that are written.
    pub(crate) fn busy(&self) -> BTreeSet<usize> {
        let busy = self.shared.busy.iter().enumerate();
        busy.filter(|(_, busy)| busy.load(Ordering::Relaxed)).map(|(place, _)| place).collect()
    }

    /// Keys of all places, in order.
    pub(crate) fn places(&self) -> &[Bytes] {
        &self.shared.places
    }

    /// What was acknowledged so far, for a look at it.
    pub(crate) fn with_timeline<T>(&self, look: impl FnOnce(&Timeline) -> T) -> T {
        look(&self.shared.timeline.lock())
    }

    /// Places that are written and have fewer than so many acknowledged writes since a moment.
    pub(crate) fn silent(&self, since: Duration, enough: usize) -> Vec<usize> {
        let written = self.with_timeline(|timeline| timeline.writes_after(since));
        self.busy().into_iter().filter(|place| written[*place] < enough).collect()
    }

    /// One line of how it goes: over the last second.
    pub(crate) fn line(&self) -> String {
        let now = self.elapsed();
        let second = now.saturating_sub(Duration::from_secs(1));
        let busy = self.busy();
        let since = Duration::from_millis(self.shared.since_ms.load(Ordering::Relaxed));
        let from = since.max(now.saturating_sub(LOOK_BACK));
        let (figures, gap) = self.with_timeline(|timeline| {
            let gap = timeline.longest_gap_of(|place| busy.contains(&place), from, now).0;
            (timeline.figures(second, now), gap)
        });
        let violated = self.shared.violated.load(Ordering::Relaxed);
        format!(
            "load {} writes/s, p99 {}, {} reads, longest gap of a place {}, {violated} wrong answers",
            crate::output::count(figures.rate),
            crate::output::time(figures.p99),
            crate::output::count(self.shared.reads.load(Ordering::Relaxed) as f64),
            crate::output::time(gap),
        )
    }

    /// Ends it, reads every key back, and judges.
    ///
    /// # Errors
    /// The keys cannot be read, or not until `deadline`.
    pub(crate) async fn stop(mut self, deadline: Instant) -> Outcome<Tally> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            if Instant::now() >= deadline {
                return Err(Failure::error(
                    "not done in time: the load ends and reads back what it wrote (allow more \
                     with --limit SECONDS)",
                ));
            }
            tokio::time::sleep(PAUSE).await;
        }
        let joined = self.thread.take().map(JoinHandle::join);
        match joined {
            Some(Ok(tally)) => tally,
            Some(Err(_)) | None => Err(Failure::error("the load ended on its own".to_owned())),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// The key of a slot: right behind its place. A new one takes the place of one that is closed.
fn key(place: &[u8], number: usize, generation: u64) -> Bytes {
    let mut key = BytesMut::from(place);
    key.put_slice(format!("/load/{number}.{generation}").as_bytes());
    key.freeze()
}

async fn run(shared: Arc<Shared>, placement: Vec<String>, readers: u64) -> Outcome<Tally> {
    let options = ClientOptions { deadline: DEADLINE, ..ClientOptions::default() };
    let client = Client::connect(&placement, options).await?;
    let mut tasks = JoinSet::new();
    for (number, place) in (0u16..).zip(&shared.places) {
        tasks.spawn(write(Arc::clone(&shared), client.clone(), number, place.clone()));
    }
    for seed in 0..readers {
        tasks.spawn(read(Arc::clone(&shared), client.clone(), seed));
    }
    while tasks.join_next().await.is_some() {}
    judge(&shared, &client).await
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
    fn failed(&self, error: &Error) {
        let kind = match error {
            Error::Undetermined { .. } => "undetermined",
            Error::Timeout { .. } => "timeout",
            Error::Unavailable { .. } => "unavailable",
            Error::NoQuorum { .. } => "without quorum",
            Error::Refused { .. } => "refused",
            Error::InvalidArgument(_) => "invalid",
            Error::WrongCluster { .. } => "wrong cluster",
            Error::Partial { .. } => "partial",
        };
        *self.failures.lock().entry(kind).or_default() += 1;
    }
    fn violation(&self, violation: Violation) {
        self.violated.fetch_add(1, Ordering::Relaxed);
        let mut violations = self.violations.lock();
        if violations.len() < MAX_WORDS {
            violations.push(violation);
        }
    }
}

async fn write(shared: Arc<Shared>, client: Client, place: u16, at: Bytes) {
    let slots = &shared.slots[usize::from(place)];
    // Which slot of the list writes each of the keys.
    let mut open: Vec<usize> = (0..KEYS).collect();
    let mut generation = 0;
    let mut due = Instant::now();
    for turn in 0.. {
        while !shared.busy[usize::from(place)].load(Ordering::Relaxed) && !shared.stopped() {
            tokio::time::sleep(shared.pace.time()).await;
            due = Instant::now();
        }
        if shared.stopped() {
            return;
        }
        let slot = open[turn % KEYS];
        let (key, (number, value)) = {
            let mut slots = slots.lock();
            (slots[slot].key().clone(), slots[slot].begin_write())
        };
        let answer = client.put(key, value).await;
        let (at_moment, took) = (shared.origin.elapsed(), due.elapsed());
        match answer {
            Ok(()) => {
                slots.lock()[slot].acknowledge(number);
                shared.timeline.lock().record(place, at_moment, took);
            }
            Err(error) => {
                shared.failed(&error);
                let mut slots = slots.lock();
                if error.is_undetermined() {
                    shared.undetermined.fetch_add(1, Ordering::Relaxed);
                    generation += 1;
                    slots.push(Slot::new(self::key(&at, turn % KEYS, generation)));
                    open[turn % KEYS] = slots.len() - 1;
                } else {
                    slots[slot].refuse(number);
                }
            }
        }
        due = shared.pace.next(due, Instant::now());
        tokio::time::sleep_until(due.into()).await;
        if let Pace::After(_) = shared.pace {
            due = Instant::now();
        }
    }
}

async fn read(shared: Arc<Shared>, client: Client, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    for turn in 0u64.. {
        if shared.stopped() {
            return;
        }
        let place = &shared.slots[random.random_range(0..shared.slots.len())];
        let (at, key, floor) = {
            let slots = place.lock();
            let at = random.random_range(0..slots.len());
            (at, slots[at].key().clone(), slots[at].floor())
        };
        // All of them are linearizable, wherever they are answered.
        let from = if turn % 3 == 0 { ReadOptions::follower() } else { ReadOptions::default() };
        match client.get_with(key, from).await {
            Ok(found) => {
                shared.reads.fetch_add(1, Ordering::Relaxed);
                if let Err(violation) = place.lock()[at].judge(floor, found.as_deref()) {
                    shared.violation(violation);
                }
            }
            Err(error) => shared.failed(&error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Reads every key back.
async fn judge(shared: &Shared, client: &Client) -> Outcome<Tally> {
    let mut tally = Tally::default();
    for place in &shared.slots {
        let keys: Vec<Bytes> = place.lock().iter().map(|slot| slot.key().clone()).collect();
        for (page, keys) in keys.chunks(PAGE).enumerate() {
            let found = client.batch_get(keys.to_vec()).await?;
            let mut slots = place.lock();
            for (offset, (_, value)) in found.into_iter().enumerate() {
                let slot = &mut slots[page * PAGE + offset];
                tally.acknowledged += slot.writes();
                tally.lost += slot.lost(value.as_deref());
                let floor = slot.floor();
                if let Err(violation) = slot.judge(floor, value.as_deref()) {
                    shared.violation(violation);
                }
            }
        }
    }
    tally.reads = shared.reads.load(Ordering::Relaxed);
    tally.violated = shared.violated.load(Ordering::Relaxed);
    tally.words = shared.violations.lock().iter().map(ToString::to_string).collect();
    tally.undetermined = shared.undetermined.load(Ordering::Relaxed);
    tally.failures = shared.failures.lock().clone();
    Ok(tally)
}
