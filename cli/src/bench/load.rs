//! The closed loop: each client sends its next operation when the last one is answered.
//!
//! What is measured lies between two moments: warm-up is thrown away, and so is
//! every operation that is not answered when the time is up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::keys::Draw;
use super::target::Target;
use super::usage::{Usage, Watched};
use crate::exit::{Failure, Outcome};

/// Longest latency that is told apart, in microseconds.
const MAX_MICROS: u64 = 60_000_000;
/// After an error a client waits this long, so that a dead system is not hammered.
const AFTER_ERROR: Duration = Duration::from_millis(20);

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// After that time.
    Elapsed(Duration),
    /// After that many operations.
    Operations(u64),
}

/// What happened between the two moments.
pub(super) struct Measured {
    /// Its length.
    pub(super) elapsed: Duration,
    /// Latencies of reads, in microseconds.
    pub(super) reads: Histogram<u64>,
    /// Latencies of writes, in microseconds.
    pub(super) writes: Histogram<u64>,
    /// Reads that found nothing.
    pub(super) misses: u64,
    /// Operations that failed.
    pub(super) errors: u64,
    /// What the first of them said.
    pub(super) first_error: Option<String>,
    /// What the processes used.
    pub(super) usage: Usage,
}

struct Tally {
    reads: Histogram<u64>,
    writes: Histogram<u64>,
    misses: u64,
    errors: u64,
    first_error: Option<String>,
}

impl Tally {
    fn new() -> Outcome<Self> {
        let histogram = || {
            Histogram::new_with_bounds(1, MAX_MICROS, 3)
                .map_err(|error| Failure::error(format!("no histogram: {error}")))
        };
        Ok(Self {
            reads: histogram()?,
            writes: histogram()?,
            misses: 0,
            errors: 0,
            first_error: None,
        })
    }
}

/// What all clients of a run share.
struct Shared {
    tally: Mutex<Tally>,
    answered: AtomicU64,
    stop: AtomicBool,
    limit: AtomicU64,
    reached: Notify,
    reads_percent: u8,
}

/// Runs all clients and measures.
///
/// # Errors
/// A client cannot run, or every operation failed.
pub(super) async fn run(
    targets: Vec<Target>,
    draw: &Draw,
    reads_percent: u8,
    warm_up: Duration,
    until: Until,
    watched: &Watched,
) -> Outcome<Measured> {
    let shared = Arc::new(Shared {
        tally: Mutex::new(Tally::new()?),
        answered: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        limit: AtomicU64::new(u64::MAX),
        reached: Notify::new(),
        reads_percent,
    });
    let mut clients = JoinSet::new();
    for (seed, target) in (1..).zip(targets) {
        clients.spawn(client(target, draw.fork(seed), shared.clone()));
    }
    tokio::time::sleep(warm_up).await;

    *shared.tally.lock() = Tally::new()?;
    shared.answered.store(0, Ordering::Relaxed);
    let (before, begun) = (watched.read(), Instant::now());
    match until {
        Until::Elapsed(time) => wait(time, &shared).await,
        Until::Operations(count) => {
            shared.limit.store(count, Ordering::Relaxed);
            shared.reached.notified().await;
        }
    }
    shared.stop.store(true, Ordering::Relaxed);
    let (elapsed, after) = (begun.elapsed(), watched.read());
    let tally = std::mem::replace(&mut *shared.tally.lock(), Tally::new()?);
    // Answers that are still on their way are waited for, so that the next run starts from rest.
    while clients.join_next().await.is_some() {}
    let Tally { reads, writes, misses, errors, first_error } = tally;
    Ok(Measured {
        elapsed,
        reads,
        writes,
        misses,
        errors,
        first_error,
        usage: after.since(&before),
    })
}

async fn wait(time: Duration, shared: &Shared) {
    let bar = ProgressBar::new(time.as_millis() as u64);
    if let Ok(style) = ProgressStyle::with_template("[{bar:30}] {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    let begun = Instant::now();
    while let Some(left) = time.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        tokio::time::sleep(left.min(Duration::from_millis(500))).await;
        bar.set_position(begun.elapsed().as_millis() as u64);
        let rate = shared.answered.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
        bar.set_message(format!("{} op/s", crate::output::count(rate)));
    }
    bar.finish_and_clear();
}

async fn client(mut target: Target, mut draw: Draw, shared: Arc<Shared>) {
    while !shared.stop.load(Ordering::Relaxed) {
        let reads = draw.percent(shared.reads_percent);
        let key = draw.key();
        let sent = Instant::now();
        let answer = if reads {
            target.get(key).await
        } else {
            let value = draw.value();
            target.put(key, value).await.map(|()| true)
        };
        let micros = u64::try_from(sent.elapsed().as_micros()).unwrap_or(MAX_MICROS);
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let failed = answer.is_err();
        {
            let mut tally = shared.tally.lock();
            match answer {
                Ok(found) => {
                    let side = if reads { &mut tally.reads } else { &mut tally.writes };
                    side.saturating_record(micros.max(1));
                    tally.misses += u64::from(!found);
                }
                Err(words) => {
                    tally.errors += 1;
                    tally.first_error.get_or_insert(words);
                }
            }
        }
        if shared.answered.fetch_add(1, Ordering::Relaxed) + 1
            >= shared.limit.load(Ordering::Relaxed)
        {
            shared.reached.notify_one();
        }
        if failed {
            tokio::time::sleep(AFTER_ERROR).await;
        }
    }
}
