//! What is packed is unpacked; what raft-rs must not see is refused with a reason.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn travelling() -> impl Strategy<Value = Message> {
    let kinds: Vec<u32> = (0..20).filter(|kind| kind_of(*kind).is_some() && *kind != 7).collect();
    let data = || vec(any::<u8>(), 0..20).prop_map(Bytes::from);
    let numbers = (1..=MAX_NUMBER, 1..=MAX_NUMBER, 1..1_000_000u64, 0..=MAX_NUMBER, 0..=MAX_NUMBER);
    let rest = (any::<bool>(), 0..=MAX_NUMBER, any::<i64>(), data(), vec((data(), data()), 0..4));
    (proptest::sample::select(kinds), numbers, rest).prop_map(|(kind, numbers, rest)| {
        let (term, log_term, index, commit, commit_term) = numbers;
        let (reject, reject_hint, priority, context, entries) = rest;
        let mut message = Message::default();
        let kind = kind_of(kind).unwrap();
        message.set_msg_type(kind);
        (message.from, message.to) = (3, 4);
        message.term = if kind == MessageType::MsgReadIndex { 0 } else { term };
        // An entry is not of a later term than its message, nor of an earlier one than the last.
        message.log_term = log_term.min(term);
        message.index = index;
        message.commit = commit;
        message.commit_term = commit_term;
        message.reject = reject;
        message.reject_hint = reject_hint;
        message.priority = priority;
        message.context = context;
        let entries = entries.into_iter().zip(1..).map(|((data, context), at)| {
            let mut entry = Entry { term, index: index + at, ..Entry::default() };
            (entry.data, entry.context) = (data, context);
            entry
        });
        let entries: Vec<Entry> = match kind {
            MessageType::MsgAppend => entries.collect(),
            MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => vec![Entry::default()],
            _ => Vec::new(),
        };
        message.entries = entries.into();
        message
    })
}

proptest! {
    #[test]
    fn messages_survive_the_way(message in travelling()) {
        let envelope = pack(RegionId(9), message.clone());
        prop_assert_eq!(envelope.group, 9);
        prop_assert_eq!(unpack(envelope).unwrap(), message);
    }
}

fn vote() -> Envelope {
    Envelope { from_peer: 1, to_peer: 2, kind: 5, term: 6, ..Envelope::default() }
}

fn append() -> Envelope {
    let entry = |index, term| peer::Entry { index, term, ..peer::Entry::default() };
    Envelope { kind: 3, index: 9, log_term: 5, entries: vec![entry(10, 5), entry(11, 6)], ..vote() }
}

fn snapshot() -> Envelope {
    let conf = peer::ConfState { voters: vec![1, 2], ..peer::ConfState::default() };
    let meta = peer::SnapshotMeta {
        id: "r1-p2-9".into(),
        index: 9,
        term: 6,
        conf: Some(conf),
        state: Bytes::from_static(b"state"),
    };
    Envelope { kind: 7, snapshot: Some(meta), ..vote() }
}

/// Why the envelope is refused after a change.
fn refusal(mut envelope: Envelope, change: impl FnOnce(&mut Envelope)) -> BadEnvelope {
    assert!(unpack(envelope.clone()).is_ok(), "good before the change");
    change(&mut envelope);
    unpack(envelope).unwrap_err()
}

#[test]
fn what_raft_must_not_see_is_refused() {
    use BadEnvelope as Bad;
    assert_eq!(refusal(vote(), |e| e.kind = 0), Bad::Kind(0));
    assert_eq!(refusal(vote(), |e| e.kind = 2), Bad::Kind(2));
    assert_eq!(refusal(vote(), |e| e.kind = 13), Bad::Kind(13));
    assert_eq!(refusal(vote(), |e| e.from_peer = 0), Bad::NoPeer);
    assert_eq!(refusal(vote(), |e| e.term = 0), Bad::Numbers);
    assert_eq!(refusal(vote(), |e| e.term = u64::MAX), Bad::Numbers);
    assert_eq!(refusal(vote(), |e| e.request_snapshot = 1), Bad::Numbers);
    assert_eq!(refusal(append(), |e| e.entries[1].index = 12), Bad::Entries);
    assert_eq!(refusal(append(), |e| e.entries[1].term = 4), Bad::Entries);
    assert_eq!(refusal(append(), |e| e.entries[1].term = 7), Bad::Entries);
    assert_eq!(refusal(append(), |e| e.entries[1].kind = 3), Bad::EntryKind(3));
    assert_eq!(refusal(append(), |e| e.log_term = 0), Bad::Entries);
    assert_eq!(refusal(snapshot(), |e| e.snapshot = None), Bad::NoSnapshot);
}

#[test]
fn snapshots_of_impossible_configurations_are_refused() {
    let with = |change: fn(&mut peer::ConfState)| {
        refusal(snapshot(), |envelope| {
            change(envelope.snapshot.as_mut().unwrap().conf.as_mut().unwrap());
        })
    };
    assert_eq!(with(|conf| conf.voters.clear()), BadEnvelope::Configuration);
    assert_eq!(with(|conf| conf.voters.push(1)), BadEnvelope::Configuration);
    assert_eq!(with(|conf| conf.voters.push(0)), BadEnvelope::Configuration);
    assert_eq!(with(|conf| conf.learners.push(1)), BadEnvelope::Configuration);
    assert_eq!(with(|conf| conf.learners_next.push(3)), BadEnvelope::Configuration);
    assert_eq!(with(|conf| conf.auto_leave = true), BadEnvelope::Configuration);
}

#[test]
fn a_staged_file_has_a_plain_name() {
    assert_eq!(staged(&snapshot()).unwrap().id, "r1-p2-9");
    assert_eq!(staged(&snapshot()).unwrap().state, "state");
    for name in ["", "../etc", "a b", &"x".repeat(101)] {
        let mut envelope = snapshot();
        envelope.snapshot.as_mut().unwrap().id = name.to_owned();
        assert!(staged(&envelope).is_none());
        assert_eq!(unpack(envelope).unwrap_err(), BadEnvelope::Configuration);
    }
}

#[test]
fn entries_travel_apart_from_heartbeats() {
    assert_eq!(plane_of(MessageType::MsgAppend), Plane::Data);
    assert_eq!(plane_of(MessageType::MsgAppendResponse), Plane::Data);
    assert_eq!(plane_of(MessageType::MsgHeartbeat), Plane::Control);
    assert_eq!(plane_of(MessageType::MsgRequestVote), Plane::Control);
    assert_eq!(plane_of(MessageType::MsgSnapshot), Plane::Bulk);
}
