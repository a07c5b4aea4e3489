//! What the leader has to write into the log: its plans and its news.
//!
//! One batch is on its way at a time. Nothing here waits for an answer: what is replicated is
//! compared with what should be, so that a batch that got lost is simply made anew. News carry
//! numbers, so that a batch that arrives twice is told once.

use std::collections::VecDeque;

use quorate_proto::Term;

use super::command::Plan;
use super::ended::MAX_NOTES;
use super::events::{Batch, MAX_BATCH, News};
use super::members::Members;
use super::operators::{Ended, Operator, Operators};
use super::state::State;

/// Most groups whose lifecycles one batch carries.
const GROUPS_PER_BATCH: usize = 512;
/// A batch that shows no effect for so long is made anew, in milliseconds.
const PATIENCE_MS: u64 = 3_000;
/// Most news that wait; beyond, the oldest are dropped.
const MAX_WAITING: usize = 8_192;

/// See the module.
#[derive(Debug)]
pub struct Journal {
    term: Term,
    /// Not replicated yet, in order.
    news: VecDeque<News>,
    /// The number of the first of them.
    first: u64,
    /// The generation of plans that a batch was made at, and when.
    in_flight: Option<(u64, u64)>,
}

impl Journal {
    /// For the leader of `term`.
    pub fn new(term: Term) -> Self {
        Self { term, news: VecDeque::new(), first: 1, in_flight: None }
    }

    /// Something happened.
    pub fn tell(&mut self, news: News) {
        if self.news.len() == MAX_WAITING {
            self.news.pop_front();
            self.first += 1;
        }
        self.news.push_back(news);
    }

    /// What is to be proposed now, if there is anything and no batch is on its way.
    pub fn to_save(
        &mut self,
        state: &State,
        operators: &Operators,
        members: &mut Members,
        now_ms: u64,
    ) -> Option<Plan> {
        if let Some((generation, since_ms)) = self.in_flight {
            let late = now_ms.saturating_sub(since_ms) >= PATIENCE_MS;
            if generation == state.plans_generation() && !late {
                return None;
            }
            self.in_flight = None;
        }
        let told = state.events().told_by(self.term);
        while self.first <= told && self.news.pop_front().is_some() {
            self.first += 1;
        }
        let stored = state.operators();
        let changed = |operator: &&Operator| stored.get(&operator.id) != Some(*operator);
        let is_over = |id: &u64| !operators.iter().any(|operator| operator.id == *id);
        let plan = Plan {
            operators: operators.iter().filter(changed).cloned().collect(),
            ended: stored.keys().copied().filter(is_over).collect(),
            lifecycles: members.to_save(state, GROUPS_PER_BATCH),
            events: Batch {
                term: self.term,
                first: self.first,
                news: self.news.iter().take(MAX_BATCH).cloned().collect(),
            },
            notes: notes(state, operators),
        };
        if plan.is_empty() {
            return None;
        }
        self.in_flight = Some((state.plans_generation(), now_ms));
        Some(plan)
    }

    /// The batch on its way was refused: another may be made at once.
    pub fn failed(&mut self) {
        self.in_flight = None;
    }
}

/// What became of operators and is not replicated yet, oldest first. The replicated list takes them
/// in their order and keeps as many, so that those it lacks are the last ones.
fn notes(state: &State, operators: &Operators) -> Vec<Ended> {
    if !state.takes_notes() {
        return Vec::new();
    }
    let known = state.ended();
    let lacking = operators.ended().rev().take_while(|over| !known.has(over.operator.id));
    let mut notes: Vec<Ended> = lacking.cloned().collect();
    notes.reverse();
    notes.truncate(MAX_NOTES);
    notes
}
