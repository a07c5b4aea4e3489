//! What a receiver of snapshots admits, keeps and refuses, step by step.

use std::time::Duration;

use quorate_proto::wire::peer::StagedTransfer;
use quorate_proto::{NodeId, PeerId, RegionId};

use super::{Answer, Arrival, COME_AGAIN, Ended, Position, ReceiveDesk, Verdict};
use crate::time::Instant;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn desk(places: usize) -> ReceiveDesk {
    ReceiveDesk::new(places, Duration::from_secs(60))
}

/// Transfer `id` brings a snapshot of that group.
fn arrival(id: &str, group: u64) -> Arrival {
    Arrival {
        id: id.to_owned(),
        group: RegionId(group),
        to: PeerId(9),
        from: NodeId(1),
        total_bytes: 1_000,
    }
}

fn position(next: u64) -> Position {
    Position { next, records: next * 10, bytes: next * 100, digest: next as u32 }
}

fn go_on(next: u64) -> Answer {
    Answer::GoOn { from: position(next), gone: Vec::new() }
}

fn busy() -> Answer {
    Answer::Busy(COME_AGAIN)
}

#[test]
fn who_was_refused_first_comes_in_first() {
    let mut desk = desk(2);
    assert_eq!(desk.arrive(arrival("a", 1), at(0)), go_on(0));
    assert_eq!(desk.arrive(arrival("b", 2), at(0)), go_on(0));
    assert_eq!(desk.arrive(arrival("c", 3), at(0)), busy());
    assert_eq!(desk.arrive(arrival("d", 4), at(100)), busy());
    assert_eq!(desk.running(), 2);
    desk.finished("a", at(200));
    // The place is kept for c: d, which asks sooner, waits.
    assert_eq!(desk.arrive(arrival("d", 4), at(300)), busy());
    assert_eq!(desk.arrive(arrival("c", 3), at(500)), go_on(0));
    desk.finished("b", at(600));
    assert_eq!(desk.arrive(arrival("d", 4), at(800)), go_on(0));
}

#[test]
fn who_comes_again_with_a_newer_picture_keeps_its_turn() {
    let mut desk = desk(1);
    assert_eq!(desk.arrive(arrival("a", 1), at(0)), go_on(0));
    assert_eq!(desk.arrive(arrival("b1", 2), at(0)), busy());
    assert_eq!(desk.arrive(arrival("c1", 3), at(0)), busy());
    assert_eq!(desk.arrive(arrival("b2", 2), at(500)), busy());
    assert_eq!(desk.arrive(arrival("c2", 3), at(500)), busy());
    desk.finished("a", at(600));
    assert_eq!(desk.arrive(arrival("c3", 3), at(900)), busy());
    let gone = vec!["b2".to_owned()];
    let from = position(0);
    assert_eq!(desk.arrive(arrival("b3", 2), at(1_000)), Answer::GoOn { from, gone });
    desk.finished("b3", at(1_100));
    let gone = vec!["c3".to_owned()];
    assert_eq!(desk.arrive(arrival("c4", 3), at(1_400)), Answer::GoOn { from, gone });
}

#[test]
fn who_does_not_come_again_holds_nobody_up() {
    let mut desk = desk(1);
    assert_eq!(desk.arrive(arrival("a", 1), at(0)), go_on(0));
    assert_eq!(desk.arrive(arrival("b", 2), at(0)), busy());
    desk.finished("a", at(1_000));
    assert_eq!(desk.arrive(arrival("c", 3), at(2_000)), busy(), "b may still come");
    assert_eq!(desk.arrive(arrival("c", 3), at(2_500)), go_on(0));
}

#[test]
fn a_broken_transfer_goes_on_and_keeps_its_turn() {
    let mut desk = desk(1);
    assert_eq!(desk.arrive(arrival("a", 1), at(0)), go_on(0));
    assert_eq!(desk.arrive(arrival("b", 2), at(100)), busy());
    desk.progressed("a", position(7), at(200));
    // It keeps what is durable: five of the seven.
    assert!(desk.broke("a", position(5), at(300)));
    assert_eq!(desk.arrive(arrival("b", 2), at(400)), go_on(0), "a is not here");
    assert_eq!(desk.arrive(arrival("a", 1), at(500)), busy());
    assert_eq!(desk.arrive(arrival("c", 3), at(500)), busy());
    desk.finished("b", at(600));
    assert_eq!(desk.arrive(arrival("c", 3), at(700)), busy(), "a came before c");
    assert_eq!(desk.arrive(arrival("a", 1), at(1_000)), go_on(5));
}

#[test]
fn what_brought_nothing_is_not_remembered() {
    let mut desk = desk(1);
    assert_eq!(desk.arrive(arrival("a", 1), at(0)), go_on(0));
    assert!(!desk.broke("a", position(0), at(100)));
    assert!(desk.transfers().is_empty());
}

#[test]
fn a_call_that_its_sender_gave_up_is_taken_over() {
    let mut desk = desk(1);
    assert_eq!(desk.arrive(arrival("a", 1), at(0)), go_on(0));
    desk.progressed("a", position(3), at(100));
    assert_eq!(desk.arrive(arrival("a", 1), at(200)), Answer::TakeOver);
    assert!(desk.broke("a", position(3), at(300)));
    assert_eq!(desk.arrive(arrival("a", 1), at(300)), go_on(3));
}

#[test]
fn a_new_leader_begins_anew_and_takes_the_place_of_the_old() {
    let mut desk = desk(1);
    assert_eq!(desk.arrive(arrival("old", 1), at(0)), go_on(0));
    desk.progressed("old", position(3), at(100));
    let gone = vec!["old".to_owned()];
    assert_eq!(desk.arrive(arrival("new", 1), at(200)), Answer::GoOn { from: position(0), gone });
    // The old one's call ends; what it staged is not wanted, and it cannot come back.
    assert!(!desk.broke("old", position(3), at(300)));
    assert!(!desk.runs("old") && desk.runs("new"));
    // The same where the old one had broken off before.
    assert!(desk.broke("new", position(2), at(400)));
    let gone = vec!["new".to_owned()];
    assert_eq!(desk.arrive(arrival("newer", 1), at(500)), Answer::GoOn { from: position(0), gone });
}

#[test]
fn what_follows_from_how_a_call_ended() {
    let broken = || Ended::Broken("cut".to_owned());
    let abort = |keep| Verdict::Abort { reason: "cut".to_owned(), keep };
    let mut desk = desk(2);
    assert_eq!(desk.arrive(arrival("a", 1), at(0)), go_on(0));
    assert_eq!(desk.ended("a", broken(), position(0), at(1)), abort(false), "nothing to keep");
    assert_eq!(desk.arrive(arrival("a", 1), at(2)), go_on(0));
    assert_eq!(desk.ended("a", broken(), position(3), at(3)), abort(true));
    assert_eq!(desk.arrive(arrival("a", 1), at(4)), go_on(3));
    let full = Ended::Failed("the disk is full".to_owned());
    let refused = Verdict::Refuse("the disk is full".to_owned());
    assert_eq!(desk.ended("a", full, position(3), at(5)), refused);
    assert_eq!(desk.running(), 0);
    // What is complete is handed over once, and only where the group takes it is that the end.
    assert_eq!(desk.arrive(arrival("a", 1), at(6)), go_on(0));
    assert_eq!(desk.ended("a", Ended::Finished, position(9), at(7)), Verdict::Deliver);
    assert!(desk.handed_over("a", false, at(8)).is_err());
    assert_eq!(desk.arrive(arrival("a", 1), at(9)), go_on(0));
    assert_eq!(desk.ended("a", Ended::Finished, position(9), at(10)), Verdict::Deliver);
    assert_eq!(desk.handed_over("a", true, at(11)), Ok(()));
    assert_eq!(desk.arrive(arrival("a", 1), at(12)), Answer::Finished);
    // One that was overtaken is not handed over any more.
    assert_eq!(desk.arrive(arrival("old", 2), at(13)), go_on(0));
    let gone = vec!["old".to_owned()];
    let from = position(0);
    assert_eq!(desk.arrive(arrival("new", 2), at(14)), Answer::GoOn { from, gone });
    let overtaken = Verdict::Refuse("another transfer has taken its place".to_owned());
    assert_eq!(desk.ended("old", Ended::Finished, position(9), at(15)), overtaken);
}

#[test]
fn a_lost_last_answer_is_given_again() {
    let mut desk = desk(1);
    assert_eq!(desk.arrive(arrival("a", 1), at(0)), go_on(0));
    desk.progressed("a", position(9), at(100));
    desk.finished("a", at(200));
    assert_eq!(desk.arrive(arrival("a", 1), at(300)), Answer::Finished);
    assert_eq!(desk.expire(at(60_199)), [""; 0]);
    assert_eq!(desk.arrive(arrival("a", 1), at(60_199)), Answer::Finished);
    // The file is the group's business, not ours to remove.
    assert_eq!(desk.expire(at(60_200)), [""; 0]);
}

#[test]
fn what_nobody_goes_on_with_is_removed_in_time() {
    let mut desk = desk(2);
    let staged = StagedTransfer {
        group: 1,
        to_peer: 9,
        from_node: 1,
        next_sequence: 4,
        records: 40,
        bytes: 400,
        digest: 4,
        total_bytes: 1_000,
    };
    desk.restore("a".to_owned(), &staged, at(0));
    desk.restore("b".to_owned(), &StagedTransfer { group: 2, ..staged }, at(0));
    let shown: Vec<_> = desk.transfers().into_iter().map(|(a, p, r)| (a.clone(), p, r)).collect();
    assert_eq!(shown[0], (arrival("a", 1), position(4), false));
    assert_eq!(desk.arrive(arrival("a", 1), at(30_000)), go_on(4));
    assert_eq!(desk.expire(at(59_999)), [""; 0]);
    assert_eq!(desk.expire(at(60_000)), ["b"]);
    // One that runs stays, however slowly it comes.
    assert_eq!(desk.expire(at(600_000)), [""; 0]);
    assert!(desk.broke("a", position(6), at(600_000)));
    assert_eq!(desk.expire(at(660_000)), ["a"]);
    assert!(desk.transfers().is_empty());
}
