#![allow(clippy::unwrap_used)]
//! Golden scripts for the queue and the table.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{
    core::{Bounds, Call, Fate, Lane, NotQueued},
    table::Table,
};

const BOUNDS: Bounds = Bounds { queued: 4, in_flight: 3, requests: 2, bytes: 100 };

struct Script {
    lane: Lane<&'static str, &'static str>,
    now: Instant,
}

impl Script {
    fn new() -> Self {
        Self { lane: Lane::new(BOUNDS), now: Instant::now() }
    }
    fn push(&mut self, name: &'static str, bytes: usize, deadline_ms: u64) -> Result<bool, &str> {
        let deadline = self.now + Duration::from_millis(deadline_ms);
        self.lane.push(Call { command: name, bytes, deadline, reply: name }).map_err(|refused| {
            match refused {
                NotQueued::Full(_) => "full",
                NotQueued::Closed(_) => "closed",
            }
        })
    }
    fn drain(&mut self) -> (Vec<&'static str>, Vec<u64>) {
        let (mut commands, mut ids) = (Vec::new(), Vec::new());
        self.lane.drain(|reply| *reply == "abandoned", &mut commands, &mut ids);
        (commands, ids)
    }
}

#[test]
fn only_the_first_in_the_queue_wakes_the_sender() {
    let mut script = Script::new();
    assert_eq!(script.push("a", 1, 9), Ok(true));
    assert_eq!(script.push("b", 1, 9), Ok(false));
    script.drain();
    assert_eq!(script.push("c", 1, 9), Ok(true));
}

#[test]
fn a_message_is_bounded_in_requests_and_bytes_but_one_request_always_fits() {
    let mut script = Script::new();
    for (name, bytes) in [("large", 500), ("a", 60), ("b", 60), ("c", 10)] {
        script.push(name, bytes, 9).unwrap();
    }
    assert_eq!(script.push("too many", 1, 9), Err("full"));
    assert_eq!(script.drain().0, ["large"]);
    assert_eq!(script.drain().0, ["a"]);
    assert_eq!(script.drain().0, ["b"], "three in flight: the fourth waits");
    let (commands, ids) = script.drain();
    assert!(commands.is_empty() && ids.is_empty() && !script.lane.ready());
}

#[test]
fn an_answer_makes_room_for_the_next() {
    let mut script = Script::new();
    for name in ["a", "b", "c", "d"] {
        script.push(name, 1, 9).unwrap();
    }
    let (_, first) = script.drain();
    script.drain();
    assert!(!script.lane.ready());
    assert_eq!(script.lane.answer(first[1]), Some("b"));
    assert_eq!(script.lane.answer(first[1]), None, "an answer counts once");
    assert!(script.lane.ready());
    assert_eq!(script.drain().0, ["d"]);
}

#[test]
fn the_abandoned_are_not_sent() {
    let mut script = Script::new();
    script.push("abandoned", 1, 9).unwrap();
    script.push("a", 1, 9).unwrap();
    assert_eq!(script.drain().0, ["a"]);
}

#[test]
fn overdue_requests_learn_whether_they_were_sent() {
    let mut script = Script::new();
    script.push("sent", 1, 5).unwrap();
    script.push("patient", 1, 50).unwrap();
    script.drain();
    script.push("queued", 1, 5).unwrap();
    script.push("later", 1, 50).unwrap();
    assert!(script.lane.expire(script.now + Duration::from_millis(4)).is_empty());
    let expired = script.lane.expire(script.now + Duration::from_millis(5));
    assert_eq!(expired, [("queued", Fate::NotSent), ("sent", Fate::Sent)]);
    assert_eq!((script.lane.next_message(), script.lane.in_flight()), (1, 1));
}

#[test]
fn closing_tells_everybody_and_takes_no_more() {
    let mut script = Script::new();
    script.push("a", 1, 9).unwrap();
    script.drain();
    script.push("b", 1, 9).unwrap();
    assert_eq!(script.lane.close(), [("b", Fate::NotSent), ("a", Fate::Sent)]);
    assert_eq!(script.push("c", 1, 9), Err("closed"));
    assert!(script.lane.close().is_empty());
}

proptest! {
    /// Against a map: an id finds its own entry, once, and no other.
    #[test]
    fn the_table_is_a_map_with_fresh_ids(steps in prop::collection::vec((any::<bool>(), 0usize..20), 1..200)) {
        let mut table = Table::default();
        let mut model: Vec<(u64, usize)> = Vec::new();
        let mut ever = std::collections::BTreeSet::new();
        for (at, (insert, which)) in steps.into_iter().enumerate() {
            if insert || model.is_empty() {
                let id = table.insert(at);
                prop_assert!(id != 0 && ever.insert(id), "an id was used twice");
                model.push((id, at));
            } else {
                let (id, value) = model.remove(which % model.len());
                prop_assert_eq!(table.remove(id), Some(value));
                prop_assert_eq!(table.remove(id), None);
            }
            prop_assert_eq!(table.len(), model.len());
        }
        let odd: Vec<usize> = model.iter().map(|(_, v)| *v).filter(|v| v % 2 == 1).collect();
        let mut taken = table.take_if(|value| value % 2 == 1);
        taken.sort_unstable();
        prop_assert_eq!(taken, odd);
    }
}
