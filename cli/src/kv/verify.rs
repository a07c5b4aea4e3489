//! Reads back what an import wrote, and compares record by record.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream::{FuturesOrdered, StreamExt as _};
use quorate_client::{Client, KvPair};
use quorate_proto::key;
use tokio::sync::mpsc;

use super::batches::Event;
use super::progress::Progress;
use crate::exit::{Failure, Outcome};

/// Batches read at the same time.
const CONCURRENCY: usize = 16;
/// Differences that are kept; with more, something is wrong with all of it.
const MAX_SUSPECTS: usize = 100_000;

/// Says how many records were compared, all of them equal.
///
/// # Errors
/// Records are missing or differ, or cannot be read.
pub(super) async fn verify(
    client: &Client,
    mut events: mpsc::Receiver<Event>,
    mut progress: Progress,
) -> Outcome<u64> {
    let mut suspects = Suspects::default();
    let mut reading = FuturesOrdered::new();
    loop {
        let event = if reading.len() < CONCURRENCY { events.recv().await } else { None };
        match event {
            Some(Event::Batch(pairs, position)) => {
                reading.push_back(read(client.clone(), pairs, position));
            }
            // Reported by the import; the file ends where it ended then.
            Some(Event::Bad(..) | Event::Broken(_)) => {}
            None => {
                let Some(done) = reading.next().await else { break };
                let (pairs, found, position) = done?;
                suspects.compare(&pairs, &found)?;
                progress.advance(pairs.len() as u64, position);
            }
        }
    }
    let records = progress.records();
    drop(progress);
    suspects.verdict(records)
}

type Found = (Vec<KvPair>, Vec<(Bytes, Option<Bytes>)>, u64);

async fn read(client: Client, pairs: Vec<KvPair>, position: u64) -> Outcome<Found> {
    let keys = pairs.iter().map(|(key, _)| key.clone()).collect();
    let found = client.batch_get(keys).await?;
    Ok((pairs, found, position))
}

/// Keys whose value is not that of a line, told in the order of the file. Where a
/// later line has the same key, that line's value counts.
#[derive(Default)]
struct Suspects {
    keys: BTreeMap<Bytes, Difference>,
}

/// How a record differs.
enum Difference {
    Missing,
    OtherValue,
}

impl Suspects {
    fn compare(&mut self, pairs: &[KvPair], found: &[(Bytes, Option<Bytes>)]) -> Outcome {
        for (at, (key, wanted)) in pairs.iter().enumerate() {
            let value = found.get(at).filter(|(found, _)| found == key);
            match value.and_then(|(_, value)| value.as_ref()) {
                Some(value) if value == wanted => self.keys.remove(key),
                Some(_) => self.keys.insert(key.clone(), Difference::OtherValue),
                None => self.keys.insert(key.clone(), Difference::Missing),
            };
        }
        if self.keys.len() > MAX_SUSPECTS {
            return Err(Failure::error(format!(
                "more than {MAX_SUSPECTS} records differ from the file: is another writer at work?"
            )));
        }
        Ok(())
    }

    fn verdict(&self, records: u64) -> Outcome<u64> {
        let Some((key, first)) = self.keys.first_key_value() else { return Ok(records) };
        let what = match first {
            Difference::Missing => "is missing",
            Difference::OtherValue => "has another value",
        };
        let key = key::display(key);
        let count = self.keys.len();
        Err(Failure::error(format!(
            "{count} of {records} records differ from the file: {key} {what}; is another writer \
             at work? If not, keep the data folder and report this"
        )))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pair(key: &'static str, value: &'static str) -> KvPair {
        (Bytes::from(key), Bytes::from(value))
    }
    fn found(key: &'static str, value: Option<&'static str>) -> (Bytes, Option<Bytes>) {
        (Bytes::from(key), value.map(Bytes::from))
    }

    #[test]
    fn a_missing_and_a_different_record_are_told() {
        let mut suspects = Suspects::default();
        let pairs = [pair("a", "1"), pair("b", "2")];
        suspects.compare(&pairs, &[found("a", Some("1")), found("b", None)]).unwrap();
        let words = suspects.verdict(2).unwrap_err().words;
        assert!(words.contains("1 of 2") && words.contains("b is missing"), "{words}");
        suspects.compare(&[pair("0", "1")], &[found("0", Some("x"))]).unwrap();
        let words = suspects.verdict(3).unwrap_err().words;
        assert!(words.contains("2 of 3") && words.contains("0 has another value"), "{words}");
    }

    #[test]
    fn the_last_line_of_a_key_counts() {
        let mut suspects = Suspects::default();
        suspects.compare(&[pair("a", "old")], &[found("a", Some("new"))]).unwrap();
        suspects.compare(&[pair("a", "new")], &[found("a", Some("new"))]).unwrap();
        assert_eq!(suspects.verdict(2), Ok(2));
        let mut lost = Suspects::default();
        lost.compare(&[pair("a", "old")], &[found("a", Some("old"))]).unwrap();
        lost.compare(&[pair("a", "new")], &[found("a", Some("old"))]).unwrap();
        assert!(lost.verdict(2).is_err());
    }
}
