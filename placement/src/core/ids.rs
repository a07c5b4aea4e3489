//! Ids set aside for this leader.
//!
//! The replicated state only knows the last id that was ever set aside. A leader takes a range of
//! them and hands them out one by one; what is left of the range when it stops leading is never
//! used. So an id is given once in the life of a cluster, whoever leads.

/// How many ids a leader sets aside at a time: a split takes four (a region, three peers).
pub const IDS_PER_ALLOCATION: u64 = 1_000;

/// A range of ids that nobody else hands out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct IdRange {
    next: u64,
    left: u64,
}

impl IdRange {
    /// The answer to an allocation.
    pub fn new(first: u64, count: u64) -> Self {
        Self { next: first, left: count }
    }

    /// How many are left.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Takes `count` ids and returns the first one, or nothing where fewer are left: set more
    /// aside first.
    pub fn take(&mut self, count: u64) -> Option<u64> {
        if count > self.left {
            return None;
        }
        let first = self.next;
        self.next += count;
        self.left -= count;
        Some(first)
    }

    /// Goes on with another range where that one is larger. The rest of the smaller one is lost.
    pub fn refill(&mut self, range: IdRange) {
        if range.left > self.left {
            *self = range;
        }
    }
}
