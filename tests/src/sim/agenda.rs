//! What is going to happen, in the order of virtual time.
//!
//! Things that fall on one nanosecond come in an order drawn from the seed, so that no two parts
//! of the world are ordered by habit.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A millisecond of virtual time, which counts in nanoseconds.
pub(crate) const MS: u64 = 1_000_000;

struct Slot<E> {
    at: u64,
    tie: u64,
    number: u64,
    event: E,
}

impl<E> Slot<E> {
    fn key(&self) -> (u64, u64, u64) {
        (self.at, self.tie, self.number)
    }
}
impl<E> PartialEq for Slot<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl<E> Eq for Slot<E> {}
impl<E> PartialOrd for Slot<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Slot<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// A heap of events. See the module.
pub(crate) struct Agenda<E> {
    now: u64,
    number: u64,
    heap: BinaryHeap<Reverse<Slot<E>>>,
}

impl<E> Agenda<E> {
    pub(crate) fn new() -> Self {
        Self { now: 0, number: 0, heap: BinaryHeap::new() }
    }

    /// The time of the last event taken out.
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// Plans an event for `at`, or for now where that lies behind. `tie` orders it among others
    /// of the same moment.
    pub(crate) fn at(&mut self, at: u64, tie: u64, event: E) {
        self.number += 1;
        let slot = Slot { at: at.max(self.now), tie, number: self.number, event };
        self.heap.push(Reverse(slot));
    }

    /// The next event.
    pub(crate) fn pop(&mut self) -> Option<E> {
        let Reverse(slot) = self.heap.pop()?;
        self.now = slot.at;
        Some(slot.event)
    }

    /// When the next event is due.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(slot)| slot.at)
    }
}
