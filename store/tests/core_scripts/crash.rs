//! Crashes between any two writes: what comes back, and the log, lead to the same state.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_consensus::engine::Cf;
use quorate_consensus::shard::{ApplyTask, Committed};
use quorate_proto::{LogIndex, RegionId, Term};
use quorate_store::core::command::{self, delete, delete_range, put};
use quorate_store::core::keys;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::world::{World, child, dump, region, stamp};

/// Every region's log, as consensus keeps it: synced, so that no crash touches it.
type Logs = BTreeMap<u64, Vec<Bytes>>;

fn task(id: u64, from: usize, entries: &[Bytes]) -> ApplyTask<u64> {
    let entry = |(at, data): (usize, &Bytes)| Committed {
        index: LogIndex((6 + from + at) as u64),
        term: Term(6),
        data: data.clone(),
        changes_members: false,
        tokens: Vec::new(),
    };
    let entries = entries.iter().enumerate().map(entry).collect();
    ApplyTask { group: RegionId(id), entries }
}

/// A store that writes, deletes and splits. Returns it with its logs.
fn history(seed: u64) -> (World, Logs) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut world = World::new(vec![region(1, "", "m"), region(2, "m", "")]);
    let mut logs = Logs::new();
    let mut next = 2;
    for step in 0..60 {
        let all = world.directory().all();
        let local = &all[random.random_range(0..all.len())];
        let region = local.region().unwrap();
        let low = region.range.start.first().copied().unwrap_or(b'a');
        let high = region.range.end.first().copied().unwrap_or(b'z');
        let key = format!("{}{}", random.random_range(low..=high) as char, step % 10);
        if !region.range.contains(key.as_bytes()) {
            continue;
        }
        let stamp = stamp(&region, step);
        let command = match random.random_range(0..10) {
            0 => delete(stamp, key.as_bytes()).unwrap(),
            1 => delete_range(stamp, key.as_bytes(), &region.range.end).unwrap(),
            2 | 3 if region.range.can_split_at(key.as_bytes()) => {
                next += 1;
                command::split(stamp, vec![child(next, &key)]).unwrap()
            }
            _ => put(stamp, key.as_bytes(), &step.to_le_bytes()).unwrap(),
        };
        let log = logs.entry(region.id.0).or_default();
        let task = task(region.id.0, log.len(), std::slice::from_ref(&command));
        log.push(command);
        world.try_apply(vec![task]).0.unwrap();
    }
    (world, logs)
}

/// Applies what each log has beyond what the store has, until nothing is left: children appear on
/// the way.
fn replay(world: &mut World, logs: &Logs) {
    loop {
        let mut tasks = Vec::new();
        for (id, state) in keys::apply_states(&world.engine).unwrap() {
            let from = (state.index - 5) as usize;
            let log = logs.get(&id.0).map_or(&[][..], Vec::as_slice);
            if from < log.len() {
                tasks.push(task(id.0, from, &log[from..]));
            }
        }
        if tasks.is_empty() {
            return;
        }
        world.try_apply(tasks).0.unwrap();
    }
}

fn state(world: &World) -> [BTreeMap<Vec<u8>, Vec<u8>>; 2] {
    [Cf::Meta, Cf::Data].map(|cf| dump(&world.engine, cf))
}

#[test]
fn a_crash_after_any_write_loses_nothing_that_the_log_has() {
    let mut splits = 0;
    for seed in 0..4 {
        let (world, logs) = history(seed);
        let expected = state(&world);
        splits += world.directory().len() - 2;
        let writes = world.engine.unsynced();
        assert!(writes > 30);
        drop(world);
        for kept in 0..=writes {
            let (world, _) = history(seed);
            let mut world = world.crash(kept);
            replay(&mut world, &logs);
            assert_eq!(state(&world), expected, "seed {seed}, {kept} writes kept");
            assert_eq!(world.directory().len(), keys::apply_states(&world.engine).unwrap().len());
        }
    }
    assert!(splits > 8, "the histories split: {splits}");
}
