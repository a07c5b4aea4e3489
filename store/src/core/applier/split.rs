//! A split: one region becomes several, in one batch.

use std::sync::Arc;

use quorate_consensus::engine::EngineError;
use quorate_consensus::shard::NewGroup;
use quorate_proto::limits::INITIAL_INDEX;
use quorate_proto::wire::command::{ApplyState, Split};
use quorate_proto::{Epoch, KeyRange, LogIndex, Peer, PeerId, Region, RegionId, Term};

use super::{Change, Slot, Work};
use crate::core::directory::{Directory, LocalRegion, State, new_group};
use crate::core::error::RegionError;
use crate::core::keys;
use crate::core::snapshot::serving;

/// A split whose batch is being written.
pub(super) struct Division {
    /// What the region is afterwards.
    rest: Arc<Region>,
    /// The new regions that have a replica here, ascending.
    children: Vec<(Arc<Region>, PeerId)>,
    /// Theirs at the start.
    applied: ApplyState,
}

impl<T> Work<T> {
    pub(super) fn split(
        &mut self,
        slot: &mut Slot,
        directory: &Directory,
        conf_ver: u64,
        split: Split,
    ) -> Result<Result<(), RegionError>, EngineError> {
        if conf_ver != slot.region.epoch.conf_ver {
            return Ok(Err(RegionError::EpochNotMatch { current: vec![Arc::clone(&slot.region)] }));
        }
        let (rest, children) = match divide(&slot.region, split) {
            Ok(parts) => parts,
            Err(reason) => {
                return Ok(Err(RegionError::BadSplit { region: slot.region.id, reason }));
            }
        };
        let applied =
            ApplyState { index: INITIAL_INDEX, term: INITIAL_INDEX, time_ms: slot.time_ms };
        let mut hosted = Vec::with_capacity(children.len());
        for child in children {
            let peer = child.peer_on(directory.store()).map(|peer| peer.id);
            match place(directory, child.id, peer)? {
                Some(peer) => {
                    keys::put_region_state(&mut self.batch, child.id, &serving(&child, peer));
                    keys::put_apply_state(&mut self.batch, child.id, &applied);
                    hosted.push((Arc::new(child), peer));
                }
                // Its replica here is gone already: no data without a region.
                None => keys::delete_data(&mut self.batch, &child.range),
            }
        }
        let rest = Arc::new(rest);
        slot.region = Arc::clone(&rest);
        keys::put_region_state(&mut self.batch, rest.id, &slot.state());
        self.changes.push(Change::Split(Division { rest, children: hosted, applied }));
        Ok(Ok(()))
    }
}

impl Division {
    /// The batch is written: everybody may know.
    pub(super) fn publish(
        self,
        slot: &Slot,
        directory: &Directory,
        created: &mut Vec<Slot>,
    ) -> Vec<NewGroup> {
        let campaign = slot.local.view().is_leader();
        let at = (LogIndex(self.applied.index), Term(self.applied.term));
        let regions: Vec<Arc<Region>> =
            self.children.iter().map(|(region, _)| Arc::clone(region)).collect();
        let locals = directory.split(&slot.local, self.rest, self.children);
        let host = |(local, region): (Arc<LocalRegion>, Arc<Region>)| {
            let group = new_group(&local, &region, at, campaign);
            created.push(Slot::new(local, region, (None, Vec::new()), &self.applied));
            group
        };
        locals.into_iter().zip(regions).map(host).collect()
    }
}

/// Both parts of a split: what remains of the region, and the new ones, ascending. The version
/// grows by one for each new region, and all of them share it.
fn divide(region: &Region, split: Split) -> Result<(Region, Vec<Region>), &'static str> {
    if split.children.is_empty() {
        return Err("it names no new region");
    }
    let version = region.epoch.version + split.children.len() as u64;
    let epoch = Epoch { version, ..region.epoch };
    let mut start = region.range.start.clone();
    let mut children: Vec<Region> = Vec::with_capacity(split.children.len());
    for child in split.children {
        let id = RegionId(child.region_id);
        if child.region_id == 0 || id == region.id || children.iter().any(|other| other.id == id) {
            return Err("an id of a new region is zero or used twice");
        }
        if child.key <= start || !region.range.contains(&child.key) {
            return Err("a key is not inside the region, or not above the one before");
        }
        if child.peer_ids.len() != region.peers.len() || child.peer_ids.contains(&0) {
            return Err("a new region needs one peer id for each replica");
        }
        let peer = |(old, id): (&Peer, u64)| Peer { id: PeerId(id), ..*old };
        let peers = region.peers.iter().zip(child.peer_ids).map(peer).collect();
        let range = KeyRange::new(start, child.key.clone());
        start = child.key;
        children.push(Region { id, range, epoch, peers });
    }
    let range = KeyRange::new(start, region.range.end.clone());
    let rest = Region { range, epoch, id: region.id, peers: region.peers.clone() };
    Ok((rest, children))
}

/// The local replica of a new region, unless it was removed (or replaced by a later one) before
/// this replica of the parent got to apply the split.
fn place(
    directory: &Directory,
    child: RegionId,
    peer: Option<PeerId>,
) -> Result<Option<PeerId>, EngineError> {
    let Some(peer) = peer else { return Ok(None) };
    if directory.tombstone(child).is_some_and(|removed| peer <= removed) {
        return Ok(None);
    }
    let Some(local) = directory.get(child) else { return Ok(Some(peer)) };
    match &*local.state() {
        State::Uninitialized { .. } if local.peer() == peer => Ok(Some(peer)),
        State::Uninitialized { .. } | State::Tombstone => Ok(None),
        State::Serving(other)
        | State::Merging(other, _)
        | State::Installing(other)
        | State::Removing(other) => Err(keys::corrupt(
            "the cluster's map of regions",
            &format!("{child} is to be split off but holds {} here", other.range),
        )),
    }
}
