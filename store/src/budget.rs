//! Bounds on what waits for an answer, over all clients.
//!
//! Whoever would exceed them does not refuse: it stops reading from its stream until something is
//! answered. So that nobody starves, every stream may always have a few requests under way.
//!
//! Answers are bounded as well: a client that does not read leaves them here. Room for one that may
//! be large is taken before it is read, and given back when the transport has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use quorate_proto::limits::{MAX_ANSWER_BYTES, MAX_VALUE_BYTES};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests that any one stream may have under way whatever the others do.
pub(crate) const ALWAYS_ADMITTED: usize = 4;

/// Room for answers is counted in units of this many bytes.
const UNIT: usize = 1_024;
/// Room that an answer of unknown size needs, in units: the largest one and its frame.
const LARGEST: u32 = (MAX_ANSWER_BYTES / UNIT) as u32 + 64;
/// Room that a value of unknown size needs, in units.
const LARGEST_VALUE: u32 = (MAX_VALUE_BYTES / UNIT) as u32 + 1;
/// Least bytes of answers that a store can be told to keep to: a few of the largest.
pub(crate) const LEAST_ANSWER_BYTES: u64 = 4 * LARGEST as u64 * UNIT as u64;

/// How large an answer may be that is not read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// One value.
    Value,
    /// As large as answers get.
    Answer,
}

impl Size {
    const fn units(self) -> u32 {
        match self {
            Size::Value => LARGEST_VALUE,
            Size::Answer => LARGEST,
        }
    }
}

/// Places for the answers that one stream may have at a time, being read or not yet sent.
#[derive(Debug)]
pub(crate) struct Lines {
    values: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

impl Lines {
    /// So many places for values, and for larger answers.
    pub(crate) fn new(values: usize, answers: usize) -> Self {
        Self {
            values: Arc::new(Semaphore::new(values)),
            answers: Arc::new(Semaphore::new(answers)),
        }
    }

    /// The line for answers of that size.
    pub(crate) fn of(&self, size: Size) -> Arc<Semaphore> {
        Arc::clone(match size {
            Size::Value => &self.values,
            Size::Answer => &self.answers,
        })
    }
}

/// How much waits, and how much may.
#[derive(Debug)]
pub(crate) struct Budget {
    requests: AtomicUsize,
    bytes: AtomicU64,
    most_requests: usize,
    most_bytes: u64,
    answers: Arc<Semaphore>,
    answer_units: usize,
}

impl Budget {
    /// Nothing waits yet.
    pub(crate) fn new(most_requests: usize, most_bytes: u64, answer_bytes: u64) -> Arc<Self> {
        let units = usize::try_from(answer_bytes / UNIT as u64).unwrap_or(usize::MAX);
        let answer_units = units.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            answers: Arc::new(Semaphore::new(answer_units)),
            answer_units,
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

    /// Room for one answer and a place to read it, where there are some now. `line` has a place for
    /// each of its size that one stream may have at a time, `readers` one for each that is read at a
    /// time.
    pub(crate) fn try_room(
        &self,
        size: Size,
        line: Option<&Arc<Semaphore>>,
        readers: &Arc<Semaphore>,
    ) -> Option<(Room, OwnedSemaphorePermit)> {
        let place = match line {
            Some(line) => Some(Arc::clone(line).try_acquire_owned().ok()?),
            None => None,
        };
        let reader = Arc::clone(readers).try_acquire_owned().ok()?;
        let taken = Arc::clone(&self.answers).try_acquire_many_owned(size.units()).ok()?;
        Some((Room { taken, _place: place }, reader))
    }

    /// [`Budget::try_room`], once there are some; in the order of asking. Who waits for its stream
    /// holds up nobody else, and who waits to be read takes no room.
    pub(crate) async fn room(
        &self,
        size: Size,
        line: Option<Arc<Semaphore>>,
        readers: Arc<Semaphore>,
    ) -> Option<(Room, OwnedSemaphorePermit)> {
        let place = match line {
            Some(line) => Some(line.acquire_owned().await.ok()?),
            None => None,
        };
        let reader = readers.acquire_owned().await.ok()?;
        let taken = Arc::clone(&self.answers).acquire_many_owned(size.units()).await.ok()?;
        Some((Room { taken, _place: place }, reader))
    }

    /// Room for an answer of so many bytes, where there is some now.
    pub(crate) fn room_for(&self, bytes: usize) -> Option<Room> {
        let units = u32::try_from(bytes / UNIT + 1).ok()?;
        let taken = Arc::clone(&self.answers).try_acquire_many_owned(units).ok()?;
        Some(Room { taken, _place: None })
    }

    /// Bytes of large answers that are being read, or that wait for the transport.
    pub(crate) fn answer_bytes(&self) -> u64 {
        ((self.answer_units - self.answers.available_permits()) * UNIT) as u64
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

/// Room for one answer, until this is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    taken: OwnedSemaphorePermit,
    _place: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// The answer takes only so many bytes: the rest is given back.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let needed = bytes / UNIT + 1;
        let rest = self.taken.num_permits().saturating_sub(needed);
        // Given back by being dropped.
        drop(self.taken.split(rest));
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
        let budget = Budget::new(2, 100, LEAST_ANSWER_BYTES);
        assert!(budget.has_room(1_000));
        let first = budget.take(100);
        assert!(!budget.has_room(ALWAYS_ADMITTED), "the bytes are used up");
        assert!(budget.has_room(ALWAYS_ADMITTED - 1));
        drop(first);
        let _two = [budget.take(0), budget.take(0)];
        assert!(!budget.has_room(1_000), "the requests are used up");
        assert_eq!((budget.requests(), budget.bytes()), (2, 0));
    }

    #[tokio::test]
    async fn room_for_answers_is_given_in_turn_and_what_is_not_needed_is_given_back() {
        let budget = Budget::new(2, 100, LEAST_ANSWER_BYTES);
        let line = Arc::new(Semaphore::new(1));
        let (large, readers) = (Size::Answer, Arc::new(Semaphore::new(6)));
        let (mut first, reader) =
            budget.try_room(large, Some(&line), &readers).expect("there is room");
        assert!(
            budget.try_room(large, Some(&line), &readers).is_none(),
            "one at a time on this line"
        );
        assert_eq!(readers.available_permits(), 5, "who waits for the line takes no reader");
        let others: Vec<_> =
            std::iter::from_fn(|| budget.try_room(large, None, &readers)).collect();
        assert_eq!((others.len(), budget.answer_bytes()), (3, LEAST_ANSWER_BYTES));
        assert!(budget.room_for(1).is_none());
        first.shrink(10 * UNIT);
        assert_eq!(budget.answer_bytes(), LEAST_ANSWER_BYTES * 3 / 4 + 11 * UNIT as u64);
        drop((first, others));
        assert_eq!(readers.available_permits(), 5, "the answer is gone, the reading goes on");
        drop(reader);
        assert_eq!((budget.answer_bytes(), line.available_permits()), (0, 1));
        let plenty = Arc::new(Semaphore::new(100));
        let value = || budget.try_room(Size::Value, None, &plenty);
        let values: Vec<_> = std::iter::from_fn(value).collect();
        assert_eq!(values.len() as u64, LEAST_ANSWER_BYTES / (MAX_VALUE_BYTES + UNIT) as u64);
        drop(values);
        let few: Vec<_> =
            std::iter::from_fn(|| budget.try_room(Size::Value, None, &readers)).collect();
        assert_eq!((few.len(), readers.available_permits()), (6, 0), "no more than readers");
    }
}
