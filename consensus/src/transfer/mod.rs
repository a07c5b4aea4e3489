//! Snapshots on their way, as plain values: who may send and receive now, how fast, and where a
//! broken transfer goes on.
//!
//! The sender keeps a [`SendQueue`]: one job for each snapshot that Raft wants sent, in the order
//! in which they were asked for. A job whose receiver has no place, or whose connection broke,
//! waits without losing its turn. The receiver keeps a [`ReceiveDesk`]: which transfers are under
//! way, which have chunks staged, and who was refused first. Both pace their bytes with a
//! [`TokenBucket`].
//!
//! A transfer is named by its id, which no other transfer ever has. All its attempts send the same
//! chunks, read from the same picture of the engine; a sender that was started again, or a new
//! leader, has another picture and begins another transfer.
//!
//! Absent on purpose: priorities (placement limits what it orders), and chunks from several
//! senders in one transfer.

mod bucket;
mod options;
mod receiving;
mod sending;

pub(crate) use bucket::TokenBucket;
pub use options::SnapshotOptions;
pub(crate) use receiving::{Answer, Arrival, Position, ReceiveDesk};
pub(crate) use sending::{Broken, Mark, Marks, SendQueue, Ticket};

use bytes::{Buf, Bytes};

/// Folds a chunk's checksum into the digest of all chunks.
pub(crate) fn fold(digest: u32, crc: u32) -> u32 {
    let mut pair = [0; 8];
    pair[..4].copy_from_slice(&digest.to_le_bytes());
    pair[4..].copy_from_slice(&crc.to_le_bytes());
    crc32fast::hash(&pair)
}

/// Takes the next record off a chunk; `None` where it is cut off.
pub(crate) fn take_record(data: &mut Bytes) -> Option<(Bytes, Bytes)> {
    if data.len() < 8 {
        return None;
    }
    let (key, value) = (data.get_u32_le() as usize, data.get_u32_le() as usize);
    if data.len() < key.checked_add(value)? {
        return None;
    }
    Some((data.split_to(key), data.split_to(value)))
}
