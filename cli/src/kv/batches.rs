//! Reads an import file into batches, in a thread of its own, a few batches ahead.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use bytes::Bytes;
use quorate_client::KvPair;
use tokio::sync::mpsc;

use super::lines::{BadLine, Lines};
use crate::exit::{Failure, Outcome};

/// Pairs of a batch.
const BATCH_PAIRS: usize = 256;
/// Bytes of a batch: it is full with the pair that passes this.
const BATCH_BYTES: usize = 512 * 1024;
/// Batches read ahead.
const READ_AHEAD: usize = 4;

/// What the reader hands over.
pub(super) enum Event {
    /// Pairs with distinct keys, and the byte of the file behind them.
    Batch(Vec<KvPair>, u64),
    /// A line that is none.
    Bad(u64, BadLine),
    /// The file cannot be read on.
    Broken(io::Error),
}

/// The file and its size, where it has one.
///
/// # Errors
/// It cannot be read.
pub(super) fn open(path: &Path) -> Outcome<(Box<dyn Read + Send>, Option<u64>)> {
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
pub(super) fn read_batches(source: Box<dyn Read + Send>) -> mpsc::Receiver<Event> {
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
}
