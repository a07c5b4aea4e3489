//! Is this history one that a single atomic object could have produced?
//!
//! A history is a list of [`Operation`]s, each with the moment it was invoked
//! and the moment it returned. It is *linearizable* when every operation can be
//! given one instant between those two moments, so that executing them one
//! after another in the order of their instants yields the outputs that the
//! clients saw. [`check`] decides that for any [`Model`].
//!
//! The method is the one of Wing and Gong, with the two refinements by Lowe:
//! calls and returns form a doubly linked list out of which placed operations
//! are lifted, and a cache of (set of placed operations, state) cuts off every
//! branch that was refused before. Porcupine made the combination popular.
//!
//! Invariants:
//! - An operation whose outcome is unknown (`output: None`) may take effect at
//!   any moment after its invocation, or never. It has a call and no return.
//! - Two events at the same time are concurrent: calls sort before returns.
//!   That is lenient and never raises a false alarm.
//! - The search is iterative and counts model steps against a budget. When the
//!   budget runs out the answer is [`Verdict::Unknown`], never a guess.
//!
//! Absent on purpose: objects that span several keys. Linearizability is local,
//! so a history over many keys is cut into one history a key ([`kv`]), and that
//! is what keeps the exponential part of the problem small.

mod explain;
pub mod history;
pub mod jepsen;
pub mod kv;
pub mod register;
mod search;
mod seen;
#[cfg(test)]
mod seen_tests;
mod timeline;

use std::fmt::Debug;
use std::hash::Hash;

/// The model steps that [`check`] spends before it gives up.
///
/// A step may leave one entry in the cache, so this bounds memory as well: for
/// a register, to about one gigabyte at the very worst.
pub const DEFAULT_BUDGET: u64 = 5_000_000;

/// The sequential object that a history is compared with.
pub trait Model {
    /// What the object holds; equal states must behave the same for ever.
    type State: Clone + Eq + Hash + Debug;
    /// What a client asks for.
    type Input: Eq + Hash + Debug;
    /// What a client is told.
    type Output: Debug;

    /// The state before the first operation.
    fn initial(&self) -> Self::State;

    /// The state after `input`, or `None` when the object in `state` could not
    /// have answered with `output`.
    ///
    /// `output` is `None` when nobody knows the answer; the step must then have
    /// the effect that the operation has in `state`.
    fn step(
        &self,
        state: &Self::State,
        input: &Self::Input,
        output: Option<&Self::Output>,
    ) -> Option<Self::State>;

    /// Whether an operation with this answer leaves *every* state that accepts
    /// it unchanged. A read does; a write does not, even one that happens to
    /// rewrite the present value.
    ///
    /// An observer is placed as soon as a state accepts it, without trying the
    /// alternatives. `false` is always correct, and slower.
    fn observes(&self, _input: &Self::Input, _output: &Self::Output) -> bool {
        false
    }

    /// An operation in words, for explanations.
    fn describe(&self, input: &Self::Input, output: Option<&Self::Output>) -> String {
        match output {
            Some(output) => format!("{input:?} -> {output:?}"),
            None => format!("{input:?} -> unknown"),
        }
    }

    /// A state in words, for explanations.
    fn describe_state(&self, state: &Self::State) -> String {
        format!("{state:?}")
    }
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<I, O> {
    /// Who invoked it. Only explanations look at it.
    pub client: u64,
    /// What was asked.
    pub input: I,
    /// What was answered; `None` when the outcome is unknown.
    pub output: Option<O>,
    /// When it was invoked, in any unit that all operations share.
    pub invoke: u64,
    /// When it returned, in the unit of `invoke` and not before it. `u64::MAX`
    /// by convention, and ignored, when the outcome is unknown.
    pub ret: u64,
}

/// An [`Operation`] of the model `M`.
pub type OperationOf<M> = Operation<<M as Model>::Input, <M as Model>::Output>;

/// What [`check`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Some order explains every answer.
    Linearizable,
    /// No order does.
    Illegal(Illegal),
    /// The budget ran out before an answer was found.
    Unknown {
        /// The model steps that were spent.
        steps: u64,
    },
}

impl Verdict {
    /// Whether an order was found.
    pub fn is_linearizable(&self) -> bool {
        matches!(self, Verdict::Linearizable)
    }

    /// Whether every order was refused.
    pub fn is_illegal(&self) -> bool {
        matches!(self, Verdict::Illegal(_))
    }
}

/// Why a history was refused.
///
/// Of all orders tried, the one that explains the answers up to the latest
/// moment, and the operation that blocks it there. If a single answer is wrong,
/// and the history is right without it, then that operation is the one named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Illegal {
    /// The order, as indices into the history.
    pub prefix: Vec<usize>,
    /// The operation that must come next and cannot, as an index.
    pub stuck: usize,
    /// Both in words, over several lines.
    pub explanation: String,
}

/// Decides whether `ops`, in any order, are a linearizable history of `model`.
///
/// Spends at most [`DEFAULT_BUDGET`] model steps.
///
/// # Panics
/// When an operation with a known outcome returns before it was invoked: such a
/// history was recorded wrongly, and no verdict on it means anything.
pub fn check<M: Model>(model: &M, ops: &[OperationOf<M>]) -> Verdict {
    check_within(model, ops, DEFAULT_BUDGET)
}

/// [`check`] with a budget of the caller's choice, in model steps.
///
/// # Panics
/// As [`check`].
pub fn check_within<M: Model>(model: &M, ops: &[OperationOf<M>], budget: u64) -> Verdict {
    match search::search(model, ops, budget) {
        search::Outcome::Ordered => Verdict::Linearizable,
        search::Outcome::OutOfBudget { steps } => Verdict::Unknown { steps },
        search::Outcome::Refused { prefix, stuck } => {
            let explanation = explain::explain(model, ops, &prefix, stuck);
            Verdict::Illegal(Illegal { prefix, stuck, explanation })
        }
    }
}
