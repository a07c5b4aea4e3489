//! The receiver's side: who may come in, what is staged, and what nobody goes on with.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_proto::wire::peer::StagedTransfer;
use quorate_proto::{NodeId, PeerId, RegionId};

use crate::time::Instant;

/// A sender that was refused comes again after this long.
const COME_AGAIN: Duration = Duration::from_millis(500);
/// One that has not come again for so long has gone, and holds nobody up any more.
const GONE: Duration = Duration::from_millis(2_500);
/// Senders whose turn is remembered; those beyond take their chance.
const CAPACITY: usize = 4_096;

/// How far a transfer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The chunk to send next; all before it are staged.
    pub next: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Their digest.
    pub digest: u32,
}

/// Somebody wants to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Names the transfer.
    pub id: String,
    /// Of which group.
    pub group: RegionId,
    /// The peer here that gets it.
    pub to: PeerId,
    /// Who sends it.
    pub from: NodeId,
    /// Roughly how many bytes will come.
    pub total_bytes: u64,
}

/// What a sender is told, and what is to be done before.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Go on from there. The transfers in `gone`, of the same peer, are overtaken: remove what is
    /// staged of them, and stop those that run.
    GoOn {
        /// What is staged.
        from: Position,
        /// Ids of transfers.
        gone: Vec<String>,
    },
    /// An earlier call of the same transfer is still open; its sender has given it up. Stop it,
    /// then ask again.
    TakeOver,
    /// Come again after so long.
    Busy(Duration),
    /// Everything was here before; only the answer got lost.
    Finished,
}

/// See the module.
#[derive(Debug)]
pub struct ReceiveDesk {
    places: usize,
    keep: Duration,
    arrivals: u64,
    transfers: BTreeMap<String, Transfer>,
}

#[derive(Debug)]
struct Transfer {
    arrival: Arrival,
    /// Its turn: smaller ones go first.
    turn: u64,
    state: State,
    staged: Position,
    /// When something last happened to it.
    touched: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Refused for want of a place, or broken off.
    Waiting {
        asked: Option<Instant>,
    },
    Running,
    Finished,
}

/// How the taking of a call's chunks ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The staged file is complete and durable.
    Finished,
    /// The call broke off, or a chunk was damaged; so far it is durable.
    Broken(String),
    /// It cannot become a snapshot any more.
    Failed(String),
}

/// What follows from how a call ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Hand its message to its group, and tell [`ReceiveDesk::handed_over`] whether that took it.
    Deliver,
    /// The sender may go on: the call ends without a result. Where it is not to `keep`, what is
    /// staged is to be removed.
    Abort {
        /// Why, for who watches.
        reason: String,
        /// What is staged stays.
        keep: bool,
    },
    /// The sender is told that it was not accepted; what is staged is to be removed.
    Refuse(String),
}

impl Position {
    /// Where a note says that the staged chunks end.
    pub fn of(staged: &StagedTransfer) -> Self {
        Self {
            next: staged.next_sequence,
            records: staged.records,
            bytes: staged.bytes,
            digest: staged.digest,
        }
    }
}

impl Arrival {
    /// What is kept beside the staged chunks, for a later run of the process.
    pub fn note(&self, position: Position) -> StagedTransfer {
        StagedTransfer {
            group: self.group.0,
            to_peer: self.to.0,
            from_node: self.from.0,
            next_sequence: position.next,
            records: position.records,
            bytes: position.bytes,
            digest: position.digest,
            total_bytes: self.total_bytes,
        }
    }
}

impl Transfer {
    fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// True where it stands in the line before `turn`.
    fn is_before(&self, turn: u64, now: Instant) -> bool {
        match self.state {
            State::Waiting { asked: Some(asked) } => self.turn < turn && now.since(asked) < GONE,
            State::Waiting { asked: None } | State::Running | State::Finished => false,
        }
    }
}

impl ReceiveDesk {
    /// `keep`: how long a broken transfer may be gone on with.
    pub fn new(places: usize, keep: Duration) -> Self {
        Self { places, keep, arrivals: 0, transfers: BTreeMap::new() }
    }

    /// Found at the start of the process: an unfinished transfer.
    pub fn restore(&mut self, id: String, staged: &StagedTransfer, now: Instant) {
        self.arrivals += 1;
        let arrival = Arrival {
            id: id.clone(),
            group: RegionId(staged.group),
            to: PeerId(staged.to_peer),
            from: NodeId(staged.from_node),
            total_bytes: staged.total_bytes,
        };
        let transfer = Transfer {
            arrival,
            turn: self.arrivals,
            state: State::Waiting { asked: None },
            staged: Position::of(staged),
            touched: now,
        };
        self.transfers.insert(id, transfer);
    }

    /// A sender has come. After [`Answer::GoOn`] the transfer holds a place until it breaks off
    /// or ends.
    pub fn arrive(&mut self, arrival: Arrival, now: Instant) -> Answer {
        let known = self.transfers.get(&arrival.id);
        match known.map(|transfer| transfer.state) {
            Some(State::Running) => return Answer::TakeOver,
            Some(State::Finished) => return Answer::Finished,
            Some(State::Waiting { .. }) | None => {}
        }
        let same = |other: &Transfer| {
            other.arrival.group == arrival.group
                && other.arrival.to == arrival.to
                && other.state != State::Finished
        };
        // What the same peer was being sent before is of no use any more: its place and its turn
        // go over. (A sender that was refused comes again with a newer picture.)
        let turn =
            self.transfers.values().filter(|other| same(other)).map(|other| other.turn).min();
        let turn = turn.unwrap_or(self.arrivals + 1);
        let held = self.transfers.values().filter(|other| other.is_running() && !same(other));
        let ahead = self.transfers.values().filter(|other| other.is_before(turn, now));
        if held.count() + ahead.count() >= self.places {
            self.remember(arrival, turn, now);
            return Answer::Busy(COME_AGAIN);
        }
        let gone: Vec<String> = self
            .transfers
            .values()
            .filter(|other| same(other) && other.arrival.id != arrival.id)
            .map(|other| other.arrival.id.clone())
            .collect();
        self.transfers.retain(|id, _| !gone.contains(id));
        self.arrivals = self.arrivals.max(turn);
        let id = arrival.id.clone();
        let from = self.transfers.get(&id).map_or(Position::default(), |known| known.staged);
        let transfer =
            Transfer { arrival, turn, state: State::Running, staged: from, touched: now };
        self.transfers.insert(id, transfer);
        Answer::GoOn { from, gone }
    }

    fn remember(&mut self, arrival: Arrival, turn: u64, now: Instant) {
        let state = State::Waiting { asked: Some(now) };
        // It stands in the line once; what is staged or running stays until it is overtaken.
        self.transfers.retain(|id, other| {
            *id == arrival.id
                || other.arrival.group != arrival.group
                || other.arrival.to != arrival.to
                || other.staged.next > 0
                || !matches!(other.state, State::Waiting { .. })
        });
        if let Some(known) = self.transfers.get_mut(&arrival.id) {
            known.state = state;
            known.touched = now;
        } else if self.transfers.len() < CAPACITY {
            self.arrivals = self.arrivals.max(turn);
            let staged = Position::default();
            let transfer = Transfer { arrival, turn, state, staged, touched: now };
            self.transfers.insert(transfer.arrival.id.clone(), transfer);
        }
    }

    /// Chunks came.
    pub fn progressed(&mut self, id: &str, staged: Position, now: Instant) {
        if let Some(transfer) = self.transfers.get_mut(id) {
            transfer.staged = staged;
            transfer.touched = now;
        }
    }

    /// The taking of a call's chunks ended; so much is durable.
    pub fn ended(&mut self, id: &str, ended: Ended, durable: Position, now: Instant) -> Verdict {
        match ended {
            Ended::Finished if self.runs(id) => Verdict::Deliver,
            Ended::Finished => Verdict::Refuse("another transfer has taken its place".to_owned()),
            Ended::Broken(reason) => {
                let keep = self.broke(id, durable, now);
                Verdict::Abort { reason, keep }
            }
            Ended::Failed(reason) => {
                self.failed(id);
                Verdict::Refuse(reason)
            }
        }
    }

    /// Its group took what is all here, or not.
    ///
    /// # Errors
    /// It did not: what the sender is told. What is staged is to be removed.
    pub fn handed_over(&mut self, id: &str, taken: bool, now: Instant) -> Result<(), String> {
        if taken {
            self.finished(id, now);
            return Ok(());
        }
        self.failed(id);
        Err("the raft worker has too much to do".to_owned())
    }

    /// The call broke off; so much is durable. False where nobody wants that any more: remove it.
    fn broke(&mut self, id: &str, staged: Position, now: Instant) -> bool {
        let Some(transfer) = self.transfers.get_mut(id) else { return false };
        if staged.next == 0 {
            self.transfers.remove(id);
            return false;
        }
        transfer.state = State::Waiting { asked: None };
        transfer.staged = staged;
        transfer.touched = now;
        true
    }

    /// Everything is here and was handed over; remembered for a while, in case the sender does
    /// not hear of it.
    fn finished(&mut self, id: &str, now: Instant) {
        if let Some(transfer) = self.transfers.get_mut(id) {
            transfer.state = State::Finished;
            transfer.touched = now;
        }
    }

    /// It failed for good.
    fn failed(&mut self, id: &str) {
        self.transfers.remove(id);
    }

    /// Forgets what nobody has gone on with for too long; returns the ids of what is staged.
    pub fn expire(&mut self, now: Instant) -> Vec<String> {
        let keep = self.keep;
        let mut gone = Vec::new();
        self.transfers.retain(|id, transfer| {
            let staged = transfer.staged.next > 0;
            let over = match transfer.state {
                State::Running => false,
                State::Waiting { asked: Some(asked) } if !staged => now.since(asked) >= GONE,
                State::Waiting { .. } | State::Finished => now.since(transfer.touched) >= keep,
            };
            if over && staged && transfer.state != State::Finished {
                gone.push(id.clone());
            }
            !over
        });
        gone
    }

    /// True where the transfer still holds its place: it was not overtaken.
    fn runs(&self, id: &str) -> bool {
        self.transfers.get(id).is_some_and(Transfer::is_running)
    }

    /// Transfers that hold a place.
    pub fn running(&self) -> usize {
        self.transfers.values().filter(|transfer| transfer.is_running()).count()
    }

    /// Those that run or have chunks staged, by turn.
    pub fn transfers(&self) -> Vec<(&Arrival, Position, bool)> {
        let mut all: Vec<&Transfer> = self
            .transfers
            .values()
            .filter(|t| t.is_running() || (t.staged.next > 0 && t.state != State::Finished))
            .collect();
        all.sort_by_key(|transfer| transfer.turn);
        all.into_iter().map(|t| (&t.arrival, t.staged, t.is_running())).collect()
    }
}

#[cfg(test)]
#[path = "receiving_tests.rs"]
mod tests;
