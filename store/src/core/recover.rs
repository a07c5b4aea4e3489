//! What a store finds at its start, and its first regions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use quorate_consensus::engine::{Engine, EngineError, WriteBatch};
use quorate_consensus::shard::{NewGroup, has_records};
use quorate_proto::limits::INITIAL_INDEX;
use quorate_proto::wire::command::{ApplyState, PeerState, RegionState};
use quorate_proto::{PeerId, Region, RegionId, StoreId};
use thiserror::Error;

use super::applier::Applier;
use super::directory::{Conflict, Directory, Gone, Merging, State};
use super::keys::{self, corrupt};
use super::snapshot::serving;

/// Why a store could not create its first regions.
#[derive(Debug, Error)]
pub enum BootstrapError {
    /// They do not fit together, or not to what is here.
    #[error("placement's first regions do not fit this store: {0}")]
    Conflict(#[from] Conflict),
    /// The store is no member.
    #[error("placement's first region {0} has no replica on this store, {1}")]
    NotMember(RegionId, StoreId),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Applier {
    /// Finds all regions of a store at its start, finishes an installation that a crash broke off,
    /// and discards staged files that nothing refers to. Returns the groups to host, by region id.
    ///
    /// # Errors
    /// The engine, or state that cannot be read, contradicts itself, or refers to a staged file
    /// that is gone: do not start from it.
    pub fn recover(
        engine: Arc<dyn Engine>,
        store: StoreId,
    ) -> Result<(Self, Vec<NewGroup>), EngineError> {
        let directory = Arc::new(Directory::new(store));
        let mut applier = Self { engine, directory, slots: HashMap::default() };
        let states = keys::region_states(applier.engine.as_ref())?;
        let applied: BTreeMap<_, _> =
            keys::apply_states(applier.engine.as_ref())?.into_iter().collect();
        let mut groups = Vec::with_capacity(states.len());
        for (id, state) in states {
            groups.extend(applier.recover_region(id, state, applied.get(&id))?);
        }
        let staged: BTreeSet<String> = applier.engine.staged()?.into_iter().collect();
        staged.iter().try_for_each(|name| applier.engine.discard_staged(name))?;
        Ok((applier, groups))
    }

    fn recover_region(
        &mut self,
        id: RegionId,
        stored: RegionState,
        applied: Option<&ApplyState>,
    ) -> Result<Option<NewGroup>, EngineError> {
        let what = format!("the state of {id}");
        let peer = PeerId(stored.peer_id);
        let state = stored.state();
        let description = |region: Option<_>| {
            let region = Region::try_from(region.unwrap_or_default())
                .map_err(|error| corrupt(&what, &error))?;
            match region.id == id && peer.0 != 0 {
                true => Ok(Arc::new(region)),
                false => Err(corrupt(&what, &"it names another region, or no replica")),
            }
        };
        let merging = |is_stopped: bool| match (stored.merging, is_stopped) {
            (Some(merging), true) => {
                Merging::try_from(merging).map(Some).map_err(|error| corrupt(&what, &error))
            }
            (None, true) => {
                Err(corrupt(&what, &"it is stopped for a merge and does not say which"))
            }
            (_, false) => Ok(None),
        };
        match state {
            PeerState::Tombstone => {
                let gone = match stored.merged_into {
                    0 => None,
                    into => {
                        Some(Gone { into: RegionId(into), region: description(stored.region)? })
                    }
                };
                // A crash may have come between a merge and the end of the source's group.
                let is_gone = gone.is_some();
                self.directory.insert_tombstone(id, peer, gone);
                if is_gone && has_records(self.engine.as_ref(), id)? {
                    self.forget(id)?;
                }
                Ok(None)
            }
            PeerState::Serving | PeerState::Merging => {
                let merging = merging(state == PeerState::Merging)?;
                let taken_in = stored.taken_in.into_iter().map(RegionId).collect();
                let region = description(stored.region)?;
                if region.peer(peer).is_none() {
                    tracing::info!(region = %id, %peer, "finishing the removal of a replica");
                    self.erase(id, peer, Some(&region), None)?;
                    self.directory.insert_tombstone(id, peer, None);
                    return Ok(None);
                }
                let applied =
                    applied.ok_or_else(|| corrupt(&what, &"it lacks its applied index"))?;
                let local = self
                    .directory
                    .insert(peer, State::Serving(Arc::clone(&region)))
                    .map_err(|conflict| corrupt(&what, &conflict))?;
                if merging.is_some() {
                    self.directory.set_merging(&local, Arc::clone(&region), merging);
                }
                Ok(Some(self.host(local, region, (merging, taken_in), applied)))
            }
            PeerState::Installing => {
                let merging = merging(stored.merging.is_some())?;
                let taken_in: Vec<_> = stored.taken_in.into_iter().map(RegionId).collect();
                let history = (merging, taken_in);
                let region = description(stored.region)?;
                let snapshot = stored
                    .installing
                    .ok_or_else(|| corrupt(&what, &"it does not name its snapshot"))?;
                let local = self
                    .directory
                    .insert(peer, State::Installing(Arc::clone(&region)))
                    .map_err(|conflict| corrupt(&what, &conflict))?;
                let applied = ApplyState {
                    index: snapshot.index,
                    term: snapshot.term,
                    time_ms: snapshot.time_ms,
                };
                tracing::info!(region = %id, snapshot = %snapshot.id, "finishing an installation");
                let installed =
                    self.finish_install(&local, &region, history.clone(), &snapshot.id, &applied);
                installed.map_err(|error| match error {
                    EngineError::NotStaged { name } => corrupt(
                        &what,
                        &format!("its snapshot {name} was being installed and is gone"),
                    ),
                    error @ (EngineError::Fatal { .. }
                    | EngineError::Corrupt { .. }
                    | EngineError::Full { .. }
                    | EngineError::Locked { .. }
                    | EngineError::Newer { .. }
                    | EngineError::LostWrites { .. }
                    | EngineError::Closed
                    | EngineError::Incomplete
                    | EngineError::Unordered { .. }
                    | EngineError::BadStaged { .. }) => error,
                })?;
                Ok(Some(self.host(local, region, history, &applied)))
            }
            // No version of ours writes it: such a replica is created by the first message to it.
            PeerState::Uninitialized => Err(corrupt(&what, &"it is of no known kind")),
        }
    }

    /// Creates the first regions of a cluster, durably. A region whose id this store has, or had,
    /// is left alone, so asking twice is fine. Returns the groups to host.
    ///
    /// # Errors
    /// The regions overlap or do not name this store; nothing was created. Otherwise the engine:
    /// stop the process.
    pub fn bootstrap(&mut self, regions: Vec<Region>) -> Result<Vec<NewGroup>, BootstrapError> {
        let store = self.directory.store();
        let applied = ApplyState { index: INITIAL_INDEX, term: INITIAL_INDEX, time_ms: 0 };
        let mut batch = WriteBatch::new();
        let mut fresh: Vec<(Arc<Region>, PeerId)> = Vec::new();
        for region in regions {
            let id = region.id;
            if self.directory.get(id).is_some() || self.directory.tombstone(id).is_some() {
                continue;
            }
            let peer = region.peer_on(store).ok_or(BootstrapError::NotMember(id, store))?.id;
            self.directory.check_free(&region)?;
            let overlap = fresh.iter().find(|(other, _)| other.range.overlaps(&region.range));
            if let Some((other, _)) = overlap {
                return Err(Conflict::Overlap { region: id, other: other.id }.into());
            }
            keys::put_region_state(&mut batch, id, &serving(&region, peer));
            keys::put_apply_state(&mut batch, id, &applied);
            fresh.push((Arc::new(region), peer));
        }
        self.engine.write_synced(batch)?;
        let mut groups = Vec::with_capacity(fresh.len());
        for (region, peer) in fresh {
            let local = self.directory.insert(peer, State::Serving(Arc::clone(&region)))?;
            groups.push(self.host(local, region, (None, Vec::new()), &applied));
        }
        Ok(groups)
    }
}
