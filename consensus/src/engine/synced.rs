//! The number of the last sync, kept beside the database in the file `SYNCED`.
//!
//! RocksDB takes a damaged record in the live write-ahead log for the torn tail of a crash and
//! silently recovers what lies before it. To tell the two apart each sync has a number. It goes
//! into the log ahead of the sync and, once the sync succeeded, into this file. A recovery that
//! ends below the number in the file has lost entries that were acknowledged.
//!
//! RocksDB's own sequence numbers do not serve: flushes and ingests record them elsewhere too, so
//! that a recovery without the end of the log may still report them.
//!
//! The file itself is never synced. A power failure can leave an older number, which weakens the
//! check and never raises a false alarm.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use tracing::warn;

/// Magic bytes, number (little endian), CRC-32 of both.
const BYTES: usize = 16;
const MAGIC: &[u8; 4] = b"QSYN";

/// The open side file.
#[derive(Debug)]
pub(super) struct SyncedFile {
    file: File,
}

impl SyncedFile {
    /// Opens or creates the file and returns the number in it: 0 without one, and where the file
    /// is damaged, since it holds no data and a replica is worth more than the check.
    pub(super) fn open(path: &Path) -> io::Result<(Self, u64)> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = Vec::with_capacity(BYTES);
        file.by_ref().take(BYTES as u64).read_to_end(&mut bytes)?;
        let number = decode(&bytes);
        if number.is_none() && !bytes.is_empty() {
            warn!(path = %path.display(), "damaged sync number, cannot check for lost writes");
        }
        Ok((Self { file }, number.unwrap_or(0)))
    }

    /// Replaces the number.
    pub(super) fn set(&self, number: u64) -> io::Result<()> {
        self.file.write_all_at(&encode(number), 0)
    }
}

fn encode(number: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..4].copy_from_slice(MAGIC);
    bytes[4..12].copy_from_slice(&number.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..12]);
    bytes[12..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(bytes.get(4..12)?.try_into().ok()?);
    (bytes == encode(number)).then_some(number)
}
