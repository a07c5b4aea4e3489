//! The applier as the production shell's state machine.

use quorate_consensus::engine::EngineError;
use quorate_consensus::node::{Installed, Machine, Outcome, SnapshotSource};
use quorate_consensus::shard::{ApplyTask, Install, Merged};
use quorate_proto::{PeerId, RegionId};

use super::applier::{Answered, Applier};

/// Who hears how requests ended.
pub trait Answers<T>: Send + 'static {
    /// Takes all answers out of the vector, which keeps its memory. Called on the apply thread,
    /// once for each call of [`Machine::apply`] that has any: must not block.
    fn answer(&mut self, answers: &mut Vec<Answered<T>>);
}

/// An [`Applier`] and who hears its answers.
pub struct StoreMachine<T, A> {
    applier: Applier,
    answers: A,
    /// Empty between calls.
    buffer: Vec<Answered<T>>,
}

impl<T, A: Answers<T>> StoreMachine<T, A> {
    /// Fits the two together.
    pub fn new(applier: Applier, answers: A) -> Self {
        Self { applier, answers, buffer: Vec::new() }
    }
    /// The state machine itself.
    pub fn applier(&mut self) -> &mut Applier {
        &mut self.applier
    }
}

impl<T: Send + 'static, A: Answers<T>> Machine for StoreMachine<T, A> {
    type Token = T;

    fn apply(&mut self, tasks: Vec<ApplyTask<T>>) -> Result<Outcome, EngineError> {
        let outcome = self.applier.apply(tasks, &mut self.buffer);
        // Also after an error: what is in there is written.
        if !self.buffer.is_empty() {
            self.answers.answer(&mut self.buffer);
            self.buffer.clear();
        }
        outcome
    }

    fn snapshot(&mut self, group: RegionId) -> Result<Option<SnapshotSource>, EngineError> {
        self.applier.snapshot(group)
    }

    fn install(&mut self, install: Install) -> Result<Installed, EngineError> {
        self.applier.install(install)
    }

    fn destroy(&mut self, group: RegionId, peer: PeerId) -> Result<(), EngineError> {
        // Another replica of the region may have been let in since.
        let here = self.applier.directory().get(group);
        if here.is_some_and(|here| here.peer() == peer) {
            return self.applier.destroy(group);
        }
        self.applier.forget_merged(group)
    }

    fn merged(&mut self, told: Merged) -> Result<Vec<(RegionId, PeerId)>, EngineError> {
        Ok(self.applier.merged(told).into_iter().collect())
    }
}
