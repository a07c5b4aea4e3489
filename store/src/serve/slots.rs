//! What a batched stream has under way: one slot per request that waits for its answer.
//!
//! Slots are reused; each use has a generation, so that an answer that comes after its request was
//! given up on finds nobody. Nothing is allocated once the stream has seen its busiest moment.

use std::time::Duration;

use quorate_consensus::time::Instant;
use quorate_proto::RegionId;

use super::token::Place;
use crate::kind::Kind;

/// A request that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    /// The client's name for it.
    pub(super) request_id: u64,
    /// What it asks for.
    pub(super) kind: Kind,
    /// Of which region.
    pub(super) region: RegionId,
    /// When it came in.
    pub(super) since: Instant,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    waiting: Option<Waiting>,
}

/// All that is under way on one stream.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Slots {
    /// How many requests wait.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// A place for one more.
    pub(super) fn insert(&mut self, waiting: Waiting) -> Place {
        if let Some(slot) = self.free.pop() {
            let entry = &mut self.slots[slot as usize];
            entry.waiting = Some(waiting);
            return Place { slot, generation: entry.generation };
        }
        let slot = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(Slot { generation: 0, waiting: Some(waiting) });
        Place { slot, generation: 0 }
    }

    /// Ends a wait; `None` where it was given up on before.
    pub(super) fn remove(&mut self, place: Place) -> Option<Waiting> {
        let entry = self.slots.get_mut(place.slot as usize)?;
        if entry.generation != place.generation {
            return None;
        }
        let waiting = entry.waiting.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(place.slot);
        Some(waiting)
    }

    /// Gives up on everything that has waited for `longest` or more.
    pub(super) fn expire(&mut self, now: Instant, longest: Duration) -> Vec<Waiting> {
        let late: Vec<Place> = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, entry)| {
                entry.waiting.is_some_and(|waiting| now.since(waiting.since) >= longest)
            })
            .map(|(slot, entry)| Place { slot: slot as u32, generation: entry.generation })
            .collect();
        late.into_iter().filter_map(|place| self.remove(place)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn waiting(request_id: u64, since_ms: u64) -> Waiting {
        let since = Instant::from_millis(since_ms);
        Waiting { request_id, kind: Kind::Put, region: RegionId(1), since }
    }

    #[test]
    fn a_late_answer_finds_nobody_even_where_the_slot_is_used_again() {
        let mut slots = Slots::default();
        let first = slots.insert(waiting(1, 0));
        let second = slots.insert(waiting(2, 600));
        assert_eq!(slots.len(), 2);

        let gone = slots.expire(Instant::from_millis(1_000), Duration::from_secs(1));
        assert_eq!(gone, [waiting(1, 0)]);
        let third = slots.insert(waiting(3, 1_000));
        assert_eq!(third.slot, first.slot, "the slot is used again");

        assert_eq!(slots.remove(first), None, "the answer to the first comes too late");
        assert_eq!(slots.remove(third).unwrap().request_id, 3);
        assert_eq!(slots.remove(second).unwrap().request_id, 2);
        assert_eq!(slots.remove(second), None);
        assert_eq!(slots.len(), 0);
    }
}
