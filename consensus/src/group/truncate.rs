//! Truncation: which part of the log nobody needs any more.
//!
//! The leader tells, on its appends and heartbeats, up to where every member has the log; each
//! peer truncates up to there on its own, in steps. A member that lags or is down is spared: the
//! log it will need is kept, up to a bound of entries and bytes. Beyond that bound it gets a
//! snapshot.
//!
//! From the moment a snapshot's data was read until its receiver has caught up with it, the log
//! behind it is kept; the bound then counts from there. Otherwise the receiver would find, once
//! the snapshot is installed, that it needs another one, for ever.

use raft::{Progress, ProgressState};

use super::{Group, GroupContext};
use crate::engine::WriteBatch;
use crate::shard::Effects;

impl<T> Group<T> {
    /// The smallest index up to which every member has the log, or will once a snapshot that is
    /// under way is there.
    fn known_everywhere(&self) -> u64 {
        let truncated = self.node.store().truncated_index();
        let progress = self.node.raft.prs();
        let known = |peer: u64| {
            let progress: &Progress = progress.get(peer)?;
            let asked = match progress.state {
                ProgressState::Snapshot => progress.pending_snapshot,
                ProgressState::Probe | ProgressState::Replicate => 0,
            };
            // Its data was read later than it was asked for.
            let taken = self.transfers.get(&peer).copied();
            Some(taken.unwrap_or(asked).max(progress.matched))
        };
        self.members
            .iter()
            .filter_map(|member| known(member.peer.0))
            // Zero is a member that has not answered in this term. One that is known to end
            // before our log begins gets a snapshot in any case: no need to spare it.
            .filter(|matched| *matched == 0 || *matched >= truncated)
            .min()
            .unwrap_or(0)
    }

    /// Forgets the transfers whose receivers have caught up, or are members no more.
    fn forget_transfers(&mut self) {
        if self.transfers.is_empty() {
            return;
        }
        let (leads, progress) = (self.is_leader(), self.node.raft.prs());
        self.transfers.retain(|peer, index| {
            leads && progress.get(*peer).is_some_and(|progress| progress.matched < *index)
        });
    }

    pub(super) fn truncate(
        &mut self,
        context: &GroupContext<'_>,
        effects: &mut Effects<T>,
        batch: &mut WriteBatch,
    ) {
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
        self.forget_transfers();
        if self.is_leader() {
            self.safe_truncate = self.known_everywhere();
        }
        let mut to = self.safe_truncate.min(applied);
        if tail_is_long {
            let index = if self.is_leader() { to } else { applied };
            self.node.mut_store().shrink_tail(index);
        }
        if span > options.max_log_entries || bytes > options.max_log_bytes {
            let half = first + span.div_ceil(2);
            // Where the bound of one counts from here already, that of the next does not yet.
            let spared = self.transfers.values().copied().filter(|index| *index > first).min();
            to = to.max(spared.map_or(half, |index| half.min(index)));
        }
        if !due(to.saturating_sub(first)) {
            return;
        }
        match self.node.mut_store().truncate(to, batch) {
            Ok(()) => effects.truncated.push(self.node.store().truncated_index() - first),
            Err(error) => {
                tracing::debug!(group = %self.id, %error, "could not truncate the log");
            }
        }
    }
}
