//! What a store decides, as plain values: no threads, sockets, clocks or randomness.
//!
//! The production shell and the simulator run the same code. The parts, and how they meet:
//!
//! * [`keys`]: where things lie in the engine, and what a stored value looks like.
//! * [`command`]: what is in a region's log. Requests become commands here, with every limit
//!   checked; the applier parses them back without copying.
//! * [`directory`]: which regions this store has. Network threads look them up and check requests
//!   against them; only the applier changes them.
//! * [`applier`]: the state machine of all regions. [`machine`] fits it into the production shell.
//! * [`snapshot`]: what leaves as a snapshot and what a received one does, crash by crash.
//! * [`recover`]: what a store finds at its start, and its first regions.
//! * [`read`]: reads without the log, under a lease or at a read index.
//! * [`peers`]: placement's steps about replicas, made into changes of the group's members.
//! * [`merge`]: placement's steps of a merge, made into commands.
//! * [`split`]: when and where a region is split, and the command for it.
//! * [`report`]: what placement is told, changed regions only. [`hosted`]: and of replicas that
//!   others lead, in turn.
//!
//! A write: [`Directory::admit`] → [`Admitted::check_leader`], [`Admitted::check_key`] →
//! [`command::put`] with [`Admitted::stamp`] → proposed → [`Applier::apply`] checks the epoch
//! again, writes, answers.
//!
//! A read: [`ReadPath::admit`] → [`ReadPath::get`] → [`ReadPath::confirm`].

pub mod applier;
pub mod command;
pub mod directory;
pub mod error;
pub mod hosted;
pub mod keys;
pub mod machine;
pub mod merge;
pub mod peers;
pub mod read;
pub mod recover;
pub mod report;
pub mod snapshot;
pub mod split;

pub use applier::{Answer, Answered, Applier};
pub use directory::{Admitted, Directory, LocalRegion, PeerAdmission, State};
pub use error::RegionError;
pub use hosted::unled;
pub use machine::{Answers, StoreMachine};
pub use read::{Effort, Pass, ReadAdmission, ReadError, ReadPath, Scan, StaleClock, Unconfirmed};
pub use report::{Regions, Reporter, add_snapshots};
pub use split::{SplitOptions, SplitPlan};
