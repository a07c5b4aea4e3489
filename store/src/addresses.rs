//! Where the other stores and the members of placement are: told by placement, kept in the engine,
//! so that a store that starts while placement is away finds the others, and one that starts after
//! all members it was told of have been replaced finds placement.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use prost::Message;
use quorate_consensus::engine::{Cf, Engine, EngineError, WriteBatch};
use quorate_consensus::node::Addresses;
use quorate_proto::NodeId;
use quorate_proto::wire::{metapb, pdpb};

/// Where the list lies in [`Cf::Meta`]: a letter of its own beside those of the cores' `keys`.
const STORES: &[u8] = b"s";
/// Where the members of placement lie.
const PLACEMENT: &[u8] = b"p";

/// The stores of the cluster by id.
pub(crate) struct AddressBook {
    engine: Arc<dyn Engine>,
    stores: RwLock<BTreeMap<NodeId, metapb::Store>>,
    placement: RwLock<Vec<String>>,
}

impl AddressBook {
    /// The book as it was last written. One that cannot be parsed counts as empty: placement
    /// sends it again.
    ///
    /// # Errors
    /// The engine cannot be read.
    pub(crate) fn open(engine: Arc<dyn Engine>) -> Result<Arc<Self>, EngineError> {
        let stored = match engine.get(Cf::Meta, STORES)? {
            Some(bytes) => pdpb::GetAllStoresResponse::decode(bytes).unwrap_or_else(|error| {
                tracing::warn!(%error, "the list of stores cannot be read; waiting for placement's");
                pdpb::GetAllStoresResponse::default()
            }),
            None => pdpb::GetAllStoresResponse::default(),
        };
        let members = match engine.get(Cf::Meta, PLACEMENT)? {
            Some(bytes) => pdpb::GetMembersResponse::decode(bytes).unwrap_or_else(|error| {
                tracing::warn!(%error, "the list of placement members cannot be read");
                pdpb::GetMembersResponse::default()
            }),
            None => pdpb::GetMembersResponse::default(),
        };
        let placement = members.members.into_iter().flat_map(|member| member.client_urls);
        Ok(Arc::new(Self {
            engine,
            stores: RwLock::new(by_id(stored.stores)),
            placement: RwLock::new(placement.collect()),
        }))
    }

    /// The members of placement as they were last named: `HOST:PORT` each.
    pub(crate) fn placement(&self) -> Vec<String> {
        self.placement.read().clone()
    }

    /// Takes over who the members of placement are, and keeps it. Blocks on the engine where
    /// something is new.
    ///
    /// # Errors
    /// The engine cannot be written: the process must stop.
    pub(crate) fn learn_placement(&self, members: Vec<String>) -> Result<(), EngineError> {
        if members.is_empty() || *self.placement.read() == members {
            return Ok(());
        }
        let member = |url: &String| pdpb::Member {
            client_urls: vec![url.clone()],
            ..pdpb::Member::default()
        };
        let list = pdpb::GetMembersResponse {
            members: members.iter().map(member).collect(),
            ..pdpb::GetMembersResponse::default()
        };
        tracing::info!(members = members.join(","), "keeps the placement members");
        *self.placement.write() = members;
        let mut batch = WriteBatch::default();
        batch.put(Cf::Meta, PLACEMENT, list.encode_to_vec());
        // Unsynced: losing it costs another answer.
        self.engine.write(batch)
    }

    /// Takes over what placement says, and keeps it. Blocks on the engine where something is new.
    ///
    /// # Errors
    /// The engine cannot be written: the process must stop.
    pub(crate) fn learn(&self, stores: Vec<metapb::Store>) -> Result<(), EngineError> {
        let stores = by_id(stores);
        if stores.is_empty() || *self.stores.read() == stores {
            return Ok(());
        }
        let list = pdpb::GetAllStoresResponse {
            stores: stores.values().cloned().collect(),
            ..Default::default()
        };
        *self.stores.write() = stores;
        let mut batch = WriteBatch::default();
        batch.put(Cf::Meta, STORES, list.encode_to_vec());
        // Unsynced: losing it costs an answer of placement.
        self.engine.write(batch)
    }
}

impl Addresses for AddressBook {
    fn address(&self, node: NodeId) -> Option<String> {
        let stores = self.stores.read();
        let store = stores.get(&node)?;
        let own = if store.peer_address.is_empty() { &store.address } else { &store.peer_address };
        (!own.is_empty()).then(|| own.clone())
    }
}

fn by_id(stores: Vec<metapb::Store>) -> BTreeMap<NodeId, metapb::Store> {
    stores.into_iter().map(|store| (NodeId(store.id), store)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use quorate_consensus::engine::MemoryEngine;

    use super::*;

    fn store(id: u64, address: &str, peer_address: &str) -> metapb::Store {
        metapb::Store {
            id,
            address: address.to_owned(),
            peer_address: peer_address.to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn addresses_survive_a_restart_and_an_empty_answer() {
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
        let book = AddressBook::open(Arc::clone(&engine)).unwrap();
        assert_eq!(book.address(NodeId(1)), None);
        book.learn(vec![store(1, "a:1", ""), store(2, "b:1", "b:2")]).unwrap();
        book.learn(Vec::new()).unwrap();

        let book = AddressBook::open(engine).unwrap();
        assert_eq!(book.address(NodeId(1)).as_deref(), Some("a:1"));
        assert_eq!(book.address(NodeId(2)).as_deref(), Some("b:2"), "peers have their own");
        book.learn(vec![store(1, "a:9", "")]).unwrap();
        assert_eq!(book.address(NodeId(1)).as_deref(), Some("a:9"));
        assert_eq!(book.address(NodeId(2)), None, "it has left");
    }

    #[test]
    fn the_members_of_placement_survive_a_restart() {
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
        let book = AddressBook::open(Arc::clone(&engine)).unwrap();
        assert_eq!(book.placement(), [""; 0]);
        book.learn_placement(vec!["a:1".to_owned(), "b:1".to_owned()]).unwrap();
        book.learn_placement(Vec::new()).unwrap();
        book.learn(vec![store(1, "c:1", "")]).unwrap();

        let book = AddressBook::open(Arc::clone(&engine)).unwrap();
        assert_eq!(book.placement(), ["a:1", "b:1"]);
        assert_eq!(book.address(NodeId(1)).as_deref(), Some("c:1"));
        book.learn_placement(vec!["b:1".to_owned()]).unwrap();
        assert_eq!(AddressBook::open(engine).unwrap().placement(), ["b:1"], "one has left");
    }
}
