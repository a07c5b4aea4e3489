//! Which replica to read from: the one that answers soonest, by what it did so far.
//!
//! A store's cost is how long its answers have taken lately, times the requests that wait for one.
//! A store that was not asked yet costs nothing, and now and then the order is by turn alone, so
//! that one which was slow is found to be quick again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::RwLock;
use quorate_proto::{Peer, StoreId};

/// Of so many reads, one goes by turn.
const BY_TURN: usize = 16;
/// The weight of an answer against those before it: one part in so many.
const SMOOTHING: u64 = 8;
/// What a request without an answer counts for.
const FAILED: Duration = Duration::from_secs(1);

/// What is known of all stores.
#[derive(Default)]
pub(crate) struct Nearby(RwLock<BTreeMap<StoreId, Arc<Load>>>);

/// What is known of one.
#[derive(Debug, Default)]
struct Load {
    /// Smoothed microseconds of an answer; 0: never asked.
    micros: AtomicU64,
    waiting: AtomicU64,
}

/// A read under way.
pub(crate) struct Timed {
    load: Arc<Load>,
    begun: Instant,
}

impl Nearby {
    /// A read is sent to `store`.
    pub(crate) fn begin(&self, store: StoreId) -> Timed {
        let known = self.0.read().get(&store).cloned();
        let load = known.unwrap_or_else(|| Arc::clone(self.0.write().entry(store).or_default()));
        load.waiting.fetch_add(1, Ordering::Relaxed);
        Timed { load, begun: Instant::now() }
    }

    /// The peers in the order in which to ask them; `turn` counts the reads.
    pub(crate) fn order(&self, peers: &[Peer], turn: usize) -> Vec<Peer> {
        let loads = self.0.read();
        let cost = |peer: &Peer| loads.get(&peer.store).map_or(0, |load| load.cost());
        rank(peers.iter().map(|peer| (*peer, cost(peer))).collect(), turn)
    }
}

impl Load {
    fn cost(&self) -> u64 {
        let micros = self.micros.load(Ordering::Relaxed);
        micros.saturating_mul(self.waiting.load(Ordering::Relaxed) + 1)
    }
}

impl Timed {
    /// It was answered, or not.
    pub(crate) fn end(self, answered: bool) {
        let took = self.begun.elapsed();
        let took = if answered { took } else { took.max(FAILED) };
        let took = (took.as_micros() as u64).max(1);
        let old = self.load.micros.load(Ordering::Relaxed);
        let new = match old {
            0 => took,
            old if !answered => took.max(old),
            old => (old * (SMOOTHING - 1) + took).div_ceil(SMOOTHING),
        };
        self.load.micros.store(new, Ordering::Relaxed);
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.load.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The cheapest first; those of equal cost, and now and then all, by turn.
fn rank(mut costs: Vec<(Peer, u64)>, turn: usize) -> Vec<Peer> {
    if !costs.is_empty() {
        let first = turn % costs.len();
        costs.rotate_left(first);
    }
    if turn % BY_TURN != BY_TURN - 1 {
        costs.sort_by_key(|(_, cost)| *cost);
    }
    costs.into_iter().map(|(peer, _)| peer).collect()
}

#[cfg(test)]
mod tests {
    use quorate_proto::{PeerId, Role};

    use super::*;

    fn peer(store: u64) -> Peer {
        Peer { id: PeerId(store * 10), store: StoreId(store), role: Role::Voter }
    }

    fn stores(costs: &[(u64, u64)], turn: usize) -> Vec<u64> {
        let costs = costs.iter().map(|(store, cost)| (peer(*store), *cost)).collect();
        rank(costs, turn).into_iter().map(|peer| peer.store.0).collect()
    }

    #[test]
    fn the_cheapest_is_first_and_equals_take_turns() {
        let costs = [(1, 300), (2, 100), (3, 200)];
        assert_eq!(stores(&costs, 0), [2, 3, 1]);
        assert_eq!(stores(&costs, 1), [2, 3, 1]);
        let equal = [(1, 100), (2, 100), (3, 900)];
        assert_eq!(stores(&equal, 0), [1, 2, 3]);
        assert_eq!(stores(&equal, 1), [2, 1, 3]);
        assert_eq!(stores(&[], 5), [0; 0]);
    }

    #[test]
    fn now_and_then_the_others_are_tried() {
        let costs = [(1, 1), (2, 1_000_000)];
        let asked: Vec<u64> = (0..64).map(|turn| stores(&costs, turn)[0]).collect();
        assert_eq!(asked.iter().filter(|store| **store == 2).count(), 4);
    }

    #[test]
    fn answers_are_smoothed_and_failures_remembered() {
        let nearby = Nearby::default();
        let near = |turn| nearby.order(&[peer(1), peer(2)], turn)[0].store.0;
        nearby.begin(StoreId(1)).end(true);
        assert_eq!(near(0), 2, "one that was never asked comes first");
        nearby.begin(StoreId(2)).end(false);
        assert_eq!((near(0), near(1)), (1, 1));
        // What waits makes the quick one dear: a second's worth of requests.
        nearby.0.read()[&StoreId(1)].micros.store(1_000, Ordering::Relaxed);
        let waiting: Vec<Timed> = (0..1_500).map(|_| nearby.begin(StoreId(1))).collect();
        assert_eq!(near(0), 2);
        drop(waiting);
        assert_eq!(near(0), 1);
    }
}
