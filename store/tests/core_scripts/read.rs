//! Reads: who may, what they see, and when what was read is worth nothing.

use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::time::Instant;
use quorate_proto::limits::{MAX_SCAN_LIMIT, MAX_VALUE_BYTES};
use quorate_proto::wire::kvrpcpb::{Context, KeyRange, KvPair, RawBatchScanRequest};
use quorate_proto::{PeerId, RegionId, Term};
use quorate_store::core::command::put_all;
use quorate_store::core::{
    Effort, Pass, ReadAdmission, ReadError, ReadPath, RegionError, Scan, Unconfirmed,
};

use super::world::{World, child, context, peer, region, stamp};

const NOW: Instant = Instant::from_millis(1_000);
const SOON: Instant = Instant::from_millis(1_100);
const LATE: Instant = Instant::from_millis(1_500);

/// `r1` up to m and `r2` from there, both led here, with a lease until 1.4 s.
fn world() -> World {
    let mut world = World::new(vec![region(1, "", "m"), region(2, "m", "")]);
    for key in ["a", "b", "c", "d"] {
        world.put(1, key, &key.repeat(3));
    }
    world.put(2, "x", "xxx");
    for id in [1, 2] {
        world.lead(id);
        let view = Arc::clone(world.local(id).view());
        view.grant(Instant::from_millis(1_400), Instant::from_millis(1_300));
    }
    world
}

fn reads(world: &World) -> ReadPath {
    ReadPath::new(world.directory(), Arc::new(world.engine.clone()))
}

fn lease(world: &World, id: u64) -> Pass {
    match reads(world).admit(&context(&world.region(id)), NOW).unwrap() {
        ReadAdmission::Lease(pass) => pass,
        ReadAdmission::NeedsIndex(region) => panic!("{region} has a lease"),
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, ReadError>) -> RegionError {
    match result.unwrap_err() {
        ReadError::Region(error) => error,
        ReadError::Engine(error) => panic!("{error}"),
    }
}

#[test]
fn a_leader_with_a_lease_reads_at_once() {
    let world = world();
    let reads = reads(&world);
    let pass = lease(&world, 1);
    assert_eq!(reads.get(&pass, b"a", Effort::Whole).unwrap().unwrap(), "aaa");
    assert_eq!(reads.get(&pass, b"e", Effort::Whole).unwrap(), None);
    assert_eq!(reads.confirm(&pass, SOON), Ok(()));
    assert!(!pass.renew());
    let outside = refusal(reads.get(&pass, b"x", Effort::Whole));
    assert!(matches!(outside, RegionError::KeyNotInRegion { .. }));
    assert_eq!(world.local(1).stats().read_keys(), 2);
}

#[test]
fn one_reader_is_told_to_renew_the_lease() {
    let world = world();
    let context = context(&world.region(1));
    let renew = |now| match reads(&world).admit(&context, now).unwrap() {
        ReadAdmission::Lease(pass) => pass.renew(),
        ReadAdmission::NeedsIndex(_) => panic!("the lease holds"),
    };
    let late = Instant::from_millis(1_350);
    assert_eq!([renew(NOW), renew(late), renew(late)], [false, true, false]);
}

#[test]
fn a_pause_between_admission_and_confirmation_voids_the_read() {
    let world = world();
    let pass = lease(&world, 1);
    let late = reads(&world).confirm(&pass, LATE);
    assert_eq!(late, Err(Unconfirmed::NeedsIndex(RegionId(1))));
}

#[test]
fn a_lease_that_was_taken_back_and_granted_anew_voids_the_read() {
    let world = world();
    let pass = lease(&world, 1);
    let local = world.local(1);
    local.view().revoke();
    local.view().grant(Instant::from_millis(9_000), Instant::from_millis(8_000));
    let confirmed = reads(&world).confirm(&pass, SOON);
    assert_eq!(confirmed, Err(Unconfirmed::NeedsIndex(RegionId(1))));
}

#[test]
fn a_split_voids_reads_of_either_kind() {
    let mut world = world();
    let reads = reads(&world);
    let context = context(&world.region(1));
    let pass = lease(&world, 1);
    let indexed = reads.admit_at_index(&context).unwrap();
    world.split(1, vec![child(3, "c")]);
    let current = vec![world.region(1), world.region(3)];
    let changed = RegionError::EpochNotMatch { current };
    assert_eq!(reads.confirm(&pass, SOON), Err(Unconfirmed::Region(changed.clone())));
    assert_eq!(reads.confirm(&indexed, SOON), Err(Unconfirmed::Region(changed.clone())));
    assert_eq!(reads.admit(&context, NOW).unwrap_err(), changed);
    assert_eq!(reads.admit_at_index(&context).unwrap_err(), changed);
}

#[test]
fn a_region_that_was_removed_voids_the_read() {
    let mut world = world();
    let reads = reads(&world);
    let pass = lease(&world, 1);
    world.applier.destroy(RegionId(1)).unwrap();
    let gone = RegionError::RegionNotFound(RegionId(1));
    assert_eq!(reads.confirm(&pass, SOON), Err(Unconfirmed::Region(gone)));
}

#[test]
fn without_a_lease_the_leader_asks_its_group() {
    let world = world();
    let reads = reads(&world);
    let context = context(&world.region(1));
    let needed = reads.admit(&context, LATE).unwrap();
    assert!(matches!(needed, ReadAdmission::NeedsIndex(RegionId(1))));
    // Once the index is applied here, it does not matter who leads.
    let pass = reads.admit_at_index(&context).unwrap();
    world.local(1).view().set_leader(Term(7), Some(PeerId(12)));
    assert_eq!(reads.get(&pass, b"a", Effort::Whole).unwrap().unwrap(), "aaa");
    assert_eq!(reads.confirm(&pass, LATE), Ok(()));
}

#[test]
fn a_follower_sends_readers_to_the_leader_unless_any_replica_will_do() {
    let world = world();
    let reads = reads(&world);
    let local = world.local(1);
    local.view().set_leader(Term(7), Some(PeerId(12)));
    local.view().revoke();
    let plain = context(&world.region(1));
    let leader = Some(peer(1, 2));
    let refused = reads.admit(&plain, NOW).unwrap_err();
    assert_eq!(refused, RegionError::NotLeader { region: RegionId(1), leader });
    for any in [Context { replica_read: true, ..plain }, Context { stale_read: true, ..plain }] {
        let needed = reads.admit(&any, NOW).unwrap();
        assert!(matches!(needed, ReadAdmission::NeedsIndex(RegionId(1))));
    }
}

#[test]
fn a_batch_of_keys_gives_the_pairs_that_are_there() {
    let world = world();
    let reads = reads(&world);
    let pass = lease(&world, 1);
    let keys = ["c", "e", "a", "c"].map(|key| Bytes::from_static(key.as_bytes()));
    let pairs = reads.batch_get(&pass, &keys, Effort::Whole).unwrap();
    assert_eq!(shown(&pairs), ["c=ccc", "a=aaa", "c=ccc"]);
    let outside = refusal(reads.batch_get(&pass, &[Bytes::from_static(b"z")], Effort::Whole));
    assert!(matches!(outside, RegionError::KeyNotInRegion { .. }));
    let many = vec![Bytes::from_static(b"a"); 10_241];
    let refused = refusal(reads.batch_get(&pass, &many, Effort::Whole));
    assert!(matches!(refused, RegionError::TooManyItems { items: 10_241, .. }));
}

fn shown(pairs: &[KvPair]) -> Vec<String> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    pairs.iter().map(|pair| format!("{}={}", text(&pair.key), text(&pair.value))).collect()
}

fn forward(start: &str, end: &str, limit: u32) -> Scan {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Scan { start: bytes(start), end: bytes(end), limit, key_only: false, reverse: false }
}

fn reverse(start: &str, end: &str, limit: u32) -> Scan {
    Scan { reverse: true, ..forward(start, end, limit) }
}

fn scan(world: &World, id: u64, scan: &Scan) -> Result<Vec<String>, RegionError> {
    let pass = lease(world, id);
    match reads(world).scan(&pass, scan, Effort::Whole) {
        Ok(pairs) => Ok(shown(&pairs)),
        Err(ReadError::Region(error)) => Err(error),
        Err(ReadError::Engine(error)) => panic!("{error}"),
    }
}

#[test]
fn scans_end_with_their_region_their_range_or_their_limit() {
    let world = world();
    let keys = |id, what: &Scan| {
        let rows = scan(&world, id, what).unwrap();
        rows.iter().map(|row| row[..1].to_owned()).collect::<String>()
    };
    assert_eq!(keys(1, &forward("", "", 100)), "abcd");
    assert_eq!(keys(1, &forward("b", "z", 100)), "bcd");
    assert_eq!(keys(1, &forward("b", "d", 100)), "bc");
    assert_eq!(keys(1, &forward("aa", "", 2)), "bc");
    assert_eq!(keys(1, &forward("b", "b", 100)), "");
    assert_eq!(keys(1, &forward("d", "b", 100)), "");
    assert_eq!(keys(1, &forward("", "", 0)), "");
    assert_eq!(keys(2, &forward("m", "", 100)), "x");
    // Reverse: from below the start down to the end, which is included.
    assert_eq!(keys(1, &reverse("m", "", 100)), "dcba");
    assert_eq!(keys(1, &reverse("d", "b", 100)), "cb");
    assert_eq!(keys(1, &reverse("dd", "", 2)), "dc");
    assert_eq!(keys(1, &reverse("b", "c", 100)), "");
    assert_eq!(keys(2, &reverse("", "", 100)), "x");
    assert_eq!(keys(2, &reverse("z", "a", 100)), "x");
    let bare = Scan { key_only: true, ..forward("", "", 1) };
    assert_eq!(scan(&world, 1, &bare).unwrap(), ["a="]);
}

#[test]
fn a_scan_begins_in_its_region() {
    let world = world();
    for (id, outside) in [
        (1, forward("m", "", 9)),
        (2, forward("a", "", 9)),
        (1, reverse("", "", 9)),
        (1, reverse("n", "", 9)),
        (2, reverse("m", "", 9)),
    ] {
        let refused = scan(&world, id, &outside);
        assert!(
            matches!(refused, Err(RegionError::KeyNotInRegion { .. })),
            "{outside:?} gave {refused:?}"
        );
    }
    let far = scan(&world, 1, &forward("", "", MAX_SCAN_LIMIT + 1));
    assert!(matches!(far, Err(RegionError::TooManyItems { .. })));
    assert!(scan(&world, 1, &forward("", "", MAX_SCAN_LIMIT)).is_ok());
}

#[test]
fn an_answer_that_clients_cannot_decode_is_refused_and_never_cut() {
    let mut world = world();
    let value = vec![b'v'; MAX_VALUE_BYTES];
    for key in ["e", "f", "g", "h"] {
        let stamp = stamp(&world.region(1), 0);
        world.apply(1, put_all(stamp, &[(key, &value)]).unwrap());
    }
    let refused = scan(&world, 1, &forward("", "", 100)).unwrap_err();
    assert!(matches!(refused, RegionError::AnswerTooLarge { .. }));
    let wire = refused.to_wire();
    assert!(wire.raft_entry_too_large.is_some(), "shown to users, not retried");
    assert!(wire.message.contains("ask for fewer keys"), "{}", wire.message);
    assert_eq!(scan(&world, 1, &forward("", "", 7)).unwrap().len(), 7);
    let bare = Scan { key_only: true, ..forward("", "", 100) };
    assert_eq!(scan(&world, 1, &bare).unwrap().len(), 8);
    let keys = ["e", "f", "g", "h"].map(|key| Bytes::from_static(key.as_bytes()));
    let refused = refusal(reads(&world).batch_get(&lease(&world, 1), &keys, Effort::Whole));
    assert!(matches!(refused, RegionError::AnswerTooLarge { .. }));
}

#[test]
fn a_batch_of_scans_reads_one_behind_the_other() {
    let world = world();
    let range = |start: &str, end: &str| KeyRange {
        start_key: Bytes::copy_from_slice(start.as_bytes()),
        end_key: Bytes::copy_from_slice(end.as_bytes()),
    };
    // The second range has no end: it goes up to the third.
    let ranges = vec![range("c", "m"), range("a", ""), range("b", "d")];
    let each_limit = 2;
    let request = RawBatchScanRequest { ranges, each_limit, ..RawBatchScanRequest::default() };
    let scans = Scan::batch(&request);
    let pairs = reads(&world).batch_scan(&lease(&world, 1), &scans, Effort::Whole).unwrap();
    assert_eq!(shown(&pairs), ["c=ccc", "d=ddd", "a=aaa", "b=bbb", "c=ccc"]);
    // A range that starts behind is no end.
    let ranges = vec![range("c", ""), range("a", "b")];
    let request = RawBatchScanRequest { ranges, each_limit, ..RawBatchScanRequest::default() };
    let pairs =
        reads(&world).batch_scan(&lease(&world, 1), &Scan::batch(&request), Effort::Whole).unwrap();
    assert_eq!(shown(&pairs), ["c=ccc", "d=ddd", "a=aaa"]);
    let ranges = vec![range("d", ""), range("b", "")];
    let mut request = RawBatchScanRequest { ranges, each_limit: 9, ..request };
    request.reverse = true;
    let pairs =
        reads(&world).batch_scan(&lease(&world, 1), &Scan::batch(&request), Effort::Whole).unwrap();
    assert_eq!(shown(&pairs), ["c=ccc", "b=bbb", "a=aaa"]);
    let many = vec![forward("a", "b", 1); 10_241];
    let refused = refusal(reads(&world).batch_scan(&lease(&world, 1), &many, Effort::Whole));
    assert!(matches!(refused, RegionError::TooManyItems { .. }));
}
