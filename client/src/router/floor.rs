//! The cached regions in order of their start keys, laid out so that a lookup touches little memory.
//!
//! A search in a tree of keys follows a pointer, and misses the processor's cache, for nearly every
//! key that it compares. Here a key is compared by its **head**: sixteen bytes as one number, taken
//! after a prefix that most start keys have in common. Heads lie side by side in one array; the
//! keys themselves are looked at only where heads are equal.
//!
//! A head is *monotone*: `a <= b` gives `head(a) <= head(b)`, whatever the prefix. So the prefix is
//! a question of speed alone; it is chosen anew each time the number of regions has doubled.

use std::sync::Arc;

use bytes::Bytes;
use quorate_proto::KeyRange;

use super::Route;

/// Bytes of a key in its head.
const HEAD: usize = size_of::<u128>();

/// See the module. No two regions have the same start.
#[derive(Default)]
pub(super) struct Floor {
    prefix: Bytes,
    /// Heads of start keys, ascending.
    starts: Vec<u128>,
    /// Heads of end keys; the greatest number for a region without an end.
    ends: Vec<u128>,
    routes: Vec<Arc<Route>>,
    /// The number of regions at which the prefix is chosen anew.
    choose_at: usize,
}

impl Floor {
    /// The region that holds `key`.
    pub(super) fn holding(&self, key: &[u8]) -> Option<&Arc<Route>> {
        let head = head(&self.prefix, key);
        let at = self.up_to(key, head).checked_sub(1)?;
        let route = &self.routes[at];
        (head < self.ends[at] || is_below(key, &route.region.range.end)).then_some(route)
    }

    /// The region with the greatest start below `end`; empty: below no bound.
    pub(super) fn last_below(&self, end: &[u8]) -> Option<&Arc<Route>> {
        self.routes[..self.below(end)].last()
    }

    /// The region that starts exactly there.
    pub(super) fn at(&self, start: &[u8]) -> Option<&Arc<Route>> {
        self.position(start).map(|at| &self.routes[at])
    }

    /// The region that starts exactly there, to be changed; its range must stay as it is.
    pub(super) fn at_mut(&mut self, start: &[u8]) -> Option<&mut Arc<Route>> {
        self.position(start).map(|at| &mut self.routes[at])
    }

    /// Regions that share keys with `range`, from the last one down.
    pub(super) fn overlapping(&self, range: &KeyRange) -> Vec<Arc<Route>> {
        let before = self.routes[..self.below(&range.end)].iter().rev();
        before.take_while(|route| route.region.range.overlaps(range)).cloned().collect()
    }

    /// Adds a region, or replaces the one with the same start.
    pub(super) fn insert(&mut self, route: Arc<Route>) {
        let range = &route.region.range;
        let start = head(&self.prefix, &range.start);
        let end = end_head(&self.prefix, &range.end);
        match self.position(&range.start) {
            Some(at) => (self.ends[at], self.routes[at]) = (end, route),
            None => {
                let at = self.up_to(&range.start, start);
                self.starts.insert(at, start);
                self.ends.insert(at, end);
                self.routes.insert(at, route);
                if self.routes.len() >= self.choose_at {
                    self.choose_prefix();
                }
            }
        }
    }

    /// Removes the region that starts exactly there.
    pub(super) fn remove(&mut self, start: &[u8]) {
        if let Some(at) = self.position(start) {
            self.starts.remove(at);
            self.ends.remove(at);
            self.routes.remove(at);
        }
    }

    /// How many regions there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.routes.len()
    }

    fn position(&self, start: &[u8]) -> Option<usize> {
        let at = self.up_to(start, head(&self.prefix, start)).checked_sub(1)?;
        (self.routes[at].region.range.start == start).then_some(at)
    }

    /// How many regions start at or below `key`.
    fn up_to(&self, key: &[u8], head: u128) -> usize {
        let low = self.starts.partition_point(|start| *start < head);
        let equal = self.starts[low..].partition_point(|start| *start == head);
        let tied = &self.routes[low..low + equal];
        low + tied.partition_point(|route| route.region.range.start.as_ref() <= key)
    }

    /// How many regions start below `end`; empty: all.
    fn below(&self, end: &[u8]) -> usize {
        if end.is_empty() {
            return self.routes.len();
        }
        let up_to = self.up_to(end, head(&self.prefix, end));
        up_to
            - usize::from(self.routes[..up_to].last().is_some_and(|r| r.region.range.start == end))
    }

    /// Takes the prefix that the middle half of the start keys share: a few keys apart from the
    /// rest do not matter.
    fn choose_prefix(&mut self) {
        let count = self.routes.len();
        self.choose_at = count * 2;
        let start = |at: usize| &self.routes[at].region.range.start;
        let (low, high) = (start(count / 4), start(count - 1 - count / 4));
        let shared = low.iter().zip(high.iter()).take_while(|(a, b)| a == b).count();
        self.prefix = low.slice(..shared);
        let prefix = &self.prefix;
        let ranges = || self.routes.iter().map(|route| &route.region.range);
        self.starts = ranges().map(|range| head(prefix, &range.start)).collect();
        self.ends = ranges().map(|range| end_head(prefix, &range.end)).collect();
    }
}

fn is_below(key: &[u8], end: &[u8]) -> bool {
    end.is_empty() || key < end
}

/// What stands for a key where keys are compared; see the module.
fn head(prefix: &[u8], key: &[u8]) -> u128 {
    let Some(rest) = key.strip_prefix(prefix) else {
        return if key < prefix { 0 } else { u128::MAX };
    };
    if let Some(first) = rest.first_chunk::<HEAD>() {
        return u128::from_be_bytes(*first);
    }
    let mut bytes = [0; HEAD];
    bytes[..rest.len()].copy_from_slice(rest);
    u128::from_be_bytes(bytes)
}

fn end_head(prefix: &[u8], end: &[u8]) -> u128 {
    if end.is_empty() { u128::MAX } else { head(prefix, end) }
}
