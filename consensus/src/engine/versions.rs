//! Sorted keys with the versions that open snapshots still see: what [`MemoryEngine`] keeps for
//! one column family.
//!
//! A write adds a version under the number of its batch; a reader at number `n` sees the last
//! version at or below `n`. Without open snapshots a key has one version and a removed key none,
//! so reads and writes cost what a plain map costs, and opening a snapshot costs nothing.
//!
//! [`MemoryEngine`]: super::MemoryEngine

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::Direction;

/// A value from the batch of that number on; `None`: removed.
type Version = (u64, Option<Bytes>);

/// A key and its value, where it has one.
pub(super) type Entry = (Bytes, Option<Bytes>);

/// One column family in memory.
#[derive(Default, Debug)]
pub(super) struct Versions {
    /// Per key, versions by ascending number; never empty.
    keys: BTreeMap<Bytes, Vec<Version>>,
    /// Keys that may hold versions that nobody sees once no snapshot is open.
    stale: Vec<Bytes>,
}

impl Versions {
    /// The value of `key` at `number`.
    pub(super) fn get(&self, key: &[u8], number: u64) -> Option<&Bytes> {
        visible(self.keys.get(key)?, number)
    }

    /// Sets or removes `key` from `number` on and returns what the newest value was. `keep`: an
    /// open snapshot may need the older versions.
    pub(super) fn set(
        &mut self,
        key: &Bytes,
        value: Option<Bytes>,
        number: u64,
        keep: bool,
    ) -> Option<Bytes> {
        let Some(versions) = self.keys.get_mut(key) else {
            if value.is_some() {
                self.keys.insert(key.clone(), vec![(number, value)]);
            }
            return None;
        };
        let last = versions.last_mut().expect("a key has at least one version");
        if last.0 == number {
            // The same batch again: nobody can have seen the version in between.
            return std::mem::replace(&mut last.1, value);
        }
        let before = last.1.clone();
        if keep {
            versions.push((number, value));
            self.stale.push(key.clone());
        } else if value.is_some() {
            versions.clear();
            versions.push((number, value));
        } else {
            self.keys.remove(key);
        }
        before
    }

    /// Drops what only snapshots saw. Called once the last of them is gone.
    pub(super) fn forget_stale(&mut self) {
        for key in std::mem::take(&mut self.stale) {
            let Some(versions) = self.keys.get_mut(&key) else { continue };
            versions.drain(..versions.len() - 1);
            if versions[0].1.is_none() {
                self.keys.remove(&key);
            }
        }
    }

    /// Up to `limit` entries of `[start, end)` that are visible at `number`.
    pub(super) fn page(
        &self,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        direction: Direction,
        number: u64,
        limit: usize,
    ) -> Vec<(Bytes, Bytes)> {
        if is_empty(start, end) {
            return Vec::new();
        }
        let range = self.keys.range::<[u8], _>((start, end));
        let shown = |(key, versions): (&Bytes, &Vec<Version>)| {
            visible(versions, number).map(|value| (key.clone(), value.clone()))
        };
        match direction {
            Direction::Forward => range.filter_map(shown).take(limit).collect(),
            Direction::Reverse => range.rev().filter_map(shown).take(limit).collect(),
        }
    }

    /// Bytes of the newest keys and values of `[start, end)`.
    pub(super) fn bytes(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> u64 {
        if is_empty(start, end) {
            return 0;
        }
        let range = self.keys.range::<[u8], _>((start, end));
        let bytes = |(key, versions): (&Bytes, &Vec<Version>)| {
            visible(versions, u64::MAX).map_or(0, |value| key.len() + value.len())
        };
        range.map(bytes).sum::<usize>() as u64
    }
}

fn visible(versions: &[Version], number: u64) -> Option<&Bytes> {
    // Nearly always the last one.
    versions.iter().rev().find(|version| version.0 <= number)?.1.as_ref()
}

/// `BTreeMap::range` panics for such bounds.
fn is_empty(start: Bound<&[u8]>, end: Bound<&[u8]>) -> bool {
    match (start, end) {
        (Bound::Included(start), Bound::Excluded(end))
        | (Bound::Excluded(start), Bound::Excluded(end))
        | (Bound::Excluded(start), Bound::Included(end)) => start >= end,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}
