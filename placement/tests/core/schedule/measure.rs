//! What has become of a model cluster: counts, skews, who went where.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_placement::core::operators::{Draft, Goal};
use quorate_proto::{RegionId, StoreId};

use super::model::{Begun, Model, SENTINEL};
use crate::support::seconds;

impl Model {
    /// How many replicas, and how many leaders, each living store has.
    pub fn counts(&self) -> BTreeMap<StoreId, (usize, usize, u64)> {
        let mut counts: BTreeMap<StoreId, (usize, usize, u64)> = BTreeMap::new();
        for store in self.stores.keys().filter(|store| !self.dead.contains(store)) {
            counts.insert(*store, (0, 0, 0));
        }
        for truth in self.truth.values().filter(|truth| truth.region.id != SENTINEL) {
            for peer in &truth.region.peers {
                if let Some(count) = counts.get_mut(&peer.store) {
                    count.0 += 1;
                    count.2 += truth.bytes;
                }
            }
            if let Some(count) = counts.get_mut(&truth.leader) {
                count.1 += 1;
            }
        }
        counts
    }

    /// Largest minus smallest over the mean: of replicas, of leaders, of bytes.
    pub fn skews(&self) -> (f64, f64, f64) {
        let counts = self.counts();
        let skew = |values: Vec<f64>| {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let most = values.iter().copied().fold(f64::MIN, f64::max);
            let least = values.iter().copied().fold(f64::MAX, f64::min);
            (most - least) / mean.max(1.0)
        };
        (
            skew(counts.values().map(|count| count.0 as f64).collect()),
            skew(counts.values().map(|count| count.1 as f64).collect()),
            skew(counts.values().map(|count| count.2 as f64).collect()),
        )
    }

    /// Drafts that were begun in the last minutes.
    pub fn begun_lately(&self, minutes: u64) -> Vec<&Draft> {
        let since = Duration::from_secs(minutes * 60);
        let lately = self.begun.iter().filter(|begun| self.now.since(begun.at) < since);
        lately.map(|begun| &begun.draft).collect()
    }

    /// No replica and no leader came back to where it had been.
    pub fn assert_no_thrash(&self) {
        let mut left: BTreeSet<(RegionId, bool, StoreId)> = BTreeSet::new();
        for Begun { draft, .. } in &self.begun {
            let (leads, from, to) = match &draft.goal {
                Goal::TransferLeader { from, to } => (true, *from, *to),
                Goal::MoveReplica { from, to } => (false, *from, *to),
                goal => panic!("nobody asked for {goal}"),
            };
            left.insert((draft.region, leads, from));
            let back = left.contains(&(draft.region, leads, to));
            assert!(!back, "{} went to and fro: {}", draft.region, self.history(draft.region));
        }
    }

    pub fn history(&self, region: RegionId) -> String {
        let mine = self.begun.iter().filter(|begun| begun.draft.region == region);
        let words = mine.map(|begun| {
            let seconds = begun.at.since(seconds(0)).as_secs();
            format!("{seconds} s {}: {} ({})", begun.draft.by, begun.draft.goal, begun.draft.reason)
        });
        words.collect::<Vec<_>>().join("; ")
    }
}
