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
//! survives the end of the process in any way. It takes its room on the disk before it is mapped: a
//! full disk would otherwise end the process by a signal, without a word, at the first number noted.
//! The file itself is never synced. A power failure can leave an older number, which weakens the
//! check and never raises a false alarm.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
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
    ///
    /// # Errors
    /// The file cannot be used, or there is no room for it.
    pub(super) fn open(path: &Path) -> io::Result<(Self, u64)> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let is_new = file.metadata()?.len() == 0;
        take_room(&file)?;
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

/// Gives the file its length, and real room on the disk for all of it: a length alone is a hole.
fn take_room(file: &File) -> io::Result<()> {
    let mut bytes = [0; BYTES];
    let mut read = 0;
    while read < BYTES {
        match file.read_at(&mut bytes[read..], read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    // What is there already is written over by itself, which room is taken for, too.
    file.write_all_at(&bytes, 0)?;
    file.set_len(BYTES as u64)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_file_has_its_room_before_it_is_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let (new, hole) = (folder.path().join("new"), folder.path().join("hole"));
        File::create(&hole).unwrap().set_len(BYTES as u64).unwrap();
        assert_eq!(std::fs::metadata(&hole).unwrap().blocks(), 0, "a length takes no room");
        for path in [&new, &hole] {
            let (_file, number) = SyncedFile::open(path).unwrap();
            let data = std::fs::metadata(path).unwrap();
            assert_eq!((number, data.len()), (0, BYTES as u64));
            assert!(data.blocks() > 0, "{} has no room yet", path.display());
        }
    }

    #[test]
    fn a_number_is_found_again_and_a_damaged_file_counts_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("SYNCED");
        SyncedFile::open(&path).unwrap().0.set(77);
        let (mut file, number) = SyncedFile::open(&path).unwrap();
        assert_eq!(number, 77);
        file.set(78);
        drop(file);
        assert_eq!(SyncedFile::open(&path).unwrap().1, 78);
        for damaged in [&b"QSYN"[..], &[7; 40]] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(SyncedFile::open(&path).unwrap().1, 0);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), BYTES as u64);
        }
    }

    #[test]
    fn no_room_is_an_error_in_words_and_no_signal() {
        // Nothing can be written to this one.
        let error = SyncedFile::open(Path::new("/dev/full")).unwrap_err();
        let error = crate::engine::EngineError::from_io("opening the data folder", &error);
        assert!(
            error.to_string().starts_with("no space left on the disk while opening"),
            "{error}"
        );
    }
}
