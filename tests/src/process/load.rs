//! Clients that write and read while a test hurts the cluster.
//!
//! Keys begin with one of twelve [`letters`], each of which has a region of its own after
//! [`Cluster::spread`](super::Cluster::spread). For each letter one task writes a ledger: new keys, one after the other, so that
//! the gaps between acknowledgements tell how long the region could not be written. Beside them,
//! tasks contend for two keys a letter with puts of unique values, deletes, and gets from leaders
//! and followers; all of that goes into the history.
//!
//! Every task pauses shortly after each operation, which bounds the rate and the history.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_client::{Client, Error, ReadOptions};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;

use super::accounts::{Accounts, Ledger};
use super::eventually;
use crate::linearize::history::Recorder;
use crate::linearize::kv::KeyedInput;
use crate::linearize::register::{KvInput, KvOutput};

/// Contended keys of a letter.
const HOT_KEYS: u32 = 2;
/// Bytes of a ledger's value.
const VALUE_BYTES: usize = 128;

/// No operation of a client may take longer, whatever happens: its deadline is 10 s.
const NEVER_LONGER: Duration = Duration::from_secs(20);

/// First bytes of the keys that a load uses.
pub fn letters() -> impl Iterator<Item = u8> + Clone {
    b'a'..=b'l'
}

/// Where to split so that each letter has a region.
pub fn split_keys() -> Vec<Bytes> {
    letters().skip(1).map(|letter| Bytes::copy_from_slice(&[letter])).collect()
}

/// The ledger's key of that number.
pub fn letter_key(letter: u8, number: u64) -> Bytes {
    Bytes::from(format!("{}/ledger/{number:07}", char::from(letter)))
}

/// How hard a load works.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Tasks that contend.
    pub contenders: u64,
    /// Pause after each operation.
    pub pause: Duration,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions { contenders: 6, pause: Duration::from_millis(4) }
    }
}

struct Shared {
    stop: AtomicBool,
    origin: Instant,
    pause: Duration,
    recorder: Recorder<KeyedInput, KvOutput>,
    ledger: Mutex<Ledger>,
    acknowledged_at: Mutex<Vec<(u8, u64)>>,
    counts: BTreeMap<u8, AtomicU64>,
    failures: Mutex<BTreeMap<&'static str, u64>>,
}

/// A load that runs.
pub struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Load {
    /// Starts on these clients, in turn.
    pub fn start(clients: &[Client], options: LoadOptions) -> Load {
        let origin = Instant::now();
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            origin,
            pause: options.pause,
            recorder: Recorder::new(move || nanos(origin.elapsed())),
            ledger: Mutex::default(),
            acknowledged_at: Mutex::default(),
            counts: letters().map(|letter| (letter, AtomicU64::new(0))).collect(),
            failures: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        let mut clients = clients.iter().cycle().cloned();
        for (letter, client) in letters().zip(&mut clients) {
            tasks.spawn(write_ledger(Arc::clone(&shared), client, letter));
        }
        for (number, client) in (0..options.contenders).zip(&mut clients) {
            tasks.spawn(contend(Arc::clone(&shared), client, number));
        }
        Load { shared, tasks }
    }

    /// Since the start.
    pub fn elapsed(&self) -> Duration {
        self.shared.origin.elapsed()
    }

    /// Waits until each of these letters has `more` acknowledged writes than now.
    ///
    /// # Panics
    /// When that takes longer than `patience`.
    pub async fn progress(&self, of: &[u8], more: u64, patience: Duration) {
        let count = |letter: &u8| self.shared.counts[letter].load(Ordering::Relaxed);
        let before: Vec<u64> = of.iter().map(count).collect();
        eventually("writes go on", patience, || async {
            let behind =
                of.iter().zip(&before).filter(|(letter, before)| count(letter) < *before + more);
            let behind: String = behind.map(|(letter, _)| char::from(*letter)).collect();
            if behind.is_empty() {
                return Ok(());
            }
            let failures = self.shared.failures.lock();
            Err(format!("letters {behind:?} wait; failures so far {failures:?}"))
        })
        .await;
    }

    /// Ends the load and hands over what it wrote down.
    ///
    /// # Panics
    /// When a task of it panicked.
    pub async fn stop(mut self) -> Accounts {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap_or_else(|error| panic!("a client of the load: {error}"));
        }
        let shared = &self.shared;
        Accounts {
            history: shared.recorder.history(),
            ledger: std::mem::take(&mut shared.ledger.lock()),
            acknowledged_at: std::mem::take(&mut shared.acknowledged_at.lock()),
            failures: std::mem::take(&mut shared.failures.lock()),
            lasted: shared.origin.elapsed(),
        }
    }
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
            Error::InvalidArgument(_) | Error::WrongCluster { .. } | Error::Partial { .. } => {
                panic!("the load met what no fault explains: {error}")
            }
        };
        *self.failures.lock().entry(kind).or_default() += 1;
    }
}

async fn write_ledger(shared: Arc<Shared>, client: Client, letter: u8) {
    for number in 0u64.. {
        if shared.stopped() {
            return;
        }
        let key = letter_key(letter, number);
        let value = Bytes::from(format!("{number:0>VALUE_BYTES$}"));
        let answer = ends("put", &key, client.put(key.clone(), value.clone())).await;
        let now = nanos(shared.origin.elapsed());
        match answer {
            Ok(()) => {
                shared.ledger.lock().acknowledged.insert(key, value);
                shared.acknowledged_at.lock().push((letter, now));
                shared.counts[&letter].fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                shared.failed(&error);
                let mut ledger = shared.ledger.lock();
                let account =
                    if error.is_undetermined() { &mut ledger.open } else { &mut ledger.refused };
                account.insert(key, value);
            }
        }
        tokio::time::sleep(shared.pause).await;
    }
}

async fn contend(shared: Arc<Shared>, client: Client, number: u64) {
    let mut random = SmallRng::seed_from_u64(number);
    let all: Vec<u8> = letters().collect();
    for turn in 0u64.. {
        if shared.stopped() {
            return;
        }
        let letter = char::from(all[random.random_range(0..all.len())]);
        let key = format!("{letter}/hot/{}", random.random_range(0..HOT_KEYS));
        let input = match random.random_range(0..10) {
            0..5 => KvInput::Get,
            5..9 => KvInput::Put(format!("{number}.{turn}").into_bytes()),
            _ => KvInput::Delete,
        };
        let pending = shared.recorder.invoke(number, KeyedInput::new(key.clone(), input.clone()));
        let answer = match input {
            KvInput::Get => {
                let from =
                    if turn % 3 == 0 { ReadOptions::follower() } else { ReadOptions::default() };
                let value = ends("get", &key.clone().into(), client.get_with(key, from)).await;
                value.map(|value| KvOutput::Value(value.map(|value| value.to_vec())))
            }
            KvInput::Put(value) => {
                let put = ends("put", &key.clone().into(), client.put(key, value)).await;
                put.map(|()| KvOutput::Done)
            }
            KvInput::Delete => {
                let delete = ends("delete", &key.clone().into(), client.delete(key)).await;
                delete.map(|()| KvOutput::Done)
            }
            KvInput::Cas { .. } => unreachable!("this load has no compare-and-set"),
        };
        match answer {
            Ok(output) => pending.ok(output),
            Err(error) => {
                shared.failed(&error);
                // A refusal promises that nothing was applied: the history holds it to that.
                if error.is_undetermined() { pending.unknown() } else { pending.fail() }
            }
        }
        tokio::time::sleep(shared.pause).await;
    }
}

/// The outcome of an operation, which must come: with or without an answer of the cluster.
async fn ends<T>(
    what: &str,
    key: &Bytes,
    operation: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(NEVER_LONGER, operation).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("a {what} of {key:?} has not ended after {NEVER_LONGER:?}"),
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
