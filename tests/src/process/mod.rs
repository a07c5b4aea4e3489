//! Clusters of real processes, faults on them, and load whose history is checked.
//!
//! A test starts a [`Cluster`] in a folder of its own: every placement member and every store is
//! a process of the program `quorate`, a child of the test, so that each can be killed, paused,
//! told to end, asked for its exit code, and started again as it was. Ports are found free.
//! [`Load`] writes and reads through the SDK meanwhile and keeps two accounts: the history of a
//! few contended keys, for the checker of linearizability, and a ledger of what was acknowledged,
//! which is read back in the end. A [`Witness`] looks at all regions meanwhile and remembers even
//! numbers of voters.
//!
//! Invariants:
//! - A process that a test started ends with it: by `Drop`, and where the test itself is killed,
//!   by the system (Linux: each child is bound to a thread that lives as long as the tests do).
//! - Only children are ever signalled, through their own handle.
//! - Nothing waits for a time to pass where it can wait for a condition; every wait has an end.
//! - At most [`CLUSTERS`] clusters run at once, however many tests do.
//!
//! Absent on purpose: faults of the network and of disks, which the simulator has.

mod accounts;
mod cluster;
mod load;
mod node;
mod permit;
mod ports;
mod program;
mod spawner;
pub mod tikv;
mod wait;
mod witness;

pub use accounts::{Accounts, Ledger};
pub use cluster::{Cluster, Shape};
pub use load::{Load, LoadOptions, letter_key, letters, split_keys};
pub use node::{Node, Page};
pub use permit::{CLUSTERS, Permit};
pub use ports::{free_pair, free_port};
pub use program::{Ran, program, run, run_for};
pub use wait::{eventually, until};
pub use witness::{Seen, Witness, voters};
