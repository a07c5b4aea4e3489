//! What placement decides, as plain values.
//!
//! Two parts with one direction between them:
//! * **Replicated**: [`state::State`] applies [`command::Command`]s in the order of the log and
//!   returns an answer and a write batch ([`record`] says how it lies on disk). Equal commands
//!   give equal states on every member.
//! * **The leader's own**: [`leader::Leader`] holds the [`tree::RegionTree`], what stores report
//!   ([`report`]), and the [`operators::Operators`] under way; [`balance`] plans from an immutable
//!   [`view::ClusterView`]; [`oracle::Oracle`] hands out timestamps below a replicated ceiling.
//!
//! Time is an argument everywhere: the monotonic clock as [`Instant`], the wall clock as
//! milliseconds since the Unix epoch.
//!
//! [`Instant`]: quorate_consensus::time::Instant

pub mod balance;
pub mod checker;
pub mod command;
pub mod events;
pub mod history;
pub mod ids;
pub mod journal;
pub mod leader;
pub mod lifecycle;
pub mod members;
pub mod operators;
pub mod oracle;
pub mod record;
pub mod report;
pub mod settings;
pub mod split;
pub mod state;
pub mod stores;
pub mod tree;
pub mod view;
pub mod watch;
