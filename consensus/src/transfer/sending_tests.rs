//! Which snapshots a sender sends, when, and how fast.

use std::time::Duration;

use quorate_proto::{LogIndex, NodeId, PeerId, RegionId, Term};

use super::{After, Broken, COOLING, Outcome, SendQueue, Ticket};
use crate::shard::MakeSnapshot;
use crate::time::Instant;

const PATIENCE: Duration = Duration::from_secs(60);

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// A snapshot of that group for its peer on that node.
fn make(group: u64, node: u64, term: u64) -> MakeSnapshot {
    MakeSnapshot {
        group: RegionId(group),
        from: PeerId(1),
        to: PeerId(node),
        node: NodeId(node),
        term: Term(term),
        at_least: LogIndex(7),
    }
}

fn queue(places: usize, wanted: &[(u64, u64)]) -> SendQueue {
    let mut queue = SendQueue::new(places, PATIENCE);
    for (group, node) in wanted {
        assert_eq!(queue.ask(make(*group, *node, 6)), Ok(None));
    }
    queue
}

/// The groups whose turn it is.
fn next(queue: &mut SendQueue, millis: u64) -> Vec<u64> {
    std::iter::from_fn(|| queue.next(at(millis))).map(|(_, make)| make.group.0).collect()
}

#[test]
fn two_at_once_and_the_others_in_turn() {
    let mut queue = queue(2, &[(1, 4), (2, 5), (3, 4), (4, 5)]);
    assert_eq!(next(&mut queue, 0), [1, 2]);
    assert_eq!(queue.next_time(), None, "nothing before a place is free");
    queue.ended(Ticket(2));
    assert_eq!(next(&mut queue, 0), [3]);
    queue.ended(Ticket(1));
    queue.ended(Ticket(3));
    assert_eq!(next(&mut queue, 0), [4]);
    assert_eq!(queue.running(), 1);
}

#[test]
fn who_is_refused_keeps_its_turn() {
    let mut queue = queue(2, &[(1, 4), (2, 4), (3, 5), (4, 5)]);
    assert_eq!(next(&mut queue, 1_000), [1, 2]);
    // Node 4 has no place. Its snapshots wait, the others use the time.
    assert_eq!(queue.busy(Ticket(1), Duration::from_millis(500), at(1_000)), Broken::Retry);
    assert_eq!(next(&mut queue, 1_000), [3]);
    assert_eq!(queue.busy(Ticket(2), Duration::from_millis(500), at(1_100)), Broken::Retry);
    assert_eq!((queue.answers(Ticket(2)), queue.answers(Ticket(3))), (1, 0), "it was answered");
    assert_eq!(next(&mut queue, 1_100), [4]);
    queue.ended(Ticket(3));
    assert_eq!(next(&mut queue, 1_500), [0; 0], "node 4 was asked again at 1100");
    assert_eq!(queue.next_time(), Some(at(1_600)));
    // Then the first is first again, although others came since.
    assert_eq!(queue.ask(make(5, 5, 6)), Ok(None));
    queue.ended(Ticket(4));
    assert_eq!(next(&mut queue, 1_600), [1, 2]);
}

#[test]
fn a_broken_transfer_is_tried_again_sooner_than_later_until_patience_ends() {
    let mut queue = queue(1, &[(1, 4), (2, 5)]);
    assert_eq!(next(&mut queue, 0), [1]);
    queue.progressed(Ticket(1), at(1_000));
    assert_eq!(queue.broke(Ticket(1), at(2_000)), Broken::Retry);
    // Meanwhile another one has the place.
    assert_eq!(next(&mut queue, 2_000), [2]);
    assert_eq!(next(&mut queue, 2_100), [0; 0]);
    queue.ended(Ticket(2));
    let mut now = 2_000;
    let mut waits = Vec::new();
    loop {
        let due = queue.next_time().unwrap_or(at(0)).0 / 1_000_000;
        waits.push(due - now);
        now = due;
        assert_eq!(next(&mut queue, now), [1]);
        if queue.broke(Ticket(1), at(now)) == Broken::GiveUp {
            break;
        }
    }
    assert_eq!(waits[..6], [100, 200, 400, 800, 1_600, 2_000]);
    assert!((61_000..63_000).contains(&now), "given up at {now}");
    assert_eq!(queue.next_time(), None);
}

#[test]
fn progress_renews_patience() {
    let mut queue = queue(1, &[(1, 4)]);
    for minute in 0..10 {
        let now = minute * 59_000;
        assert_eq!(next(&mut queue, now), [1]);
        queue.progressed(Ticket(1), at(now));
        assert_eq!(queue.broke(Ticket(1), at(now + 10)), Broken::Retry);
        assert_eq!(queue.next_time(), Some(at(now + 110)), "and back-off begins anew");
    }
}

#[test]
fn what_never_began_is_raft_s_to_ask_for_again() {
    let mut queue = queue(1, &[(1, 4)]);
    assert_eq!(next(&mut queue, 0), [1]);
    assert_eq!(queue.broke(Ticket(1), at(10)), Broken::GiveUp);
    assert_eq!(queue.running(), 0);
}

#[test]
fn a_newer_request_for_the_same_peer_overtakes() {
    let mut queue = queue(1, &[(1, 4), (2, 5)]);
    assert_eq!(next(&mut queue, 0), [1]);
    assert_eq!(queue.ask(make(1, 4, 7)), Ok(Some(Ticket(1))));
    // It is another transfer and stands behind the others.
    assert_eq!(next(&mut queue, 0), [2]);
    // What the old one still reports has no effect.
    queue.ended(Ticket(1));
    assert_eq!(queue.broke(Ticket(1), at(0)), Broken::GiveUp);
    queue.ended(Ticket(2));
    assert_eq!(next(&mut queue, 0), [1]);
}

#[test]
fn a_leader_that_is_one_no_more_sends_no_snapshots() {
    let mut queue = queue(3, &[(1, 4), (1, 5), (2, 4)]);
    assert_eq!(next(&mut queue, 0), [1, 1, 2]);
    assert_eq!(queue.outdated(RegionId(1), Term(6), true), [], "the news of its own election");
    assert_eq!(queue.outdated(RegionId(1), Term(6), false), [Ticket(1), Ticket(2)]);
    assert_eq!(queue.outdated(RegionId(2), Term(8), false), [Ticket(3)]);
    assert_eq!(queue.running(), 0);
}

#[test]
fn too_many_requests_are_given_back() {
    let mut queue = SendQueue::new(1, PATIENCE);
    for group in 0..4_096 {
        assert_eq!(queue.ask(make(group, 4, 6)), Ok(None));
    }
    assert_eq!(queue.ask(make(9_999, 4, 6)), Err(make(9_999, 4, 6)));
    assert_eq!(queue.ask(make(5, 4, 6)), Ok(Some(Ticket(6))), "one that waits may be renewed");
}

#[test]
fn what_follows_from_how_an_attempt_ended() {
    let broken = || Outcome::Broken("cut".to_owned());
    let tell = |delivered| {
        let wait = if delivered { Duration::ZERO } else { COOLING };
        After::Tell { delivered, wait }
    };
    // Delivered, refused, and broken before anything was received: Raft is told.
    for (outcome, delivered) in [
        (Outcome::Delivered, true),
        (Outcome::Refused("no member".to_owned()), false),
        (broken(), false),
    ] {
        let mut queue = queue(1, &[(1, 4)]);
        assert_eq!(next(&mut queue, 0), [1]);
        assert_eq!(queue.attempted(Ticket(1), &outcome, true, at(10)), tell(delivered));
        assert_eq!(queue.jobs().count(), 0);
    }
    // A receiver without a place has nothing of this picture: the next attempt sends another.
    let mut queue = queue(1, &[(1, 4)]);
    let busy = Outcome::Busy(Duration::from_millis(500));
    assert_eq!(next(&mut queue, 0), [1]);
    assert_eq!(queue.attempted(Ticket(1), &busy, true, at(10)), After::Again { keep: false });
    // Once it has some of it, all attempts send the same, whatever stops them.
    assert_eq!(next(&mut queue, 510), [1]);
    queue.progressed(Ticket(1), at(600));
    assert_eq!(queue.attempted(Ticket(1), &broken(), true, at(700)), After::Again { keep: true });
    assert_eq!(next(&mut queue, 800), [1]);
    assert_eq!(queue.attempted(Ticket(1), &busy, true, at(900)), After::Again { keep: true });
    // But where the picture was lost on the way, nothing goes on.
    assert_eq!(next(&mut queue, 1_400), [1]);
    assert_eq!(queue.attempted(Ticket(1), &broken(), false, at(1_500)), tell(false));
    assert_eq!(queue.attempted(Ticket(1), &Outcome::Stopped, false, at(1_500)), After::Nothing);
}
