//! What became of operators, for those who ask and for the next leader of placement. Replicated, with
//! the entries that end them.
//!
//! The leader keeps the same few ([`Operators::ended`](super::operators::Operators::ended)) and
//! begins with these; so `quorate operator list --ended` tells after a failover what it told before,
//! and what has just failed is not tried again at once. Bounded: the last [`REMEMBERED`] are kept,
//! and each is short (`Ended::brief`).

use std::collections::BTreeMap;

use super::operators::{Ended, REMEMBERED};

/// Most that go with one entry; more follow with the next.
pub const MAX_NOTES: usize = 64;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndedOperators {
    /// By number: they count up in the order in which they came.
    kept: BTreeMap<u64, Ended>,
}

impl EndedOperators {
    /// One as it was stored.
    pub(super) fn load(&mut self, number: u64, ended: Ended) {
        self.kept.insert(number, ended);
    }

    /// Takes in those that are not known. Returns them with their numbers, and the numbers of those
    /// that are dropped.
    pub(super) fn take(&mut self, notes: Vec<Ended>) -> (Vec<(u64, Ended)>, Vec<u64>) {
        let mut added = Vec::new();
        for ended in notes {
            // An entry that was proposed twice.
            if self.has(ended.operator.id) {
                continue;
            }
            let number = self.kept.last_key_value().map_or(1, |(last, _)| last + 1);
            self.kept.insert(number, ended.clone());
            added.push((number, ended));
        }
        let mut dropped = Vec::new();
        while self.kept.len() > REMEMBERED
            && let Some((number, _)) = self.kept.pop_first()
        {
            dropped.push(number);
        }
        (added, dropped)
    }

    /// True where that operator is among them.
    pub fn has(&self, operator: u64) -> bool {
        self.kept.values().rev().any(|ended| ended.operator.id == operator)
    }

    /// Those that are kept, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Ended> {
        self.kept.values()
    }
}
