//! What waits for a group that is not here.

use quorate_proto::wire::peer::{Entry, SnapshotMeta};

use super::*;

const GROUP: RegionId = RegionId(4);

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn with_bytes(bytes: usize) -> Envelope {
    let entry = Entry { data: vec![0; bytes].into(), ..Entry::default() };
    Envelope { entries: vec![entry], ..Envelope::default() }
}

fn with_file(id: &str) -> Envelope {
    let meta = SnapshotMeta { id: id.to_owned(), ..SnapshotMeta::default() };
    Envelope { snapshot: Some(meta), ..Envelope::default() }
}

#[test]
fn messages_are_handed_out_in_order_and_once() {
    let mut parked = Parked::default();
    for sender in 1..=3 {
        assert_eq!(parked.park(GROUP, NodeId(sender), with_bytes(1), at(0)).discard, None);
    }
    let senders: Vec<u64> = parked.take(GROUP).into_iter().map(|(from, _)| from.0).collect();
    assert_eq!(senders, [1, 2, 3]);
    assert!(parked.take(GROUP).is_empty());
}

#[test]
fn somebody_is_asked_at_first_soon_and_now_and_then() {
    let mut parked = Parked::default();
    let mut asked = |millis| parked.park(GROUP, NodeId(1), with_bytes(0), at(millis)).ask;
    assert!(asked(0) && !asked(99) && asked(100) && !asked(299) && asked(300));
    assert!(asked(600) && asked(1_000) && asked(1_500) && !asked(1_999) && asked(2_000));
}

#[test]
fn what_is_not_kept_gives_its_file_back() {
    let mut parked = Parked::default();
    for _ in 0..PER_GROUP - 1 {
        parked.park(GROUP, NodeId(1), with_bytes(0), at(0));
    }
    assert_eq!(parked.park(GROUP, NodeId(1), with_file("a"), at(0)).discard, None);
    assert_eq!(parked.park(GROUP, NodeId(1), with_file("b"), at(0)).discard, Some("b".into()));
    assert_eq!(parked.park(GROUP, NodeId(1), with_bytes(1), at(0)).discard, None);
    assert!(parked.expire(at(2_999)).is_empty());
    assert_eq!(parked.expire(at(3_000)), ["a"]);
    assert!(parked.take(GROUP).is_empty());
}

#[test]
fn bytes_and_groups_are_bounded_and_given_back() {
    let mut parked = Parked::default();
    parked.park(GROUP, NodeId(1), with_bytes(BYTES), at(0));
    let other = RegionId(5);
    parked.park(other, NodeId(1), with_bytes(1), at(0));
    assert!(parked.take(other).is_empty(), "no room");
    parked.take(GROUP);
    parked.park(other, NodeId(1), with_bytes(BYTES), at(0));
    parked.expire(at(9_000));
    assert_eq!(parked.bytes, 0);
    for group in 0..GROUPS as u64 + 1 {
        parked.park(RegionId(100 + group), NodeId(1), with_bytes(0), at(9_000));
    }
    assert_eq!(parked.groups.len(), GROUPS);
    assert_eq!(parked.take(RegionId(100)).len(), 1);
}
