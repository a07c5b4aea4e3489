//! Writing a history down while clients run.
//!
//! A [`Recorder`] is shared by all clients of a test. A client announces an
//! operation before it sends it and reports the outcome after it has it, so the
//! recorded interval contains the true one: the checker may miss a violation
//! that is shorter than that slack, and never invents one.
//!
//! Time comes from the closure that the recorder is made with, so a simulation
//! passes its virtual clock and a test of processes a monotonic one. A caller
//! that has the time at hand gives it to the `_at` methods instead.
//!
//! The recorder keeps every operation: the length of the test is its bound.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Operation;

/// A history in the making. Clones share it.
pub struct Recorder<I, O> {
    shared: Arc<Shared<I, O>>,
}

/// An operation that was invoked and has no outcome yet.
///
/// Dropping it, as a cancelled task or a killed client does, leaves the outcome
/// unknown.
#[must_use = "an operation without a reported outcome counts as unknown"]
pub struct Pending<I, O> {
    shared: Arc<Shared<I, O>>,
    slot: usize,
}

struct Shared<I, O> {
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
    /// `None` for operations that did not happen, so that slots stay put.
    slots: Mutex<Vec<Option<Operation<I, O>>>>,
}

impl<I, O> Recorder<I, O> {
    /// An empty history with `clock` for its time, which must never run
    /// backwards. The unit is the caller's.
    pub fn new(clock: impl Fn() -> u64 + Send + Sync + 'static) -> Recorder<I, O> {
        let slots = Mutex::new(Vec::new());
        Recorder { shared: Arc::new(Shared { clock: Box::new(clock), slots }) }
    }

    /// Announces an operation; call it before sending anything.
    pub fn invoke(&self, client: u64, input: I) -> Pending<I, O> {
        self.invoke_at(client, input, (self.shared.clock)())
    }

    /// [`Recorder::invoke`] at the time `now`.
    pub fn invoke_at(&self, client: u64, input: I, now: u64) -> Pending<I, O> {
        let operation = Operation { client, input, output: None, invoke: now, ret: u64::MAX };
        let mut slots = self.shared.slots();
        slots.push(Some(operation));
        Pending { shared: Arc::clone(&self.shared), slot: slots.len() - 1 }
    }

    /// The history so far, in the order of invocation. Operations that are
    /// still pending have an unknown outcome in it.
    pub fn history(&self) -> Vec<Operation<I, O>>
    where
        I: Clone,
        O: Clone,
    {
        self.shared.slots().iter().flatten().cloned().collect()
    }
}

impl<I, O> Clone for Recorder<I, O> {
    fn clone(&self) -> Self {
        Recorder { shared: Arc::clone(&self.shared) }
    }
}

impl<I, O> Pending<I, O> {
    /// The operation took effect and was answered with `output`.
    ///
    /// # Panics
    /// When the clock ran backwards since the invocation.
    pub fn ok(self, output: O) {
        let now = (self.shared.clock)();
        self.ok_at(output, now);
    }

    /// [`Pending::ok`] at the time `now`.
    ///
    /// # Panics
    /// When `now` is before the invocation.
    pub fn ok_at(self, output: O, now: u64) {
        if let Some(operation) = &mut self.shared.slots()[self.slot] {
            let invoke = operation.invoke;
            assert!(
                invoke <= now,
                "the clock ran backwards: invoked at {invoke}, answered at {now}"
            );
            operation.output = Some(output);
            operation.ret = now;
        }
    }

    /// The operation definitely did not and will not take effect: it is struck
    /// from the history. A timeout is no such thing.
    pub fn fail(self) {
        self.shared.slots()[self.slot] = None;
    }

    /// The operation may have taken effect, or still may: a timeout, a lost
    /// connection, an answer that leaves it open. The same as dropping `self`.
    pub fn unknown(self) {}
}

impl<I, O> Shared<I, O> {
    /// A panic in another client leaves whole operations behind: carry on, so
    /// that the history that led to it can be looked at.
    fn slots(&self) -> MutexGuard<'_, Vec<Option<Operation<I, O>>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
