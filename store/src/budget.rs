//! Bounds on what waits for an answer, over all clients.
//!
//! Whoever would exceed them does not refuse: it stops reading from its stream until something is
//! answered. So that nobody starves, every stream may always have a few requests under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Requests that any one stream may have under way whatever the others do.
pub(crate) const ALWAYS_ADMITTED: usize = 4;

/// How much waits, and how much may.
#[derive(Debug)]
pub(crate) struct Budget {
    requests: AtomicUsize,
    bytes: AtomicU64,
    most_requests: usize,
    most_bytes: u64,
}

impl Budget {
    /// Nothing waits yet.
    pub(crate) fn new(most_requests: usize, most_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            requests: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            most_requests,
            most_bytes,
        })
    }

    /// True where one more may be taken by a stream with `own` requests under way. A moment
    /// later somebody else may have taken the place: the bound is exceeded by at most one
    /// request per stream.
    pub(crate) fn has_room(&self, own: usize) -> bool {
        own < ALWAYS_ADMITTED
            || (self.requests.load(Ordering::Relaxed) < self.most_requests
                && self.bytes.load(Ordering::Relaxed) < self.most_bytes)
    }

    /// Counts one request with that many bytes until the permit is dropped.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Permit {
        let bytes = bytes as u64;
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Permit { budget: Arc::clone(self), bytes }
    }

    /// Requests that wait for an answer.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Bytes of writes that wait for an answer.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// One counted request.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.requests.fetch_sub(1, Ordering::Relaxed);
        self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_budget_admits_only_streams_with_little_under_way() {
        let budget = Budget::new(2, 100);
        assert!(budget.has_room(1_000));
        let first = budget.take(100);
        assert!(!budget.has_room(ALWAYS_ADMITTED), "the bytes are used up");
        assert!(budget.has_room(ALWAYS_ADMITTED - 1));
        drop(first);
        let _two = [budget.take(0), budget.take(0)];
        assert!(!budget.has_room(1_000), "the requests are used up");
        assert_eq!((budget.requests(), budget.bytes()), (2, 0));
    }
}
