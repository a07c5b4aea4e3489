//! What placement decides, as plain values.
//!
//! Two parts with one direction between them:
//! * **Replicated**: [`state::State`] applies [`command::Command`]s in the order of the log and
//!   returns an answer and a write batch ([`record`] says how it lies on disk). Equal commands
//!   give equal states on every member. It keeps what must outlive a leader: [`stores`], ids,
//!   [`settings`], [`operators`] and how they [`ended`], [`lifecycle`]s, [`events`].
//! * **The leader's own**: [`leader::Leader`] holds the [`tree::RegionTree`], what stores report
//!   ([`report`], [`load`]), and the [`operators::Operators`] under way, [`merge`]s among them; [`schedule::Schedulers`]
//!   and [`checker`]s plan from an immutable [`view::ClusterView`], by the cluster's [`policy::Policy`] (placement
//!   [`rule`]s, failure domains in [`labels`]), past the [`filter`]s and store [`limit`]s, with regard to what people want in the place of a store
//!   ([`replacement`]);
//!   [`oracle::Oracle`] hands out timestamps below a replicated ceiling.
//!
//! Time is an argument everywhere: the monotonic clock as [`Instant`], the wall clock as
//! milliseconds since the Unix epoch.
//!
//! [`Instant`]: quorate_consensus::time::Instant

pub mod checker;
pub mod command;
pub mod ended;
pub mod events;
pub mod filter;
pub mod history;
pub mod ids;
pub mod journal;
pub mod labels;
pub mod leader;
pub mod lifecycle;
pub mod limit;
pub mod load;
pub mod members;
pub mod merge;
pub mod operators;
pub mod oracle;
pub mod partition;
pub mod policy;
pub mod record;
pub mod replacement;
pub mod report;
pub mod rule;
pub mod schedule;
pub mod settings;
pub mod split;
pub mod state;
pub mod stores;
pub mod tree;
pub mod view;
pub mod watch;
