//! Where chunks are cut, and where a sender goes on.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use quorate_proto::wire::peer::{SnapshotChunk, SnapshotMeta};
use quorate_proto::{LogIndex, NodeId, PeerId, RegionId, Term};

use super::{Cutter, Mark, Marks, announce};
use crate::shard::MakeSnapshot;

/// Bytes of one of the records below as they travel.
const RECORD: u64 = 8 + 2 + 5;

fn records() -> Vec<(String, String)> {
    (0..10).map(|number| (format!("k{number}"), format!("val{number:02}"))).collect()
}

/// Cuts all records from chunk `sequence` on, as a sender would read them.
fn cut(marks: &mut Marks, sequence: u64, size: usize) -> Vec<SnapshotChunk> {
    let mut cutter = Cutter::new(marks, sequence, size).unwrap();
    let start = cutter.start();
    let mut chunks = Vec::new();
    for (key, value) in records().iter().filter(|(key, _)| key.as_bytes() >= &start[..]) {
        chunks.extend(cutter.put(key.as_bytes(), value.as_bytes()));
    }
    chunks.push(cutter.finish());
    chunks
}

#[test]
fn every_attempt_cuts_at_the_same_places() {
    let mut marks = Marks::new(Bytes::from_static(b"k"));
    let all = cut(&mut marks, 0, 3 * RECORD as usize);
    let bytes: Vec<u64> = all.iter().map(|chunk| chunk.data.len() as u64).collect();
    assert_eq!(bytes, [3 * RECORD, 3 * RECORD, 3 * RECORD, RECORD]);
    assert!(all[..3].iter().all(|chunk| !chunk.last && chunk.records == 0));
    assert!(all[3].last && all[3].records == 10);
    for from in 0..4 {
        assert_eq!(cut(&mut marks, from, 3 * RECORD as usize), all[from as usize..]);
    }
}

#[test]
fn a_record_may_end_the_last_chunk() {
    let mut marks = Marks::new(Bytes::from_static(b"k"));
    let all = cut(&mut marks, 0, 5 * RECORD as usize);
    assert_eq!(all.len(), 3);
    assert!(all[2].last && all[2].data.is_empty() && all[2].records == 10);
}

#[test]
fn what_was_never_read_is_not_gone_on_with() {
    let mut marks = Marks::new(Bytes::from_static(b"k"));
    let start = Bytes::from_static(b"k");
    assert_eq!(marks.at(0), Some(&Mark { start, records: 0, bytes: 0, digest: 0 }));
    assert!(Cutter::new(&mut marks, 1, 100).is_none());
    let mut cutter = Cutter::new(&mut marks, 0, 1).unwrap();
    assert!(cutter.put(b"k0", b"value").is_some());
    assert_eq!(cutter.bytes(), RECORD);
    // The connection breaks. The receiver may have the chunk, and nothing behind it.
    let start = Bytes::from_static(b"k0\0");
    let mark = marks.at(1).unwrap();
    assert_eq!((&mark.start, mark.records, mark.bytes), (&start, 1, RECORD));
    assert!(Cutter::new(&mut marks, 2, 100).is_none());
}

#[test]
fn no_two_transfers_have_the_same_name() {
    let make = MakeSnapshot {
        group: RegionId(7),
        from: PeerId(1),
        to: PeerId(9),
        node: NodeId(2),
        term: Term(6),
        at_least: LogIndex(5),
    };
    let named = |incarnation, number| {
        let meta = SnapshotMeta { index: 40, ..SnapshotMeta::default() };
        let message = announce(&make, incarnation, number, meta);
        assert_eq!((message.group, message.from_peer, message.to_peer, message.term), (7, 1, 9, 6));
        message.snapshot.unwrap().id
    };
    assert_eq!(named(0x2a, 1), "r7-p9-40-2a-1");
    assert_ne!(named(0x2a, 2), named(0x2a, 1));
    assert_ne!(named(0x2b, 1), named(0x2a, 1));
}
