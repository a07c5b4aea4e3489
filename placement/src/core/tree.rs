//! The region tree: which region holds a key, and who leads it, from what stores report.
//!
//! Reports come from many stores, late, twice and out of order. The tree keeps these invariants:
//! * Its regions are disjoint. It may have holes, where what was known proved to be stale.
//! * Of one region it never goes back to an older epoch, and in one epoch never to the leader of
//!   an older term.
//! * A region never replaces one that overlaps it and has the same or a higher version: for any
//!   one key the version of its region strictly increases, so that one knows more.
//!
//! All lookups take logarithmic time; entries are shared, so that a view of the tree is cheap.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::limits::SENTINEL_START;
use quorate_proto::{
    Epoch, KeyRange, LogIndex, Peer, PeerId, Region, RegionId, Role, StoreId, Term,
};
use thiserror::Error;

use super::command::SavedRegion;

/// What a leader says of its region's size and load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionStats {
    /// Roughly its size, in bytes.
    pub bytes: u64,
    /// Roughly its number of keys.
    pub keys: u64,
    /// Bytes written since the last report.
    pub written_bytes: u64,
    /// Keys written since the last report.
    pub written_keys: u64,
    /// Keys read since the last report.
    pub read_keys: u64,
    /// Its commit index.
    pub commit: LogIndex,
}

/// What a leader knows of one of the other replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// Which one.
    pub peer: PeerId,
    /// Last entry known to be durable there.
    pub matched: LogIndex,
    /// Last entry applied there, as it said last; `None` where it does not say (an older version).
    pub applied: Option<LogIndex>,
    /// Of a snapshot on its way there, in bytes: sent, and all of it.
    pub snapshot: Option<(u64, u64)>,
    /// Changes whenever the queue moves in which the snapshot waits for its turn.
    pub queue: u64,
    /// Since it, or its process, was last heard of.
    pub silent: Duration,
}

/// A region that is stopped, for its neighbour to take it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merging {
    /// The neighbour.
    pub target: RegionId,
    /// At exactly this epoch of the neighbour, or not at all.
    pub target_epoch: Epoch,
    /// The entry that stopped it.
    pub frozen: LogIndex,
    /// Every replica, learners included, durably has its log up to that entry.
    pub everywhere: bool,
}

/// What is known of a region.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionInfo {
    /// Range, epoch, peers.
    pub region: Region,
    /// The last known leader, one of the peers.
    pub leader: Option<Peer>,
    /// The term it led in.
    pub term: Term,
    /// Peers the leader has not heard of for long.
    pub down: Vec<PeerId>,
    /// Peers that are behind, or still get their snapshot.
    pub pending: Vec<PeerId>,
    /// What the leader knows of the other replicas: those of a region with a learner, a joint
    /// configuration or a replica that is behind; otherwise none.
    pub progress: Vec<PeerProgress>,
    /// The last entry of the leader's log; 0 where it was not told.
    pub last_index: LogIndex,
    /// Where it is stopped for a merge.
    pub merging: Option<Merging>,
    /// Size and load.
    pub stats: RegionStats,
    /// True where its leader has reported it in this term of placement's leadership and has not
    /// said since that it leads it no more.
    pub led: bool,
}

impl RegionInfo {
    /// What a former leader saved.
    pub fn from_saved(saved: SavedRegion) -> Self {
        let SavedRegion { region, leader, term, bytes, keys } = saved;
        let stats = RegionStats { bytes, keys, ..RegionStats::default() };
        Self {
            region,
            leader,
            term,
            down: Vec::new(),
            pending: Vec::new(),
            progress: Vec::new(),
            last_index: LogIndex(0),
            merging: None,
            stats,
            led: false,
        }
    }

    /// What the next leader of placement needs to route.
    pub fn to_saved(&self) -> SavedRegion {
        SavedRegion {
            region: self.region.clone(),
            leader: self.leader,
            term: self.term,
            bytes: self.stats.bytes,
            keys: self.stats.keys,
        }
    }

    /// True for the cluster's last, empty region, which is never split, moved or counted.
    pub fn is_sentinel(&self) -> bool {
        self.region.range.start == SENTINEL_START
    }

    /// True while incoming and outgoing voters differ.
    pub fn is_joint(&self) -> bool {
        self.region.peers.iter().any(|peer| match peer.role {
            Role::IncomingVoter | Role::DemotingVoter => true,
            Role::Voter | Role::Learner => false,
        })
    }

    /// True where leadership can go to `store`: a voter there that is up to date.
    pub fn can_lead_on(&self, store: StoreId) -> bool {
        self.region.peer_on(store).is_some_and(|peer| {
            peer.role == Role::Voter
                && !self.down.contains(&peer.id)
                && !self.pending.contains(&peer.id)
        })
    }
}

/// What a report changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// True where a route changed: range, epoch, leader or term.
    pub routes: bool,
    /// Regions it replaced.
    pub evicted: Vec<RegionId>,
}

/// Why a report was not believed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Stale {
    /// The region is known in a newer epoch.
    #[error("{0} is known in a newer epoch")]
    Epoch(RegionId),
    /// Its leader is known from a newer term.
    #[error("{0} is known to be led in a newer term")]
    Term(RegionId),
    /// Its range belongs to a region of the same or a higher version.
    #[error("{region} overlaps {known}, which is at least as new")]
    Overlap {
        /// The reported region.
        region: RegionId,
        /// Which one has the range.
        known: RegionId,
    },
}

/// The tree. See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegionTree {
    by_start: BTreeMap<Bytes, RegionId>,
    by_id: BTreeMap<RegionId, Arc<RegionInfo>>,
}

impl RegionTree {
    /// Takes a report into the tree, unless it is stale.
    ///
    /// A report of a newer epoch from an older term is believed in its range and peers, not in its
    /// leader.
    ///
    /// # Errors
    /// Why it is stale; the tree is unchanged.
    pub fn offer(&mut self, mut info: RegionInfo) -> Result<Offered, Stale> {
        let id = info.region.id;
        let known = self.by_id.get(&id);
        let mut routes = true;
        if let Some(known) = known {
            if info.region.epoch.is_stale_against(known.region.epoch) {
                return Err(Stale::Epoch(id));
            }
            let same_epoch = info.region.epoch == known.region.epoch;
            if info.term < known.term {
                if same_epoch {
                    return Err(Stale::Term(id));
                }
                info.leader = known.leader.and_then(|leader| info.region.peer(leader.id).copied());
                info.term = known.term;
                info.led = known.led;
            } else if info.leader.is_none() && info.term == known.term {
                info.leader = known.leader.and_then(|leader| info.region.peer(leader.id).copied());
            }
            routes = !same_epoch || info.leader != known.leader || info.term != known.term;
            if same_epoch && info.region == known.region {
                self.by_id.insert(id, Arc::new(info));
                return Ok(Offered { routes, evicted: Vec::new() });
            }
        }
        let mut evicted = Vec::new();
        for other in self.overlapping(&info.region.range) {
            if other.region.id == id {
                continue;
            }
            if other.region.epoch.version >= info.region.epoch.version {
                return Err(Stale::Overlap { region: id, known: other.region.id });
            }
            evicted.push(other.region.id);
        }
        for old in evicted.iter().chain([&id]) {
            if let Some(old) = self.by_id.remove(old) {
                self.by_start.remove(&old.region.range.start);
            }
        }
        self.by_start.insert(info.region.range.start.clone(), id);
        self.by_id.insert(id, Arc::new(info));
        Ok(Offered { routes, evicted })
    }

    /// Takes in a region that nobody leads, as one of its replicas knows it. Returns false, and
    /// changes nothing, where anything is known of its id or of its keys: a replica that hears no
    /// leader may be long out of date.
    pub fn learn(&mut self, info: RegionInfo) -> bool {
        let id = info.region.id;
        if self.by_id.contains_key(&id) || self.overlapping(&info.region.range).next().is_some() {
            return false;
        }
        self.by_start.insert(info.region.range.start.clone(), id);
        self.by_id.insert(id, Arc::new(info));
        true
    }

    /// The region that holds `key`.
    pub fn find(&self, key: &[u8]) -> Option<&Arc<RegionInfo>> {
        let (_, id) =
            self.by_start.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        self.by_id.get(id).filter(|info| info.region.range.contains(key))
    }

    /// The region that ends where the one that holds `key` begins.
    pub fn before(&self, key: &[u8]) -> Option<&Arc<RegionInfo>> {
        let start = &self.find(key)?.region.range.start;
        let below = (Bound::Unbounded, Bound::Excluded(start.as_ref()));
        let (_, id) = self.by_start.range::<[u8], _>(below).next_back()?;
        self.by_id.get(id).filter(|info| info.region.range.end == *start)
    }

    /// The region with that id.
    pub fn get(&self, id: RegionId) -> Option<&Arc<RegionInfo>> {
        self.by_id.get(&id)
    }

    /// Regions with keys in `range`, in the order of their keys. Lazy: take as many as are wanted.
    pub fn overlapping<'a>(
        &'a self,
        range: &'a KeyRange,
    ) -> impl Iterator<Item = &'a Arc<RegionInfo>> {
        let first = self.find(&range.start).map_or(&range.start, |info| &info.region.range.start);
        let from = (Bound::Included(first.as_ref()), Bound::Unbounded);
        self.by_start
            .range::<[u8], _>(from)
            .map_while(|(_, id)| self.by_id.get(id))
            .take_while(move |info| info.region.range.overlaps(range))
    }

    /// All regions, in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<RegionInfo>> {
        self.by_id.values()
    }

    /// The regions with ids beyond one, in order.
    pub fn after(&self, id: RegionId) -> impl Iterator<Item = &Arc<RegionInfo>> {
        self.by_id.range((Bound::Excluded(id), Bound::Unbounded)).map(|(_, info)| info)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Notes that `store` does not lead the region any more, until somebody reports that it does.
    /// It stays the last known leader.
    pub fn not_led_by(&mut self, region: RegionId, store: StoreId) {
        let led_by_it = |info: &&mut Arc<RegionInfo>| {
            info.led && info.leader.is_some_and(|leader| leader.store == store)
        };
        if let Some(info) = self.by_id.get_mut(&region).filter(led_by_it) {
            Arc::make_mut(info).led = false;
        }
    }
}
