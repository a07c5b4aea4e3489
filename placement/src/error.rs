//! Why a placement member could not start, or had to stop: one sentence each, with what to do.

use quorate_consensus::engine::EngineError;
use quorate_consensus::node::listen::ListenError;
use thiserror::Error;

/// Why a placement member could not start, or had to stop. Nothing acknowledged is lost by any of
/// them.
#[derive(Debug, Error)]
pub enum PlacementError {
    /// A knob has a value that makes no sense.
    #[error("configuration: {0}")]
    Config(String),
    /// An address cannot be used.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The engine did not open, or a write or sync failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Something else lives in the folder.
    #[error(
        "the data folder {folder} holds something else than a placement member's data, perhaps a \
         store's; name another folder"
    )]
    ForeignFolder {
        /// The folder.
        folder: String,
    },
    /// The folder is another member's.
    #[error(
        "the data folder {folder} is that of placement member {found}, this one has id {configured}; \
         name the right folder or the right id"
    )]
    OtherMember {
        /// The folder.
        folder: String,
        /// The member in it.
        found: u64,
        /// The configured id.
        configured: u64,
    },
    /// The group is another one than at first, and than now.
    #[error(
        "this member was first started with members {first}, its group is {present} by now, and \
         members says {now}; a running group is not changed by its list: leave members out, and \
         let new members join"
    )]
    MembersChanged {
        /// The list of its first start.
        first: String,
        /// Those who are in the group, as far as this member knows.
        present: String,
        /// The configured list.
        now: String,
    },
    /// Its group exists, and its own part in it may be lost.
    #[error(
        "this group was founded already, as {by} says, and not with the data folder {folder}: what \
         this member knew and promised there may be lost; start it with --join and an empty data \
         folder, then `quorate member replace placement/{member} --with` the id it gets"
    )]
    FoundedAlready {
        /// Who says so.
        by: String,
        /// This member.
        member: u64,
        /// The folder.
        folder: String,
    },
    /// It cannot join: it is a member already.
    #[error(
        "the data folder {folder} is that of the founding member {found}, which has no group to \
         join: leave join out, or name an empty data folder"
    )]
    NotEmpty {
        /// The folder.
        folder: String,
        /// The member in it.
        found: u64,
    },
    /// It had asked to join, and does not know whom to ask any more.
    #[error(
        "the data folder {folder} is that of a member that has asked to join a group and has no \
         answer yet; start it with join again, or name an empty data folder"
    )]
    JoinBegun {
        /// The folder.
        folder: String,
    },
    /// The group does not take it.
    #[error("cannot join the placement group: {0}")]
    JoinRefused(String),
    /// It may not be elsewhere.
    #[error("this member cannot move to another address: {0}")]
    MoveRefused(String),
    /// The others know a founding member elsewhere.
    #[error(
        "its group knows this member as {joined}, and it would be at {now} now, where nobody looks \
         for it: start it with its first address, or take it out and let an empty data folder join"
    )]
    AddressMoved {
        /// Where the others reach it.
        joined: String,
        /// Where it would be.
        now: String,
    },
    /// It is a member no more.
    #[error("{0}")]
    Left(String),
    /// The cluster exists already.
    #[error(
        "this cluster was set up to start with {first} stores, which is done once and for good; \
         leave initial_stores out (now {now}): further stores simply join"
    )]
    InitialStoresChanged {
        /// What it was set up with.
        first: u32,
        /// The configured number.
        now: u32,
    },
    /// A newer version wrote the folder.
    #[error(
        "the data folder {folder} has format {found}, this version reads up to {known}; start the \
         newer version of quorate that wrote it"
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
    #[error(
        "the data folder {folder} is damaged: {what}; put the folder aside and replace this member \
         (`quorate member replace`): an older copy of the folder has forgotten what it promised"
    )]
    Damaged {
        /// The folder.
        folder: String,
        /// Which part.
        what: String,
    },
    /// The operating system refused something.
    #[error("cannot {what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
    /// The Raft node did not start, or stopped.
    #[error("the raft node stopped: {0}")]
    Node(String),
    /// The server of the listen address ended.
    #[error("the server stopped: {0}; start the member again")]
    Server(String),
}
