//! The applier: commands in, data and applied index out, one answer for each token.

use bytes::Bytes;
use quorate_consensus::engine::{Engine, EngineError, MemoryEngine, WriteFault};
use quorate_consensus::shard::{ApplyTask, Committed};
use quorate_proto::{LogIndex, RegionId, Term};
use quorate_store::core::applier::BATCH_BYTES;
use quorate_store::core::command::{self, delete, delete_range, put, put_all};
use quorate_store::core::{Answer, Answered, RegionError, keys};

use super::world::{World, region, stamp};

fn two_regions() -> World {
    World::new(vec![region(1, "", "m"), region(2, "m", "")])
}

fn applied(engine: &MemoryEngine, id: u64) -> (u64, u64) {
    let states = keys::apply_states(engine).unwrap();
    let (_, state) = states.into_iter().find(|(region, _)| region.0 == id).unwrap();
    (state.index, state.time_ms)
}

#[test]
fn one_call_applies_many_regions_in_one_write() {
    let mut world = two_regions();
    let before = world.engine.stats().batches;
    let (one, two) = (stamp(&world.region(1), 30), stamp(&world.region(2), 20));
    let first = [put(one, b"a", b"1").unwrap(), put(one, b"b", b"2").unwrap()];
    let tasks = vec![
        world.task(1, &[Bytes::from(first.concat()), delete(one, b"a").unwrap()]),
        world.task(2, &[put_all(two, &[("x", "3"), ("y", "")]).unwrap(), Bytes::new()]),
    ];
    let (outcome, answers) = world.try_apply(tasks);
    let progress: Vec<_> = outcome
        .unwrap()
        .progress
        .iter()
        .map(|done| (done.group.0, done.index.0, done.term.0))
        .collect();
    assert_eq!(progress, [(1, 7, 6), (2, 7, 6)]);
    let tokens: Vec<u64> = answers.iter().map(|answered| answered.token).collect();
    assert_eq!(tokens, [600, 601, 700, 600]);
    assert!(answers.iter().all(|answered| answered.answer == Answer::Done));
    assert_eq!(world.keys(), ["b", "x", "y"]);
    assert_eq!(world.get("y").unwrap(), "");
    assert_eq!(applied(&world.engine, 1), (7, 30));
    assert_eq!(applied(&world.engine, 2), (7, 20));
    assert_eq!(world.engine.stats().batches, before + 1);
}

#[test]
fn time_never_goes_back() {
    let mut world = two_regions();
    for (time, expected) in [(50, 50), (40, 50), (51, 51)] {
        let stamp = stamp(&world.region(1), time);
        world.apply(1, put(stamp, b"k", b"v").unwrap());
        assert_eq!(applied(&world.engine, 1).1, expected);
    }
}

#[test]
fn a_command_of_another_version_is_refused_and_only_that_one() {
    let mut world = two_regions();
    let now = stamp(&world.region(1), 0);
    let stale = command::Stamp { version: 0, ..now };
    let both = [put(stale, b"a", b"1").unwrap(), put(now, b"b", b"2").unwrap()];
    let task = world.task(1, &[both.concat().into()]);
    let (outcome, answers) = world.try_apply(vec![task]);
    outcome.unwrap();
    let current = vec![world.region(1)];
    assert_eq!(answers[0].answer, Answer::Refused(RegionError::EpochNotMatch { current }));
    assert_eq!(answers[1].answer, Answer::Done);
    assert_eq!(world.keys(), ["b"]);
}

#[test]
fn a_command_that_reaches_into_another_region_writes_nothing() {
    let mut world = two_regions();
    let now = stamp(&world.region(1), 0);
    let (_, answer) = world.apply(1, put_all(now, &[("a", "1"), ("x", "2")]).unwrap());
    assert!(matches!(
        answer,
        Answer::Refused(RegionError::KeyNotInRegion { key, .. }) if key == "x"
    ));
    let (_, answer) = world.apply(1, delete_range(now, b"a", b"x").unwrap());
    assert!(matches!(answer, Answer::Refused(RegionError::KeyNotInRegion { .. })));
    assert!(world.keys().is_empty());
}

#[test]
fn few_keys_are_deleted_one_by_one_and_many_by_range() {
    let mut world = two_regions();
    let now = stamp(&world.region(1), 0);
    let all: Vec<(String, &str)> = (0..1500).map(|n| (format!("k{n:04}"), "v")).collect();
    world.apply(1, put_all(now, &all).unwrap());
    world.put(2, "x", "other");
    assert_eq!(world.apply(1, delete_range(now, b"k0000", b"k0010").unwrap()).1, Answer::Done);
    assert_eq!(world.keys().len(), 1491);
    // 1,490 keys: over the bound. The empty end is the end of the region.
    assert_eq!(world.apply(1, delete_range(now, b"", b"").unwrap()).1, Answer::Done);
    assert_eq!(world.keys(), ["x"]);
    // The last region has no end.
    world.put(2, "\u{10ffff}", "high");
    assert_eq!(world.apply(2, delete_range(now, b"m", b"").unwrap()).1, Answer::Done);
    assert!(world.keys().is_empty());
}

#[test]
fn a_range_delete_sees_what_the_same_batch_wrote() {
    let mut world = two_regions();
    let now = stamp(&world.region(1), 0);
    let entries = [
        put_all(now, &[("a", "1"), ("b", "2"), ("c", "3")]).unwrap(),
        delete_range(now, b"a", b"c").unwrap(),
        put(now, b"b", b"4").unwrap(),
    ];
    let task = world.task(1, &entries);
    world.try_apply(vec![task]).0.unwrap();
    assert_eq!(world.keys(), ["b", "c"]);
    assert_eq!(world.get("b").unwrap(), "4");
    // The same with more keys than are deleted one by one.
    let many: Vec<(String, &str)> = (0..1100).map(|n| (format!("b{n:04}"), "v")).collect();
    let entries = [put_all(now, &many).unwrap(), delete_range(now, b"b", b"c").unwrap()];
    let task = world.task(1, &entries);
    world.try_apply(vec![task]).0.unwrap();
    assert_eq!(world.keys(), ["c"]);
}

#[test]
fn entries_of_a_region_that_is_not_here_are_undetermined() {
    let mut world = two_regions();
    let now = stamp(&world.region(1), 0);
    let unknown = world.task(9, &[put(now, b"a", b"1").unwrap()]);
    let known = world.task(1, &[put(now, b"b", b"2").unwrap()]);
    let (outcome, answers) = world.try_apply(vec![unknown, known]);
    assert_eq!(outcome.unwrap().progress.len(), 1);
    let undetermined = Answered { token: 600, answer: Answer::Undetermined };
    assert_eq!(answers, [undetermined, Answered { token: 600, answer: Answer::Done }]);
    assert_eq!(world.keys(), ["b"]);
}

#[test]
fn a_destroyed_region_leaves_nothing_but_its_id() {
    let mut world = two_regions();
    world.put(1, "a", "1");
    world.put(2, "x", "2");
    world.applier.destroy(RegionId(2)).unwrap();
    world.applier.destroy(RegionId(2)).unwrap();
    assert_eq!(world.keys(), ["a"]);
    assert!(world.directory().get(RegionId(2)).is_none());
    assert!(world.directory().find(b"x").is_none());
    // The first regions come again after a restart: not this one.
    assert!(world.applier.bootstrap(vec![region(2, "m", "")]).unwrap().is_empty());
}

#[test]
fn entries_that_were_applied_before_are_not_applied_again() {
    let mut world = two_regions();
    let now = stamp(&world.region(1), 0);
    let entry = |index| Committed {
        index: LogIndex(index),
        term: Term(6),
        data: put(now, b"k", &[b'0' + index as u8]).unwrap(),
        changes_members: false,
        tokens: vec![index],
    };
    let task = |entries| ApplyTask { group: RegionId(1), entries };
    world.try_apply(vec![task(vec![entry(6), entry(7)])]).0.unwrap();
    let (_, answers) = world.try_apply(vec![task(vec![entry(6), entry(7), entry(8)])]);
    let answers: Vec<_> = answers.into_iter().map(|answered| answered.answer).collect();
    assert_eq!(answers, [Answer::Undetermined, Answer::Undetermined, Answer::Done]);
    assert_eq!(world.get("k").unwrap(), "8");
}

#[test]
fn an_unreadable_entry_stops_the_process() {
    let mut world = two_regions();
    let task = ApplyTask {
        group: RegionId(1),
        entries: vec![Committed {
            index: LogIndex(6),
            term: Term(6),
            data: Bytes::from_static(b"\x05abc"),
            changes_members: false,
            tokens: vec![1],
        }],
    };
    let (outcome, answers) = world.try_apply(vec![task]);
    assert!(matches!(outcome, Err(EngineError::Corrupt { .. })));
    assert!(answers.is_empty());
}

#[test]
fn large_batches_are_cut_between_entries_and_nothing_unwritten_is_answered() {
    let mut world = two_regions();
    let now = stamp(&world.region(1), 0);
    let before = world.engine.stats().batches;
    let value = vec![1; BATCH_BYTES / 4 * 3];
    let entries: Vec<Bytes> = (0..4u8).map(|n| put(now, &[b'a', n], &value).unwrap()).collect();
    let task = world.task(1, &entries);
    let (outcome, answers) = world.try_apply(vec![task]);
    outcome.unwrap();
    assert_eq!(answers.len(), 4);
    assert_eq!(world.engine.stats().batches, before + 3, "two full ones and the rest");

    world.engine.fail_next_write(WriteFault::Broken);
    let task = world.task(1, &entries);
    let (outcome, answers) = world.try_apply(vec![task]);
    assert!(outcome.unwrap_err().is_fatal());
    assert!(answers.is_empty());
    assert_eq!(applied(&world.engine, 1).0, 9);
}

#[test]
fn sizes_and_counters_follow_what_is_written() {
    let mut world = two_regions();
    world.put(1, "a", "12345");
    world.put(1, "b", "1");
    let now = stamp(&world.region(1), 0);
    world.apply(1, delete(now, b"a").unwrap());
    let local = world.local(1);
    let stats = local.stats();
    assert_eq!((stats.bytes(), stats.keys()), (7 + 3, 2), "an estimate: what was put");
    assert_eq!((stats.written_bytes(), stats.written_keys()), (10, 3));
    assert_eq!(stats.unchecked_bytes(), 10);
    stats.measure(3, 1);
    assert_eq!((stats.bytes(), stats.keys(), stats.unchecked_bytes()), (3, 1, 0));
}
