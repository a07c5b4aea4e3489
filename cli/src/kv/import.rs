//! `quorate kv import`: a file of KEY TAB VALUE lines, as fast as the cluster takes it.
//!
//! A thread reads and parses; batches go out with bounded concurrency. Later
//! lines win over earlier ones with the same key: no two batches in flight hold
//! the same key, and no batch holds a key twice. Therefore a batch whose outcome
//! is unknown may simply be written again: nobody of this import wrote its keys
//! in between.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt as _};
use quorate_client::{Client, Error, KvPair};
use serde_json::json;
use tokio::sync::mpsc;

use super::lines::{BadLine, Lines};
use super::progress::Progress;
use super::verify;
use crate::cluster::find::Connection;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, Format};

/// Pairs of a batch.
const BATCH_PAIRS: usize = 256;
/// Bytes of a batch: it is full with the pair that passes this.
const BATCH_BYTES: usize = 512 * 1024;
/// Batches read ahead.
const READ_AHEAD: usize = 4;
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
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    retry: u64,
    #[command(flatten)]
    shape: output::Shape,
    #[command(flatten)]
    connection: Connection,
}

/// What the reader hands over.
pub(super) enum Event {
    /// Pairs with distinct keys, and the byte of the file behind them.
    Batch(Vec<KvPair>, u64),
    /// A line that is none.
    Bad(u64, BadLine),
    /// The file cannot be read on.
    Broken(io::Error),
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
    let (source, size) = open(&args.file)?;
    let client = args.connection.client().await?;
    let mut progress = Progress::new("import", size);
    let bad = load(&client, read_batches(source), &args, &mut progress).await?;
    let (records, seconds, rate) = (progress.records(), progress.seconds(), progress.rate());
    drop(progress);

    let verified = if args.verify {
        let (source, size) = open(&args.file)?;
        Some(verify::verify(&client, read_batches(source), size).await?)
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

/// What a person calls the file.
fn named(path: &Path) -> std::borrow::Cow<'_, str> {
    if path.as_os_str() == "-" { "stdin".into() } else { path.to_string_lossy() }
}

/// The file and its size, where it has one.
fn open(path: &Path) -> Outcome<(Box<dyn Read + Send>, Option<u64>)> {
    if path.as_os_str() == "-" {
        return Ok((Box::new(io::stdin()), None));
    }
    let open = || {
        let file = File::open(path)?;
        let about = file.metadata()?;
        if about.is_dir() {
            return Err(io::Error::other("it is a folder"));
        }
        Ok((file, about.is_file().then_some(about.len())))
    };
    let (file, size) = open().map_err(|error| {
        Failure::error(format!("cannot read {}: {error}; check the path", path.display()))
    })?;
    Ok((Box::new(file), size))
}

/// Parses a file in a thread of its own, a few batches ahead.
fn read_batches(source: Box<dyn Read + Send>) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    std::thread::spawn(move || {
        let mut lines = Lines::new(BufReader::with_capacity(1 << 18, source));
        let mut batch = Batch::default();
        // A receiver that is gone wants no more.
        let _ = batch.read(&mut lines, &mut |event| sender.blocking_send(event).is_ok());
    });
    receiver
}

/// Pairs on their way into one batch.
#[derive(Default)]
struct Batch {
    pairs: Vec<KvPair>,
    keys: HashSet<Bytes>,
    bytes: usize,
    position: u64,
}

impl Batch {
    /// Reads to the end. `None` where nobody takes the events any more.
    fn read<R: io::BufRead>(
        &mut self,
        lines: &mut Lines<R>,
        send: &mut dyn FnMut(Event) -> bool,
    ) -> Option<()> {
        loop {
            let line = match lines.next() {
                Ok(Some(line)) => line,
                Ok(None) => return self.flush(send),
                Err(error) => {
                    self.flush(send)?;
                    return send(Event::Broken(error)).then_some(());
                }
            };
            match line.pair {
                Ok((key, value)) => {
                    let full = self.pairs.len() >= BATCH_PAIRS || self.bytes >= BATCH_BYTES;
                    if full || self.keys.contains(&key) {
                        self.flush(send)?;
                    }
                    self.bytes += key.len() + value.len();
                    self.keys.insert(key.clone());
                    self.pairs.push((key, value));
                    self.position = line.position;
                }
                Err(why) => {
                    // In the order of the file: what came before is on its way first.
                    self.flush(send)?;
                    send(Event::Bad(line.number, why)).then_some(())?;
                }
            }
        }
    }

    fn flush(&mut self, send: &mut dyn FnMut(Event) -> bool) -> Option<()> {
        let batch = std::mem::take(self);
        self.position = batch.position;
        (batch.pairs.is_empty() || send(Event::Batch(batch.pairs, batch.position))).then_some(())
    }
}

/// Writes everything and says how many lines were bad.
async fn load(
    client: &Client,
    mut events: mpsc::Receiver<Event>,
    args: &ImportArgs,
    progress: &mut Progress,
) -> Outcome<u64> {
    let patience = Duration::from_secs(args.retry);
    let mut writing = FuturesUnordered::new();
    let mut in_flight = InFlight::default();
    let mut bad = 0;
    while let Some(event) = events.recv().await {
        match event {
            Event::Batch(pairs, position) => {
                while writing.len() >= usize::from(args.concurrency) || in_flight.holds(&pairs) {
                    let Some(done) = writing.next().await else { break };
                    finished(done, &mut in_flight, progress)?;
                }
                let id = in_flight.add(&pairs);
                writing.push(write(client.clone(), pairs, position, id, patience));
            }
            Event::Bad(number, why) => {
                bad += 1;
                let line = format!("{} line {number}: {why}", named(&args.file));
                if args.strict {
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
                    named(&args.file)
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

    fn events(text: &str) -> Vec<String> {
        let mut seen = Vec::new();
        let mut lines = Lines::new(text.as_bytes());
        let mut show = |event| {
            seen.push(match event {
                Event::Batch(pairs, position) => {
                    let keys = pairs.iter().map(|(key, _)| String::from_utf8_lossy(key));
                    format!("{} to {position}", keys.collect::<Vec<_>>().join(" "))
                }
                Event::Bad(number, why) => format!("line {number}: {why}"),
                Event::Broken(error) => error.to_string(),
            });
            true
        };
        Batch::default().read(&mut lines, &mut show).unwrap();
        seen
    }

    #[test]
    fn no_batch_holds_a_key_twice() {
        assert_eq!(events("a\t1\nb\t2\na\t3\n"), ["a b to 8", "a to 12"]);
    }

    #[test]
    fn a_bad_line_comes_after_what_stands_before_it() {
        let seen = events("a\t1\nbad\nb\t2\n");
        assert_eq!(seen, ["a to 4", "line 2: no TAB between key and value", "b to 12"]);
    }

    #[test]
    fn batches_are_bounded() {
        let text: String = (0..600).map(|number| format!("{number}\tv\n")).collect();
        assert_eq!(events(&text).len(), 3);
        let text: String =
            (0..4).map(|number| format!("{number}\t{}\n", "v".repeat(300_000))).collect();
        assert_eq!(events(&text).len(), 2);
    }

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
