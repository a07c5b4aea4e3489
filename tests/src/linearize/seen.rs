//! What the search has placed, and where it has been.

use std::collections::HashMap;
use std::hash::Hash;

use super::timeline::OpId;

/// The set of placed operations, a bit each.
///
/// Known and unknown outcomes have separate words. The known ones are placed
/// roughly in the order of their calls, so all but a short window of their
/// words is full or empty, and [`Placed::window`] is that window: its size
/// follows from the concurrency of a history, not from its length.
pub(super) struct Placed {
    words: Vec<u64>,
    completed: usize,
    completed_words: usize,
}

impl Placed {
    /// The empty set for `total` operations, `completed` of known outcome.
    pub(super) fn new(completed: usize, total: usize) -> Placed {
        let completed_words = completed.div_ceil(64);
        let unknown_words = (total - completed).div_ceil(64);
        Placed { words: vec![0; completed_words + unknown_words], completed, completed_words }
    }

    pub(super) fn insert(&mut self, id: OpId) {
        let (word, bit) = self.position(id);
        self.words[word] |= bit;
    }

    pub(super) fn remove(&mut self, id: OpId) {
        let (word, bit) = self.position(id);
        self.words[word] &= !bit;
    }

    pub(super) fn contains(&self, id: OpId) -> bool {
        let (word, bit) = self.position(id);
        self.words[word] & bit != 0
    }

    /// The known part; equal for equal sets only. The number of full words at
    /// the front, then the words up to the last that is not empty.
    fn window(&self) -> Words {
        let known = &self.words[..self.completed_words];
        let full = known.iter().take_while(|&&word| word == u64::MAX).count();
        let empty = known[full..].iter().rev().take_while(|&&word| word == 0).count();
        let window = &known[full..known.len() - empty];
        let mut key = Vec::with_capacity(1 + window.len());
        key.push(full as u64);
        key.extend_from_slice(window);
        key.into_boxed_slice()
    }

    /// The unknown part.
    fn unknown(&self) -> &[u64] {
        &self.words[self.completed_words..]
    }

    fn position(&self, id: OpId) -> (usize, u64) {
        match id.0.checked_sub(self.completed) {
            None => (id.0 / 64, 1 << (id.0 % 64)),
            Some(unknown) => (self.completed_words + unknown / 64, 1 << (unknown % 64)),
        }
    }
}

/// The nodes that the search has reached.
///
/// For each state and set of known operations, the sets of unknown ones; only
/// the least, none a subset of another.
pub(super) struct Seen<S> {
    nodes: HashMap<(Words, S), Vec<Words>>,
}

type Words = Box<[u64]>;

impl<S> Default for Seen<S> {
    fn default() -> Self {
        Seen { nodes: HashMap::new() }
    }
}

impl<S: Clone + Eq + Hash> Seen<S> {
    /// Whether the node is worth a visit; `false` when one as good was reached.
    pub(super) fn insert(&mut self, placed: &Placed, state: &S) -> bool {
        let unknown = placed.unknown();
        let sets = self.nodes.entry((placed.window(), state.clone())).or_default();
        if sets.iter().any(|set| subset(set, unknown)) {
            return false;
        }
        sets.retain(|set| !subset(unknown, set));
        sets.push(unknown.into());
        true
    }
}

fn subset(small: &[u64], large: &[u64]) -> bool {
    small.iter().zip(large).all(|(small, large)| small & !large == 0)
}
