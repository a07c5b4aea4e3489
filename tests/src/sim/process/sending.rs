//! Snapshots that a process sends: whose turn it is, and what its calls say.
//!
//! The counterpart of `consensus/src/node/{transmit,attempt}.rs`: the same queue, the same places
//! where chunks are cut, and the same limit of bytes, by virtual time.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use quorate_consensus::engine::{Cf, Direction, EngineError};
use quorate_consensus::node::SnapshotSource;
use quorate_consensus::shard::{self, LeaderChange, MakeSnapshot, durable_entries};
use quorate_consensus::time::Instant;
use quorate_consensus::transfer::{After, Cutter, Marks, Outcome, SendQueue, Ticket, TokenBucket};
use quorate_proto::wire::peer::snapshot_answer::Answer;
use quorate_proto::wire::peer::{Envelope, SnapshotAnswer, SnapshotChunk, SnapshotHeader};
use quorate_proto::{LogIndex, NodeId};

use super::Process;
use super::calls::Ear;
use super::effects::Work;
use super::snapshots::name;
use crate::sim::agenda::MS;
use crate::sim::chance::Concern;
use crate::sim::cx::Cx;
use crate::sim::knobs::Snapshots;
use crate::sim::messages::{Call, Event, Piece, Step, Token, Words};
use crate::sim::mutant::Mutant;

/// How long it takes to read a chunk.
const READING: (u64, u64) = (0, 2 * MS);
/// Logs of so many bytes are bounded by their entries alone.
const LONG_LOG: u64 = 1 << 20;

/// See the module.
pub(crate) struct Sending {
    queue: SendQueue,
    bucket: TokenBucket,
    /// Pictures of transfers that broke off.
    kept: BTreeMap<Ticket, Picture>,
    calls: BTreeMap<Call, Outgoing>,
    /// Counts the transfers, and the calls.
    transfers: u64,
    called: u64,
    /// When the queue is looked at again.
    due: Option<Instant>,
}

/// A group's data at one moment, and how far it was read.
struct Picture {
    message: Envelope,
    source: SnapshotSource,
    marks: Marks,
}

struct Outgoing {
    ticket: Ticket,
    make: MakeSnapshot,
    picture: Picture,
    ear: Ear,
    /// Pieces said so far.
    said: u64,
    /// The chunk to read next; `None` while the receiver has not said where to go on.
    next: Option<u64>,
}

impl Sending {
    pub(super) fn new(knobs: &Snapshots) -> Self {
        Self {
            queue: SendQueue::new(knobs.sending, Duration::from_nanos(knobs.resume)),
            bucket: TokenBucket::new(knobs.rate),
            kept: BTreeMap::new(),
            calls: BTreeMap::new(),
            transfers: 0,
            called: 0,
            due: None,
        }
    }

    pub(super) fn ear(&mut self, call: Call) -> Option<&mut Ear> {
        self.calls.get_mut(&call).map(|outgoing| &mut outgoing.ear)
    }

    /// Open calls to a process.
    pub(crate) fn calls_to(&self, node: NodeId) -> impl Iterator<Item = Call> {
        let its = self.calls.iter().filter(move |(_, outgoing)| outgoing.make.node == node);
        its.map(|(call, _)| *call)
    }
}

impl Process {
    /// Raft wants a snapshot sent.
    pub(super) fn ask(&mut self, make: MakeSnapshot, cx: &mut Cx) {
        match self.life().sending.queue.ask(make) {
            Ok(Some(overtaken)) => self.stop(overtaken, cx),
            Ok(None) => {}
            Err(make) => self.tell(&make, false, cx),
        }
        self.dispatch(cx);
    }

    pub(super) fn look_again(&mut self, cx: &mut Cx) {
        self.life().sending.due = None;
        self.dispatch(cx);
    }

    /// Starts the jobs whose turn has come.
    fn dispatch(&mut self, cx: &mut Cx) {
        let (node, life, now) = (self.id, self.life, self.local(cx));
        while let Some((ticket, make)) = self.life().sending.queue.next(now) {
            match self.life().sending.kept.remove(&ticket) {
                Some(picture) => self.call(ticket, make, picture, cx),
                None => {
                    let shard = self.shard_of(make.group);
                    let work = Work::Picture(ticket, make);
                    self.life().workers[shard].work.push_back(work);
                    self.go_on_working(shard, cx);
                }
            }
        }
        let clock = self.clock;
        let sending = &mut self.life().sending;
        let Some(time) = sending.queue.next_time() else { return };
        if sending.due.is_none_or(|due| time < due) {
            sending.due = Some(time);
            let wait = clock.takes(time.since(now).as_nanos() as u64).max(MS);
            cx.after(wait, Event::Transfer { node, life, step: Step::Dispatch });
        }
    }

    /// It is this snapshot's turn.
    pub(super) fn take_picture(
        &mut self,
        ticket: Ticket,
        make: MakeSnapshot,
        cx: &mut Cx,
    ) -> Result<(), EngineError> {
        let (group, to, shard) = (make.group, make.to, self.shard_of(make.group));
        if !self.life().workers[shard].shard.wants_snapshot(&make) {
            self.life().sending.queue.ended(ticket);
            self.dispatch(cx);
            return Ok(());
        }
        let source = self.with_role(cx, |role, _| role.snapshot(group))?;
        let Some(source) = source.filter(|source| source.index >= make.at_least) else {
            self.life().sending.queue.ended(ticket);
            self.tell(&make, false, cx);
            self.dispatch(cx);
            return Ok(());
        };
        let index = source.index;
        if !cx.is(Mutant::PictureUntold) {
            self.mail(shard::Event::SnapshotTaken { group, to, index }, cx);
        }
        let sending = &mut self.life().sending;
        if !sending.queue.jobs().any(|(known, _, _)| known == ticket) {
            // It was overtaken meanwhile.
            return Ok(());
        }
        sending.transfers += 1;
        let number = sending.transfers;
        let (message, source) = self.announce(&make, number, source, cx)?;
        let marks = Marks::new(source.start.clone());
        self.call(ticket, make, Picture { message, source, marks }, cx);
        Ok(())
    }

    fn call(&mut self, ticket: Ticket, make: MakeSnapshot, picture: Picture, cx: &mut Cx) {
        let (from, life) = (self.id, self.life);
        let sending = &mut self.life().sending;
        sending.called += 1;
        let call = Call { from, life, number: sending.called };
        let message = Some(picture.message.clone());
        cx.note(format_args!("{from}→{} snapshot {}", make.node, name(&picture.message)));
        let ear = Ear::default();
        let outgoing = Outgoing { ticket, make, picture, ear, said: 0, next: None };
        sending.calls.insert(call, outgoing);
        let header = SnapshotHeader { hello: None, message, total_bytes: 0 };
        self.say(call, Words::Open(Box::new(header)), cx);
    }

    fn say(&mut self, call: Call, words: Words, cx: &mut Cx) {
        let from = self.id;
        let Some(outgoing) = self.life().sending.calls.get_mut(&call) else { return };
        let number = outgoing.said;
        outgoing.said += 1;
        cx.piece(from, outgoing.make.node, Piece { call, number, words });
    }

    /// The receiver of a call has answered.
    pub(super) fn answered(
        &mut self,
        call: Call,
        answer: SnapshotAnswer,
        cx: &mut Cx,
    ) -> Result<(), EngineError> {
        let (node, now) = (self.id, self.local(cx));
        let sending = &mut self.life().sending;
        let Some(outgoing) = sending.calls.get_mut(&call) else { return Ok(()) };
        let next = match &answer.answer {
            Some(Answer::GoOn(go_on)) if outgoing.next.is_none() => go_on.next_sequence,
            Some(Answer::GoOn(_) | Answer::Busy(_) | Answer::Result(_)) | None => {
                self.attempted(call, Outcome::of(answer), cx);
                return Ok(());
            }
        };
        if outgoing.picture.marks.at(next).is_none() {
            let reason = format!("the receiver has more than was sent: chunk {next} is the next");
            self.attempted(call, Outcome::Refused(reason), cx);
            return Ok(());
        }
        outgoing.next = Some(next);
        sending.queue.progressed(outgoing.ticket, now);
        if next > 0 {
            cx.checks.transfers.resumed += 1;
            let id = name(&outgoing.picture.message);
            cx.note(format_args!("{node} goes on with {id} at chunk {next}"));
            if cx.is(Mutant::PictureTakenAnew) {
                let group = outgoing.make.group;
                let newer = self.with_role(cx, |role, _| role.snapshot(group))?;
                let outgoing = self.life().sending.calls.get_mut(&call);
                if let (Some(newer), Some(outgoing)) = (newer, outgoing) {
                    outgoing.picture.source.reader = newer.reader;
                }
            }
        }
        self.read_next(call, cx)
    }

    /// Reads a chunk, which leaves when its bytes may.
    fn read_next(&mut self, call: Call, cx: &mut Cx) -> Result<(), EngineError> {
        let now = self.local(cx);
        let sending = &mut self.life().sending;
        let Some(outgoing) = sending.calls.get_mut(&call) else { return Ok(()) };
        let Some(sequence) = outgoing.next else { return Ok(()) };
        let Some(chunk) = outgoing.picture.read(sequence, cx.knobs.snapshots.chunk_bytes)? else {
            return Ok(());
        };
        outgoing.next = Some(sequence + 1);
        let wait = sending.bucket.take(chunk.data.len() as u64, now);
        let takes = cx.within(Concern::Transfers(self.id), READING);
        self.later(wait, takes, Step::Leave(call, Box::new(chunk)), cx);
        Ok(())
    }

    /// A chunk leaves.
    pub(super) fn leave(
        &mut self,
        call: Call,
        mut chunk: SnapshotChunk,
        cx: &mut Cx,
    ) -> Result<(), EngineError> {
        let (node, now) = (self.id, self.local(cx));
        let sending = &mut self.life().sending;
        let Some(outgoing) = sending.calls.get(&call) else { return Ok(()) };
        sending.queue.progressed(outgoing.ticket, now);
        self.check_log(call, cx)?;
        let last = chunk.last;
        let damage = if cx.net.bad { cx.knobs.snapshots.damage } else { 0.0 };
        if !chunk.data.is_empty() && cx.chance(Concern::Transfers(node), damage) {
            cx.checks.transfers.damaged += 1;
            let mut data = chunk.data.to_vec();
            let at = cx.one_of(Concern::Transfers(node), data.len());
            data[at] ^= 1;
            chunk.data = data.into();
        }
        let breaks = cx.net.bad && cx.chance(Concern::Transfers(node), cx.knobs.snapshots.breaks);
        if breaks && let Some(outgoing) = self.life().sending.calls.get(&call) {
            cx.hang_up(call, &[node, outgoing.make.node]);
        }
        self.say(call, Words::Chunk(Box::new(chunk)), cx);
        if last { Ok(()) } else { self.read_next(call, cx) }
    }

    /// While Raft waits for a snapshot that gets on, the log behind its picture stays: until it is
    /// longer than a log may be, counted from there.
    fn check_log(&mut self, call: Call, cx: &mut Cx) -> Result<(), EngineError> {
        let options = &cx.knobs.raft;
        let Some(outgoing) = self.life().sending.calls.get(&call) else { return Ok(()) };
        let (make, index) = (outgoing.make.clone(), outgoing.picture.source.index);
        let shard = self.shard_of(make.group);
        let wanted = self.life().workers[shard].shard.wants_snapshot(&make);
        let view = self.life().role.view(make.group).filter(|_| wanted);
        let applied = view.map_or(index, |view| view.applied());
        let behind = applied.0.saturating_sub(index.0);
        let bounded = behind > options.max_log_entries || options.max_log_bytes < LONG_LOG;
        if behind == 0 || bounded {
            return Ok(());
        }
        let next = LogIndex(index.0 + 1);
        match durable_entries::<Token>(&self.disk, make.group, index, next, 1) {
            Ok(_) => Ok(()),
            Err(EngineError::Corrupt { .. }) => {
                let (node, group, to) = (self.id, make.group, make.to);
                cx.checks.fail(|| {
                    format!(
                        "{node} has truncated {group} behind {index}, which is on its way to {to}"
                    )
                });
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// A call has ended.
    pub(super) fn attempted(&mut self, call: Call, outcome: Outcome, cx: &mut Cx) {
        let (node, now) = (self.id, self.local(cx));
        let sending = &mut self.life().sending;
        let Some(outgoing) = sending.calls.remove(&call) else { return };
        let Outgoing { ticket, make, picture, .. } = outgoing;
        cx.note(format_args!("{node} sent {}: {outcome:?}", name(&picture.message)));
        match sending.queue.attempted(ticket, &outcome, true, now) {
            After::Again { keep: true } => {
                sending.kept.insert(ticket, picture);
            }
            After::Tell { delivered, wait } => self.later(wait, 0, Step::Tell(make, delivered), cx),
            After::Again { keep: false } | After::Nothing => {}
        }
        self.dispatch(cx);
    }

    /// Nobody wants it sent any more.
    fn stop(&mut self, ticket: Ticket, cx: &mut Cx) {
        let sending = &mut self.life().sending;
        sending.kept.remove(&ticket);
        let running = sending.calls.iter().find(|(_, outgoing)| outgoing.ticket == ticket);
        if let Some(call) = running.map(|(call, _)| *call) {
            cx.checks.transfers.stopped += 1;
            self.say(call, Words::Ended("nobody wants it any more".to_owned()), cx);
            self.attempted(call, Outcome::Stopped, cx);
        }
    }

    /// A group's leader or term is another one.
    pub(super) fn outdated(&mut self, change: &LeaderChange, cx: &mut Cx) {
        let (group, term, leads) = (change.group, change.term, change.is_local);
        let old = self.life().sending.queue.outdated(group, term, leads);
        for ticket in &old {
            self.stop(*ticket, cx);
        }
        if !old.is_empty() {
            self.dispatch(cx);
        }
    }
}

impl Picture {
    /// Reads a chunk; `None` where nobody has read so far.
    fn read(&mut self, sequence: u64, size: usize) -> Result<Option<SnapshotChunk>, EngineError> {
        let Some(mut cutter) = Cutter::new(&mut self.marks, sequence, size) else {
            return Ok(None);
        };
        let (start, mut cut) = (cutter.start(), None);
        let visit = &mut |key: &[u8], value: &[u8]| {
            cut = cutter.put(key, value);
            if cut.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        self.source.reader.scan(Cf::Data, &start, &self.source.end, Direction::Forward, visit)?;
        Ok(Some(cut.unwrap_or_else(|| cutter.finish())))
    }
}
