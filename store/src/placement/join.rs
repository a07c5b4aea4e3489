//! Joining: the store tells placement that it is there, at its start and whenever the stream to
//! placement has to be opened anew. Joining twice is fine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_client::PlacementClient;
use quorate_consensus::engine::Engine;
use quorate_proto::Region;
use quorate_proto::wire::metapb::StoreLabel;
use quorate_proto::wire::placement::{JoinRequest, JoinResponse};

use super::{Patience, is_final};
use crate::addresses::AddressBook;
use crate::error::StoreError;
use crate::identity::Identity;

/// Pause between questions while placement waits for more stores.
const WAITING: Duration = Duration::from_millis(300);

/// What this store says when it joins.
#[derive(Clone)]
pub(crate) struct Joiner {
    /// `HOST:PORT` for clients and other stores.
    pub(crate) address: String,
    /// `HOST:PORT` of the status pages; may be empty.
    pub(crate) status_address: String,
    /// Where it stands.
    pub(crate) labels: Vec<(String, String)>,
    /// Drawn at the start of the process.
    pub(crate) incarnation: u64,
    /// The data folder, for messages.
    pub(crate) folder: PathBuf,
    /// The engine.
    pub(crate) engine: Arc<dyn Engine>,
    /// Where the other stores are.
    pub(crate) addresses: Arc<AddressBook>,
}

/// What placement said to a store of a bootstrapped cluster.
pub(crate) struct Joined {
    /// The regions that this store must have from the cluster's beginning.
    pub(crate) initial_regions: Vec<Region>,
}

impl Joiner {
    fn request(&self, identity: &Identity) -> JoinRequest {
        let label =
            |(key, value): &(String, String)| StoreLabel { key: key.clone(), value: value.clone() };
        JoinRequest {
            cluster_id: identity.cluster_id,
            store_id: identity.store.0,
            address: self.address.clone(),
            status_address: self.status_address.clone(),
            labels: self.labels.iter().map(label).collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            incarnation: self.incarnation,
            data_id: identity.data_id,
        }
    }

    /// Asks once and takes over what the answer says. `None`: placement could not be asked.
    ///
    /// # Errors
    /// Placement refuses this store, or the engine failed.
    pub(crate) async fn ask(
        &self,
        client: &PlacementClient,
        identity: &mut Identity,
        patience: &mut Patience,
    ) -> Result<Option<JoinResponse>, StoreError> {
        let answer = match client.join(self.request(identity)).await {
            Ok(answer) => answer,
            Err(error) if is_final(&error) => return Err(StoreError::Refused(error.to_string())),
            Err(error) => {
                patience.wait(&format!("cannot join yet: {error}")).await;
                return Ok(None);
            }
        };
        patience.reset();
        identity.confirm(&answer, &self.engine, &self.folder)?;
        self.addresses.learn(answer.stores.clone())?;
        Ok(Some(answer))
    }

    /// Joins, and waits until the cluster is bootstrapped. `waiting` is told how many stores are
    /// missing.
    ///
    /// # Errors
    /// Placement refuses this store, or the engine failed.
    pub(crate) async fn join(
        &self,
        client: &PlacementClient,
        identity: &mut Identity,
        waiting: impl Fn(u32),
    ) -> Result<Joined, StoreError> {
        let mut patience = Patience::new();
        let mut told = None;
        loop {
            let Some(answer) = self.ask(client, identity, &mut patience).await? else { continue };
            if answer.bootstrapped {
                let regions = answer.initial_regions.into_iter().map(Region::try_from);
                let initial_regions = regions.collect::<Result<_, _>>().map_err(|error| {
                    StoreError::Refused(format!("its first regions make no sense: {error}"))
                })?;
                return Ok(Joined { initial_regions });
            }
            if told != Some(answer.missing_stores) {
                tracing::info!(
                    store = %identity.store,
                    missing_stores = answer.missing_stores,
                    "joined; the cluster starts once the missing stores are there"
                );
                told = Some(answer.missing_stores);
            }
            waiting(answer.missing_stores);
            tokio::time::sleep(WAITING).await;
        }
    }
}
