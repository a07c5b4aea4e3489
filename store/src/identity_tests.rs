//! Whose folder it is: kept, confirmed, refused.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use quorate_consensus::engine::{Engine, MemoryEngine, WriteBatch};
use quorate_proto::StoreId;
use quorate_proto::wire::command::StoreIdent;
use quorate_proto::wire::placement::JoinResponse;

use super::Identity;
use crate::core::{Applier, keys};
use crate::testing::{HERE, LEFT, region};

fn answer(cluster_id: u64, store_id: u64) -> JoinResponse {
    JoinResponse { cluster_id, store_id, ..Default::default() }
}

fn open(engine: &Arc<dyn Engine>) -> Result<Identity, String> {
    Identity::open(engine, Path::new("data/s1")).map_err(|error| error.to_string())
}

#[test]
fn an_identity_is_drawn_once_and_given_once() {
    let memory = MemoryEngine::new();
    let engine: Arc<dyn Engine> = Arc::new(memory.clone());
    let folder = Path::new("data/s1");
    let mut fresh = open(&engine).unwrap();
    assert_eq!((fresh.cluster_id, fresh.store), (0, StoreId(0)));
    assert_eq!(memory.unsynced(), 0, "a join whose answer is lost can be repeated");
    assert_eq!(open(&engine).unwrap(), fresh, "the folder keeps its data id");

    fresh.confirm(&answer(7, 1), &engine, folder).unwrap();
    assert_eq!(memory.unsynced(), 0);
    let mut known = open(&engine).unwrap();
    assert_eq!((known.cluster_id, known.store, known.data_id), (7, HERE, fresh.data_id));
    known.confirm(&answer(7, 1), &engine, folder).unwrap();

    let other_cluster = known.confirm(&answer(8, 1), &engine, folder).unwrap_err().to_string();
    assert!(other_cluster.contains("data/s1 belongs to cluster 7"), "{other_cluster}");
    let other_store = known.confirm(&answer(7, 2), &engine, folder).unwrap_err().to_string();
    assert!(other_store.contains("is that of s1, placement calls this store s2"), "{other_store}");
    assert!(known.confirm(&answer(0, 0), &engine, folder).is_err());
    assert_eq!(open(&engine).unwrap(), known, "a refusal changes nothing");
}

#[test]
fn a_newer_or_a_headless_folder_is_refused() {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let ident = StoreIdent { cluster_id: 7, store_id: 1, format: 9, data_id: 3 };
    let mut batch = WriteBatch::new();
    keys::put_ident(&mut batch, &ident);
    engine.write(batch).unwrap();
    let newer = open(&engine).unwrap_err();
    assert!(newer.contains("data/s1 has format 9, this version reads up to 1"), "{newer}");

    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let (mut applier, _) = Applier::recover(Arc::clone(&engine), HERE).unwrap();
    applier.bootstrap(vec![region(LEFT, "", "")]).unwrap();
    let headless = open(&engine).unwrap_err();
    assert!(headless.contains("does not say of which store"), "{headless}");
}
