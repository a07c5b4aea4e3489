//! One region of this store, as all threads see it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use quorate_consensus::view::GroupView;
use quorate_proto::{Epoch, Peer, PeerId, Region, RegionId};

use super::merging::{Gone, Merging};

/// What this store's replica of a region is at. Replaced as a whole, by the applier only.
#[derive(Debug, Clone)]
pub enum State {
    /// It takes part in elections but waits for its first snapshot.
    Uninitialized {
        /// Of the configuration that it was let in for: it is a member at that epoch.
        since: Epoch,
        /// The region that a snapshot under way will bring; no other snapshot may touch its range.
        expected: Option<Arc<Region>>,
    },
    /// It has data and applies its log.
    Serving(Arc<Region>),
    /// It is stopped: its neighbour is about to take it in, or it goes on one day.
    Merging(Arc<Region>, Merging),
    /// Its data is being replaced by a snapshot of this region.
    Installing(Arc<Region>),
    /// It was removed; its data is about to go, and until then its range is taken.
    Removing(Arc<Region>),
    /// It was removed. The id stays known for good.
    Tombstone,
}

impl State {
    /// The region, where there is data of it or soon will be; its range is taken.
    pub fn region(&self) -> Option<&Arc<Region>> {
        match self {
            State::Serving(region)
            | State::Merging(region, _)
            | State::Installing(region)
            | State::Removing(region) => Some(region),
            State::Uninitialized { .. } | State::Tombstone => None,
        }
    }
}

/// A region of this store. Shared; reads take no lock.
#[derive(Debug)]
pub struct LocalRegion {
    id: RegionId,
    peer: PeerId,
    view: Arc<GroupView>,
    state: ArcSwap<State>,
    stats: RegionStats,
    pub(super) taken_in: OnceLock<Gone>,
}

impl LocalRegion {
    pub(super) fn new(id: RegionId, peer: PeerId, view: Arc<GroupView>, state: State) -> Arc<Self> {
        let state = ArcSwap::from_pointee(state);
        Arc::new(Self {
            id,
            peer,
            view,
            state,
            stats: RegionStats::default(),
            taken_in: OnceLock::new(),
        })
    }
    /// Its id.
    pub fn id(&self) -> RegionId {
        self.id
    }
    /// The local replica.
    pub fn peer(&self) -> PeerId {
        self.peer
    }
    /// Leadership, lease and progress of the local replica.
    pub fn view(&self) -> &Arc<GroupView> {
        &self.view
    }
    /// What the local replica is at.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }
    /// The region, where the local replica has its data and serves it.
    pub fn region(&self) -> Option<Arc<Region>> {
        match &**self.state.load() {
            State::Serving(region) => Some(Arc::clone(region)),
            State::Uninitialized { .. }
            | State::Merging(..)
            | State::Installing(_)
            | State::Removing(_)
            | State::Tombstone => None,
        }
    }
    /// The region, where the local replica applies its log: one that is stopped for a merge, too.
    pub fn replicated(&self) -> Option<Arc<Region>> {
        match &**self.state.load() {
            State::Serving(region) | State::Merging(region, _) => Some(Arc::clone(region)),
            State::Uninitialized { .. }
            | State::Installing(_)
            | State::Removing(_)
            | State::Tombstone => None,
        }
    }
    /// The region and what it waits for, where it is stopped for a merge.
    pub fn merging(&self) -> Option<(Arc<Region>, Merging)> {
        match &**self.state.load() {
            State::Merging(region, merging) => Some((Arc::clone(region), *merging)),
            State::Uninitialized { .. }
            | State::Serving(_)
            | State::Installing(_)
            | State::Removing(_)
            | State::Tombstone => None,
        }
    }
    /// Who leads it, where known.
    pub fn leader(&self) -> Option<Peer> {
        let leader = self.view.leader()?;
        self.state.load().region()?.peer(leader).copied()
    }
    /// Sizes and counters.
    pub fn stats(&self) -> &RegionStats {
        &self.stats
    }
    /// True where `region` is still what the local replica serves: the very same description.
    pub(in crate::core) fn serves(&self, region: &Arc<Region>) -> bool {
        match &**self.state.load() {
            State::Serving(now) => Arc::ptr_eq(now, region),
            State::Uninitialized { .. }
            | State::Merging(..)
            | State::Installing(_)
            | State::Removing(_)
            | State::Tombstone => false,
        }
    }
    pub(super) fn set(&self, state: State) {
        self.state.store(Arc::new(state));
    }
}

/// Sizes and counters of a region on this store. Counters only grow and start with the process;
/// sizes are estimates. Everything is relaxed: nobody concludes order from them.
#[derive(Debug, Default)]
pub struct RegionStats {
    bytes: AtomicU64,
    keys: AtomicU64,
    written_bytes: AtomicU64,
    written_keys: AtomicU64,
    read_keys: AtomicU64,
    checked_bytes: AtomicU64,
    checked_keys: AtomicU64,
    removed: AtomicU64,
    measured: AtomicU64,
}

impl RegionStats {
    /// Estimate of the bytes of its keys and values.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
    /// Estimate of how many keys it has.
    pub fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }
    /// Bytes of keys and values written.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }
    /// Keys written or removed.
    pub fn written_keys(&self) -> u64 {
        self.written_keys.load(Ordering::Relaxed)
    }
    /// Keys read.
    pub fn read_keys(&self) -> u64 {
        self.read_keys.load(Ordering::Relaxed)
    }
    /// False until the sizes were measured once in this process.
    pub fn is_measured(&self) -> bool {
        self.measured.load(Ordering::Relaxed) != 0
    }
    /// Bytes written since the sizes were last measured.
    pub fn unchecked_bytes(&self) -> u64 {
        self.written_bytes().saturating_sub(self.checked_bytes.load(Ordering::Relaxed))
    }
    /// Keys written since the sizes were last measured.
    pub fn unchecked_keys(&self) -> u64 {
        self.written_keys().saturating_sub(self.checked_keys.load(Ordering::Relaxed))
    }
    /// Keys removed since the sizes were last measured, whether they were there or not. A removed
    /// range counts as everything.
    pub fn removed_keys(&self) -> u64 {
        self.removed.load(Ordering::Relaxed)
    }
    /// Replaces the estimates by what was measured just now.
    pub fn measure(&self, bytes: u64, keys: u64) {
        self.checked_bytes.store(self.written_bytes(), Ordering::Relaxed);
        self.checked_keys.store(self.written_keys(), Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        self.keys.store(keys, Ordering::Relaxed);
        self.removed.store(0, Ordering::Relaxed);
        self.measured.store(1, Ordering::Relaxed);
    }
    /// Counts keys that were read.
    pub fn record_read(&self, keys: u64) {
        self.read_keys.fetch_add(keys, Ordering::Relaxed);
    }
    /// Counts what an applied entry wrote: the estimates take every put for a new key, until they
    /// are measured again.
    pub(in crate::core) fn record_write(&self, written: Written) {
        self.bytes.fetch_add(written.bytes, Ordering::Relaxed);
        self.keys.fetch_add(written.puts, Ordering::Relaxed);
        self.written_bytes.fetch_add(written.bytes, Ordering::Relaxed);
        self.written_keys.fetch_add(written.puts + written.deletes, Ordering::Relaxed);
        if written.swept {
            self.removed.fetch_max(self.keys(), Ordering::Relaxed);
        } else if written.deletes > 0 {
            self.removed.fetch_add(written.deletes, Ordering::Relaxed);
        }
    }
    /// The estimates after a split into `parts`: equal shares, not counted as measured.
    pub(super) fn share(&self, parts: u64) -> (u64, u64) {
        (self.bytes() / parts, self.keys() / parts)
    }
    pub(super) fn estimate(&self, (bytes, keys): (u64, u64)) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.keys.store(keys, Ordering::Relaxed);
    }
}

/// What applied entries of a region wrote.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::core) struct Written {
    pub(in crate::core) bytes: u64,
    pub(in crate::core) puts: u64,
    pub(in crate::core) deletes: u64,
    /// A range was removed, of nobody knows how many keys.
    pub(in crate::core) swept: bool,
}
