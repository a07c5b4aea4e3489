//! What only a disk can do: damage, other processes, other versions.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_consensus::engine::{
    Cf, Direction, Engine, EngineError, Reader, RocksEngine, WriteBatch,
};
use tempfile::TempDir;

use crate::subject::small_options;

fn open(path: &Path) -> Result<RocksEngine, EngineError> {
    RocksEngine::open(path, &small_options())
}

fn entry(number: u32) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(Cf::Raft, number.to_be_bytes().to_vec(), vec![7; 200]);
    batch
}

fn has(engine: &RocksEngine, number: u32) -> bool {
    engine.get(Cf::Raft, &number.to_be_bytes()).unwrap().is_some()
}

/// What the disk holds at this moment, as another folder.
fn copy(from: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_into(from, folder.path());
    folder
}

fn copy_into(from: &Path, to: &Path) {
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_into(&item.path(), &target);
        } else {
            fs::copy(item.path(), target).unwrap();
        }
    }
}

/// The live write-ahead log.
fn log_file(path: &Path) -> PathBuf {
    let files = fs::read_dir(path.join("db")).unwrap().map(|item| item.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|name| name == "log")).max().unwrap()
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

fn truncate(path: &Path, length: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

fn flip(path: &Path, at: u64) {
    let byte = fs::read(path).unwrap()[at as usize];
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte ^ 0x10]).unwrap();
}

/// Unsynced writes wait in the process's memory (docs/adr/0007): the next sync takes them along.
#[test]
fn a_killed_process_loses_nothing_that_a_sync_came_after() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path()).unwrap();
    engine.write(entry(1)).unwrap();
    engine.write_synced(entry(2)).unwrap();
    engine.write(entry(3)).unwrap();
    let killed = copy(folder.path());
    let restarted = open(killed.path()).unwrap();
    assert!(has(&restarted, 1) && has(&restarted, 2) && !has(&restarted, 3));
}

#[test]
fn a_power_failure_may_take_what_was_not_synced() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path()).unwrap();
    engine.write_synced(entry(1)).unwrap();
    let synced = length(&log_file(folder.path()));
    engine.write(entry(2)).unwrap();
    engine.write(entry(3)).unwrap();
    for kept in [synced, synced + 20] {
        let failed = copy(folder.path());
        truncate(&log_file(failed.path()), kept);
        let restarted = open(failed.path()).unwrap();
        assert!(has(&restarted, 1) && !has(&restarted, 2) && !has(&restarted, 3));
        restarted.write_synced(entry(4)).unwrap();
        drop(restarted);
        assert!(has(&open(failed.path()).unwrap(), 4));
    }
}

#[test]
fn synced_entries_that_vanish_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path()).unwrap();
    for number in 1..=3 {
        engine.write(entry(number)).unwrap();
        engine.sync().unwrap();
    }
    let synced = length(&log_file(folder.path()));
    type Damage = fn(&Path, u64);
    let damages: [Damage; 3] = [
        |log, synced| truncate(log, synced - 1),
        |log, synced| flip(log, synced / 2),
        |log, _| flip(log, 10),
    ];
    for damage in damages {
        let damaged = copy(folder.path());
        damage(&log_file(damaged.path()), synced);
        for _ in 0..2 {
            // The refusal must not have repaired anything.
            let error = open(damaged.path()).err().expect("entries are gone");
            assert!(matches!(error, EngineError::LostWrites { synced: 3, .. }), "{error}");
            assert!(error.to_string().contains("quorate store replace"), "{error}");
        }
    }
}

/// Sequence numbers alone would not tell: the flush and the ingest record later ones elsewhere.
#[test]
fn a_flush_and_an_ingest_do_not_hide_the_loss() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path()).unwrap();
    engine.write_synced(entry(1)).unwrap();
    engine.flush().unwrap();
    engine.write_synced(entry(2)).unwrap();
    let before = length(&log_file(folder.path()));
    engine.write_synced(entry(3)).unwrap();
    let mut stage = engine.stage("file").unwrap();
    stage.put(b"a", b"1").unwrap();
    stage.finish().unwrap();
    engine.ingest("file", b"a", b"b").unwrap();
    let damaged = copy(folder.path());
    flip(&log_file(damaged.path()), before + 12);
    let error = open(damaged.path()).err().expect("entry 3 is gone");
    assert!(matches!(error, EngineError::LostWrites { .. }), "{error}");
}

/// A recycled log ends in records of its former life, which recovery must neither replay nor take
/// for damage.
#[test]
fn recycled_logs_recover_to_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path()).unwrap();
    let mut number = 0;
    for round in 0..12 {
        for _ in 0..40 {
            let mut batch = WriteBatch::new();
            for _ in 0..100 {
                batch.append(entry(number));
                number += 1;
            }
            engine.write(batch).unwrap();
        }
        engine.write_synced(entry(number)).unwrap();
        number += 1;
        if round % 3 == 2 {
            let killed = copy(folder.path());
            let restarted = open(killed.path()).unwrap();
            assert!((0..number).step_by(37).all(|number| has(&restarted, number)), "{round}");
            assert!(has(&restarted, number - 1));
        }
    }
    let report = fs::read_to_string(folder.path().join("db/LOG")).unwrap();
    let hint = "memtable_insert_with_hint_prefix_extractor: rocksdb.FixedPrefix";
    assert!(report.contains(hint), "RocksDB did not take the hint for the log");
    assert!(report.contains("from recycle list"), "the test is too short to recycle a log");
    let damaged = copy(folder.path());
    flip(&log_file(damaged.path()), 100);
    let error = open(damaged.path()).err().expect("the last log is damaged");
    assert!(
        matches!(error, EngineError::LostWrites { .. } | EngineError::Corrupt { .. }),
        "{error}"
    );
}

#[test]
fn a_damaged_or_missing_sync_number_is_no_alarm() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path()).unwrap();
    engine.write_synced(entry(1)).unwrap();
    let damaged = copy(folder.path());
    flip(&damaged.path().join("SYNCED"), 6);
    assert!(has(&open(damaged.path()).unwrap(), 1));
    fs::remove_file(damaged.path().join("SYNCED")).unwrap();
    assert!(has(&open(damaged.path()).unwrap(), 1));
    // It is written again, and checked again.
    let engine = open(damaged.path()).unwrap();
    engine.write_synced(entry(2)).unwrap();
    let again = copy(damaged.path());
    let log = log_file(again.path());
    truncate(&log, length(&log) - 1);
    assert!(matches!(open(again.path()).err(), Some(EngineError::LostWrites { .. })));
}

#[test]
fn damage_in_a_sorted_file_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path()).unwrap();
    engine.write_synced(entry(1)).unwrap();
    engine.flush().unwrap();
    drop(engine);
    let files = fs::read_dir(folder.path().join("db")).unwrap().map(|item| item.unwrap().path());
    for file in files.filter(|path| path.extension().is_some_and(|name| name == "sst")) {
        flip(&file, 4);
    }
    let error = match open(folder.path()) {
        Err(error) => error,
        Ok(engine) => engine.get(Cf::Raft, &1_u32.to_be_bytes()).unwrap_err(),
    };
    assert!(matches!(error, EngineError::Corrupt { .. }), "{error}");
}

#[test]
fn a_damaged_staged_file_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path()).unwrap();
    let mut stage = engine.stage("file").unwrap();
    stage.put(b"a", b"1").unwrap();
    stage.finish().unwrap();
    let file = folder.path().join("staged/file.0.seg");
    truncate(&file, length(&file) - 1);
    let error = engine.ingest("file", b"a", b"b").unwrap_err();
    assert!(matches!(error, EngineError::BadStaged { .. }), "{error}");
    assert!(!error.is_fatal());
    engine.write_synced(entry(1)).unwrap();
}

#[test]
fn one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path()).unwrap();
    let error = open(folder.path()).err().expect("the folder is in use");
    assert!(matches!(error, EngineError::Locked { .. }), "{error}");
    // A snapshot keeps the engine alive, and with it the lock.
    let snapshot = engine.snapshot();
    drop(engine);
    assert!(open(folder.path()).is_err());
    drop(snapshot);
    open(folder.path()).unwrap();
}

#[test]
fn other_formats_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let format = folder.path().join("FORMAT");
    assert_eq!(fs::read_to_string(&format).unwrap(), "1\n");
    fs::write(&format, "2\n").unwrap();
    let error = open(folder.path()).err().expect("a newer format");
    assert!(matches!(error, EngineError::Newer { found: 2, supported: 1, .. }), "{error}");
    fs::write(&format, "?").unwrap();
    assert!(matches!(open(folder.path()).err(), Some(EngineError::Corrupt { .. })));
    fs::remove_file(&format).unwrap();
    assert!(matches!(open(folder.path()).err(), Some(EngineError::Corrupt { .. })));
    fs::write(&format, "1\n").unwrap();
    open(folder.path()).unwrap();
}

#[test]
fn unfinished_staged_files_are_removed_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path()).unwrap();
    let mut stage = engine.stage("half").unwrap();
    stage.put(b"a", b"1").unwrap();
    let killed = copy(folder.path());
    assert!(killed.path().join("staged/half.0.seg").exists());
    let restarted = open(killed.path()).unwrap();
    assert!(!killed.path().join("staged/half.0.seg").exists());
    assert_eq!(restarted.staged().unwrap(), Vec::<String>::new());
}

#[test]
fn concurrent_syncs_cover_their_writers() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Arc::new(open(folder.path()).unwrap());
    std::thread::scope(|scope| {
        for writer in 0..4_u32 {
            let engine = Arc::clone(&engine);
            scope.spawn(move || {
                for number in 0..50 {
                    let entry = entry(writer * 1000 + number);
                    if writer % 2 == 0 {
                        engine.write(entry).unwrap();
                        engine.sync().unwrap();
                    } else {
                        engine.write_synced(entry).unwrap();
                    }
                }
            });
        }
    });
    assert!(engine.stats().syncs <= 200);
    let failed = copy(folder.path());
    let restarted = open(failed.path()).unwrap();
    for writer in 0..4 {
        assert!((0..50).all(|number| has(&restarted, writer * 1000 + number)));
    }
}

#[test]
fn a_damaged_staged_file_is_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path()).unwrap();
    let mut stage = engine.stage("one").unwrap();
    stage.put(b"a", &[7; 1000]).unwrap();
    stage.checkpoint(b"first").unwrap();
    stage.put(b"b", &[7; 1000]).unwrap();
    stage.checkpoint(b"second").unwrap();
    drop((stage, engine));
    let files = |path: &Path, ending: &str| -> Vec<PathBuf> {
        let files = fs::read_dir(path.join("staged")).unwrap().map(|item| item.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|name| name == ending)).collect()
    };
    assert_eq!(files(folder.path(), "seg").len(), 2);
    for ending in ["seg", "open"] {
        let damaged = copy(folder.path());
        let file = files(damaged.path(), ending).pop().unwrap();
        flip(&file, length(&file) / 2);
        let engine = open(damaged.path()).unwrap();
        assert!(engine.resume_stage("one").unwrap().is_none(), "{ending}");
        assert!(engine.unfinished().unwrap().is_empty());
        assert!(files(damaged.path(), "seg").is_empty(), "nothing is left of it");
    }
    // Finished by one process and damaged before another ingests it.
    let engine = open(folder.path()).unwrap();
    let (stage, note) = engine.resume_stage("one").unwrap().unwrap();
    assert_eq!(&note[..], b"second");
    stage.finish().unwrap();
    drop(engine);
    let file = files(folder.path(), "seg").pop().unwrap();
    flip(&file, length(&file) / 2);
    let engine = open(folder.path()).unwrap();
    let error = engine.ingest("one", b"", b"").unwrap_err();
    assert!(matches!(error, EngineError::BadStaged { .. }), "{error}");
}

#[test]
fn a_brief_look_does_not_ask_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path()).unwrap();
    let mut batch = WriteBatch::new();
    for key in ["a", "b", "c"] {
        batch.put(Cf::Data, key, vec![7; 10_000]);
    }
    engine.write(batch).unwrap();
    let value = |found: Option<bytes::Bytes>| found.map(|value| value.len());
    let briefly = |key: &str| engine.get_briefly(Cf::Data, key.as_bytes()).map(value);
    assert_eq!(briefly("a"), Ok(Some(10_000)), "in a memtable");
    engine.flush().unwrap();
    assert_eq!(briefly("a"), Err(EngineError::Incomplete));
    assert_eq!(briefly("a"), Err(EngineError::Incomplete), "it brings nothing in");
    assert_eq!(briefly("bb"), Err(EngineError::Incomplete), "the last level has no filters");
    let both: [&[u8]; 2] = [b"a", b"b"];
    assert_eq!(engine.multi_get_briefly(Cf::Data, &both).err(), Some(EngineError::Incomplete));
    let mut seen = 0;
    let mut visit = |_: &[u8], _: &[u8]| {
        seen += 1;
        std::ops::ControlFlow::Continue(())
    };
    let scanned = engine.scan_briefly(Cf::Data, b"a", b"c", Direction::Forward, &mut visit);
    assert_eq!((scanned, seen), (Err(EngineError::Incomplete), 0));

    assert_eq!(engine.get(Cf::Data, b"a").map(value), Ok(Some(10_000)));
    assert_eq!(briefly("a"), Ok(Some(10_000)), "in the cache");
    assert_eq!(briefly("b"), Err(EngineError::Incomplete), "in another block");
    engine.multi_get(Cf::Data, &both).unwrap();
    assert_eq!(engine.multi_get_briefly(Cf::Data, &both).unwrap().len(), 2);
}
