//! Snapshots on their way, as plain values: who may send and receive now, how fast, and where a
//! broken transfer goes on.
//!
//! The sender keeps a [`SendQueue`]: one job for each snapshot that Raft wants sent, in the order
//! in which they were asked for. A job whose receiver has no place, or whose connection broke,
//! waits without losing its turn. A [`Cutter`] cuts what it reads into chunks. The receiver keeps
//! a [`ReceiveDesk`]: which transfers are under way, which have chunks staged, and who was refused
//! first. A [`Staging`] checks the chunks of one transfer and puts them into its staged file. Both
//! sides pace their bytes with a [`TokenBucket`].
//!
//! A transfer is named by its id, which no other transfer ever has. All its attempts send the same
//! chunks, read from the same picture of the engine; a sender that was started again, or a new
//! leader, has another picture and begins another transfer.
//!
//! Absent on purpose: priorities (placement limits what it orders), and chunks from several
//! senders in one transfer.

mod bucket;
mod cutting;
mod options;
mod receiving;
mod sending;
mod staging;

pub use bucket::TokenBucket;
pub use cutting::{Cutter, Mark, Marks, announce};
pub use options::SnapshotOptions;
pub use receiving::{Answer, Arrival, Ended, Position, ReceiveDesk, Verdict};
pub use sending::{After, Outcome, SendQueue, Ticket};
pub use staging::{Staging, Taken};

/// Folds a chunk's checksum into the digest of all chunks.
fn fold(digest: u32, crc: u32) -> u32 {
    let mut pair = [0; 8];
    pair[..4].copy_from_slice(&digest.to_le_bytes());
    pair[4..].copy_from_slice(&crc.to_le_bytes());
    crc32fast::hash(&pair)
}
