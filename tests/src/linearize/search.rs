//! The search for an order.
//!
//! At every node of the search some operations are *minimal*: their call stands
//! before the first return in the [`Timeline`], so nothing forces another
//! operation ahead of them. Each is a candidate for the next place. A candidate
//! that the model accepts is lifted out of the list; a node without candidates
//! left is given up, and its latest operation put back.
//!
//! Operations of unknown outcome are what makes a search long: each may be
//! placed anywhere or nowhere. So they come last among the candidates, and most
//! of the cuts are about them. Each cut keeps the answer:
//! - A node is dead if one with the same state and the same known operations
//!   placed was reached before with no unknown ones but those placed here: what
//!   completes this node completes that one. (The search visits a node once and
//!   tries all its candidates. If an order exists, some visited node is nearest
//!   to its end; the next node towards it is then visited, or gives way to a
//!   visited node as near. Either is nearer: a contradiction.)
//! - Of the unknown operations with equal input only the one called first is a
//!   candidate. All are minimal if a later one is, and so they can be exchanged.
//! - An unknown operation that changes nothing is not placed, nor is any write
//!   that hides an unknown one just placed. An order that contains the unknown
//!   one there stays an order without it.
//! - An observer that is minimal and accepted is placed with no alternative
//!   tried. In any order that exists it can move to the front: nothing has to
//!   precede it, and no state changes by its moving.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::seen::{Placed, Seen};
use super::timeline::{Event, Node, OpId, Timeline};
use super::{Model, OperationOf};

/// How a search ended.
pub(super) enum Outcome {
    /// Every operation with a known outcome was placed.
    Ordered,
    /// Every order was refused; indices into the history.
    Refused {
        /// The order that gets furthest in time before it is blocked, and of
        /// several such the one with the most operations of known outcome and
        /// the fewest of unknown.
        prefix: Vec<usize>,
        /// The operation whose return blocks it.
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

/// Which candidates of a node are being looked at, in this order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Observers,
    Known,
    Unknown,
}

/// One placed operation, and how to undo it.
struct Frame<S> {
    node: Node,
    id: OpId,
    before: S,
    pass: Pass,
}

/// The order that got furthest, and what blocked it.
struct Blocked {
    by: OpId,
    at: Node,
    open: usize,
    order: Vec<OpId>,
}

struct Search<'a, M: Model> {
    model: &'a M,
    ops: &'a [OperationOf<M>],
    timeline: Timeline,
    /// By operation: when it is a candidate.
    passes: Vec<Pass>,
    /// By operation: the one before it with unknown outcome and equal input.
    twins: Vec<Option<OpId>>,
    placed: Placed,
    seen: Seen<M::State>,
    stack: Vec<Frame<M::State>>,
    state: M::State,
    cursor: Node,
    pass: Pass,
    /// Operations with a known outcome that are not placed.
    open: usize,
    steps: u64,
    best: Option<Blocked>,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, ops: &'a [OperationOf<M>]) -> Self {
        let timeline = Timeline::new(ops);
        let pass = |&i: &usize| match &ops[i].output {
            None => Pass::Unknown,
            Some(output) if model.observes(&ops[i].input, output) => Pass::Observers,
            Some(_) => Pass::Known,
        };
        let mut latest = HashMap::new();
        let twin = |(id, &i): (usize, &usize)| match &ops[i].output {
            None => latest.insert(&ops[i].input, OpId(id)),
            Some(_) => None,
        };
        Search {
            model,
            ops,
            passes: timeline.indices().iter().map(pass).collect(),
            twins: timeline.indices().iter().enumerate().map(twin).collect(),
            placed: Placed::new(timeline.completed(), ops.len()),
            seen: Seen::default(),
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
                let node = self.cursor;
                self.cursor = self.timeline.after(node);
                let twin_first = self.twins[id.0].is_some_and(|twin| !self.placed.contains(twin));
                if self.passes[id.0] != pass || twin_first {
                    return Progress::Onward;
                }
                if self.steps >= budget {
                    return Progress::OutOfBudget;
                }
                self.try_place(node, id)
            }
            (Event::Return(_), Pass::Observers) => self.rewind(Pass::Known),
            (Event::Return(_), Pass::Known) => self.rewind(Pass::Unknown),
            (Event::Return(id), Pass::Unknown) => {
                self.blocked(id);
                self.retreat()
            }
        }
    }

    /// Goes back to the first event, to look for candidates of `pass`.
    fn rewind(&mut self, pass: Pass) -> Progress {
        self.pass = pass;
        self.cursor = self.timeline.first();
        Progress::Onward
    }

    /// Places `id`, called at `node`, if that leads somewhere new.
    fn try_place(&mut self, node: Node, id: OpId) -> Progress {
        self.steps += 1;
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
            Pass::Unknown if after == self.state => return Progress::Onward,
            Pass::Known | Pass::Unknown => {}
        }

        if self.pass != Pass::Observers && self.hides_unknown(id, &after) {
            return Progress::Onward;
        }

        self.placed.insert(id);
        if !self.seen.insert(&self.placed, &after) {
            self.placed.remove(id);
            // The fate of a node is the fate of its observer: both are dead.
            return match self.pass {
                Pass::Observers => self.retreat(),
                Pass::Known | Pass::Unknown => Progress::Onward,
            };
        }
        self.timeline.lift(node, id);
        if self.timeline.is_completed(id) {
            self.open -= 1;
        }
        let before = std::mem::replace(&mut self.state, after);
        self.stack.push(Frame { node, id, before, pass: self.pass });
        self.rewind(Pass::Observers)
    }

    /// Whether the latest placement has an unknown outcome and `id`, which leads
    /// to `after`, would lead there without it too.
    fn hides_unknown(&mut self, id: OpId, after: &M::State) -> bool {
        let Some(frame) = self.stack.last().filter(|frame| frame.pass == Pass::Unknown) else {
            return false;
        };
        self.steps += 1;
        let op = &self.ops[self.timeline.index(id)];
        let without = self.model.step(&frame.before, &op.input, op.output.as_ref());
        without.is_some_and(|without| without == *after)
    }

    /// Keeps the present order if none got as far. Nodes number events in time.
    fn blocked(&mut self, by: OpId) {
        let (at, open) = (self.cursor, self.open);
        let placed = self.stack.len();
        let further = |best: &Blocked| {
            (at, Reverse(open), Reverse(placed))
                > (best.at, Reverse(best.open), Reverse(best.order.len()))
        };
        if self.best.as_ref().is_none_or(further) {
            let order = self.stack.iter().map(|frame| frame.id).collect();
            self.best = Some(Blocked { by, at, open, order });
        }
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
                Pass::Known | Pass::Unknown => {
                    self.pass = frame.pass;
                    self.cursor = self.timeline.after(frame.node);
                    return Progress::Onward;
                }
            }
        }
        Progress::Exhausted
    }

    fn refusal(self) -> Outcome {
        let best = self.best.expect("a search that ends without an order was blocked");
        Outcome::Refused {
            prefix: best.order.into_iter().map(|id| self.timeline.index(id)).collect(),
            stuck: self.timeline.index(best.by),
        }
    }
}
