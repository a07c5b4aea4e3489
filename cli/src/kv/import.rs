//! `quorate kv import`: a file of KEY TAB VALUE lines, as fast as the cluster takes it.
//!
//! A thread reads and parses; batches go out with bounded concurrency. Later
//! lines win over earlier ones with the same key: no two batches in flight hold
//! the same key, and no batch holds a key twice. Therefore a batch whose outcome
//! is unknown may simply be written again: nobody of this import wrote its keys
//! in between.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt as _};
use quorate_client::{Client, Error, KvPair};
use serde_json::json;
use tokio::sync::mpsc;

use super::batches::{Event, open, read_batches};
use super::progress::Progress;
use super::verify;
use crate::cluster::find::Connection;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, Format};

/// Between two attempts at a batch.
const PAUSE: Duration = Duration::from_millis(100);

/// Loads KEY TAB VALUE lines.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// The file, or - for stdin
    file: PathBuf,
    /// Stop at the first bad line instead of skipping it
    #[arg(long)]
    strict: bool,
    /// Read every record back and compare
    #[arg(long)]
    verify: bool,
    /// Batches written at the same time
    #[arg(long, value_name = "COUNT", default_value_t = 16,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Seconds to go on trying a batch while the cluster does not take it
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(0..=86_400))]
    retry: u64,
    #[command(flatten)]
    shape: output::Shape,
    #[command(flatten)]
    connection: Connection,
}

/// How a file is loaded.
#[derive(Clone, Debug)]
pub(crate) struct Loading {
    /// The file, or `-` for stdin.
    pub(crate) file: PathBuf,
    /// Stop at the first bad line instead of skipping it.
    pub(crate) strict: bool,
    /// Batches written at the same time.
    pub(crate) concurrency: u16,
    /// How long to go on trying a batch while the cluster does not take it.
    pub(crate) retry: Duration,
}

/// Runs the command. Exit code 2 where lines were skipped.
///
/// # Errors
/// The file cannot be read, a batch was not taken in time, a record read back differs.
pub(super) async fn import(args: ImportArgs) -> Outcome {
    let stdin = args.file.as_os_str() == "-";
    if stdin && args.verify {
        return Err(Failure::error("stdin cannot be read twice: give a file to use --verify"));
    }
    let loading = Loading {
        file: args.file.clone(),
        strict: args.strict,
        concurrency: args.concurrency,
        retry: Duration::from_secs(args.retry),
    };
    let (source, size) = open(&args.file)?;
    let client = args.connection.client().await?;
    let mut progress = Progress::new("import", size);
    let bad = load(&client, read_batches(source), &loading, &mut progress).await?;
    let (records, seconds, rate) = (progress.records(), progress.seconds(), progress.rate());
    drop(progress);

    let verified = if args.verify {
        let (source, size) = open(&args.file)?;
        let progress = Progress::new("verify", size);
        Some(verify::verify(&client, read_batches(source), progress).await?)
    } else {
        None
    };
    let text = match args.shape.format() {
        Format::Json => json!({
            "records": records, "bad_lines": bad, "seconds": seconds,
            "records_per_second": rate, "verified": verified,
        })
        .to_string(),
        Format::Table | Format::Plain => {
            let skipped =
                if bad == 0 { String::new() } else { format!(", {bad} bad lines skipped") };
            let read_back =
                verified.map_or_else(String::new, |count| format!(", {count} read back and equal"));
            format!(
                "imported {records} records in {seconds:.1} s ({}/s){skipped}{read_back}",
                output::count(rate)
            )
        }
    };
    output::emit(&format!("{text}\n"))?;
    if bad > 0 { Err(Failure::quiet(Code::Degraded)) } else { Ok(()) }
}

/// Loads a file and counts its records in `counted` as they are written; bad lines are refused.
///
/// # Errors
/// As the command's.
pub(crate) async fn load_counted(
    client: &Client,
    loading: &Loading,
    counted: Arc<AtomicU64>,
) -> Outcome {
    let (source, _) = open(&loading.file)?;
    load(client, read_batches(source), loading, &mut Progress::counted(counted)).await.map(|_| ())
}

/// Reads every record of a file back and compares; how many there are.
///
/// # Errors
/// Records are missing or differ, or cannot be read.
pub(crate) async fn verify_counted(
    client: &Client,
    file: &Path,
    counted: Arc<AtomicU64>,
) -> Outcome<u64> {
    let (source, _) = open(file)?;
    verify::verify(client, read_batches(source), Progress::counted(counted)).await
}

/// What a person calls the file.
fn named(path: &Path) -> std::borrow::Cow<'_, str> {
    if path.as_os_str() == "-" { "stdin".into() } else { path.to_string_lossy() }
}

/// Writes everything and says how many lines were bad.
async fn load(
    client: &Client,
    mut events: mpsc::Receiver<Event>,
    loading: &Loading,
    progress: &mut Progress,
) -> Outcome<u64> {
    let patience = loading.retry;
    let mut writing = FuturesUnordered::new();
    let mut in_flight = InFlight::default();
    let mut bad = 0;
    while let Some(event) = events.recv().await {
        match event {
            Event::Batch(pairs, position) => {
                while writing.len() >= usize::from(loading.concurrency) || in_flight.holds(&pairs) {
                    let Some(done) = writing.next().await else { break };
                    finished(done, &mut in_flight, progress)?;
                }
                let id = in_flight.add(&pairs);
                writing.push(write(client.clone(), pairs, position, id, patience));
            }
            Event::Bad(number, why) => {
                bad += 1;
                let line = format!("{} line {number}: {why}", named(&loading.file));
                if loading.strict {
                    while let Some(done) = writing.next().await {
                        finished(done, &mut in_flight, progress)?;
                    }
                    return Err(Failure::error(format!(
                        "{line}; stopped, with {} records written (leave --strict out to skip bad \
                         lines)",
                        progress.records()
                    )));
                }
                progress.remark(&line);
            }
            Event::Broken(error) => {
                return Err(Failure::error(format!(
                    "{} cannot be read on: {error}; run the import again: writing a record twice \
                     is harmless",
                    named(&loading.file)
                )));
            }
        }
    }
    while let Some(done) = writing.next().await {
        finished(done, &mut in_flight, progress)?;
    }
    Ok(bad)
}

/// A batch that was written.
struct Written {
    id: u64,
    records: u64,
    position: u64,
}

fn finished(done: Outcome<Written>, in_flight: &mut InFlight, progress: &mut Progress) -> Outcome {
    let done = done.map_err(|failure| Failure {
        words: format!(
            "{}; {} records are written: run the import again, writing a record twice is harmless",
            failure.words,
            progress.records()
        ),
        ..failure
    })?;
    in_flight.remove(done.id);
    progress.advance(done.records, done.position);
    Ok(())
}

/// Writes one batch, again and again until it is certainly written.
async fn write(
    client: Client,
    pairs: Vec<KvPair>,
    position: u64,
    id: u64,
    patience: Duration,
) -> Outcome<Written> {
    let records = pairs.len() as u64;
    let deadline = Instant::now() + patience;
    loop {
        match client.batch_put(pairs.clone()).await {
            Ok(()) => return Ok(Written { id, records, position }),
            Err(error) if again(&error) && Instant::now() < deadline => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// True where the same batch may succeed later; what may have been written already is harmless.
fn again(error: &Error) -> bool {
    error.is_undetermined() || error.is_retryable()
}

/// The keys of all batches that are being written.
#[derive(Default)]
struct InFlight {
    next: u64,
    keys: HashSet<Bytes>,
    batches: HashMap<u64, Vec<Bytes>>,
}

impl InFlight {
    fn holds(&self, pairs: &[KvPair]) -> bool {
        pairs.iter().any(|(key, _)| self.keys.contains(key))
    }
    fn add(&mut self, pairs: &[KvPair]) -> u64 {
        self.next += 1;
        let keys: Vec<Bytes> = pairs.iter().map(|(key, _)| key.clone()).collect();
        self.keys.extend(keys.iter().cloned());
        self.batches.insert(self.next, keys);
        self.next
    }
    fn remove(&mut self, id: u64) {
        for key in self.batches.remove(&id).unwrap_or_default() {
            self.keys.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_in_flight_holds_back_the_next_batch_with_it() {
        let pair = |key: &'static str| (Bytes::from(key), Bytes::new());
        let mut in_flight = InFlight::default();
        let id = in_flight.add(&[pair("a"), pair("b")]);
        assert!(in_flight.holds(&[pair("c"), pair("b")]));
        assert!(!in_flight.holds(&[pair("c")]));
        in_flight.remove(id);
        assert!(!in_flight.holds(&[pair("a")]));
    }
}
