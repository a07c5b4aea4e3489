//! Linearizable reads that need the leader's word: batched read-index rounds.
//!
//! Every attempt has a context of its own, (term, incarnation, sequence): raft-rs ignores equal
//! contexts, and reusing one after a retry gave stale reads (etcd #20418). raft-rs drops a round
//! silently where there is no leader or nothing is committed in its term, so a round that is not
//! answered in time is followed by another one. Its own answer still counts when it comes: where
//! the network takes longer than the timeout, waiting for the latest alone would never end.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Instant;

/// A round that is not answered sooner than this is followed by another one, under a new context.
const ROUND_TIMEOUT: Duration = Duration::from_millis(200);
/// Rounds under way at once; readers that come later wait for the next.
const MAX_ROUNDS: usize = 2;
/// Rounds whose answers still count. The readers of an older one wait for that after it.
const KEEP_ROUNDS: usize = 16;

#[derive(Debug)]
struct Waiting<T> {
    token: T,
    since: Instant,
}

#[derive(Debug)]
struct Round<T> {
    sequence: u64,
    sent: Instant,
    readers: Vec<Waiting<T>>,
}

#[derive(Debug)]
pub(crate) struct ReadQueue<T> {
    incarnation: u64,
    sequence: u64,
    waiting: Vec<Waiting<T>>,
    renew: bool,
    rounds: VecDeque<Round<T>>,
    confirmed: VecDeque<(u64, Vec<Waiting<T>>)>,
    pending: usize,
}

impl<T> ReadQueue<T> {
    pub(crate) fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            sequence: 0,
            waiting: Vec::new(),
            renew: false,
            rounds: VecDeque::new(),
            confirmed: VecDeque::new(),
            pending: 0,
        }
    }

    /// Readers that have no answer yet.
    pub(crate) fn len(&self) -> usize {
        self.pending
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.pending == 0 && !self.renew && self.rounds.is_empty()
    }

    pub(crate) fn push(&mut self, token: T, now: Instant) {
        self.pending += 1;
        self.waiting.push(Waiting { token, since: now });
    }

    /// A round is wanted even if nobody reads: the lease is about to lapse.
    pub(crate) fn renew(&mut self) {
        self.renew = true;
    }

    /// The context of a round to send now, if one is due.
    pub(crate) fn begin(&mut self, term: u64, now: Instant) -> Option<Vec<u8>> {
        let is_late = |round: &Round<T>| now.since(round.sent) >= ROUND_TIMEOUT;
        if self.rounds.iter().all(|round| round.readers.is_empty() && is_late(round)) {
            self.rounds.clear();
        }
        let under_way = self.rounds.iter().filter(|round| !is_late(round)).count();
        let wanted = !self.waiting.is_empty() || self.renew;
        let lost = under_way == 0 && !self.rounds.is_empty();
        if (!wanted && !lost) || under_way >= MAX_ROUNDS {
            return None;
        }
        if self.rounds.len() >= KEEP_ROUNDS
            && let Some(oldest) = self.rounds.pop_front()
            && let Some(next) = self.rounds.front_mut()
        {
            next.readers.extend(oldest.readers);
        }
        self.renew = false;
        self.sequence += 1;
        let readers = std::mem::take(&mut self.waiting);
        self.rounds.push_back(Round { sequence: self.sequence, sent: now, readers });
        let mut context = Vec::with_capacity(24);
        context.extend_from_slice(&term.to_be_bytes());
        context.extend_from_slice(&self.incarnation.to_be_bytes());
        context.extend_from_slice(&self.sequence.to_be_bytes());
        Some(context)
    }

    /// Under a valid lease nobody needs to be asked: those who wait may read once `index`, the
    /// commit index, is applied.
    pub(crate) fn confirm_waiting(&mut self, index: u64) {
        if !self.waiting.is_empty() {
            self.confirmed.push_back((index, std::mem::take(&mut self.waiting)));
        }
    }

    /// raft-rs confirmed a round: its readers may read once `index` is applied. Returns when the
    /// round was sent, where it was ours and is still remembered.
    pub(crate) fn confirm(&mut self, context: &[u8], index: u64) -> Option<Instant> {
        let incarnation = context.get(8..16)?.try_into().map(u64::from_be_bytes).ok()?;
        let sequence = context.get(16..24)?.try_into().map(u64::from_be_bytes).ok()?;
        if incarnation != self.incarnation {
            return None;
        }
        let at = self.rounds.iter().position(|round| round.sequence == sequence)?;
        let mut sent = None;
        // A later round also confirms those before it.
        for round in self.rounds.drain(..=at) {
            sent = Some(round.sent);
            if !round.readers.is_empty() {
                self.confirmed.push_back((index, round.readers));
            }
        }
        sent
    }

    /// Readers that may read now that `applied` is applied.
    pub(crate) fn ready(&mut self, applied: u64, mut serve: impl FnMut(T)) {
        while self.confirmed.front().is_some_and(|(index, _)| *index <= applied)
            && let Some((_, readers)) = self.confirmed.pop_front()
        {
            for reader in readers {
                self.pending -= 1;
                serve(reader.token);
            }
        }
    }

    /// Takes out readers that have waited since before `oldest`.
    pub(crate) fn expire(&mut self, oldest: Instant, mut refuse: impl FnMut(T)) {
        if self.pending == 0 {
            return;
        }
        let lists = std::iter::once(&mut self.waiting)
            .chain(self.rounds.iter_mut().map(|round| &mut round.readers))
            .chain(self.confirmed.iter_mut().map(|(_, readers)| readers));
        for list in lists {
            for reader in list.extract_if(.., |reader| reader.since < oldest) {
                self.pending -= 1;
                refuse(reader.token);
            }
        }
        self.confirmed.retain(|(_, readers)| !readers.is_empty());
    }

    /// Takes out everybody.
    pub(crate) fn drain(&mut self, mut refuse: impl FnMut(T)) {
        let rounds = self.rounds.drain(..).flat_map(|round| round.readers);
        let confirmed = self.confirmed.drain(..).flat_map(|(_, readers)| readers);
        for reader in self.waiting.drain(..).chain(rounds).chain(confirmed) {
            refuse(reader.token);
        }
        self.pending = 0;
        self.renew = false;
    }
}

#[cfg(test)]
#[path = "reads_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
