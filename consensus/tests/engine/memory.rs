//! Crashes and faults of the memory engine.

use proptest::prelude::*;
use quorate_consensus::engine::{
    Cf, Direction, Engine, EngineError, MemoryEngine, Reader, WriteBatch, WriteFault,
};

use crate::properties::{Change, changes, to_batch};
use crate::subject::collect;

fn put(key: &'static str, value: &'static str) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(Cf::Data, key, value);
    batch
}

fn data(engine: &dyn Reader) -> Vec<String> {
    let entries = collect(engine, Cf::Data, (b"", b""), Direction::Forward, usize::MAX);
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    entries.iter().map(|(key, value)| format!("{}={}", shown(key), shown(value))).collect()
}

#[test]
fn a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest() {
    for (kept, expected) in
        [(0, vec!["a=1"]), (1, vec!["a=2"]), (2, vec![]), (3, vec!["b=3"]), (9, vec!["b=3"])]
    {
        let engine = MemoryEngine::new();
        engine.write_synced(put("a", "1")).unwrap();
        engine.write(put("a", "2")).unwrap();
        let mut cleared = WriteBatch::new();
        cleared.delete_range(Cf::Data, "a", "z");
        engine.write(cleared).unwrap();
        engine.write(put("b", "3")).unwrap();
        assert_eq!(engine.unsynced(), 3);
        let restarted = engine.crash(|unsynced| {
            assert_eq!(unsynced, 3);
            kept
        });
        assert_eq!(data(&restarted), expected, "{kept} batches kept");
        assert_eq!(restarted.unsynced(), 0);
    }
}

#[test]
fn handles_and_snapshots_of_a_crashed_engine_are_closed() {
    let engine = MemoryEngine::new();
    let (handle, snapshot) = (engine.clone(), engine.snapshot());
    let mut stage = engine.stage("file").unwrap();
    stage.put(b"a", b"1").unwrap();
    let restarted = engine.crash(|_| 0);
    assert_eq!(handle.write(put("a", "1")), Err(EngineError::Closed));
    assert_eq!(handle.sync(), Err(EngineError::Closed));
    assert_eq!(handle.get(Cf::Data, b"a"), Err(EngineError::Closed));
    assert_eq!(snapshot.get(Cf::Data, b"a"), Err(EngineError::Closed));
    assert_eq!(stage.finish().unwrap_err(), EngineError::Closed);
    assert_eq!(restarted.staged().unwrap(), Vec::<String>::new());
    drop(snapshot);
    restarted.write_synced(put("a", "1")).unwrap();
}

#[test]
fn an_ingest_is_durable_with_everything_before_it() {
    let engine = MemoryEngine::new();
    let mut stage = engine.stage("file").unwrap();
    stage.put(b"b", b"new").unwrap();
    stage.finish().unwrap();
    engine.write(put("a", "1")).unwrap();
    engine.write(put("b", "old")).unwrap();
    engine.ingest("file", b"b", b"c").unwrap();
    engine.write(put("b", "unsynced")).unwrap();
    let restarted = engine.crash(|_| 0);
    assert_eq!(data(&restarted), ["a=1", "b=new"]);
    assert_eq!(restarted.staged().unwrap(), ["file"]);
}

#[test]
fn a_failed_sync_is_never_repeated() {
    let engine = MemoryEngine::new();
    engine.write(put("a", "1")).unwrap();
    engine.fail_next_sync();
    let error = engine.sync().unwrap_err();
    assert!(error.is_fatal());
    assert_eq!(engine.sync(), Err(error.clone()));
    assert_eq!(engine.write(put("b", "1")), Err(error.clone()));
    assert_eq!(engine.ingest("file", b"", b""), Err(error));
    assert_eq!(data(&engine), ["a=1"], "reads go on");
    assert_eq!(data(&engine.crash(|_| 0)), Vec::<String>::new());
}

#[test]
fn a_full_disk_poisons_the_engine_until_it_restarts() {
    let engine = MemoryEngine::new();
    engine.write_synced(put("a", "1")).unwrap();
    engine.fail_next_write(WriteFault::Full);
    let error = engine.write(put("b", "1")).unwrap_err();
    assert!(matches!(error, EngineError::Full { .. }), "{error}");
    assert_eq!(engine.write(put("b", "1")), Err(error));
    let restarted = engine.crash(|unsynced| unsynced);
    restarted.write(put("c", "1")).unwrap();
    assert_eq!(data(&restarted), ["a=1", "c=1"]);
}

#[test]
fn a_visitor_may_write() {
    let engine = MemoryEngine::new();
    for key in 0_u8..100 {
        let mut batch = WriteBatch::new();
        batch.put(Cf::Data, vec![key], vec![key]);
        engine.write(batch).unwrap();
    }
    let mut seen = 0;
    engine
        .scan(Cf::Data, b"", b"", Direction::Reverse, &mut |key, _| {
            seen += 1;
            let mut batch = WriteBatch::new();
            batch.delete_range(Cf::Data, vec![0], vec![99]);
            batch.put(Cf::Data, vec![key[0], 1], "more");
            engine.write(batch).unwrap();
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, 100, "a scan is of the moment it began");
    assert_eq!(engine.stats().snapshots, 0);
}

proptest! {
    #[test]
    fn a_crash_equals_a_replay(
        synced in prop::collection::vec(changes(), 0..6),
        unsynced in prop::collection::vec(changes(), 0..6),
        kept in 0_usize..7,
        snapshot_before in any::<bool>(),
    ) {
        let engine = MemoryEngine::new();
        let mut snapshots = Vec::new();
        let write = |engine: &MemoryEngine, batch: &Vec<Change>| engine.write(to_batch(batch)).unwrap();
        for batch in &synced {
            write(&engine, batch);
            if snapshot_before {
                snapshots.push(engine.snapshot());
            }
        }
        engine.sync().unwrap();
        for batch in &unsynced {
            write(&engine, batch);
            if snapshot_before {
                snapshots.push(engine.snapshot());
            }
        }
        // Batches without changes are no batches.
        let written: Vec<_> = unsynced.iter().filter(|batch| !to_batch(batch).is_empty()).collect();
        let restarted = engine.crash(|_| kept);
        let replayed = MemoryEngine::new();
        synced.iter().chain(written.into_iter().take(kept)).for_each(|batch| write(&replayed, batch));
        for cf in Cf::ALL {
            let all = |engine: &MemoryEngine| {
                collect(engine, cf, (b"", b""), Direction::Forward, usize::MAX)
            };
            prop_assert_eq!(all(&restarted), all(&replayed));
        }
    }
}
