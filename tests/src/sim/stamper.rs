//! Clients that ask placement for timestamps, one after the other, and compare.

use quorate_consensus::shard::Plane;
use quorate_proto::NodeId;

use super::agenda::MS;
use super::cx::Cx;
use super::member::MEMBERS;
use super::messages::{Ask, Body, Event, Told};

/// First node id of stampers.
pub(super) const STAMPERS: u64 = 2_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Stamper {
    number: u64,
    call: u64,
    /// The highest timestamp anybody had when the present request was sent.
    floor: u64,
    placement: u64,
    pub(super) stamped: u64,
}

impl Stamper {
    pub(super) fn new(number: u64) -> Self {
        Self { number, call: 0, floor: 0, placement: 1, stamped: 0 }
    }

    /// Asks, giving up on a request without an answer.
    pub(super) fn ask(&mut self, cx: &mut Cx) {
        self.call += 1;
        self.floor = cx.checks.timestamp_floor();
        let body = Body::Ask { call: self.call, ask: Box::new(Ask::Timestamp) };
        let (from, to) = (NodeId(STAMPERS + self.number), NodeId(MEMBERS + self.placement));
        cx.send(from, to, Plane::Control, body);
        cx.after(500 * MS, Event::Stamp { client: self.number, call: self.call });
    }

    /// Time to ask again, unless it has gone on already.
    pub(super) fn wake(&mut self, call: u64, cx: &mut Cx) {
        if call == self.call {
            self.placement = self.placement % cx.knobs.members + 1;
            self.ask(cx);
        }
    }

    /// An answer has come.
    pub(super) fn told(&mut self, from: NodeId, call: u64, told: &Told, cx: &mut Cx) {
        if call != self.call {
            return;
        }
        match told {
            Told::Timestamp(timestamp) => {
                cx.checks.timestamp(from, self.floor, *timestamp);
                self.stamped += 1;
            }
            Told::NotLeader(Some(leader)) => self.placement = leader.0 - MEMBERS,
            Told::NotLeader(None) | Told::Refused(_) | Told::Undetermined => {
                self.placement = self.placement % cx.knobs.members + 1;
            }
            Told::Joined { .. } | Told::Orders(_) | Told::Ids(_) | Told::Region(_) | Told::Done => {
            }
        }
        self.call += 1;
        let pause = cx.within((0, 40 * MS));
        cx.after(pause, Event::Stamp { client: self.number, call: self.call });
    }
}
