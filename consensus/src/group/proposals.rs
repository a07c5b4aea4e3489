//! Commands on their way into the log, and whom to tell what became of them.
//!
//! Commands wait in a queue until the shard collects; small ones then share an entry. From there
//! on the tokens of an entry wait for its index to be applied. If the entry there is of another
//! term, somebody else's took its place and the command is certainly not done. If nothing is
//! applied there for too long and this peer does not lead any more, nobody can say. Where it leads
//! again, its log says which of its old entries can still be committed.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use raft::eraftpb::Entry;

use crate::time::Instant;

struct Queued<T> {
    command: Bytes,
    token: T,
    suspends_lease: bool,
}

/// The commands of one entry that this peer proposed and that is not applied yet.
struct Proposed<T> {
    index: u64,
    term: u64,
    since: Instant,
    tokens: Vec<T>,
}

pub(crate) struct Proposals<T> {
    queue: Vec<Queued<T>>,
    queued_bytes: usize,
    proposed: VecDeque<Proposed<T>>,
    /// Tokens in `proposed`.
    waiting: usize,
}

/// What is to be proposed at once: entries, and the tokens of each.
pub(crate) struct Batch<T> {
    pub(crate) entries: Vec<Entry>,
    pub(crate) tokens: Vec<Vec<T>>,
    pub(crate) suspends_lease: bool,
}

impl<T> Proposals<T> {
    pub(crate) fn new() -> Self {
        Self { queue: Vec::new(), queued_bytes: 0, proposed: VecDeque::new(), waiting: 0 }
    }

    /// Commands without an outcome.
    pub(crate) fn len(&self) -> usize {
        self.queue.len() + self.waiting
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.proposed.is_empty()
    }

    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Bytes of the commands that are not proposed yet.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    pub(crate) fn push(&mut self, command: Bytes, token: T, suspends_lease: bool) {
        self.queued_bytes += command.len();
        self.queue.push(Queued { command, token, suspends_lease });
    }

    /// Takes all that is queued. Commands share an entry while it stays below `entry_bytes`.
    pub(crate) fn take_batch(&mut self, entry_bytes: usize) -> Batch<T> {
        let mut batch = Batch { entries: Vec::new(), tokens: Vec::new(), suspends_lease: false };
        let mut parts: Vec<Bytes> = Vec::new();
        let mut size = 0;
        self.queued_bytes = 0;
        for queued in self.queue.drain(..) {
            batch.suspends_lease |= queued.suspends_lease;
            if parts.is_empty() || size + queued.command.len() > entry_bytes {
                batch.entries.extend(join(&mut parts));
                batch.tokens.push(Vec::new());
                size = 0;
            }
            size += queued.command.len();
            parts.push(queued.command);
            if let Some(tokens) = batch.tokens.last_mut() {
                tokens.push(queued.token);
            }
        }
        batch.entries.extend(join(&mut parts));
        batch
    }

    /// The entries of a batch stand in the log from `first` on.
    pub(crate) fn proposed(&mut self, first: u64, term: u64, since: Instant, tokens: Vec<Vec<T>>) {
        for (index, tokens) in (first..).zip(tokens) {
            self.waiting += tokens.len();
            self.proposed.push_back(Proposed { index, term, since, tokens });
        }
    }

    /// The entry at `index` is committed: returns its tokens where it is ours. `refuse` gets
    /// those of entries whose place it took.
    pub(crate) fn committed(&mut self, index: u64, term: u64, mut refuse: impl FnMut(T)) -> Vec<T> {
        while self.proposed.front().is_some_and(|proposed| proposed.index <= index)
            && let Some(proposed) = self.proposed.pop_front()
        {
            self.waiting -= proposed.tokens.len();
            if proposed.index == index && proposed.term == term {
                return proposed.tokens;
            }
            proposed.tokens.into_iter().for_each(&mut refuse);
        }
        Vec::new()
    }

    /// This peer leads again: what it proposed in an earlier term and its log has lost since can
    /// never be committed. It must not stay before what is proposed now, at lower indexes perhaps.
    pub(crate) fn keep_logged(
        &mut self,
        is_logged: impl Fn(u64, u64) -> bool,
        mut refuse: impl FnMut(T),
    ) {
        let waiting = &mut self.waiting;
        self.proposed.retain_mut(|proposed| {
            let keeps = is_logged(proposed.index, proposed.term);
            if !keeps {
                *waiting -= proposed.tokens.len();
                proposed.tokens.drain(..).for_each(&mut refuse);
            }
            keeps
        });
    }

    /// Takes out entries proposed before `oldest`.
    pub(crate) fn expire(&mut self, oldest: Instant, mut refuse: impl FnMut(T)) {
        while self.proposed.front().is_some_and(|proposed| proposed.since < oldest)
            && let Some(proposed) = self.proposed.pop_front()
        {
            self.waiting -= proposed.tokens.len();
            proposed.tokens.into_iter().for_each(&mut refuse);
        }
    }

    /// Takes out what is not proposed yet.
    pub(crate) fn drain_queued(&mut self, refuse: impl FnMut(T)) {
        self.queued_bytes = 0;
        self.queue.drain(..).map(|queued| queued.token).for_each(refuse);
    }

    /// Takes out what is proposed.
    pub(crate) fn drain_proposed(&mut self, refuse: impl FnMut(T)) {
        self.waiting = 0;
        self.proposed.drain(..).flat_map(|proposed| proposed.tokens).for_each(refuse);
    }

    /// Gives memory back.
    pub(crate) fn shrink(&mut self) {
        self.queue.shrink_to_fit();
        self.proposed.shrink_to_fit();
    }
}

fn join(parts: &mut Vec<Bytes>) -> Option<Entry> {
    let data = if parts.len() <= 1 {
        parts.pop()?
    } else {
        let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
        for part in parts.drain(..) {
            joined.extend_from_slice(&part);
        }
        joined.freeze()
    };
    Some(Entry { data, ..Entry::default() })
}

#[cfg(test)]
#[path = "proposals_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
