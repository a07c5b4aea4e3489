//! Splits: one region becomes several, on one batch, everywhere at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::engine::Cf;
use quorate_proto::wire::command::SplitTo;
use quorate_proto::{Epoch, LogIndex, PeerId, RegionId, Term};
use quorate_store::core::command::{self, Stamp, put};
use quorate_store::core::{Answer, PeerAdmission, RegionError, State, keys};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::world::{World, child, context, dump, region, stamp};

#[test]
fn the_region_keeps_its_right_end_and_its_children_take_the_rest() {
    let mut world = World::new(vec![region(1, "", "")]);
    for key in ["a", "h", "n", "z"] {
        world.put(1, key, key);
    }
    world.lead(1);
    let (outcome, answer) = world.split(1, vec![child(2, "g"), child(3, "n")]);
    assert_eq!(answer, Answer::Done);

    let shown: Vec<String> = world
        .directory()
        .all()
        .iter()
        .map(|local| format!("{} {}", local.id(), local.region().unwrap().range))
        .collect();
    assert_eq!(shown, ["r2 [, g)", "r3 [g, n)", "r1 [n, ∞)"]);
    for id in 1..=3 {
        assert_eq!(world.region(id).epoch, Epoch { conf_ver: 1, version: 3 });
    }
    let (one, two) = (&outcome.created[0], &outcome.created[1]);
    assert_eq!((one.group, one.peer), (RegionId(2), PeerId(21)));
    assert_eq!((two.group, two.peer), (RegionId(3), PeerId(31)));
    assert_eq!(one.applied, (LogIndex(5), Term(5)));
    assert_eq!(one.members.len(), 3);
    assert!(one.campaign && two.campaign, "the parent's leader is here");
    assert_eq!(world.directory().find(b"m").unwrap().id(), RegionId(3));
    assert_eq!(world.keys(), ["a", "h", "n", "z"]);

    // All of them go on.
    assert_eq!(world.put(2, "b", "1"), Answer::Done);
    assert_eq!(world.put(1, "y", "1"), Answer::Done);
    assert_eq!(world.keys(), ["a", "b", "h", "n", "y", "z"]);
}

#[test]
fn only_the_leaders_store_campaigns() {
    let mut world = World::new(vec![region(1, "", "")]);
    world.local(1).view().set_leader(Term(6), Some(PeerId(12)));
    let (outcome, _) = world.split(1, vec![child(2, "g")]);
    assert!(!outcome.created[0].campaign);
}

#[test]
fn commands_proposed_before_a_split_are_refused_after_it() {
    let mut world = World::new(vec![region(1, "", "")]);
    let before = stamp(&world.region(1), 0);
    let entries = [
        put(before, b"a", b"1").unwrap(),
        command::split(before, vec![child(2, "g")]).unwrap(),
        put(before, b"b", b"2").unwrap(),
        put(before, b"z", b"3").unwrap(),
    ];
    let task = world.task(1, &entries);
    let (outcome, answers) = world.try_apply(vec![task]);
    assert_eq!(outcome.unwrap().progress[0].index, LogIndex(9));
    let current = vec![world.region(1), world.region(2)];
    let refused = Answer::Refused(RegionError::EpochNotMatch { current });
    let answers: Vec<_> = answers.into_iter().map(|answered| answered.answer).collect();
    assert_eq!(answers, [Answer::Done, Answer::Done, refused.clone(), refused]);
    assert_eq!(world.keys(), ["a"]);
}

#[test]
fn a_split_within_an_entry_counts_for_the_commands_behind_it() {
    let mut world = World::new(vec![region(1, "", "")]);
    let before = stamp(&world.region(1), 0);
    let both =
        [command::split(before, vec![child(2, "g")]).unwrap(), put(before, b"b", b"2").unwrap()];
    let task = world.task(1, &[Bytes::from(both.concat())]);
    let (_, answers) = world.try_apply(vec![task]);
    assert_eq!(answers[0].answer, Answer::Done);
    assert!(matches!(&answers[1].answer, Answer::Refused(RegionError::EpochNotMatch { .. })));
    assert!(world.keys().is_empty());
}

#[test]
fn splits_that_do_not_fit_are_refused_and_change_nothing() {
    let mut world = World::new(vec![region(1, "b", "m"), region(2, "m", "")]);
    let before = dump(&world.engine, Cf::Data);
    let short = SplitTo { peer_ids: vec![31, 32], ..child(3, "c") };
    let zero = SplitTo { peer_ids: vec![31, 0, 33], ..child(3, "c") };
    let bad = [
        vec![child(3, "b")],
        vec![child(3, "a")],
        vec![child(3, "m")],
        vec![child(3, "c"), child(3, "d")],
        vec![child(1, "c")],
        vec![child(0, "c")],
        vec![short],
        vec![zero],
    ];
    for children in bad {
        let (outcome, answer) = world.split(1, children.clone());
        assert!(outcome.created.is_empty());
        assert!(
            matches!(answer, Answer::Refused(RegionError::BadSplit { .. })),
            "{children:?} gave {answer:?}"
        );
    }
    let now = stamp(&world.region(1), 0);
    let other = Stamp { conf_ver: 2, ..now };
    let (_, answer) = world.apply(1, command::split(other, vec![child(3, "c")]).unwrap());
    assert!(matches!(answer, Answer::Refused(RegionError::EpochNotMatch { .. })));
    assert_eq!(world.directory().len(), 2);
    assert_eq!(world.region(1).epoch.version, 1);
    assert_eq!(dump(&world.engine, Cf::Data), before);
}

#[test]
fn a_replica_that_waited_for_its_region_keeps_its_view() {
    let mut world = World::new(vec![region(1, "", "m"), region(9, "m", "")]);
    world.put(9, "x", "1");
    // A message for the new region was here first, when nothing covered its range.
    world.applier.destroy(RegionId(1)).unwrap();
    let new = region(2, "", "g");
    let PeerAdmission::Create(waiting) = world.directory().admit_peer(&new, PeerId(21)) else {
        panic!("nothing is in the way");
    };
    // The range comes back under another id, and splits.
    world.applier.bootstrap(vec![region(3, "g", "m")]).unwrap();
    let (outcome, answer) = world.split(3, vec![child(2, "h")]);
    assert_eq!(answer, Answer::Done);
    assert!(Arc::ptr_eq(&outcome.created[0].view, &waiting.view));
    assert!(matches!(&*world.local(2).state(), State::Serving(_)));
}

#[test]
fn a_child_that_was_removed_here_is_not_created_again() {
    let mut world = World::new(vec![region(1, "", "")]);
    world.put(1, "a", "1");
    world.put(1, "x", "2");
    // Its replica here came and went before this replica applied the split.
    let mut later = World::new(vec![region(2, "", "g")]);
    later.applier.destroy(RegionId(2)).unwrap();
    let tombstone = dump(&later.engine, Cf::Meta);
    let key = keys::region_state(RegionId(2));
    let mut batch = quorate_consensus::engine::WriteBatch::new();
    batch.put(Cf::Meta, key.clone(), tombstone[&key.to_vec()].clone());
    quorate_consensus::engine::Engine::write_synced(&world.engine, batch).unwrap();
    world.restart();

    let (outcome, answer) = world.split(1, vec![child(2, "g"), child(3, "h")]);
    assert_eq!(answer, Answer::Done);
    let created: Vec<RegionId> = outcome.created.iter().map(|group| group.group).collect();
    assert_eq!(created, [RegionId(3)]);
    assert!(world.directory().get(RegionId(2)).is_none());
    assert_eq!(world.keys(), ["x"], "no data without a region");
    let refused = world.directory().admit_peer(&region(2, "", "g"), PeerId(21));
    assert!(matches!(refused, PeerAdmission::Refuse(_)));
}

#[test]
fn a_hundred_random_splits_keep_ranges_disjoint_and_covering() {
    for seed in 0..5 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut world = World::new(vec![region(1, "", "")]);
        let mut next = 2;
        let mut splits = 0;
        while splits < 100 {
            let all = world.directory().all();
            let parent = all[random.random_range(0..all.len())].region().unwrap();
            let mut cuts: Vec<String> = (0..random.random_range(1..4))
                .map(|_| format!("{:05}", random.random_range(0..100_000)))
                .filter(|key| parent.range.can_split_at(key.as_bytes()))
                .collect();
            cuts.sort();
            cuts.dedup();
            if cuts.is_empty() {
                continue;
            }
            let children: Vec<SplitTo> = cuts
                .iter()
                .map(|key| {
                    next += 1;
                    child(next, key)
                })
                .collect();
            let old = parent.epoch.version;
            let (_, answer) = world.split(parent.id.0, children);
            assert_eq!(answer, Answer::Done);
            assert_eq!(world.region(parent.id.0).epoch.version, old + cuts.len() as u64);
            splits += 1;
            check_cover(&world);
        }
        let before = regions(&world);
        world.restart();
        assert_eq!(regions(&world), before, "seed {seed}");
        check_cover(&world);
    }
}

fn regions(world: &World) -> BTreeMap<RegionId, quorate_proto::Region> {
    let all = world.directory().all();
    all.iter().map(|local| (local.id(), (*local.region().unwrap()).clone())).collect()
}

fn check_cover(world: &World) {
    let mut end = Bytes::new();
    let all = world.directory().all();
    for (at, local) in all.iter().enumerate() {
        let region = local.region().unwrap();
        assert_eq!(region.range.start, end, "{} begins where the last one ended", region.id);
        end = region.range.end.clone();
        assert_eq!(end.is_empty(), at + 1 == all.len());
        assert!(world.directory().admit(&context(&region)).is_ok());
        assert_eq!(world.directory().find(&region.range.start).unwrap().id(), region.id);
    }
}
