//! Stores that come and go.

use std::sync::Arc;

use quorate_consensus::engine::WriteBatch;
use quorate_proto::StoreId;

use super::{State, Store, StoreLife};
use crate::core::command::{JoinRefusal, Joining};
use crate::core::record::Record;

impl State {
    /// Whether the store may join, as far as the replicated state can tell. A leader asks before
    /// it proposes, so that refusals cost nothing.
    ///
    /// # Errors
    /// The reason to tell the store.
    pub fn may_join(&self, joining: &Joining) -> Result<(), JoinRefusal> {
        let cluster = self.cluster.ok_or(JoinRefusal::NotInitialized)?;
        if joining.cluster_id != 0 && joining.cluster_id != cluster.id {
            return Err(JoinRefusal::WrongCluster { theirs: joining.cluster_id, ours: cluster.id });
        }
        if joining.address.is_empty() {
            return Err(JoinRefusal::Incomplete("an address that others can reach it at"));
        }
        if joining.data_id == 0 {
            return Err(JoinRefusal::Incomplete("a data id, drawn once for its data folder"));
        }
        let Some(id) = joining.store else {
            // It never got our answer, and was taken out meanwhile.
            return match self.store_of(joining) {
                Some(store) if is_gone(store) => Err(JoinRefusal::Left { store: store.id }),
                Some(_) | None => Ok(()),
            };
        };
        match self.stores.get(&id) {
            None => Err(JoinRefusal::UnknownStore { store: id }),
            Some(store) if is_gone(store) => Err(JoinRefusal::Left { store: id }),
            Some(store) if store.data_id != joining.data_id => {
                Err(JoinRefusal::IdInUse { store: id, address: store.address.clone() })
            }
            Some(_) => Ok(()),
        }
    }

    pub(super) fn join(
        &mut self,
        joining: Joining,
        batch: &mut WriteBatch,
    ) -> Result<StoreId, JoinRefusal> {
        self.may_join(&joining)?;
        let known = self.store_of(&joining).map(|store| (store.id, store.life));
        let (id, life) = match known {
            Some(known) => known,
            None => (StoreId(self.take_ids(1, batch)), StoreLife::Joining),
        };
        // Nobody may be routed to this store under another one's name.
        let shadowed: Vec<StoreId> = self
            .stores
            .values()
            .filter(|store| store.id != id && store.address == joining.address)
            .map(|store| store.id)
            .collect();
        for other in shadowed {
            self.change_store(other, |store| store.address.clear(), batch);
        }
        let Joining { address, status_address, labels, version, incarnation, data_id, .. } =
            joining;
        let store =
            Store { id, address, status_address, labels, version, incarnation, data_id, life };
        if self.stores.get(&id).is_none_or(|known| **known != store) {
            Record::Store(store.clone()).put(batch);
            self.stores.insert(id, Arc::new(store));
            self.stores_generation += 1;
        }
        Ok(id)
    }

    /// The store that announces itself, if it is known: by its id, or by its data folder where it
    /// never got our answer.
    pub fn store_of(&self, joining: &Joining) -> Option<&Arc<Store>> {
        match joining.store {
            Some(id) => self.stores.get(&id),
            None => self.stores.values().find(|store| store.data_id == joining.data_id),
        }
    }

    /// The store's id where joining would change nothing, so that asking again costs nothing.
    pub fn has_joined(&self, joining: &Joining) -> Option<StoreId> {
        let store = self.store_of(joining)?;
        let same = self.may_join(joining).is_ok()
            && store.address == joining.address
            && store.status_address == joining.status_address
            && store.labels == joining.labels
            && store.version == joining.version
            && store.incarnation == joining.incarnation;
        same.then_some(store.id)
    }

    pub(super) fn activate(&mut self, id: StoreId, batch: &mut WriteBatch) {
        if self.stores.get(&id).is_some_and(|store| store.life == StoreLife::Joining) {
            self.change_store(id, |store| store.life = StoreLife::Active, batch);
        }
    }

    pub(super) fn change_store(
        &mut self,
        id: StoreId,
        change: impl FnOnce(&mut Store),
        batch: &mut WriteBatch,
    ) {
        if let Some(store) = self.stores.get_mut(&id) {
            let store = Arc::make_mut(store);
            change(store);
            Record::Store(store.clone()).put(batch);
            self.stores_generation += 1;
        }
    }

    /// A store leaves, is taken back in before it has left, or has left.
    pub(super) fn change_life(
        &mut self,
        id: StoreId,
        life: StoreLife,
        batch: &mut WriteBatch,
    ) -> Result<(), String> {
        let Some(store) = self.stores.get(&id) else {
            return Err(format!("{id} is not known to this cluster"));
        };
        let allowed = match (store.life, life) {
            (before, after) if before == after => return Ok(()),
            (StoreLife::Left, _) => return Err(format!("{id} has left, and does not come back")),
            (StoreLife::Joining, StoreLife::Active) => true,
            (StoreLife::Joining | StoreLife::Active, StoreLife::Leaving { .. }) => true,
            (StoreLife::Leaving { .. }, StoreLife::Active | StoreLife::Leaving { .. }) => true,
            (StoreLife::Leaving { .. }, StoreLife::Left) => true,
            (StoreLife::Joining | StoreLife::Active, StoreLife::Left) => false,
            (_, StoreLife::Joining) | (StoreLife::Active, StoreLife::Active) => false,
        };
        if !allowed {
            return Err(format!("{id} is not leaving"));
        }
        self.change_store(id, |store| store.life = life, batch);
        Ok(())
    }
}

/// True for one whose return is refused.
fn is_gone(store: &Store) -> bool {
    match store.life {
        StoreLife::Left | StoreLife::Leaving { dead: true, .. } => true,
        StoreLife::Joining | StoreLife::Active | StoreLife::Leaving { dead: false, .. } => false,
    }
}
