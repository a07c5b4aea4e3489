//! Calls that bring snapshots: what arrives of them, and to which end it goes.
//!
//! A call is a stream in each direction. The network loses, delays and reorders what it is made
//! of; a stream keeps its order, has no holes, and ends when its connection breaks. What is lost
//! breaks it (`Cx::piece`); each end notices on its own.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_consensus::engine::EngineError;
use quorate_consensus::transfer::Outcome;
use quorate_proto::NodeId;

use super::Process;
use crate::sim::cx::Cx;
use crate::sim::messages::{Call, Event, Piece, Step, Words};

/// What one end hears, in its order.
#[derive(Debug, Default)]
pub(super) struct Ear {
    next: u64,
    early: BTreeMap<u64, Words>,
}

impl Ear {
    /// The beginning was heard.
    pub(super) fn open() -> Self {
        Self { next: 1, early: BTreeMap::new() }
    }

    /// Returns what may be heard now.
    pub(super) fn hear(&mut self, number: u64, words: Words) -> Vec<Words> {
        self.early.insert(number, words);
        let mut heard = Vec::new();
        while let Some(words) = self.early.remove(&self.next) {
            self.next += 1;
            heard.push(words);
        }
        heard
    }
}

impl Process {
    /// A piece of a call has arrived.
    pub(crate) fn heard(
        &mut self,
        from: NodeId,
        piece: Piece,
        cx: &mut Cx,
    ) -> Result<(), EngineError> {
        let Piece { call, number, words } = piece;
        if matches!(words, Words::Unknown) {
            return self.hung_up(call, cx);
        }
        let is_ours = call.from == self.id;
        let up = self.life();
        let ear = if is_ours { up.sending.ear(call) } else { up.receiving.ear(call) };
        let Some(ear) = ear else {
            if let (Words::Open(header), 0, false) = (&words, number, is_ours) {
                return self.arrive(from, call, (**header).clone(), cx);
            }
            cx.piece(self.id, from, Piece { call, number: 0, words: Words::Unknown });
            return Ok(());
        };
        for words in ear.hear(number, words) {
            match words {
                Words::Answer(answer) => self.answered(call, answer, cx)?,
                Words::Chunk(chunk) => self.take_in(call, *chunk, cx),
                Words::Ended(reason) => self.broke_off(call, &reason, cx)?,
                Words::Open(_) | Words::Unknown => {}
            }
        }
        Ok(())
    }

    /// The connection of a call is broken, or its other end knows nothing of it.
    pub(crate) fn hung_up(&mut self, call: Call, cx: &mut Cx) -> Result<(), EngineError> {
        self.broke_off(call, "the connection broke", cx)
    }

    fn broke_off(&mut self, call: Call, reason: &str, cx: &mut Cx) -> Result<(), EngineError> {
        if call.from == self.id {
            self.attempted(call, Outcome::Broken(reason.to_owned()), cx);
            return Ok(());
        }
        self.keep(call, reason, cx)
    }

    /// Goes on with it after `wait` by the clock of this process, and `takes` besides.
    pub(super) fn later(&self, wait: Duration, takes: u64, step: Step, cx: &mut Cx) {
        let wait = self.clock.takes(wait.as_nanos() as u64);
        cx.after(wait + takes, Event::Transfer { node: self.id, life: self.life, step });
    }

    /// The next step of something that takes its time.
    pub(crate) fn transfer(&mut self, step: Step, cx: &mut Cx) -> Result<(), EngineError> {
        match step {
            Step::Dispatch => self.look_again(cx),
            Step::Leave(call, chunk) => self.leave(call, *chunk, cx)?,
            Step::Write(call) => self.write(call, cx)?,
            Step::Tell(make, delivered) => self.tell(&make, delivered, cx),
        }
        Ok(())
    }
}
