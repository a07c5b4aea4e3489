//! The production shell: worker threads, the apply thread, streams between processes.

mod api;

pub use api::{Addresses, Machine, Outcome, Progress, Replies, SnapshotSource};
