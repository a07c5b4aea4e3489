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
//! The file is mapped into memory, so that noting a sync costs no system call; what was noted
//! survives the end of the process in any way. The file itself is never synced. A power failure can leave an older number, which weakens the
//! check and never raises a false alarm.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use memmap2::MmapMut;
use tracing::warn;

/// Magic bytes, number (little endian), CRC-32 of both.
const BYTES: usize = 16;
const MAGIC: &[u8; 4] = b"QSYN";

/// The open side file.
#[derive(Debug)]
pub(super) struct SyncedFile {
    bytes: MmapMut,
}

impl SyncedFile {
    /// Opens or creates the file and returns the number in it: 0 without one, and where the file
    /// is damaged, since it holds no data and a replica is worth more than the check.
    pub(super) fn open(path: &Path) -> io::Result<(Self, u64)> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let is_new = file.metadata()?.len() == 0;
        file.set_len(BYTES as u64)?;
        // SAFETY: the folder is locked by this process, which maps the file once; nobody else
        // writes to it or cuts it short.
        let bytes = unsafe { MmapMut::map_mut(&file)? };
        let number = decode(&bytes);
        if number.is_none() && !is_new {
            warn!(path = %path.display(), "damaged sync number, cannot check for lost writes");
        }
        Ok((Self { bytes }, number.unwrap_or(0)))
    }

    /// Replaces the number.
    pub(super) fn set(&mut self, number: u64) {
        self.bytes.copy_from_slice(&encode(number));
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
