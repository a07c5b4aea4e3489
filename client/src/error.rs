//! What can go wrong for a caller, in words that say what to do next.

use std::time::Duration;

use thiserror::Error as ThisError;

/// Why an operation did not succeed. Small and cheap to clone; ask it what to do with
/// [`Error::is_undetermined`] and [`Error::is_retryable`].
#[derive(Clone, Debug, ThisError, PartialEq, Eq)]
pub enum Error {
    /// A write that was sent and never answered: it may have been applied, may still be, or never
    /// will. The client does not send it again by itself, because between the two another writer
    /// may have written the same key, and the second time would undo that.
    #[error(
        "{operation}: nobody can say whether it was applied ({cause}); \
         read the key to find out, or write again if writing twice is harmless"
    )]
    Undetermined {
        /// The operation, as the caller knows it: `put`, `delete_range`…
        operation: &'static str,
        /// What was lost: a connection, an answer.
        cause: String,
    },
    /// The deadline passed and the operation was certainly **not** applied.
    #[error(
        "{operation}: not done within {after:?}; last reason: {last}; try again, or allow a longer deadline"
    )]
    Timeout {
        /// The operation, as the caller knows it.
        operation: &'static str,
        /// The deadline that passed.
        after: Duration,
        /// Why the last attempt failed.
        last: String,
    },
    /// The caller's argument can never work: a key that is empty or too long, a value too large…
    #[error("invalid argument: {0}")]
    InvalidArgument(String),
    /// Nobody could be reached; nothing was applied.
    #[error("{what} unreachable: {last}; check that it runs and that the addresses are right")]
    Unavailable {
        /// Who: `placement at 127.0.0.1:2379`, `s2 at …`.
        what: String,
        /// Why the last attempt failed.
        last: String,
    },
    /// The placement members belong to another cluster than this client.
    #[error(
        "{address} belongs to cluster {found}, not to {expected}; check the placement addresses"
    )]
    WrongCluster {
        /// Who answered.
        address: String,
        /// The cluster id this client started with.
        expected: u64,
        /// The cluster id that was answered.
        found: u64,
    },
    /// The region of the key has lost its quorum: nothing can be written to it, and nothing but stale
    /// reads be answered, until one of its stores is back. Nothing was applied.
    #[error("{operation} refused: {reason}")]
    NoQuorum {
        /// The operation, as the caller knows it.
        operation: &'static str,
        /// In the words of a store that holds the region: which stores are silent, and what to do.
        reason: String,
    },
    /// The cluster refused for a reason that trying again does not change soon; nothing was applied.
    #[error("{operation} refused: {reason}")]
    Refused {
        /// The operation, as the caller knows it.
        operation: &'static str,
        /// The cluster's words.
        reason: String,
    },
    /// A batch that was applied in part: parts in different regions are not atomic.
    #[error("{operation}: {done} of {total} done, the rest failed: {first}")]
    Partial {
        /// The operation, as the caller knows it.
        operation: &'static str,
        /// Items that were certainly applied.
        done: usize,
        /// Items of the whole batch.
        total: usize,
        /// The gravest failure among the parts: an undetermined one where there is one.
        first: Box<Error>,
    },
}

/// The result of every operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// True where the write, or a part of it, may have been applied.
    pub fn is_undetermined(&self) -> bool {
        match self {
            Self::Undetermined { .. } => true,
            Self::Partial { first, .. } => first.is_undetermined(),
            Self::Timeout { .. }
            | Self::InvalidArgument(_)
            | Self::Unavailable { .. }
            | Self::WrongCluster { .. }
            | Self::NoQuorum { .. }
            | Self::Refused { .. } => false,
        }
    }

    /// True where nothing was applied by what failed and the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Unavailable { .. } | Self::NoQuorum { .. } => true,
            Self::Partial { first, .. } => first.is_retryable(),
            Self::Undetermined { .. }
            | Self::InvalidArgument(_)
            | Self::WrongCluster { .. }
            | Self::Refused { .. } => false,
        }
    }
}
