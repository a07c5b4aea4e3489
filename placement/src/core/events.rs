//! What happened, for those who watch.
//!
//! The leader of placement notes events, and they are replicated in batches with what it plans; so
//! a failover keeps them. Each gets its number when it is applied: numbers grow by one and are
//! never reused. A batch that is proposed twice is counted once.
//!
//! Warnings and worse have a place of their own, so that a thousand moved leaders do not push out
//! the one store that was lost.

use std::collections::BTreeMap;

use quorate_proto::{NodeId, RegionId, Term};

pub use super::lifecycle::Severity;

/// Events that are kept of those that only inform.
pub const KEPT: usize = 2_000;
/// Warnings and worse that are kept.
pub const KEPT_GRAVE: usize = 1_000;
/// Events of one batch; more follow.
pub const MAX_BATCH: usize = 256;

/// Something that happened, not numbered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Placement time.
    pub at_ms: u64,
    /// How much it matters.
    pub severity: Severity,
    /// `leader-lost`, `member-ready`, `store-down`…
    pub kind: String,
    /// In words.
    pub text: String,
    /// Of which region; `r0` for none or placement's own group.
    pub region: RegionId,
    /// Of which store or member; 0 for none.
    pub node: NodeId,
}

impl News {
    /// True for a warning and worse.
    pub fn is_grave(&self) -> bool {
        match self.severity {
            Severity::Info => false,
            Severity::Warning | Severity::Critical => true,
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Grows by one.
    pub sequence: u64,
    /// What.
    pub news: News,
    /// Who noted it: the leader of this term…
    pub term: Term,
    /// …as its so-many-th.
    pub number: u64,
}

/// News of a leader, as proposed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The leader's term.
    pub term: Term,
    /// The number of the first one, counted from 1 in that term.
    pub first: u64,
    /// In order.
    pub news: Vec<News>,
}

/// The kept events. Replicated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Events {
    /// By number.
    kept: BTreeMap<u64, Event>,
    /// The number of the last one.
    last: u64,
}

impl Events {
    /// An event as it was stored; called in order.
    pub(super) fn load(&mut self, event: Event) {
        self.last = event.sequence;
        self.kept.insert(event.sequence, event);
    }

    /// Takes a batch in. Returns the new events, and the numbers of those that are dropped.
    pub(super) fn take(&mut self, batch: Batch) -> (Vec<Event>, Vec<u64>) {
        let known = self.told_by(batch.term);
        let mut added = Vec::new();
        for (number, news) in (batch.first..).zip(batch.news) {
            if number <= known {
                continue;
            }
            self.last += 1;
            let event = Event { sequence: self.last, news, term: batch.term, number };
            self.kept.insert(event.sequence, event.clone());
            added.push(event);
        }
        let mut dropped = Vec::new();
        for (grave, most) in [(false, KEPT), (true, KEPT_GRAVE)] {
            let of = self.kept.values().filter(|event| event.news.is_grave() == grave);
            let surplus = of.clone().count().saturating_sub(most);
            dropped.extend(of.take(surplus).map(|event| event.sequence));
        }
        dropped.sort_unstable();
        for sequence in &dropped {
            self.kept.remove(sequence);
        }
        (added, dropped)
    }

    /// Those after a number, oldest first; the last `limit` of them where that is not 0.
    pub fn after(&self, sequence: u64, limit: usize) -> Vec<Event> {
        let later = self.kept.range(sequence.saturating_add(1)..).map(|(_, event)| event);
        let skip = match limit {
            0 => 0,
            limit => later.clone().count().saturating_sub(limit),
        };
        later.skip(skip).cloned().collect()
    }

    /// How many the leader of `term` has told, as far as the last event tells.
    pub fn told_by(&self, term: Term) -> u64 {
        let last = self.kept.last_key_value().map(|(_, last)| last);
        last.filter(|last| last.term == term).map_or(0, |last| last.number)
    }

    /// The number of the last one; 0 without any.
    pub fn last(&self) -> u64 {
        self.last
    }
}
