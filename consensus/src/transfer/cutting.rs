//! The sender's chunks: the records of a picture, cut at the same places each time.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_proto::LogIndex;
use quorate_proto::wire::peer::{Envelope, SnapshotChunk, SnapshotMeta};
use raft::eraftpb::MessageType;

use super::fold;
use crate::shard::MakeSnapshot;

/// A record that ends a chunk goes beyond its size; so much is set aside for it.
const OVERHANG: usize = 4_096;

/// The message that goes ahead of the chunks and is handed to the receiver's group behind the last
/// one. Its transfer is named by group, receiver, index, incarnation and `number`, which the sender
/// counts up: `meta.id` is filled in here.
pub fn announce(
    make: &MakeSnapshot,
    incarnation: u64,
    number: u64,
    mut meta: SnapshotMeta,
) -> Envelope {
    let index = LogIndex(meta.index);
    meta.id = format!("{}-{}-{}-{incarnation:x}-{number}", make.group, make.to, index.0);
    Envelope {
        group: make.group.0,
        from_peer: make.from.0,
        to_peer: make.to.0,
        kind: MessageType::MsgSnapshot as u32,
        term: make.term.0,
        snapshot: Some(meta),
        ..Envelope::default()
    }
}

/// Where a chunk begins, and what lies before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// First key it may have.
    pub start: Bytes,
    /// Records before it.
    pub records: u64,
    /// Bytes of chunks before it.
    pub bytes: u64,
    /// Digest of the chunks before it.
    pub digest: u32,
}

/// Where every chunk of a transfer begins, as far as it was read: a receiver may ask for any of
/// them again. A few dozen bytes for each chunk.
#[derive(Debug)]
pub struct Marks(Vec<Mark>);

impl Marks {
    /// Nothing was read yet; the data begins at `start`.
    pub fn new(start: Bytes) -> Self {
        Self(vec![Mark { start, records: 0, bytes: 0, digest: 0 }])
    }

    /// Where chunk `sequence` begins; `None` where nobody has read so far.
    pub fn at(&self, sequence: u64) -> Option<&Mark> {
        self.0.get(usize::try_from(sequence).ok()?)
    }

    /// Chunk `sequence` was read; the next one begins at `next`.
    fn read(&mut self, sequence: u64, next: Mark) {
        let at = sequence as usize + 1;
        // Read again, it is the same: the picture does not change.
        if at == self.0.len() {
            self.0.push(next);
        }
    }
}

/// Cuts records, in the order of their keys, into chunks. See the module.
#[derive(Debug)]
pub struct Cutter<'a> {
    marks: &'a mut Marks,
    size: usize,
    sequence: u64,
    at: Mark,
    data: BytesMut,
    records: u64,
}

impl<'a> Cutter<'a> {
    /// Goes on at chunk `sequence`; a chunk ends with the record that makes it `size` bytes or
    /// more. `None` where nobody has read so far: the receiver wants what was never sent.
    pub fn new(marks: &'a mut Marks, sequence: u64, size: usize) -> Option<Self> {
        let at = marks.at(sequence)?.clone();
        let data = BytesMut::with_capacity(size + OVERHANG);
        let records = at.records;
        Some(Self { marks, size, sequence, at, data, records })
    }

    /// The first key to read.
    pub fn start(&self) -> Bytes {
        self.at.start.clone()
    }

    /// Bytes of all chunks cut so far, those of earlier attempts included.
    pub fn bytes(&self) -> u64 {
        self.at.bytes
    }

    /// The next record; returns the chunk that it ends.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Option<SnapshotChunk> {
        self.data.put_u32_le(key.len() as u32);
        self.data.put_u32_le(value.len() as u32);
        self.data.put_slice(key);
        self.data.put_slice(value);
        self.records += 1;
        if self.data.len() < self.size {
            return None;
        }
        let mut start = BytesMut::with_capacity(key.len() + 1);
        start.put_slice(key);
        start.put_u8(0);
        let (sequence, records) = (self.sequence, self.records);
        let data = self.data.split().freeze();
        let crc = crc32fast::hash(&data);
        let (bytes, digest) = (self.at.bytes + data.len() as u64, fold(self.at.digest, crc));
        self.at = Mark { start: start.freeze(), records, bytes, digest };
        self.marks.read(sequence, self.at.clone());
        self.sequence += 1;
        Some(SnapshotChunk { sequence, data, crc, ..SnapshotChunk::default() })
    }

    /// There are no more records: the last chunk, which may be empty.
    pub fn finish(self) -> SnapshotChunk {
        let (sequence, records) = (self.sequence, self.records);
        let data = self.data.freeze();
        let crc = crc32fast::hash(&data);
        let digest = fold(self.at.digest, crc);
        SnapshotChunk { header: None, sequence, data, crc, last: true, records, digest }
    }
}

#[cfg(test)]
#[path = "cutting_tests.rs"]
mod tests;
