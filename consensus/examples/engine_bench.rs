//! What the storage engine costs on this machine: microseconds and CPU-microseconds per operation.
//!
//! ```text
//! cargo run -p quorate-consensus --example engine_bench [name=value ...]
//! ```
//! Names: `seconds` per line, `pipelined` (0, 1), `log_prefix` (bytes), `recycled` (log files), `memtable` (MiB),
//! `sync_bytes` (KiB), `dir` (where to put the data), `reads` (0: only writes). CPU time includes RocksDB's own threads.
//! Compare only lines of one run, or of runs that alternate.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_consensus::engine::{
    Cf, Direction, Engine, EngineError, Reader, RocksEngine, RocksOptions, WriteBatch,
};

const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 300;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: BTreeMap<String, String> = std::env::args()
        .skip(1)
        .filter_map(|text| text.split_once('=').map(|(name, value)| (name.into(), value.into())))
        .collect();
    let number = |name: &str, default: u64| -> Result<u64, Failure> {
        Ok(arguments.get(name).map_or(Ok(default), |value| value.parse())?)
    };
    let mut options = RocksOptions::default();
    options.pipelined_write = number("pipelined", options.pipelined_write.into())? == 1;
    options.log_prefix_bytes = number("log_prefix", options.log_prefix_bytes as u64)? as usize;
    options.recycled_logs = number("recycled", options.recycled_logs as u64)? as usize;
    options.memtable_bytes =
        (number("memtable", options.memtable_bytes as u64 >> 20)? as usize) << 20;
    options.bytes_per_sync = number("sync_bytes", options.bytes_per_sync >> 10)? << 10;
    let duration = Duration::from_secs(number("seconds", 2)?);
    let folder = match arguments.get("dir") {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    let engine = Arc::new(RocksEngine::open(folder.path(), &options)?);
    let value = Bytes::from((0..VALUE_BYTES).map(|at| (at * 7 % 251) as u8).collect::<Vec<_>>());

    // Warm up until log files are recycled, as they are on a store that has run for a minute.
    let mut next = 0;
    while next < 900_000 {
        engine.write(log_batch(&mut next, 256, &value))?;
    }
    engine.sync()?;
    std::thread::sleep(Duration::from_secs(1));
    let mut report = Report { duration };
    for size in [1, 16, 128] {
        report.line(&format!("synced log batch of {size}"), size, || {
            engine.write_synced(log_batch(&mut next, size, &value))?;
            Ok(())
        })?;
    }
    report.line("unsynced log batch of 32", 32, || {
        Ok(engine.write(log_batch(&mut next, 32, &value))?)
    })?;
    let mut random = 1;
    report.line("unsynced data batch of 32", 32, || {
        Ok(engine.write(data_batch(&mut random, 32, &value))?)
    })?;
    beside_an_applier(&mut report, &engine, &mut next, &value)?;

    if number("reads", 1)? == 0 {
        return Ok(());
    }
    for key in 0..KEYS {
        let mut batch = WriteBatch::new();
        batch.put(Cf::Data, data_key(key), value.clone());
        engine.write(batch)?;
    }
    for place in ["memtable and files", "files"] {
        report.line(&format!("get, {place}"), 1, || {
            assert!(engine.get(Cf::Data, &data_key(draw(&mut random) % KEYS))?.is_some());
            Ok(())
        })?;
        let mut from_disk = 0;
        report.line(&format!("brief get, {place}"), 1, || {
            let key = data_key(draw(&mut random) % KEYS);
            let found = match engine.get_briefly(Cf::Data, &key) {
                Err(EngineError::Incomplete) => {
                    from_disk += 1;
                    engine.get(Cf::Data, &key)?
                }
                found => found?,
            };
            assert!(found.is_some());
            Ok(())
        })?;
        println!("{from_disk} of them were not in memory");
        engine.flush()?;
    }
    report.line("get of a missing key", 1, || {
        assert!(engine.get(Cf::Data, &data_key(KEYS + draw(&mut random)))?.is_none());
        Ok(())
    })?;
    report.line("multi_get of 32", 32, || {
        let keys: Vec<_> = (0..32).map(|_| data_key(draw(&mut random) % KEYS)).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_ref()).collect();
        assert_eq!(engine.multi_get(Cf::Data, &keys)?.len(), 32);
        Ok(())
    })?;
    report.line("snapshot and get", 1, || {
        let snapshot = engine.snapshot();
        assert!(snapshot.get(Cf::Data, &data_key(draw(&mut random) % KEYS))?.is_some());
        Ok(())
    })?;
    report.line("scan of 50", 1, || {
        let mut left = 50;
        let start = data_key(draw(&mut random) % KEYS);
        engine.scan(Cf::Data, &start, &[], Direction::Forward, &mut |_, _| {
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(())
    })?;
    println!("{:?}", engine.stats());
    Ok(())
}

/// Synced log batches of 16 while another thread applies unsynced batches of 16, as a store does.
fn beside_an_applier(
    report: &mut Report,
    engine: &Arc<RocksEngine>,
    next: &mut u64,
    value: &Bytes,
) -> Result<(), Failure> {
    let (permits, pending) = std::sync::mpsc::sync_channel::<()>(64);
    let applier = {
        let (engine, value) = (Arc::clone(engine), value.clone());
        std::thread::spawn(move || {
            let mut random = 99;
            while pending.recv().is_ok() {
                engine.write(data_batch(&mut random, 16, &value)).expect("the disk works");
            }
        })
    };
    report.line("synced log batch of 16, and applied", 16, || {
        engine.write_synced(log_batch(next, 16, value))?;
        permits.send(())?;
        Ok(())
    })?;
    drop(permits);
    applier.join().map_err(|_| "the applier failed")?;
    Ok(())
}

struct Report {
    duration: Duration,
}

impl Report {
    /// Repeats `work`, which does `operations`, and prints what one of them costs.
    fn line(
        &mut self,
        name: &str,
        operations: u64,
        mut work: impl FnMut() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (began, cpu) = (Instant::now(), cpu_nanoseconds()?);
        let mut rounds = 0_u64;
        while began.elapsed() < self.duration {
            for _ in 0..if operations == 1 { 16 } else { 1 } {
                work()?;
                rounds += 1;
            }
        }
        let micros = began.elapsed().as_secs_f64() * 1e6;
        let cpu = (cpu_nanoseconds()? - cpu) as f64 / 1e3;
        let (rounds, all) = (rounds as f64, (rounds * operations) as f64);
        println!(
            "{name:38} {:9.0} rounds/s {:9.0} ops/s {:9.2} us/op {:9.2} CPU-us/op",
            rounds / micros * 1e6,
            all / micros * 1e6,
            micros / all,
            cpu / all
        );
        Ok(())
    }
}

/// CPU time of all threads that are alive.
fn cpu_nanoseconds() -> Result<u64, Failure> {
    let mut sum = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        sum += text.split(' ').next().unwrap_or("0").parse::<u64>()?;
    }
    Ok(sum)
}

/// Entries of 100 regions, and now and then a truncation.
fn log_batch(next: &mut u64, entries: u64, value: &Bytes) -> WriteBatch {
    let mut batch = WriteBatch::with_capacity(entries as usize + 1);
    for _ in 0..entries {
        let (region, index) = (*next % 100, *next / 100);
        batch.put(Cf::Raft, log_key(region, index), value.clone());
        if index % 1024 == 1023 {
            batch.delete_range(Cf::Raft, log_key(region, 0), log_key(region, index - 512));
        }
        *next += 1;
    }
    batch
}

fn data_batch(random: &mut u64, entries: u64, value: &Bytes) -> WriteBatch {
    let mut batch = WriteBatch::with_capacity(entries as usize);
    for _ in 0..entries {
        batch.put(Cf::Data, data_key(draw(random) % KEYS), value.clone());
    }
    batch
}

fn log_key(region: u64, index: u64) -> Bytes {
    let mut key = Vec::with_capacity(17);
    key.push(b'e');
    key.extend_from_slice(&region.to_be_bytes());
    key.extend_from_slice(&index.to_be_bytes());
    key.into()
}

fn data_key(number: u64) -> Bytes {
    let mut key = b"customer".to_vec();
    key.extend_from_slice(&number.to_be_bytes());
    key.into()
}

/// A linear congruential generator: cheap, and good enough to spread keys.
fn draw(random: &mut u64) -> u64 {
    *random =
        random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *random >> 33
}
