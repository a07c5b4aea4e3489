//! The search for an order.
//!
//! At every node of the search some operations are *minimal*: their call stands
//! before the first return in the [`Timeline`], so nothing forces another
//! operation ahead of them. Each is a candidate for the next place. A candidate
//! that the model accepts is lifted out of the list; a node without candidates
//! left is given up, and its latest operation put back.
//!
//! Three cuts, each of which keeps the answer:
//! - A pair of (placed operations, state) that was reached before is dead: had
//!   it led to an order, the search would be over.
//! - An operation of unknown outcome that changes nothing is not placed. An
//!   order that contains it there stays an order without it.
//! - An observer that is minimal and accepted is placed with no alternative
//!   tried. In any order that exists it can move to the front: nothing has to
//!   precede it, and no state changes by its moving.

use std::collections::HashSet;

use super::timeline::{Event, Node, OpId, Timeline};
use super::{Model, OperationOf};

/// How a search ended.
pub(super) enum Outcome {
    /// Every operation with a known outcome was placed.
    Ordered,
    /// Every order was refused; indices into the history.
    Refused {
        /// The order that places the most operations with a known outcome.
        prefix: Vec<usize>,
        /// The operation whose return stands in its way.
        stuck: usize,
    },
    /// The budget ran out.
    OutOfBudget {
        /// The model steps spent.
        steps: u64,
    },
}

/// Looks for an order of `ops` within `budget` model steps.
pub(super) fn search<M: Model>(model: &M, ops: &[OperationOf<M>], budget: u64) -> Outcome {
    let mut search = Search::new(model, ops);
    while search.open > 0 {
        match search.advance(budget) {
            Progress::Onward => {}
            Progress::Exhausted => return search.refusal(),
            Progress::OutOfBudget => return Outcome::OutOfBudget { steps: search.steps },
        }
    }
    Outcome::Ordered
}

enum Progress {
    Onward,
    Exhausted,
    OutOfBudget,
}

/// Which candidates of a node are being looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Observers,
    Others,
}

/// One placed operation, and how to undo it.
struct Frame<S> {
    node: Node,
    id: OpId,
    before: S,
    pass: Pass,
}

struct Search<'a, M: Model> {
    model: &'a M,
    ops: &'a [OperationOf<M>],
    observer: Vec<bool>,
    timeline: Timeline,
    placed: Placed,
    seen: HashSet<(Box<[u64]>, M::State)>,
    stack: Vec<Frame<M::State>>,
    state: M::State,
    cursor: Node,
    pass: Pass,
    /// Operations with a known outcome that are not placed.
    open: usize,
    steps: u64,
    /// The fewest that ever stayed open, the order of then, and what blocked it.
    best: Option<(usize, Vec<OpId>, OpId)>,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, ops: &'a [OperationOf<M>]) -> Self {
        let timeline = Timeline::new(ops);
        let observes = |&i: &usize| {
            ops[i].output.as_ref().is_some_and(|output| model.observes(&ops[i].input, output))
        };
        Search {
            model,
            ops,
            observer: timeline.indices().iter().map(observes).collect(),
            placed: Placed::new(timeline.completed(), ops.len()),
            seen: HashSet::new(),
            stack: Vec::new(),
            state: model.initial(),
            cursor: timeline.first(),
            pass: Pass::Observers,
            open: timeline.completed(),
            steps: 0,
            best: None,
            timeline,
        }
    }

    /// Looks at one event.
    fn advance(&mut self, budget: u64) -> Progress {
        let event = self.timeline.event(self.cursor);
        match (event.expect("an open operation has its return in the list"), self.pass) {
            (Event::Call(id), pass) => {
                if self.observer[id.0] != (pass == Pass::Observers) {
                    self.cursor = self.timeline.after(self.cursor);
                    return Progress::Onward;
                }
                if self.steps >= budget {
                    return Progress::OutOfBudget;
                }
                self.try_place(id)
            }
            (Event::Return(_), Pass::Observers) => {
                self.pass = Pass::Others;
                self.cursor = self.timeline.first();
                Progress::Onward
            }
            (Event::Return(id), Pass::Others) => {
                if self.best.as_ref().is_none_or(|(open, ..)| self.open < *open) {
                    let order = self.stack.iter().map(|frame| frame.id).collect();
                    self.best = Some((self.open, order, id));
                }
                self.retreat()
            }
        }
    }

    /// Places the operation called at the cursor, if that leads somewhere new.
    fn try_place(&mut self, id: OpId) -> Progress {
        self.steps += 1;
        let node = self.cursor;
        self.cursor = self.timeline.after(node);
        let op = &self.ops[self.timeline.index(id)];
        let Some(after) = self.model.step(&self.state, &op.input, op.output.as_ref()) else {
            return Progress::Onward;
        };
        match self.pass {
            Pass::Observers => assert!(
                after == self.state,
                "the model calls {:?} an observer, yet it changes the state",
                op.input,
            ),
            Pass::Others if op.output.is_none() && after == self.state => return Progress::Onward,
            Pass::Others => {}
        }

        self.placed.insert(id);
        if !self.seen.insert((self.placed.key(), after.clone())) {
            self.placed.remove(id);
            // The fate of a node is the fate of its observer: both are dead.
            return match self.pass {
                Pass::Observers => self.retreat(),
                Pass::Others => Progress::Onward,
            };
        }
        self.timeline.lift(node, id);
        if self.timeline.is_completed(id) {
            self.open -= 1;
        }
        let before = std::mem::replace(&mut self.state, after);
        self.stack.push(Frame { node, id, before, pass: self.pass });
        self.pass = Pass::Observers;
        self.cursor = self.timeline.first();
        Progress::Onward
    }

    /// Undoes placements up to the latest one that has alternatives.
    fn retreat(&mut self) -> Progress {
        while let Some(frame) = self.stack.pop() {
            self.timeline.put_back(frame.node, frame.id);
            self.placed.remove(frame.id);
            if self.timeline.is_completed(frame.id) {
                self.open += 1;
            }
            self.state = frame.before;
            match frame.pass {
                Pass::Observers => {}
                Pass::Others => {
                    self.pass = Pass::Others;
                    self.cursor = self.timeline.after(frame.node);
                    return Progress::Onward;
                }
            }
        }
        Progress::Exhausted
    }

    fn refusal(self) -> Outcome {
        let (_, order, stuck) = self.best.expect("a search that ends without an order was blocked");
        Outcome::Refused {
            prefix: order.into_iter().map(|id| self.timeline.index(id)).collect(),
            stuck: self.timeline.index(stuck),
        }
    }
}

/// The set of placed operations, a bit each.
///
/// Known and unknown outcomes have separate words. The known ones are placed
/// roughly in the order of their calls, so all but a short window of their
/// words is full or empty, and [`Placed::key`] is that window: its size follows
/// from the concurrency of a history, not from its length.
struct Placed {
    words: Vec<u64>,
    completed: usize,
    completed_words: usize,
}

impl Placed {
    fn new(completed: usize, total: usize) -> Placed {
        let completed_words = completed.div_ceil(64);
        let unknown_words = (total - completed).div_ceil(64);
        Placed { words: vec![0; completed_words + unknown_words], completed, completed_words }
    }

    fn insert(&mut self, id: OpId) {
        let (word, bit) = self.position(id);
        self.words[word] |= bit;
    }

    fn remove(&mut self, id: OpId) {
        let (word, bit) = self.position(id);
        self.words[word] &= !bit;
    }

    /// Equal for equal sets only: the number of full words at the front, the
    /// words up to the last that is not empty, all words of unknown outcomes.
    fn key(&self) -> Box<[u64]> {
        let (known, unknown) = self.words.split_at(self.completed_words);
        let full = known.iter().take_while(|&&word| word == u64::MAX).count();
        let empty = known[full..].iter().rev().take_while(|&&word| word == 0).count();
        let window = &known[full..known.len() - empty];
        let mut key = Vec::with_capacity(1 + window.len() + unknown.len());
        key.push(full as u64);
        key.extend_from_slice(window);
        key.extend_from_slice(unknown);
        key.into_boxed_slice()
    }

    fn position(&self, id: OpId) -> (usize, u64) {
        match id.0.checked_sub(self.completed) {
            None => (id.0 / 64, 1 << (id.0 % 64)),
            Some(unknown) => (self.completed_words + unknown / 64, 1 << (unknown % 64)),
        }
    }
}
