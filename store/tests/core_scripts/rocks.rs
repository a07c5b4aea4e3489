//! The same on RocksDB: what the other scripts show on the memory engine, once around.

use std::sync::Arc;

use quorate_consensus::engine::{Cf, Engine, RocksEngine, RocksOptions, WriteBatch};
use quorate_consensus::shard::{ApplyTask, Committed, Install};
use quorate_proto::{LogIndex, RegionId, Term};
use quorate_store::core::command::{self, delete_range, put_all};
use quorate_store::core::{Answer, Applier};

use super::world::{STORE, child, dump, region, stage, stamp};

fn open(folder: &std::path::Path) -> (Arc<dyn Engine>, Applier) {
    let engine: Arc<dyn Engine> =
        Arc::new(RocksEngine::open(folder, &RocksOptions::default()).unwrap());
    let (applier, _) = Applier::recover(Arc::clone(&engine), STORE).unwrap();
    (engine, applier)
}

fn keys(engine: &dyn Engine) -> Vec<Vec<u8>> {
    dump(engine, Cf::Data).into_keys().collect()
}

#[test]
fn write_split_delete_send_install_and_start_again() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (engine, mut sender) = open(from.path());
    sender.bootstrap(vec![region(1, "", "")]).unwrap();
    let first = stamp(&region(1, "", ""), 1);
    let all: Vec<(String, &str)> = (0..3_000).map(|n| (format!("k{n:04}"), "v")).collect();
    let data = [
        put_all(first, &all).unwrap(),
        put_all(first, &[(vec![0xff; 4096], "the highest key")]).unwrap(),
        command::split(first, vec![child(2, "k1000")]).unwrap(),
        delete_range(command::Stamp { version: 2, ..first }, b"k2000", b"k2990").unwrap(),
        delete_range(command::Stamp { version: 2, ..first }, b"k1010", b"k2000").unwrap(),
    ];
    let entries = (6..).zip(data).map(|(index, data)| Committed {
        index: LogIndex(index),
        term: Term(6),
        data,
        changes_members: false,
        tokens: vec![index],
    });
    let task = ApplyTask { group: RegionId(1), entries: entries.collect() };
    let mut answers = Vec::new();
    sender.apply(vec![task], &mut answers).unwrap();
    assert!(answers.iter().all(|answered| answered.answer == Answer::Done), "{answers:?}");
    assert_eq!(keys(engine.as_ref()).len(), 1_000 + 10 + 10 + 1);
    let meta = dump(engine.as_ref(), Cf::Meta);

    // The receiver has the region as it was before, and keys that are gone since.
    let (receiving, mut receiver) = open(to.path());
    receiver.bootstrap(vec![region(1, "", "")]).unwrap();
    let stale = Committed {
        index: LogIndex(6),
        term: Term(6),
        data: put_all(first, &[("a", "old"), ("k1500", "old"), ("zz", "old")]).unwrap(),
        changes_members: false,
        tokens: vec![1],
    };
    let task = ApplyTask { group: RegionId(1), entries: vec![stale] };
    receiver.apply(vec![task], &mut answers).unwrap();
    let source = sender.snapshot(RegionId(1)).unwrap().unwrap();
    let mut pairs = dump(source.reader.as_ref(), Cf::Data);
    pairs.retain(|key, _| key[..] >= source.start[..]);
    stage(receiving.as_ref(), "s", &pairs);
    let members = receiver.install(Install {
        group: RegionId(1),
        id: "s".to_owned(),
        index: source.index,
        term: source.term,
        state: source.state.clone(),
        batch: WriteBatch::new(),
    });
    assert_eq!(members.unwrap().members, source.members);
    assert_eq!(keys(receiving.as_ref()), pairs.keys().cloned().collect::<Vec<_>>());
    drop((source, receiver, receiving));
    let (receiving, receiver) = open(to.path());
    assert_eq!(keys(receiving.as_ref()).len(), 21);
    let again = receiver.snapshot(RegionId(1)).unwrap().unwrap();
    assert_eq!((again.index, &again.start[..]), (LogIndex(10), &b"k1000"[..]));

    // A region without an end is removed up to the highest key there can be.
    drop((sender, engine));
    let (engine, mut sender) = open(from.path());
    assert_eq!(dump(engine.as_ref(), Cf::Meta), meta);
    sender.destroy(RegionId(1)).unwrap();
    let left = keys(engine.as_ref());
    assert_eq!(left.len(), 1_000);
    assert!(left.iter().all(|key| key[..] < b"k1000"[..]));
}
