//! A store that lags applies what it lacks of a source from the source's own log.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_consensus::engine::{Cf, Engine, WriteBatch};
use quorate_consensus::node::Outcome;
use quorate_consensus::shard::{ApplyTask, Committed, forget_group, has_records};
use quorate_proto::{LogIndex, PeerId, RegionId, Term};
use quorate_store::core::Answer;
use quorate_store::core::command::{self, put};

use super::merge::commit_command;
use super::world::{World, child, dump, region, stamp};

/// Two stores with the same logs: one applies at once, the other when it is told to.
struct Pair {
    ahead: World,
    behind: World,
    logs: BTreeMap<u64, Vec<Bytes>>,
}

fn fresh() -> World {
    World::new(vec![region(1, "", "m"), region(2, "m", "t"), region(3, "t", "")])
}

/// Writes a region's log into the engine as its group does.
fn write_log(world: &World, id: u64, log: &[Bytes]) {
    let mut batch = WriteBatch::new();
    for (index, data) in (6u64..).zip(log) {
        let mut key = id.to_be_bytes().to_vec();
        key.push(3);
        key.extend(index.to_be_bytes());
        let mut value = vec![1, 0];
        value.extend(6u64.to_be_bytes());
        value.extend_from_slice(data);
        batch.put(Cf::Raft, key, value);
    }
    world.engine.write_synced(batch).unwrap();
}

fn task(id: u64, log: &[Bytes], from: usize) -> ApplyTask<u64> {
    let entry = |(index, data): (u64, &Bytes)| Committed {
        index: LogIndex(index),
        term: Term(6),
        data: data.clone(),
        tokens: vec![index],
        changes_members: false,
    };
    let entries = (6u64..).zip(log).skip(from).map(entry).collect();
    ApplyTask { group: RegionId(id), entries }
}

impl Pair {
    fn new() -> Self {
        Self { ahead: fresh(), behind: fresh(), logs: BTreeMap::new() }
    }

    /// An entry that the first one applies.
    fn log(&mut self, id: u64, command: Bytes) {
        let log = self.logs.entry(id).or_default();
        log.push(command);
        write_log(&self.ahead, id, log);
        write_log(&self.behind, id, log);
        let task = task(id, log, log.len() - 1);
        let (outcome, answers) = self.ahead.try_apply(vec![task]);
        outcome.unwrap();
        assert!(answers.iter().all(|it| it.answer == Answer::Done), "{answers:?}");
    }

    fn put(&mut self, id: u64, key: &str) {
        let stamp = stamp(&self.ahead.region(id), 3);
        self.log(id, put(stamp, key.as_bytes(), key.as_bytes()).unwrap());
    }

    fn split(&mut self, id: u64, new: u64, key: &str) {
        let stamp = stamp(&self.ahead.region(id), 4);
        self.log(id, command::split(stamp, vec![child(new, key)]).unwrap());
    }

    fn stop(&mut self, source: u64, target: u64) {
        let (from, to) = (self.ahead.region(source), self.ahead.region(target));
        self.log(source, command::prepare_merge(stamp(&from, 7), to.id, to.epoch).unwrap());
    }

    fn commit(&mut self, target: u64, source: u64) {
        let (stopped, merging) = self.ahead.local(source).merging().unwrap();
        let target_region = self.ahead.region(target);
        self.log(target, commit_command(&target_region, &stopped, merging.frozen));
    }

    fn merge(&mut self, source: u64, target: u64) {
        self.stop(source, target);
        self.commit(target, source);
    }

    /// The other one applies all of a region that it does not have yet.
    fn follow(&mut self, id: u64) -> Outcome {
        let (outcome, answers) = self.behind.try_apply(vec![task(id, &self.logs[&id], 0)]);
        assert_eq!(answers.len(), self.logs[&id].len(), "one answer for each");
        outcome.unwrap()
    }

    fn is_level(&self) {
        for cf in [Cf::Data, Cf::Meta] {
            assert_eq!(dump(&self.ahead.engine, cf), dump(&self.behind.engine, cf));
        }
        let shown = |world: &World| {
            let all = world.directory().all();
            all.iter().map(|it| it.replicated().unwrap().as_ref().clone()).collect::<Vec<_>>()
        };
        assert_eq!(shown(&self.ahead), shown(&self.behind));
    }
}

/// `r1` is written to, split and written to; then `r2` takes it in, in the midst of writes.
fn split_and_merged() -> Pair {
    let mut pair = Pair::new();
    pair.put(1, "a");
    pair.split(1, 9, "b");
    pair.put(1, "c");
    pair.put(2, "n");
    pair.merge(1, 2);
    pair.put(2, "d");
    pair
}

fn groups(outcome: &Outcome) -> Vec<u64> {
    outcome.created.iter().map(|new| new.group.0).collect()
}

#[test]
fn what_is_lacked_comes_from_the_log_with_its_splits() {
    let mut pair = split_and_merged();
    let outcome = pair.follow(2);
    assert_eq!(outcome.merged, [(RegionId(1), PeerId(11))]);
    assert_eq!(groups(&outcome), [9]);
    pair.is_level();
    assert_eq!(pair.behind.keys(), ["a", "c", "d", "n"]);
    // What its own group hands out later is too late: nobody is left without an answer.
    let outcome = pair.follow(1);
    assert!(outcome.progress.is_empty());
    pair.is_level();
}

#[test]
fn a_part_of_it_was_applied_before() {
    for applied in 0..4 {
        let mut pair = split_and_merged();
        let mut first = task(1, &pair.logs[&1], 0);
        first.entries.truncate(applied);
        if applied > 0 {
            pair.behind.try_apply(vec![first]).0.unwrap();
        }
        pair.follow(2);
        pair.is_level();
    }
}

/// `r1` has one key written three times, and `r2` takes it in.
fn overwritten_and_merged() -> Pair {
    let mut pair = Pair::new();
    for value in ["first", "second", "third"] {
        let stamp = stamp(&pair.ahead.region(1), 3);
        pair.log(1, put(stamp, b"k", value.as_bytes()).unwrap());
    }
    pair.merge(1, 2);
    pair
}

#[test]
fn a_part_of_it_may_be_handed_out_together_with_the_merge() {
    let together = |pair: &mut Pair, applied: usize| {
        let mut first = task(1, &pair.logs[&1], 0);
        first.entries.truncate(applied);
        let second = task(2, &pair.logs[&2], 0);
        pair.behind.try_apply(vec![first, second]).0.unwrap();
    };
    for applied in 1..4 {
        let mut pair = overwritten_and_merged();
        together(&mut pair, applied);
        pair.is_level();
        for kept in 0..=pair.behind.engine.unsynced() {
            let mut pair = overwritten_and_merged();
            together(&mut pair, applied);
            pair.behind = pair.behind.crash(kept);
            pair.follow(2);
            pair.is_level();
        }
    }
}

#[test]
fn a_source_may_have_taken_others_in_itself() {
    let mut pair = Pair::new();
    pair.put(1, "a");
    pair.put(2, "n");
    pair.put(3, "x");
    pair.merge(1, 2);
    pair.put(2, "b");
    pair.split(2, 9, "c");
    pair.merge(2, 3);
    pair.put(3, "d");
    let outcome = pair.follow(3);
    assert_eq!(outcome.merged, [(RegionId(1), PeerId(11)), (RegionId(2), PeerId(21))]);
    assert_eq!(groups(&outcome), [9]);
    pair.is_level();
    let states = quorate_store::core::keys::region_states(&pair.behind.engine).unwrap();
    let (_, last) = states.iter().find(|(id, _)| id.0 == 3).unwrap();
    assert_eq!(last.taken_in, [1, 2]);
}

#[test]
fn a_source_that_went_on_and_was_stopped_again() {
    let mut pair = Pair::new();
    pair.stop(1, 2);
    let refuse = command::refuse_merge(stamp(&pair.ahead.region(2), 0)).unwrap();
    pair.log(2, refuse);
    let (stopped, merging) = pair.ahead.local(1).merging().unwrap();
    let seen = pair.ahead.region(2).epoch;
    let back = command::rollback_merge(stamp(&stopped, 0), merging.frozen, seen).unwrap();
    pair.log(1, back);
    pair.put(1, "a");
    pair.merge(1, 2);
    pair.follow(2);
    pair.is_level();
    assert_eq!(pair.behind.keys(), ["a"]);
}

#[test]
fn a_crash_at_any_write_leads_to_the_same() {
    let mut pair = split_and_merged();
    pair.follow(2);
    let writes = pair.behind.engine.unsynced();
    assert!(writes >= 3, "{writes}");
    for kept in 0..=writes {
        let mut pair = split_and_merged();
        pair.follow(2);
        pair.behind = pair.behind.crash(kept);
        pair.follow(2);
        pair.is_level();
    }
}

#[test]
fn what_raft_has_of_a_source_goes_with_its_group_or_at_the_next_start() {
    let has = |world: &World| has_records(&world.engine, RegionId(1)).unwrap();
    let mut pair = split_and_merged();
    pair.follow(2);
    assert!(has(&pair.behind) && has(&pair.ahead));
    pair.behind.restart();
    assert!(!has(&pair.behind));
    pair.ahead.applier.forget_merged(RegionId(1)).unwrap();
    assert!(!has(&pair.ahead));
    // What is only removed from here, or lives, keeps its records.
    pair.ahead.applier.forget_merged(RegionId(2)).unwrap();
    assert!(has_records(&pair.ahead.engine, RegionId(2)).unwrap());
    let mut batch = WriteBatch::new();
    forget_group(RegionId(2), &mut batch);
    pair.ahead.engine.write(batch).unwrap();
    assert!(!has_records(&pair.ahead.engine, RegionId(2)).unwrap());
}
