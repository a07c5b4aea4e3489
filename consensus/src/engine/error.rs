//! What can go wrong in an engine, in words that say what to do.

use thiserror::Error;

/// Why an engine could not do what it was asked for.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EngineError {
    /// A write, sync or file operation failed. What was not durable yet may be lost, so it is
    /// never tried again.
    #[error(
        "storage failed while {during}: {reason}; stop this process, check the disk, then start \
         it again: what was acknowledged is on disk"
    )]
    Fatal {
        /// What the engine was doing.
        during: String,
        /// What the layer below said.
        reason: String,
    },
    /// Bytes on disk are not those that were written.
    #[error(
        "stored bytes are damaged ({what}): {reason}; stop this process, put its folder aside and \
         replace it (`quorate store replace`, or for a member of placement `quorate member \
         replace`): the others have the data"
    )]
    Corrupt {
        /// Which file or part.
        what: String,
        /// What the check said.
        reason: String,
    },
    /// The disk, or a quota on it, is full.
    #[error(
        "no space left on the disk while {during}; free some or grow the disk, then start this \
         process again: nothing acknowledged is lost"
    )]
    Full {
        /// What the engine was doing.
        during: String,
    },
    /// Another process has the folder open.
    #[error(
        "{path} is in use by another process; stop that one first, or give this one a folder of \
         its own"
    )]
    Locked {
        /// The folder.
        path: String,
    },
    /// A later version of this program wrote the folder.
    #[error(
        "{path} has format {found}, this program reads up to {supported}; start the newer version \
         of quorate that wrote it"
    )]
    Newer {
        /// The folder.
        path: String,
        /// Its format.
        found: u32,
        /// The latest format this program knows.
        supported: u32,
    },
    /// Recovery ended before a point that had been synced: the disk lost or damaged a part of
    /// the write-ahead log.
    #[error(
        "{path} lost synced entries: recovery ended at sync {recovered}, but sync {synced} had \
         been acknowledged; do not start from it: replace it (`quorate store replace`, or for a \
         member of placement `quorate member replace`), the others have the data"
    )]
    LostWrites {
        /// The folder.
        path: String,
        /// Number of the last sync that is known to have succeeded.
        synced: u64,
        /// Number of the last sync found after recovery.
        recovered: u64,
    },
    /// The engine was shut down, or crashed in a simulation.
    #[error("the engine is closed; open it again")]
    Closed,
    /// A brief look met too much that is deleted, or what only the disk has.
    #[error(
        "there is too much between the entries for a brief look, or it is not in memory; read it \
         without haste"
    )]
    Incomplete,
    /// There is no finished staged file of that name.
    #[error("no staged file {name}; receive the snapshot again")]
    NotStaged {
        /// The name asked for.
        name: String,
    },
    /// A staged file cannot be ingested.
    #[error("staged file {name} is damaged ({reason}); discard it and receive the snapshot again")]
    BadStaged {
        /// The file.
        name: String,
        /// What the layer below said.
        reason: String,
    },
    /// The entries of a staged file did not come in ascending order, or leave the range.
    #[error("the entries of staged file {name} are out of order; discard it and receive it again")]
    Unordered {
        /// The file.
        name: String,
    },
}

impl EngineError {
    /// True where the engine (or its folder) is of no further use to this process, so that it
    /// must stop. False where only the one call failed.
    pub fn is_fatal(&self) -> bool {
        match self {
            EngineError::Fatal { .. }
            | EngineError::Corrupt { .. }
            | EngineError::Full { .. }
            | EngineError::Locked { .. }
            | EngineError::Newer { .. }
            | EngineError::LostWrites { .. }
            | EngineError::Closed => true,
            EngineError::Incomplete
            | EngineError::NotStaged { .. }
            | EngineError::BadStaged { .. }
            | EngineError::Unordered { .. } => false,
        }
    }

    /// An input or output error of our own files, met `during` something.
    pub(super) fn from_io(during: &str, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                EngineError::Full { during: during.to_owned() }
            }
            _ => EngineError::Fatal { during: during.to_owned(), reason: error.to_string() },
        }
    }

    /// An error of RocksDB, met `during` something. RocksDB reports by text alone.
    pub(super) fn from_rocks(during: &str, error: &rocksdb::Error) -> Self {
        let reason = error.to_string();
        if reason.contains("No space left") || reason.contains("Disk quota exceeded") {
            return EngineError::Full { during: during.to_owned() };
        }
        match error.kind() {
            rocksdb::ErrorKind::Incomplete => EngineError::Incomplete,
            rocksdb::ErrorKind::Corruption => {
                EngineError::Corrupt { what: during.to_owned(), reason }
            }
            rocksdb::ErrorKind::ShutdownInProgress => EngineError::Closed,
            _ => EngineError::Fatal { during: during.to_owned(), reason },
        }
    }
}
