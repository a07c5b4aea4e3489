//! Snapshots that a process receives.
//!
//! The counterpart of `consensus/src/node/{receive,stage}.rs`: the same desk, the same staging, and
//! the same limit of bytes, by virtual time. A call that is told to stop does so at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use prost::Message;
use quorate_consensus::engine::{Engine, EngineError, MemoryEngine};
use quorate_consensus::time::Instant;
use quorate_consensus::transfer::{
    Answer, Arrival, Ended, Position, ReceiveDesk, Staging, Taken, TokenBucket, Verdict,
};
use quorate_proto::wire::peer::snapshot_answer::Answer as WireAnswer;
use quorate_proto::wire::peer::{
    Envelope, SnapshotAnswer, SnapshotBusy, SnapshotChunk, SnapshotGoOn, SnapshotHeader,
    SnapshotResult, StagedTransfer,
};
use quorate_proto::{NodeId, PeerId, RegionId};

use super::Process;
use super::calls::Ear;
use super::careless::Careless;
use super::snapshots::name;
use crate::sim::agenda::MS;
use crate::sim::chance::Concern;
use crate::sim::cx::Cx;
use crate::sim::knobs::Snapshots;
use crate::sim::messages::{Call, Event, Piece, Step, Words};
use crate::sim::mutant::Mutant;
use crate::sim::world::Deed;

/// How long it takes to write a chunk.
const WRITING: (u64, u64) = (0, 3 * MS);

/// How long a process is down that dies while it writes.
const DOWN: (u64, u64) = (5 * MS, 800 * MS);

/// See the module.
pub(crate) struct Receiving {
    desk: ReceiveDesk,
    bucket: TokenBucket,
    calls: BTreeMap<Call, Incoming>,
    /// Transfers that an earlier run of the process has left, and nobody has gone on with yet.
    found: BTreeSet<String>,
}

struct Incoming {
    arrival: Arrival,
    message: Envelope,
    staging: Staging,
    ear: Ear,
    /// Came, and not written yet.
    chunks: VecDeque<SnapshotChunk>,
}

impl Receiving {
    /// Finds what earlier runs of the process have left.
    pub(super) fn new(
        knobs: &Snapshots,
        disk: &MemoryEngine,
        now: Instant,
    ) -> Result<Self, EngineError> {
        let mut desk = ReceiveDesk::new(knobs.receiving, Duration::from_nanos(knobs.resume));
        let mut found = BTreeSet::new();
        for (id, note) in disk.unfinished()? {
            match StagedTransfer::decode(note) {
                Ok(staged) => {
                    desk.restore(id.clone(), &staged, now);
                    found.insert(id);
                }
                Err(_) => disk.discard_staged(&id)?,
            }
        }
        let bucket = TokenBucket::new(knobs.rate);
        Ok(Self { desk, bucket, calls: BTreeMap::new(), found })
    }

    pub(super) fn ear(&mut self, call: Call) -> Option<&mut Ear> {
        self.calls.get_mut(&call).map(|incoming| &mut incoming.ear)
    }

    /// Open calls from a process.
    pub(crate) fn calls_from(&self, node: NodeId) -> impl Iterator<Item = Call> {
        self.calls.keys().filter(move |call| call.from == node).copied()
    }

    /// Open calls of which something is staged.
    pub(crate) fn begun(&self) -> impl Iterator<Item = Call> {
        let begun = |(_, incoming): &(&Call, &Incoming)| incoming.staging.position().next > 0;
        self.calls.iter().filter(begun).map(|(call, _)| *call)
    }

    fn call_of(&self, id: &str) -> Option<Call> {
        let is_its = |(_, incoming): &(&Call, &Incoming)| incoming.arrival.id == id;
        self.calls.iter().find(is_its).map(|(call, _)| *call)
    }
}

impl Process {
    /// Somebody wants to send.
    pub(super) fn arrive(
        &mut self,
        from: NodeId,
        call: Call,
        header: SnapshotHeader,
        cx: &mut Cx,
    ) -> Result<(), EngineError> {
        let Some(message) = header.message else { return Ok(()) };
        let answer = if self.with_role(cx, |role, _| role.admit_snapshot(&message)) {
            let arrival = Arrival {
                id: name(&message).to_owned(),
                group: RegionId(message.group),
                to: PeerId(message.to_peer),
                from,
                total_bytes: header.total_bytes,
            };
            self.admit(call, arrival, message, cx)?
        } else {
            result(Err("it is not wanted".to_owned()))
        };
        let words = Words::Answer(SnapshotAnswer { answer: Some(answer) });
        cx.piece(self.id, from, Piece { call, number: 0, words });
        Ok(())
    }

    /// The first answer.
    fn admit(
        &mut self,
        call: Call,
        arrival: Arrival,
        message: Envelope,
        cx: &mut Cx,
    ) -> Result<WireAnswer, EngineError> {
        let now = self.local(cx);
        let position = loop {
            match self.life().receiving.desk.arrive(arrival.clone(), now) {
                Answer::GoOn { from, gone } => {
                    for id in gone {
                        self.stop_receiving(&id, cx)?;
                        self.disk.discard_staged(&id)?;
                    }
                    break from;
                }
                Answer::TakeOver => self.stop_receiving(&arrival.id, cx)?,
                Answer::Busy(wait) => {
                    cx.checks.transfers.postponed += 1;
                    let retry_after_ms = wait.as_millis() as u64;
                    return Ok(WireAnswer::Busy(SnapshotBusy { retry_after_ms }));
                }
                Answer::Finished => return Ok(result(Ok(()))),
            }
        };
        let staging = self.open(&arrival, position, cx)?;
        let at = staging.position();
        let receiving = &mut self.life().receiving;
        receiving.desk.progressed(&arrival.id, at, now);
        if receiving.found.remove(&arrival.id) && at.next > 0 {
            cx.checks.transfers.restored += 1;
        }
        let (ear, chunks) = (Ear::open(), VecDeque::new());
        let incoming = Incoming { arrival, message, staging, ear, chunks };
        receiving.calls.insert(call, incoming);
        Ok(WireAnswer::GoOn(SnapshotGoOn { next_sequence: at.next }))
    }

    fn open(&self, arrival: &Arrival, expected: Position, cx: &Cx) -> Result<Staging, EngineError> {
        let bytes = cx.knobs.snapshots.checkpoint_bytes;
        if !cx.is(Mutant::NotedBeforeStaged) {
            return Staging::open(&self.disk, arrival.clone(), expected, bytes);
        }
        let resumed = match expected.next {
            0 => None,
            _ => self.disk.resume_stage(&arrival.id)?,
        };
        let (stage, at) = match resumed {
            Some((stage, note)) => {
                (stage, StagedTransfer::decode(note).map_or(expected, |it| Position::of(&it)))
            }
            None => (self.disk.stage(&arrival.id)?, Position::default()),
        };
        Ok(Staging::new(arrival.clone(), Box::new(Careless::new(stage)), at, bytes))
    }

    /// A chunk has come. It is written when its bytes may.
    pub(super) fn take_in(&mut self, call: Call, chunk: SnapshotChunk, cx: &mut Cx) {
        let Some(incoming) = self.life().receiving.calls.get_mut(&call) else { return };
        incoming.chunks.push_back(chunk);
        if incoming.chunks.len() == 1 {
            self.plan_writing(call, cx);
        }
    }

    fn plan_writing(&mut self, call: Call, cx: &mut Cx) {
        let now = self.local(cx);
        let receiving = &mut self.life().receiving;
        let incoming = receiving.calls.get(&call);
        let Some(chunk) = incoming.and_then(|incoming| incoming.chunks.front()) else { return };
        let wait = receiving.bucket.take(chunk.data.len() as u64, now);
        let takes = cx.within(Concern::Transfers(self.id), WRITING);
        self.later(wait, takes, Step::Write(call), cx);
    }

    /// A chunk is written.
    pub(super) fn write(&mut self, call: Call, cx: &mut Cx) -> Result<(), EngineError> {
        let (node, now) = (self.id, self.local(cx));
        let receiving = &mut self.life().receiving;
        let Some(incoming) = receiving.calls.get_mut(&call) else { return Ok(()) };
        let Some(chunk) = incoming.chunks.pop_front() else { return Ok(()) };
        match incoming.staging.take(chunk) {
            Ok(taken) => {
                cx.checks.transfers.chunks += 1;
                let at = incoming.staging.position();
                receiving.desk.progressed(&incoming.arrival.id, at, now);
                if cx.net.bad && cx.chance(Concern::Transfers(node), cx.knobs.snapshots.deaths) {
                    let down = cx.within(Concern::Transfers(node), DOWN);
                    cx.after(0, Event::Deed(Deed::Kill { node, down }));
                }
                match taken {
                    Taken::More => self.plan_writing(call, cx),
                    Taken::Last => {
                        let disk = self.disk.clone();
                        let finish = |staging: Staging| (at, staging.finish(&disk));
                        self.conclude(call, finish, cx)?;
                    }
                }
                Ok(())
            }
            Err(Ended::Broken(reason)) => self.keep(call, &reason, cx),
            Err(ended) => self.conclude(call, |staging| (staging.position(), ended), cx),
        }
    }

    /// A call broke off. What came is kept.
    pub(super) fn keep(
        &mut self,
        call: Call,
        reason: &str,
        cx: &mut Cx,
    ) -> Result<(), EngineError> {
        self.conclude(call, |staging| staging.keep(reason.to_owned()), cx)
    }

    fn stop_receiving(&mut self, id: &str, cx: &mut Cx) -> Result<(), EngineError> {
        match self.life().receiving.call_of(id) {
            Some(call) => self.keep(call, "the call was given up", cx),
            None => Ok(()),
        }
    }

    fn conclude(
        &mut self,
        call: Call,
        end: impl FnOnce(Staging) -> (Position, Ended),
        cx: &mut Cx,
    ) -> Result<(), EngineError> {
        let (node, now) = (self.id, self.local(cx));
        let receiving = &mut self.life().receiving;
        let Some(incoming) = receiving.calls.remove(&call) else { return Ok(()) };
        let Incoming { arrival: Arrival { id, from, .. }, message, staging, .. } = incoming;
        let (durable, ended) = end(staging);
        cx.note(format_args!("{node} has {id} up to {}: {ended:?}", durable.next));
        let answer = |outcome| Words::Answer(SnapshotAnswer { answer: Some(result(outcome)) });
        let (words, keep) = match receiving.desk.ended(&id, ended, durable, now) {
            Verdict::Deliver => {
                self.frame(from, vec![message], cx);
                let handed = self.life().receiving.desk.handed_over(&id, true, now);
                (answer(handed), true)
            }
            Verdict::Abort { reason, keep } => (Words::Ended(reason), keep),
            Verdict::Refuse(reason) => (answer(Err(reason)), false),
        };
        if !keep {
            self.disk.discard_staged(&id)?;
        }
        // The first answer was number 0; this one ends the call.
        cx.piece(node, from, Piece { call, number: 1, words });
        Ok(())
    }

    /// Removes what nobody goes on with.
    pub(crate) fn expire(&mut self, cx: &mut Cx) -> Result<(), EngineError> {
        let now = self.local(cx);
        for id in self.life().receiving.desk.expire(now) {
            cx.checks.transfers.abandoned += 1;
            cx.note(format_args!("{} removes {id}: nobody goes on with it", self.id));
            self.disk.discard_staged(&id)?;
        }
        Ok(())
    }
}

fn result(outcome: Result<(), String>) -> WireAnswer {
    let accepted = outcome.is_ok();
    WireAnswer::Result(SnapshotResult { accepted, reason: outcome.err().unwrap_or_default() })
}
