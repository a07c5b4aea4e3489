//! What snapshots under way cost those who write: p99 of writes during a transfer against before.
//!
//! A cluster of real processes, one region a letter. Writes come at a fixed rate (open loop, and
//! each latency counts from when the write was due, so nothing is omitted). In each round one store
//! is killed, everything is overwritten so that the logs forget what it lacks, and the disks come to
//! rest; then writes are measured for a while. The store is started again: now every region is sent
//! to it as a snapshot, and writes are measured until the last one is installed.
//!
//! ```text
//! cargo run -p quorate-tests --example snapshot_impact -- [--rounds N] [--seconds N] [--mib N]
//!     [--rate N] [--store-flag --NAME=VALUE]…
//! ```
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_client::{Client, KvPair};
use quorate_tests::process::{Cluster, Node, Shape, letters};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

const VALUE_BYTES: usize = 1024;
/// Values in one batch while the store is away.
const BATCH: u64 = 128;
/// Batches under way at once.
const FILLERS: u64 = 4;
/// How long a transfer may take before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(300);

struct Arguments {
    rounds: usize,
    seconds: u64,
    mib: u64,
    rate: u64,
    store_flags: Vec<String>,
}

fn arguments() -> Arguments {
    let (rounds, seconds, mib, rate) = (5, 60, 256, 500);
    let mut found = Arguments { rounds, seconds, mib, rate, store_flags: Vec::new() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        let number = || value.parse::<u64>().unwrap_or_else(|_| panic!("{word} {value}"));
        match word.as_str() {
            "--rounds" => found.rounds = number() as usize,
            "--seconds" => found.seconds = number(),
            "--mib" => found.mib = number(),
            "--rate" => found.rate = number().max(1),
            "--store-flag" => found.store_flags.push(value),
            _ => panic!("unknown argument {word}"),
        }
    }
    found
}

fn key(letter: u8, number: u64) -> Bytes {
    Bytes::from(format!("{}/data/{number:08}", char::from(letter)))
}

fn value(random: &mut SmallRng) -> Bytes {
    let mut value = vec![0; VALUE_BYTES];
    random.fill(&mut value[..]);
    value.into()
}

/// Writes every key once.
async fn fill(client: &Client, keys: u64) {
    let mut tasks = tokio::task::JoinSet::new();
    for filler in 0..FILLERS {
        let client = client.clone();
        tasks.spawn(async move {
            let mut random = SmallRng::seed_from_u64(filler);
            for first in (filler * BATCH..keys).step_by((FILLERS * BATCH) as usize) {
                for letter in letters() {
                    let numbers = first..(first + BATCH).min(keys);
                    let pair = |number| (key(letter, number), value(&mut random));
                    let pairs: Vec<KvPair> = numbers.map(pair).collect();
                    client.batch_put(pairs).await.unwrap();
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

/// Writes at a fixed rate; latencies in microseconds, since they were last taken.
struct Writers {
    stop: Arc<AtomicBool>,
    latencies: Arc<Mutex<Vec<u64>>>,
    failures: Arc<AtomicU64>,
}

impl Writers {
    fn start(client: &Client, rate: u64, keys: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let latencies = Arc::new(Mutex::new(Vec::new()));
        let failures = Arc::new(AtomicU64::new(0));
        let (stopped, taken, failed) = (stop.clone(), latencies.clone(), failures.clone());
        let client = client.clone();
        tokio::spawn(async move {
            let mut random = SmallRng::seed_from_u64(7);
            let origin = Instant::now();
            let all: Vec<u8> = letters().collect();
            for number in 0u64.. {
                let due = origin + Duration::from_nanos(number * 1_000_000_000 / rate);
                tokio::time::sleep_until(due.into()).await;
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let letter = all[random.random_range(0..all.len())];
                let (key, value) = (key(letter, random.random_range(0..keys)), value(&mut random));
                let (client, taken, failed) = (client.clone(), taken.clone(), failed.clone());
                tokio::spawn(async move {
                    match client.put(key, value).await {
                        Ok(()) => taken.lock().push(due.elapsed().as_micros() as u64),
                        Err(_) => drop(failed.fetch_add(1, Ordering::Relaxed)),
                    }
                });
            }
        });
        Self { stop, latencies, failures }
    }

    fn take(&self) -> Window {
        let mut latencies = std::mem::take(&mut *self.latencies.lock());
        latencies.sort_unstable();
        Window(latencies)
    }
}

struct Window(Vec<u64>);

impl Window {
    fn at(&self, quantile: f64) -> u64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * quantile) as usize).copied().unwrap_or(0)
    }

    fn line(&self) -> String {
        let (count, p50, p99) = (self.0.len(), self.at(0.5), self.at(0.99));
        format!("{count:>6} writes  p50 {p50:>6} µs  p99 {p99:>7} µs  max {:>7} µs", self.at(1.0))
    }
}

/// The sum of a metric's samples.
fn metric(node: &Node, name: &str) -> Option<f64> {
    let page = node.page("/metrics").ok()?.body;
    let samples = page
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    Some(samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
}

/// Nanoseconds spent in syncs of the log, and how many they were, on the stores that lead.
fn syncs(nodes: &[Node]) -> (f64, f64) {
    let sum = |name: &str| nodes.iter().filter_map(|node| metric(node, name)).sum::<f64>();
    (sum("quorate_raft_log_nanoseconds_total"), sum("quorate_raft_log_syncs_total"))
}

/// Mean microseconds of a sync between two readings.
fn mean_sync(from: (f64, f64), to: (f64, f64)) -> f64 {
    (to.0 - from.0) / (to.1 - from.1).max(1.0) / 1_000.0
}

/// Bytes that processes have had written to the disk.
fn written(nodes: &[Node]) -> u64 {
    let of = |node: &Node| {
        let text = std::fs::read_to_string(format!("/proc/{}/io", node.pid()?)).ok()?;
        text.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse::<u64>().ok())
    };
    nodes.iter().filter_map(of).sum()
}

/// Waits until what was written before is flushed and compacted: three seconds in which no more
/// than half as much again is written as `usual` bytes a second.
async fn rest(nodes: &[Node], usual: u64) {
    const SPAN: u64 = 3;
    for _ in 0..PATIENCE.as_secs() / SPAN {
        let before = written(nodes);
        tokio::time::sleep(Duration::from_secs(SPAN)).await;
        if written(nodes) - before <= usual * SPAN * 3 / 2 {
            return;
        }
    }
    panic!("the disks do not come to rest");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments = arguments();
    let mut shape = Shape { placements: 1, ..Shape::default() }
        // Small logs: what is overwritten while the store is away need not be much.
        .store_flag("--raft-max-log-bytes=1048576")
        .store_flag("--raft-max-log-entries=1024")
        .store_flag("--split-region-bytes=1073741824");
    for flag in &arguments.store_flags {
        shape = shape.store_flag(flag);
    }
    let mut cluster = Cluster::start(shape).await;
    cluster.spread().await;
    let client = cluster.client().await;
    let regions = letters().count() as u64;
    let keys = (arguments.mib << 20) / regions / VALUE_BYTES as u64;
    println!("{} MiB in {regions} regions, {} writes/s", arguments.mib, arguments.rate);
    fill(&client, keys).await;
    let writers = Writers::start(&client, arguments.rate, keys);
    let mut ratios = Vec::new();
    let away = 2;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (read, window) = (written(&cluster.stores[..away]), 5);
    tokio::time::sleep(Duration::from_secs(window)).await;
    let usual = (written(&cluster.stores[..away]) - read) / window;
    for round in 1..=arguments.rounds {
        cluster.healthy().await;
        cluster.stores[away].kill();
        fill(&client, keys).await;
        rest(&cluster.stores[..away], usual).await;
        writers.take();
        let read = syncs(&cluster.stores[..away]);
        tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
        let before = writers.take();
        let sync_before = mean_sync(read, syncs(&cluster.stores[..away]));

        cluster.stores[away].start();
        let node = &cluster.stores[away];
        let deadline = Instant::now() + PATIENCE;
        let installed = || metric(node, "quorate_raft_snapshots_installed_total").unwrap_or(0.0);
        let received = || metric(node, "quorate_raft_snapshot_bytes_received_total").unwrap_or(0.0);
        while received() == 0.0 {
            assert!(Instant::now() < deadline, "no snapshot is sent");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let began = Instant::now();
        let read = syncs(&cluster.stores[..away]);
        writers.take();
        while installed() < regions as f64 {
            assert!(Instant::now() < deadline, "{} snapshots of {regions}", installed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let took = began.elapsed().as_secs_f64();
        let during = writers.take();
        let sync_during = mean_sync(read, syncs(&cluster.stores[..away]));
        let ratio = during.at(0.99) as f64 / before.at(0.99).max(1) as f64;
        ratios.push(ratio);
        let rate = received() / took / f64::from(1 << 20);
        println!("round {round}  before  {}", before.line());
        println!("         during  {}", during.line());
        println!(
            "         {took:.1} s at {rate:.0} MiB/s; a sync of the others' logs took \
             {sync_before:.0} µs before, {sync_during:.0} µs during; p99 × {ratio:.2}"
        );
    }
    writers.stop.store(true, Ordering::Relaxed);
    ratios.sort_by(f64::total_cmp);
    let failures = writers.failures.load(Ordering::Relaxed);
    println!(
        "p99 during / before: min {:.2}  median {:.2}  max {:.2}  ({failures} writes failed)",
        ratios[0],
        ratios[ratios.len() / 2],
        ratios[ratios.len() - 1]
    );
}
