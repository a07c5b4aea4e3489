//! The leader's lease: until when this peer may answer reads on its own.
//!
//! The lease is counted from the *sending* of something a majority then answered: a read-index
//! round, or entries of this term that have committed. Every follower that answered refuses votes
//! for [`RaftOptions::vote_promise`](crate::shard::RaftOptions) after it heard from the leader,
//! which is longer than the lease by half, so that a clock that runs up to a third too slow breaks
//! nothing. A pause of the process is no danger either: readers look at the clock after reading.
//!
//! A change of members does not touch it. Configurations that follow each other share a voter in
//! any two of their majorities, so whoever is elected by the next one needs the vote of somebody
//! who has promised. And by the time the one after that is in force, the entry that entered it was
//! answered by a majority of its voters, after the lease was asked for or together with it: they
//! have promised as well. The leader itself never loses its vote while it leads: one that goes is not
//! able to leave the joint configuration in which it still has one. Where it was the only voter, all
//! others need its vote as long as that configuration is in force, and it gives it to nobody without
//! having offered leadership, which voids the lease.
//!
//! It is void while a command that changes the region is under way (a new leader elsewhere may
//! know of the change first), and for the rest of the term once leadership was offered to another
//! peer, who then does not wait for the promise.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Instant;

#[derive(Debug)]
pub(crate) struct LeaseClock {
    length: Duration,
    until: Instant,
    proposed: VecDeque<(u64, Instant)>,
    suspended_until_applied: u64,
    given_up: bool,
}

impl LeaseClock {
    pub(crate) fn new(length: Duration) -> Self {
        Self {
            length,
            until: Instant::default(),
            proposed: VecDeque::new(),
            suspended_until_applied: 0,
            given_up: false,
        }
    }

    /// How long a lease lasts.
    pub(crate) fn length(&self) -> Duration {
        self.length
    }

    /// A term begins or ends: nothing of before counts.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.length);
    }

    /// Entries up to `index` are about to be sent.
    pub(crate) fn proposed(&mut self, index: u64, now: Instant) {
        self.proposed.push_back((index, now));
    }

    /// Entries up to `index` are committed.
    pub(crate) fn committed(&mut self, index: u64) {
        while let Some(&(proposed, sent)) = self.proposed.front() {
            if proposed > index {
                break;
            }
            self.extend(sent);
            self.proposed.pop_front();
        }
    }

    /// A majority answered a round that was sent then.
    pub(crate) fn confirmed(&mut self, sent: Instant) {
        self.extend(sent);
    }

    fn extend(&mut self, sent: Instant) {
        self.until = self.until.max(sent + self.length);
    }

    /// A command that changes the region was proposed at `index`.
    pub(crate) fn suspend(&mut self, index: u64) {
        self.suspended_until_applied = self.suspended_until_applied.max(index);
    }

    /// True while such a command is not applied.
    pub(crate) fn is_suspended(&self, applied: u64) -> bool {
        applied < self.suspended_until_applied
    }

    /// Leadership was offered to another peer.
    pub(crate) fn give_up(&mut self) {
        self.given_up = true;
    }

    /// Until when reads may be served, the log being applied up to `applied`.
    pub(crate) fn valid_until(&self, applied: u64) -> Option<Instant> {
        let valid =
            !self.given_up && !self.is_suspended(applied) && self.until != Instant::default();
        valid.then_some(self.until)
    }
}
