//! Who this store is: read from its folder, or given by placement once.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::Arc;

use quorate_consensus::engine::{Engine, EngineError, WriteBatch};
use quorate_proto::StoreId;
use quorate_proto::wire::command::StoreIdent;
use quorate_proto::wire::placement::JoinResponse;

use crate::core::keys;
use crate::error::StoreError;

/// The identity in a data folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The cluster; 0 before the first join.
    pub(crate) cluster_id: u64,
    /// This store; 0 before the first join.
    pub(crate) store: StoreId,
    /// Drawn once for the folder: tells a retry from a second store.
    pub(crate) data_id: u64,
}

impl Identity {
    /// The identity in the folder; a fresh folder gets its `data_id` now, synced, so that a join
    /// whose answer is lost can be repeated.
    ///
    /// # Errors
    /// A newer or damaged folder.
    pub(crate) fn open(engine: &Arc<dyn Engine>, folder: &Path) -> Result<Self, StoreError> {
        let shown = || folder.display().to_string();
        let ident = keys::read_ident(engine.as_ref()).map_err(|error| match error {
            EngineError::Newer { found, supported, .. } => {
                StoreError::NewerFormat { folder: shown(), found, known: supported }
            }
            error => StoreError::Engine(error),
        })?;
        if let Some(ident) = ident {
            let store = StoreId(ident.store_id);
            let StoreIdent { cluster_id, data_id, .. } = ident;
            return Ok(Self { cluster_id, store, data_id });
        }
        if !keys::region_states(engine.as_ref())?.is_empty() {
            let what = "it has regions, but does not say of which store".to_owned();
            return Err(StoreError::Damaged { folder: shown(), what });
        }
        let identity = Self { cluster_id: 0, store: StoreId(0), data_id: draw() };
        identity.write(engine)?;
        Ok(identity)
    }

    /// Compares with what placement answered to a join, and keeps what is new, synced.
    ///
    /// # Errors
    /// Placement leads another cluster, or knows this store by another id; or the engine failed.
    pub(crate) fn confirm(
        &mut self,
        answer: &JoinResponse,
        engine: &Arc<dyn Engine>,
        folder: &Path,
    ) -> Result<(), StoreError> {
        let told = StoreId(answer.store_id);
        if answer.cluster_id == 0 || answer.store_id == 0 {
            let reason = "its answer names no cluster or no store; check the placement addresses";
            return Err(StoreError::Refused(reason.to_owned()));
        }
        if self.cluster_id != 0 && self.cluster_id != answer.cluster_id {
            return Err(StoreError::OtherCluster {
                folder: folder.display().to_string(),
                found: self.cluster_id,
                expected: answer.cluster_id,
            });
        }
        if self.store.0 != 0 && self.store != told {
            return Err(StoreError::OtherStore {
                folder: folder.display().to_string(),
                found: self.store,
                expected: told,
            });
        }
        if self.store == told && self.cluster_id == answer.cluster_id {
            return Ok(());
        }
        (self.cluster_id, self.store) = (answer.cluster_id, told);
        self.write(engine)
    }

    fn write(&self, engine: &Arc<dyn Engine>) -> Result<(), StoreError> {
        let ident = StoreIdent {
            cluster_id: self.cluster_id,
            store_id: self.store.0,
            format: keys::FORMAT,
            data_id: self.data_id,
        };
        let mut batch = WriteBatch::default();
        keys::put_ident(&mut batch, &ident);
        Ok(engine.write_synced(batch)?)
    }
}

/// A number that no other folder or process start has: from the system's randomness, by way of the
/// keys that hash maps are seeded with.
pub(crate) fn draw() -> u64 {
    RandomState::new().build_hasher().finish().max(1)
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
