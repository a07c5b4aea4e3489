//! Checking requests, new replicas and snapshots against the directory.

use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::shard::NewGroup;
use quorate_consensus::view::GroupView;
use quorate_proto::wire::kvrpcpb::Context;
use quorate_proto::{Epoch, LogIndex, Peer, PeerId, Region, RegionId, StoreId, Term};

use super::merging::named_gone;
use super::{Conflict, Directory, LocalRegion, State};
use crate::core::command::Stamp;
use crate::core::error::RegionError;

/// Most neighbours that a refused client is told of.
const MAX_SIBLINGS: u64 = 32;

/// A request that named the right store, replica and version of its region.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The local replica.
    pub local: Arc<LocalRegion>,
    /// The region as it was then.
    pub region: Arc<Region>,
}

/// What to do about a message to a replica that may not exist yet.
#[derive(Debug)]
pub enum PeerAdmission {
    /// It is here: hand the message on.
    Exists,
    /// Host this group, then hand the message on. It has no members and has applied nothing; a
    /// snapshot will bring both.
    Create(Box<NewGroup>),
    /// A local region still covers its range and will split: keep the message for a while (or
    /// drop it; it is sent again).
    Hold,
    /// Drop the message.
    Refuse(Conflict),
}

impl Directory {
    /// Checks what every request says about store, region, replica, epoch and term. Only the
    /// version of the epoch counts, as in TiKV: who the members are does not change what a key
    /// range holds.
    ///
    /// # Errors
    /// What the client must look up again, as a region error.
    pub fn admit(&self, context: &Context) -> Result<Admitted, RegionError> {
        let (peer, store) = context.peer.map_or((0, 0), |peer| (peer.id, peer.store_id));
        if StoreId(store) != self.store {
            let asked = StoreId(store);
            return Err(RegionError::StoreNotMatch { asked, actual: self.store });
        }
        let id = RegionId(context.region_id);
        let local = self.get(id).ok_or(RegionError::RegionNotFound(id))?;
        if local.peer() != PeerId(peer) {
            let asked = PeerId(peer);
            return Err(RegionError::MismatchPeer { asked, actual: local.peer() });
        }
        let Some(region) = local.region() else {
            return Err(without_data(&local, context.replica_read || context.stale_read));
        };
        let version = context.region_epoch.map_or(0, |epoch| epoch.version);
        if version != region.epoch.version {
            return Err(self.epoch_not_match(&region, version));
        }
        if context.term != 0 && local.view().term().0 > context.term.saturating_add(1) {
            return Err(RegionError::StaleCommand);
        }
        Ok(Admitted { local, region })
    }

    /// The refusal for a request that saw `version` of the region: the region as it is, then the
    /// neighbours it has lost since, nearest first, as far as they are here. A split keeps the
    /// right end under the old id and raises the version by one for each region split off, so
    /// these are the ones before it.
    pub fn epoch_not_match(&self, region: &Arc<Region>, version: u64) -> RegionError {
        let mut current = vec![Arc::clone(region)];
        let lost = region.epoch.version.saturating_sub(version).min(MAX_SIBLINGS);
        let order = self.order.read();
        let mut start = region.range.start.clone();
        for (_, local) in order.ranges.range::<Bytes, _>(..&region.range.start).rev() {
            let state = local.state();
            let Some(sibling) = state.region() else { break };
            if current.len() as u64 > lost || sibling.range.end != start {
                break;
            }
            start = sibling.range.start.clone();
            current.push(Arc::clone(sibling));
        }
        RegionError::EpochNotMatch { current }
    }

    /// What to do about a message to replica `to` of `region` (as its sender knows it): hand it
    /// on, create the replica without data, wait, or drop it. Any thread may ask.
    pub fn admit_peer(&self, region: &Region, to: PeerId) -> PeerAdmission {
        let mut order = self.order.write();
        if let Some(peer) = order.removed(region.id).filter(|peer| to <= *peer) {
            let peer = peer.max(to);
            return PeerAdmission::Refuse(Conflict::Removed { region: region.id, peer });
        }
        if let Some(local) = self.get(region.id) {
            if local.peer() == to {
                return PeerAdmission::Exists;
            }
            let (region, actual) = (region.id, local.peer());
            return PeerAdmission::Refuse(Conflict::OtherPeer { region, actual, asked: to });
        }
        if region.peer_on(self.store).is_none_or(|peer| peer.id != to) {
            return PeerAdmission::Refuse(Conflict::NotMember { region: region.id, peer: to });
        }
        if order.check_free(region).is_err() {
            return PeerAdmission::Hold;
        }
        let view = GroupView::new(region.id, to);
        let state = State::Uninitialized { since: region.epoch, expected: None };
        let local = LocalRegion::new(region.id, to, Arc::clone(&view), state);
        order.waiting.insert(region.id, Arc::clone(&local));
        self.map(region.id).write().insert(region.id, local);
        PeerAdmission::Create(Box::new(NewGroup {
            group: region.id,
            peer: to,
            members: Vec::new(),
            applied: (LogIndex(0), Term(0)),
            view,
            campaign: false,
        }))
    }

    /// Whether a snapshot of `region` for replica `to` may be received. Where the replica has no
    /// data yet, its range is kept free for it from now on, until another snapshot of the same
    /// region is announced. `taken_in` are regions that it has taken in: their replicas here are not
    /// in its way.
    ///
    /// # Errors
    /// Why not: tell the sender, who will try again.
    pub fn admit_snapshot(
        &self,
        region: Arc<Region>,
        taken_in: &[RegionId],
        to: PeerId,
    ) -> Result<(), Conflict> {
        let order = self.order.write();
        let Some(local) = self.get(region.id) else {
            return Err(match order.tombstones.get(&region.id) {
                Some(_) => Conflict::Removed { region: region.id, peer: to },
                None => Conflict::NotMember { region: region.id, peer: to },
            });
        };
        if local.peer() != to {
            let (region, actual) = (region.id, local.peer());
            return Err(Conflict::OtherPeer { region, actual, asked: to });
        }
        // They apply nothing by themselves from now on, so that their places stay as they are.
        for other in order.check_snapshot(&local, &region, taken_in)? {
            if let Some(old) = other.state().region() {
                other.know_gone(named_gone(&region, old));
            }
        }
        match &*local.state() {
            State::Uninitialized { .. } => {
                let since = region.epoch;
                local.set(State::Uninitialized { since, expected: Some(region) });
            }
            State::Serving(_)
            | State::Merging(..)
            | State::Installing(_)
            | State::Removing(_)
            | State::Tombstone => {}
        }
        Ok(())
    }
}

/// A replica without data sends writers to the leader and readers of replicas elsewhere.
fn without_data(local: &LocalRegion, any_replica: bool) -> RegionError {
    let region = local.id();
    match &*local.state() {
        State::Removing(_) | State::Tombstone => return RegionError::RegionNotFound(region),
        State::Merging(..) => return RegionError::Merging(region),
        State::Uninitialized { .. } | State::Installing(_) | State::Serving(_) => {}
    }
    match local.leader() {
        Some(leader) if !any_replica => RegionError::NotLeader { region, leader: Some(leader) },
        Some(_) | None => RegionError::NotInitialized(region),
    }
}

impl Admitted {
    /// Whether the local replica leads.
    ///
    /// # Errors
    /// [`RegionError::NotLeader`] with the leader, where known; [`RegionError::NoQuorum`] where there
    /// can be none.
    pub fn check_leader(&self) -> Result<(), RegionError> {
        let view = self.local.view();
        if view.is_leader() {
            return Ok(());
        }
        Err(match view.lost_quorum() {
            Some(lost) => RegionError::no_quorum(self.region.id, &lost),
            None => self.not_leader(self.leader()),
        })
    }
    /// Who leads the region, where known.
    pub fn leader(&self) -> Option<Peer> {
        self.region.peer(self.local.view().leader()?).copied()
    }
    /// The refusal that sends the client to `leader`.
    pub fn not_leader(&self, leader: Option<Peer>) -> RegionError {
        RegionError::NotLeader { region: self.region.id, leader }
    }
    /// Whether the region has a key.
    ///
    /// # Errors
    /// [`RegionError::KeyNotInRegion`].
    pub fn check_key(&self, key: &[u8]) -> Result<(), RegionError> {
        if self.region.range.contains(key) { Ok(()) } else { Err(self.outside(key)) }
    }
    /// Whether the region has all of these keys.
    ///
    /// # Errors
    /// [`RegionError::KeyNotInRegion`] for the first that it has not.
    pub fn check_keys<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), RegionError> {
        keys.into_iter().try_for_each(|key| self.check_key(key))
    }
    /// Whether `[start, end)` lies in the region; an empty `end` means no bound.
    ///
    /// # Errors
    /// [`RegionError::KeyNotInRegion`] for the bound that does not.
    pub fn check_range(&self, start: &[u8], end: &[u8]) -> Result<(), RegionError> {
        check_range(&self.region, start, end)
    }
    /// What goes on a command that was checked against this region.
    pub fn stamp(&self, time_ms: u64) -> Stamp {
        let Epoch { conf_ver, version } = self.region.epoch;
        Stamp { version, conf_ver, time_ms }
    }
    /// True where the region is still the same: not split, replaced or removed since.
    pub fn unchanged(&self) -> bool {
        self.local.serves(&self.region)
    }
    pub(in crate::core) fn outside(&self, key: &[u8]) -> RegionError {
        outside(&self.region, key)
    }
}

pub(in crate::core) fn outside(region: &Arc<Region>, key: &[u8]) -> RegionError {
    RegionError::KeyNotInRegion { key: Bytes::copy_from_slice(key), region: Arc::clone(region) }
}

pub(in crate::core) fn check_range(
    region: &Arc<Region>,
    start: &[u8],
    end: &[u8],
) -> Result<(), RegionError> {
    let range = &region.range;
    if !range.contains(start) {
        return Err(outside(region, start));
    }
    let inside = range.end.is_empty() || (!end.is_empty() && end <= range.end.as_ref());
    if inside { Ok(()) } else { Err(outside(region, end)) }
}
