//! Why a store could not start, or had to stop: one sentence each, with what to do.

use quorate_consensus::engine::EngineError;
use quorate_consensus::node::listen::ListenError;
use quorate_proto::StoreId;
use thiserror::Error;

/// Why a store could not start, or had to stop. Nothing acknowledged is lost by any of them.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A knob has a value that makes no sense.
    #[error("configuration: {0}")]
    Config(String),
    /// An address cannot be used.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The engine did not open, or a write or sync failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The folder belongs to another cluster.
    #[error(
        "the data folder {folder} belongs to cluster {found}, placement leads cluster {expected}; \
         name the right placement members or another data folder"
    )]
    OtherCluster {
        /// The folder.
        folder: String,
        /// The cluster in it.
        found: u64,
        /// The cluster that placement leads.
        expected: u64,
    },
    /// Placement knows the folder's store under another id.
    #[error(
        "the data folder {folder} is that of {found}, placement calls this store {expected}; name \
         the right data folder"
    )]
    OtherStore {
        /// The folder.
        folder: String,
        /// The store in it.
        found: StoreId,
        /// What placement says.
        expected: StoreId,
    },
    /// A newer version wrote the folder.
    #[error(
        "the data folder {folder} has format {found}, this version reads up to {known}; start the \
         newer version that wrote it"
    )]
    NewerFormat {
        /// The folder.
        folder: String,
        /// Its format.
        found: u32,
        /// The newest format that this version reads.
        known: u32,
    },
    /// What the folder holds cannot be read.
    #[error("the data folder {folder} is damaged: {what}; run `quorate store replace`")]
    Damaged {
        /// The folder.
        folder: String,
        /// Which part.
        what: String,
    },
    /// Placement does not take this store.
    #[error("placement refused this store: {0}")]
    Refused(String),
    /// The operating system refused something.
    #[error("cannot {what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
    /// The server of the listen address ended.
    #[error("the server stopped: {0}; start the store again")]
    Server(String),
}
