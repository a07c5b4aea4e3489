//! What becomes of the chunks of one transfer.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use quorate_proto::wire::peer::SnapshotChunk;
use quorate_proto::{NodeId, PeerId, RegionId};

use super::{Staging, Taken};
use crate::engine::{Cf, Engine, MemoryEngine, Reader};
use crate::transfer::{Arrival, Cutter, Ended, Marks, Position};

fn arrival() -> Arrival {
    Arrival {
        id: "r1-p9-40-1-1".to_owned(),
        group: RegionId(1),
        to: PeerId(9),
        from: NodeId(1),
        total_bytes: 100,
    }
}

/// Six records in chunks of one each; the last chunk is empty.
fn chunks() -> Vec<SnapshotChunk> {
    let mut marks = Marks::new(Bytes::new());
    let mut cutter = Cutter::new(&mut marks, 0, 1).unwrap();
    let key = |number| format!("k{number}");
    let mut chunks: Vec<_> =
        (0..6).filter_map(|number| cutter.put(key(number).as_bytes(), b"value")).collect();
    chunks.push(cutter.finish());
    chunks
}

/// A checkpoint after every second of those chunks.
fn open(engine: &MemoryEngine, expected: Position) -> Staging {
    Staging::open(engine, arrival(), expected, 30).unwrap()
}

fn take(staging: &mut Staging, chunks: &[SnapshotChunk]) {
    for chunk in chunks {
        assert_eq!(staging.take(chunk.clone()), Ok(Taken::More));
    }
}

fn next(expected: u64) -> Position {
    Position { next: expected, ..Position::default() }
}

#[test]
fn a_snapshot_is_complete_with_its_last_chunk() {
    let (engine, chunks) = (MemoryEngine::new(), chunks());
    let mut staging = open(&engine, Position::default());
    take(&mut staging, &chunks[..6]);
    assert_eq!(staging.take(chunks[6].clone()), Ok(Taken::Last));
    assert_eq!(staging.position().records, 6);
    assert_eq!(staging.finish(&engine), Ended::Finished);
    engine.ingest(&arrival().id, b"", b"").unwrap();
    assert_eq!(engine.get(Cf::Data, b"k5").unwrap().unwrap(), "value");
}

#[test]
fn what_was_not_durable_is_asked_for_again() {
    let (engine, chunks) = (MemoryEngine::new(), chunks());
    let mut staging = open(&engine, Position::default());
    take(&mut staging, &chunks[..5]);
    assert_eq!(staging.position().next, 5);
    // The process dies: one chunk came behind the last checkpoint.
    drop(staging);
    let engine = engine.crash(|unsynced| unsynced);
    let mut staging = open(&engine, next(5));
    assert_eq!(staging.position().next, 4);
    take(&mut staging, &chunks[4..6]);
    // It breaks off: all that came is kept.
    let (durable, ended) = staging.keep("cut".to_owned());
    assert_eq!((durable.next, ended), (6, Ended::Broken("cut".to_owned())));
    let mut staging = open(&engine, durable);
    assert_eq!(staging.position(), durable);
    assert_eq!(staging.take(chunks[6].clone()), Ok(Taken::Last));
    assert_eq!(staging.finish(&engine), Ended::Finished);
}

#[test]
fn who_is_to_begin_anew_keeps_nothing() {
    let (engine, chunks) = (MemoryEngine::new(), chunks());
    let mut staging = open(&engine, Position::default());
    take(&mut staging, &chunks[..4]);
    drop(staging);
    assert_eq!(open(&engine, Position::default()).position(), Position::default());
    assert_eq!(open(&engine, next(4)).position(), Position::default(), "and it is gone");
}

#[test]
fn a_damaged_chunk_is_sent_again() {
    let (engine, chunks) = (MemoryEngine::new(), chunks());
    let mut staging = open(&engine, Position::default());
    take(&mut staging, &chunks[..1]);
    let broken = |chunk| Err(Ended::Broken(format!("chunk {chunk} is damaged or out of order")));
    let damaged = SnapshotChunk { data: Bytes::from_static(b"other"), ..chunks[1].clone() };
    assert_eq!(staging.take(damaged), broken(1));
    assert_eq!(staging.take(chunks[2].clone()), broken(1), "not before the one that is missing");
    assert_eq!(staging.take(chunks[0].clone()), broken(1), "and none twice");
    take(&mut staging, &chunks[1..6]);
    assert_eq!(staging.take(chunks[6].clone()), Ok(Taken::Last));
}

#[test]
fn what_is_not_what_was_sent_is_refused_as_a_whole() {
    let (engine, chunks) = (MemoryEngine::new(), chunks());
    let mut staging = open(&engine, Position::default());
    let other =
        Bytes::from_static(&[2, 0, 0, 0, 5, 0, 0, 0, b'k', b'0', b'o', b't', b'h', b'e', b'r']);
    let crc = crc32fast::hash(&other);
    take(&mut staging, &[SnapshotChunk { data: other, crc, ..chunks[0].clone() }]);
    take(&mut staging, &chunks[1..6]);
    let words = "what came is not what was sent: 6 records of 6";
    assert_eq!(staging.take(chunks[6].clone()), Err(Ended::Failed(words.to_owned())));
    let cut_off = SnapshotChunk {
        data: Bytes::from_static(b"abc"),
        crc: crc32fast::hash(b"abc"),
        ..SnapshotChunk::default()
    };
    let ended = open(&engine, Position::default()).take(cut_off);
    assert_eq!(ended, Err(Ended::Failed("a record is cut off".to_owned())));
}
