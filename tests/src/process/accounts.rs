//! What a load did, and whether the cluster agrees.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_client::Client;

use crate::linearize::kv::{KvOperation, KvVerdict, check_kv};

/// Keys read back at once.
const PAGE: usize = 512;

/// Writes of keys that are written once and never again.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Acknowledged: they must be there.
    pub acknowledged: BTreeMap<Bytes, Bytes>,
    /// Undetermined: they may be there.
    pub open: BTreeMap<Bytes, Bytes>,
    /// Refused with the promise that nothing was applied: they must not be there.
    pub refused: BTreeMap<Bytes, Bytes>,
}

/// Everything that a load wrote down.
#[derive(Debug)]
pub struct Accounts {
    /// Every operation on the contended keys.
    pub history: Vec<KvOperation>,
    /// The writes that are read back.
    pub ledger: Ledger,
    /// Letter and moment, in nanoseconds since the start of the load, of every acknowledgement.
    pub acknowledged_at: Vec<(u8, u64)>,
    /// Failures by their kind.
    pub failures: BTreeMap<&'static str, u64>,
    /// How long the load ran.
    pub lasted: Duration,
}

impl Accounts {
    /// Reads every write back and checks the history. At least `floor` writes were acknowledged
    /// and a quarter as many contended operations answered, or the test proves nothing.
    ///
    /// # Panics
    /// With what was lost, or why the history is not linearizable.
    pub async fn check(&self, client: &Client, floor: usize) {
        let Ledger { acknowledged, open, refused } = &self.ledger;
        let answered = self.history.iter().filter(|op| op.output.is_some()).count();
        println!(
            "{} acknowledged, {} undetermined, {} refused; {answered} of {} contended operations \
             answered; failures {:?}; {:.1} s",
            acknowledged.len(),
            open.len(),
            refused.len(),
            self.history.len(),
            self.failures,
            self.lasted.as_secs_f64()
        );
        assert!(acknowledged.len() >= floor, "only {} writes went through", acknowledged.len());
        assert!(answered >= floor / 4, "only {answered} contended operations were answered");
        let lost = differences(client, acknowledged, |found, value| found == Some(value)).await;
        assert!(lost.is_empty(), "{} acknowledged writes are lost: {lost:?}", lost.len());
        let wrong =
            differences(client, open, |found, value| found.is_none_or(|v| v == value)).await;
        assert!(wrong.is_empty(), "undetermined writes left something else: {wrong:?}");
        let there = differences(client, refused, |found, _| found.is_none()).await;
        assert!(there.is_empty(), "writes that were refused took effect: {there:?}");
        let verdict = check_kv(&self.history);
        assert_eq!(verdict, KvVerdict::Linearizable, "{verdict}");
    }

    /// The longest time between two acknowledged writes to one of these letters, between two
    /// moments of the load.
    pub fn longest_gap(&self, of: &[u8], from: Duration, to: Duration) -> Duration {
        let moments = |letter: u8| {
            let mut moments: Vec<u64> = self
                .acknowledged_at
                .iter()
                .filter_map(|(l, at)| (*l == letter).then_some(*at))
                .collect();
            moments.sort_unstable();
            moments
        };
        let (from, to) = (from.as_nanos() as u64, to.as_nanos() as u64);
        let gap = |letter| {
            let moments = moments(letter);
            let pairs = moments.windows(2).filter(|pair| pair[1] >= from && pair[0] <= to);
            pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
        };
        Duration::from_nanos(of.iter().map(|letter| gap(*letter)).max().unwrap_or(0))
    }
}

/// The first few keys for which the cluster holds something else than `right` allows.
async fn differences(
    client: &Client,
    written: &BTreeMap<Bytes, Bytes>,
    right: impl Fn(Option<&Bytes>, &Bytes) -> bool,
) -> Vec<(Bytes, Option<Bytes>)> {
    let mut wrong = Vec::new();
    let keys: Vec<Bytes> = written.keys().cloned().collect();
    for page in keys.chunks(PAGE) {
        let found = client.batch_get(page.to_vec()).await;
        let found = found.unwrap_or_else(|error| panic!("reading back: {error}"));
        assert_eq!(found.len(), page.len(), "a batch answers every key");
        for (key, value) in found {
            if !right(value.as_ref(), &written[&key]) && wrong.len() < 10 {
                wrong.push((key, value));
            }
        }
    }
    wrong
}
