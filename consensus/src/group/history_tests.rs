//! Entries as the engine has them, for whoever applies them beside their group.

use quorate_proto::LogIndex;
use raft::eraftpb::{Entry, EntryType};

use super::*;
use crate::engine::{Engine, MemoryEngine, WriteBatch};
use crate::group::forget_group;

const GROUP: RegionId = RegionId(7);

/// Entries 6 to 10 of two groups, of which one changes members.
fn written() -> MemoryEngine {
    let engine = MemoryEngine::new();
    let mut batch = WriteBatch::new();
    for group in [GROUP, RegionId(8)] {
        for index in 6..=10 {
            let mut entry = Entry { index, term: 5 + index / 8, ..Entry::default() };
            entry.data = Bytes::from(format!("{group} {index}"));
            if index == 9 {
                entry.set_entry_type(EntryType::EntryConfChangeV2);
                entry.context = Bytes::from("context");
            }
            records::put_entry(group, &entry, &mut batch);
        }
    }
    engine.write(batch).unwrap();
    engine
}

fn read(engine: &MemoryEngine, after: u64, to: u64, bytes: usize) -> Result<Vec<u64>, String> {
    let entries = durable_entries::<()>(engine, GROUP, LogIndex(after), LogIndex(to), bytes);
    let entries = entries.map_err(|error| error.to_string())?;
    Ok(entries.iter().map(|entry| entry.index.0).collect())
}

#[test]
fn entries_come_in_order_as_the_state_machine_gets_them() {
    let engine = written();
    assert_eq!(read(&engine, 5, 10, usize::MAX).unwrap(), [6, 7, 8, 9, 10]);
    assert_eq!(read(&engine, 7, 9, usize::MAX).unwrap(), [8, 9]);
    assert_eq!(read(&engine, 9, 9, usize::MAX).unwrap(), [0; 0]);
    let entries = durable_entries::<()>(&engine, GROUP, LogIndex(7), LogIndex(9), 1_000).unwrap();
    assert_eq!((entries[0].term, &entries[0].data[..]), (Term(6), &b"r7 8"[..]));
    assert_eq!(&entries[1].data[..], b"context", "of a change of members, what came with it");
}

#[test]
fn at_least_one_comes_at_a_time() {
    let engine = written();
    assert_eq!(read(&engine, 5, 10, 0).unwrap(), [6]);
    assert_eq!(read(&engine, 5, 10, 30).unwrap(), [6, 7]);
}

#[test]
fn what_is_missing_is_an_error() {
    let engine = written();
    assert!(read(&engine, 4, 10, 1_000).unwrap_err().contains("entry 5 is missing"));
    assert!(read(&engine, 10, 11, 1_000).unwrap_err().contains("entry 11 is missing"));
    let mut batch = WriteBatch::new();
    batch.delete(Cf::Raft, records::entry_key(GROUP, 8));
    batch.put(Cf::Raft, records::entry_key(GROUP, 10), "damaged");
    engine.write(batch).unwrap();
    assert!(read(&engine, 6, 10, 1_000).unwrap_err().contains("entry 8 is missing"));
    assert!(read(&engine, 8, 10, 1_000).unwrap_err().contains("damaged"));
}

#[test]
fn records_are_found_until_they_are_forgotten() {
    let engine = written();
    assert!(has_records(&engine, GROUP).unwrap());
    assert!(!has_records(&engine, RegionId(6)).unwrap());
    let mut batch = WriteBatch::new();
    forget_group(GROUP, &mut batch);
    engine.write(batch).unwrap();
    assert!(!has_records(&engine, GROUP).unwrap());
    assert!(has_records(&engine, RegionId(8)).unwrap());
}
