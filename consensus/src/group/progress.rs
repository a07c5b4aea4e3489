//! What a peer publishes where not all is settled: a leader, how far the others are; the others,
//! since when their leader is silent.
//!
//! It is looked at once a tick, which sleeping groups do not have; what was published when they
//! fell asleep stays true. Where nothing is behind, nothing is published.

use std::time::Duration;

use quorate_proto::{LogIndex, PeerId, Role};
use raft::{Progress, ProgressState};

use super::members::MAX_BEHIND;
use super::{Group, GroupContext};
use crate::shard::Member;
use crate::time::Instant;
use crate::view::{PeerProgress, Replication};

/// A leader is called silent after this long. Longer than any election takes.
pub(super) const LEADER_SILENCE: Duration = Duration::from_secs(2);
/// A member whose process is alive is called silent after this long. raft-rs looks only once in an
/// election timeout.
const MEMBER_SILENCE: Duration = Duration::from_secs(1);

impl<T> Group<T> {
    /// To be called once a tick, and after a change of members.
    pub(crate) fn publish_progress(&mut self, context: &GroupContext<'_>) {
        if self.is_leader() {
            if self.node.raft.apply_to_current_term() {
                self.note_activity(context.now);
                let replication = self.replication(context);
                self.set_replication(replication);
                self.view.set_everywhere(LogIndex(self.matched_by_all()));
            }
            self.publish_quorum(context);
            return;
        }
        self.quiet.clear();
        self.applied_there.clear();
        self.view.set_everywhere(LogIndex(0));
        self.set_replication(None);
        let since = self.contact.unwrap_or(self.opened);
        if !self.is_silent && context.now.since(since) >= LEADER_SILENCE {
            self.is_silent = true;
            self.view.set_silent_since(Some(since));
        }
        self.publish_quorum(context);
    }

    /// The leader was heard, or is here.
    pub(super) fn end_silence(&mut self) {
        if std::mem::take(&mut self.is_silent) {
            self.view.set_silent_since(None);
        }
    }

    fn set_replication(&mut self, replication: Option<Replication>) {
        if replication.is_some() || self.is_published {
            self.is_published = replication.is_some();
            self.view.set_replication(replication);
        }
    }

    fn note_activity(&mut self, now: Instant) {
        let progress = self.node.raft.prs();
        for peer in self.members.iter().map(|member| member.peer.0) {
            if progress.get(peer).is_none_or(|progress| progress.recent_active) {
                self.quiet.remove(&peer);
            } else if peer != self.peer.0 {
                self.quiet.entry(peer).or_insert(now);
            }
        }
    }

    /// Up to where every member durably has the log; zero where one has not answered in this term.
    fn matched_by_all(&self) -> u64 {
        let progress = self.node.raft.prs();
        let matched = |member: &Member| progress.get(member.peer.0).map_or(0, |p| p.matched);
        self.members.iter().map(matched).min().unwrap_or(0)
    }

    fn replication(&self, context: &GroupContext<'_>) -> Option<Replication> {
        let last = self.node.raft.raft_log.last_index();
        let lags = |member: &Member, progress: &Progress| {
            progress.state == ProgressState::Snapshot
                || progress.matched + MAX_BEHIND < last
                || self.unapplied(member.peer) > MAX_BEHIND
        };
        let all = self.node.raft.prs();
        let others = || self.others().filter_map(|member| Some((member, all.get(member.peer.0)?)));
        let settled = others().all(|(member, progress)| {
            member.role == Role::Voter
                && !lags(member, progress)
                && self.silent_since(member, context).is_none()
        });
        if settled {
            return None;
        }
        let peer = |(member, progress): (&Member, &Progress)| PeerProgress {
            peer: member.peer,
            matched: LogIndex(progress.matched),
            applied: self.applied_there.get(&member.peer.0).copied().map(LogIndex),
            snapshot: progress.state == ProgressState::Snapshot,
            silent_since: self.silent_since(member, context),
        };
        let committed = LogIndex(self.node.raft.raft_log.committed);
        Some(Replication { last: LogIndex(last), committed, peers: others().map(peer).collect() })
    }

    /// A member has answered in this term: it has applied up to there, or (0) does not say.
    pub(super) fn note_applied(&mut self, peer: u64, applied: u64) {
        if !self.is_leader() || self.node.raft.prs().get(peer).is_none() {
            return;
        }
        if applied == 0 {
            self.applied_there.remove(&peer);
        } else {
            // What it said last, not the most: a process that crashed may have to apply again.
            self.applied_there.insert(peer, applied);
        }
    }

    /// Committed entries that a member has not applied yet, as it said last. 0 where it did not
    /// say: one of an older version never does, and is only asked for its log.
    pub(super) fn unapplied(&self, peer: PeerId) -> u64 {
        let applied = self.applied_there.get(&peer.0);
        applied.map_or(0, |applied| self.node.raft.raft_log.committed.saturating_sub(*applied))
    }

    fn silent_since(&self, member: &Member, context: &GroupContext<'_>) -> Option<Instant> {
        if context.nodes.is_silent(member.node) {
            return context.nodes.last_beat(member.node);
        }
        let since = self.quiet.get(&member.peer.0).copied();
        since.filter(|since| context.now.since(*since) >= MEMBER_SILENCE)
    }

    /// Entries that a member lacks, as the leader knows; `None` where nothing is known of it yet,
    /// or only a snapshot helps.
    pub(super) fn behind(&self, peer: PeerId) -> Option<u64> {
        let raft = &self.node.raft;
        let progress = raft.prs().get(peer.0)?;
        let follows = progress.state != ProgressState::Snapshot
            && progress.matched > 0
            && progress.matched >= self.node.store().truncated_index();
        follows.then(|| raft.raft_log.last_index().saturating_sub(progress.matched))
    }
}
