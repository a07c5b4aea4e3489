//! Clients that ask placement for timestamps, one after the other, and compare.

use quorate_proto::NodeId;

use super::agenda::MS;
use super::chance::{Concern, Lane};
use super::cx::Cx;
use super::messages::{Ask, Body, Event, Told};
use super::placement::MEMBERS;

/// First node id of stampers.
pub(crate) const STAMPERS: u64 = 300_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Stamper {
    number: u64,
    call: u64,
    /// The highest timestamp anybody had when the present request was sent.
    floor: u64,
    /// A request waits for its answer.
    asking: bool,
    placement: NodeId,
    /// It asks no other member.
    sticks: bool,
    pub(crate) stamped: u64,
}

impl Stamper {
    pub(crate) fn new(number: u64, sticks_to: Option<u64>) -> Self {
        let (placement, sticks) = (NodeId(MEMBERS + sticks_to.unwrap_or(1)), sticks_to.is_some());
        Self { number, call: 0, floor: 0, asking: false, placement, sticks, stamped: 0 }
    }

    /// False where it asks one member only, and may wait in vain.
    pub(crate) fn roams(&self) -> bool {
        !self.sticks
    }

    fn ask_another(&mut self, hint: Option<NodeId>, cx: &Cx) {
        if !self.sticks {
            self.placement = hint.unwrap_or_else(|| cx.next_member(self.placement));
        }
    }

    /// Asks, giving up on a request without an answer.
    pub(crate) fn ask(&mut self, cx: &mut Cx) {
        self.call += 1;
        self.asking = true;
        self.floor = cx.checks.timestamp_floor();
        let body = Body::Ask { call: self.call, ask: Box::new(Ask::Timestamp) };
        cx.send(NodeId(STAMPERS + self.number), self.placement, Lane::Services, body);
        cx.after(500 * MS, Event::Stamp { client: self.number, call: self.call });
    }

    /// Time to ask again, unless it has gone on already.
    pub(crate) fn wake(&mut self, call: u64, cx: &mut Cx) {
        if call == self.call {
            if self.asking {
                self.ask_another(None, cx);
            }
            self.ask(cx);
        }
    }

    /// An answer has come.
    pub(crate) fn told(&mut self, from: NodeId, call: u64, told: &Told, cx: &mut Cx) {
        if call != self.call {
            return;
        }
        match told {
            Told::Timestamp(timestamp) => {
                cx.checks.timestamp(from, self.floor, *timestamp);
                self.stamped += 1;
            }
            Told::NotLeader(hint) => self.ask_another(*hint, cx),
            Told::Refused(_) | Told::NoMember(_) | Told::Undetermined => {
                self.ask_another(None, cx);
            }
            Told::Joined { .. }
            | Told::MemberJoined { .. }
            | Told::Orders(_)
            | Told::Ids(_)
            | Told::Region(_)
            | Told::Done => {}
        }
        self.call += 1;
        self.asking = false;
        let pause = cx.within(Concern::Stamper(self.number), (0, 40 * MS));
        cx.after(pause, Event::Stamp { client: self.number, call: self.call });
    }
}
