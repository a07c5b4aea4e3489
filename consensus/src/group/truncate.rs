//! Truncation: which part of the log nobody needs any more.
//!
//! The leader tells, on its appends and heartbeats, up to where every member has the log; each
//! peer truncates up to there on its own, in steps. A member that lags, is down, or receives a
//! snapshot is spared: the log it will need is kept, up to a bound of entries and bytes. Beyond
//! that bound it gets a snapshot.

use raft::{Progress, ProgressState};

use super::{Group, GroupContext};
use crate::engine::WriteBatch;

impl<T> Group<T> {
    /// The smallest index up to which every member has the log, or will once a snapshot that is
    /// under way is there.
    fn known_everywhere(&self) -> u64 {
        let truncated = self.node.store().truncated_index();
        let known = |progress: &Progress| match progress.state {
            ProgressState::Snapshot => progress.pending_snapshot.max(progress.matched),
            ProgressState::Probe | ProgressState::Replicate => progress.matched,
        };
        let progress = self.node.raft.prs();
        self.members
            .iter()
            .filter_map(|member| progress.get(member.peer.0))
            .map(known)
            // Zero is a member that has not answered in this term. One that is known to end
            // before our log begins gets a snapshot in any case: no need to spare it.
            .filter(|matched| *matched == 0 || *matched >= truncated)
            .min()
            .unwrap_or(0)
    }

    pub(super) fn truncate(&mut self, context: &GroupContext<'_>, batch: &mut WriteBatch) {
        let options = context.options;
        let log = self.node.store();
        let (applied, first, bytes) = (log.applied_index(), log.truncated_index(), log.bytes());
        let tail_is_long = log.tail_bytes() as u64 > options.max_append_bytes * 4;
        let span = applied.saturating_sub(first);
        let due = |span: u64| {
            span >= options.truncate_entries || (span > 0 && bytes > options.truncate_bytes)
        };
        if !due(span) && !tail_is_long {
            return;
        }
        if self.is_leader() {
            self.safe_truncate = self.known_everywhere();
        }
        let mut to = self.safe_truncate.min(applied);
        if tail_is_long {
            let index = if self.is_leader() { to } else { applied };
            self.node.mut_store().shrink_tail(index);
        }
        if span > options.max_log_entries || bytes > options.max_log_bytes {
            to = to.max(first + span.div_ceil(2));
        }
        if due(to.saturating_sub(first))
            && let Err(error) = self.node.mut_store().truncate(to, batch)
        {
            tracing::debug!(group = %self.id, %error, "could not truncate the log");
        }
    }
}
