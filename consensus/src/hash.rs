//! A fixed, fast hash for ids: the same order of a map in every run, which the simulator needs.

use std::hash::{BuildHasher, Hasher};

/// Builds [`FixedHasher`]s. Not for keys that a stranger chooses.
#[derive(Debug, Clone, Copy, Default)]
pub struct FixedState;

/// Multiplies and folds each word (the finaliser of a linear congruential step).
#[derive(Debug, Clone, Copy, Default)]
pub struct FixedHasher(u64);

impl BuildHasher for FixedState {
    type Hasher = FixedHasher;
    fn build_hasher(&self) -> FixedHasher {
        FixedHasher(0)
    }
}

impl Hasher for FixedHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, word: u64) {
        let mixed = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (mixed >> 64) as u64 ^ mixed as u64;
    }
}

#[cfg(test)]
#[path = "hash_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
