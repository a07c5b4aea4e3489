//! Merges: a region stops, its neighbour takes it in, or it goes on.

use bytes::Bytes;
use quorate_consensus::engine::{Cf, EngineError};
use quorate_consensus::node::Outcome;
use quorate_proto::wire::command::PeerState;
use quorate_proto::{Epoch, LogIndex, PeerId, Region, RegionId, Role};
use quorate_store::core::command::{self, Stamp, put};
use quorate_store::core::directory::Merging;
use quorate_store::core::merge::MERGE_LEAP;
use quorate_store::core::{Answer, RegionError, State, keys};

use super::world::{World, child, context, dump, region, stamp};

fn two() -> World {
    let mut world = World::new(vec![region(1, "", "m"), region(2, "m", "t"), region(3, "t", "")]);
    for (id, key) in [(1, "a"), (2, "n"), (3, "z")] {
        assert_eq!(world.put(id, key, key), Answer::Done);
    }
    world
}

fn prepare_command(source: &Region, target: &Region) -> Bytes {
    command::prepare_merge(stamp(source, 50), target.id, target.epoch).unwrap()
}

/// Stops a region; returns it and the entry that did.
pub(crate) fn prepare(world: &mut World, source: u64, target: u64) -> (Region, LogIndex) {
    let command = prepare_command(&world.region(source), &world.region(target));
    let (outcome, answer) = world.apply(source, command);
    assert_eq!(answer, Answer::Done);
    assert_eq!(outcome.changed, [RegionId(source)]);
    let (region, merging) = world.local(source).merging().unwrap();
    (region.as_ref().clone(), merging.frozen)
}

pub(crate) fn commit_command(target: &Region, source: &Region, frozen: LogIndex) -> Bytes {
    command::commit_merge(stamp(target, 0), source, frozen).unwrap()
}

fn commit(world: &mut World, target: u64, source: &Region, frozen: LogIndex) -> (Outcome, Answer) {
    let command = commit_command(&world.region(target), source, frozen);
    world.apply(target, command)
}

fn rollback(world: &mut World, source: &Region, frozen: LogIndex, seen: Epoch) -> Answer {
    let command = command::rollback_merge(stamp(source, 0), frozen, seen).unwrap();
    world.apply(source.id.0, command).1
}

fn refuse(world: &mut World, id: u64) {
    let command = command::refuse_merge(stamp(&world.region(id), 0)).unwrap();
    assert_eq!(world.apply(id, command).1, Answer::Done);
}

fn is_bad(answer: &Answer) -> bool {
    matches!(answer, Answer::Refused(RegionError::BadMerge { .. }))
}

#[test]
fn a_region_stops_and_its_right_neighbour_takes_it_in() {
    let mut world = two();
    let before = world.region(1);
    let (stopped, frozen) = prepare(&mut world, 1, 2);
    assert_eq!(stopped.epoch, Epoch { conf_ver: 2, version: 1 + MERGE_LEAP });
    assert_eq!(frozen, LogIndex(7));

    // Nobody is served, whatever they know of it.
    for known in [&before, &stopped] {
        let refused = world.directory().admit(&context(known)).unwrap_err();
        assert_eq!(refused, RegionError::Merging(RegionId(1)));
    }
    let wire = RegionError::Merging(RegionId(1)).to_wire();
    assert_eq!(wire.proposal_in_merging_mode.unwrap().region_id, 1);
    let late = world.apply(1, put(stamp(&before, 9_999), b"b", b"x").unwrap()).1;
    assert!(matches!(late, Answer::Refused(RegionError::EpochNotMatch { .. })), "{late:?}");
    let splits = command::split(stamp(&stopped, 0), vec![child(9, "c")]).unwrap();
    let writes = put(stamp(&stopped, 0), b"b", b"x").unwrap();
    let peers = command::change_peers(stamp(&stopped, 0), &stopped.peers).unwrap();
    let again = command::prepare_merge(stamp(&stopped, 0), RegionId(3), stopped.epoch).unwrap();
    let refuses = command::refuse_merge(stamp(&stopped, 0)).unwrap();
    for command in [splits, writes, peers, again, refuses] {
        let answer = world.apply(1, command).1;
        assert_eq!(answer, Answer::Refused(RegionError::Merging(RegionId(1))));
    }
    assert!(world.local(1).view().is_kept_awake());

    let (outcome, answer) = commit(&mut world, 2, &stopped, frozen);
    assert_eq!(answer, Answer::Done);
    assert_eq!(outcome.merged, [(RegionId(1), PeerId(11))]);
    assert_eq!(outcome.changed, [RegionId(2)]);
    let after = world.region(2);
    assert_eq!(after.range, region(2, "", "t").range);
    assert_eq!(after.epoch, Epoch { conf_ver: 1, version: 2 + MERGE_LEAP });
    assert_eq!(world.directory().len(), 2);
    assert_eq!(world.directory().find(b"a").unwrap().id(), RegionId(2));
    assert_eq!(world.put(2, "b", "1"), Answer::Done);
    assert_eq!(world.keys(), ["a", "b", "n", "z"]);
    let refused = world.directory().admit(&context(&stopped)).unwrap_err();
    assert_eq!(refused, RegionError::RegionNotFound(RegionId(1)));

    let applied = keys::apply_states(&world.engine).unwrap();
    assert_eq!(applied.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [2, 3]);
    // What was refused after the stop moved no time: not every replica has applied it.
    assert_eq!(applied[0].1.time_ms, 50);
    let states = keys::region_states(&world.engine).unwrap();
    assert_eq!(states[0].1.state(), PeerState::Tombstone);
    assert_eq!(states[0].1.merged_into, 2);
    assert_eq!(states[1].1.taken_in, [1]);
    world.restart();
    assert_eq!(world.region(2), after);
    let gone = world.directory().taken_in(RegionId(1)).unwrap();
    assert_eq!((gone.into, gone.region.as_ref()), (RegionId(2), &stopped));
}

#[test]
fn the_left_neighbour_can_take_it_in_as_well() {
    let mut world = two();
    let (stopped, frozen) = prepare(&mut world, 2, 1);
    assert_eq!(commit(&mut world, 1, &stopped, frozen).1, Answer::Done);
    assert_eq!(world.region(1).range, region(1, "", "t").range);
    assert_eq!(world.keys(), ["a", "n", "z"]);
}

#[test]
fn stops_that_do_not_fit_are_refused_and_change_nothing() {
    let mut sentinel = region(4, "t", "");
    sentinel.range.start = Bytes::from_static(quorate_proto::limits::SENTINEL_START);
    let mut joint = region(5, "e", "f");
    joint.peers.push(super::world::peer(5, 4));
    joint.peers[2].role = Role::DemotingVoter;
    joint.peers[3].role = Role::IncomingVoter;
    let mut world = World::new(vec![region(1, "", "c"), sentinel, joint]);
    let before = dump(&world.engine, Cf::Meta);
    let (one, end) = (world.region(1), world.region(4));
    for source in [4, 5] {
        let command = prepare_command(&world.region(source), &one);
        assert!(is_bad(&world.apply(source, command).1));
    }
    let at = one.epoch;
    for (target, epoch) in [(1, at), (0, at), (2, Epoch { version: u64::MAX, ..at })] {
        let command = command::prepare_merge(stamp(&one, 0), RegionId(target), epoch).unwrap();
        assert!(is_bad(&world.apply(1, command).1), "{target} {epoch:?}");
    }
    for stamp in [Stamp { version: 2, ..stamp(&one, 0) }, Stamp { conf_ver: 2, ..stamp(&one, 0) }] {
        let command = command::prepare_merge(stamp, end.id, end.epoch).unwrap();
        let answer = world.apply(1, command).1;
        assert!(matches!(answer, Answer::Refused(RegionError::EpochNotMatch { .. })));
    }
    let mut after = dump(&world.engine, Cf::Meta);
    after.retain(|key, _| key[0] != b'a');
    assert!(before.iter().filter(|(key, _)| key[0] != b'a').eq(after.iter()));
}

#[test]
fn the_first_of_a_merge_and_another_change_of_the_target_counts() {
    let mut world = two();
    let target = world.region(2);
    let (stopped, frozen) = prepare(&mut world, 1, 2);
    refuse(&mut world, 2);
    assert_eq!(world.region(2).epoch, Epoch { conf_ver: 1, version: 2 });
    let answer = world.apply(2, commit_command(&target, &stopped, frozen)).1;
    assert!(matches!(answer, Answer::Refused(RegionError::EpochNotMatch { .. })), "{answer:?}");
    let other = Stamp { conf_ver: 2, ..stamp(&world.region(2), 0) };
    let answer = world.apply(2, command::commit_merge(other, &stopped, frozen).unwrap()).1;
    assert!(matches!(answer, Answer::Refused(RegionError::EpochNotMatch { .. })), "{answer:?}");

    // The source goes on, with proof.
    let seen = world.region(2).epoch;
    assert_eq!(rollback(&mut world, &stopped, frozen, seen), Answer::Done);
    assert_eq!(world.region(1).epoch.version, stopped.epoch.version + 1);
    assert!(!world.local(1).view().is_kept_awake());
    assert_eq!(world.put(1, "b", "1"), Answer::Done);
    world.restart();
    assert_eq!(world.put(1, "c", "1"), Answer::Done);

    // And is merged after all.
    let (stopped, frozen) = prepare(&mut world, 1, 2);
    assert_eq!(commit(&mut world, 2, &stopped, frozen).1, Answer::Done);
    assert_eq!(world.keys(), ["a", "b", "c", "n", "z"]);
}

#[test]
fn a_source_goes_on_only_with_proof() {
    let mut world = two();
    let named = world.region(2).epoch;
    let (stopped, frozen) = prepare(&mut world, 1, 2);
    let newer = Epoch { version: named.version + 1, ..named };
    let (older, mixed) = (
        Epoch { version: named.version - 1, ..named },
        Epoch { version: named.version + 1, conf_ver: named.conf_ver - 1 },
    );
    let (same, above) = (stopped.epoch.version, stopped.epoch.version + 1);
    let too_high = [same, above].map(|version| Epoch { version, ..named });
    for seen in [named, older, mixed, too_high[0], too_high[1]] {
        assert!(is_bad(&rollback(&mut world, &stopped, frozen, seen)), "{seen:?}");
    }
    assert!(is_bad(&rollback(&mut world, &stopped, frozen.next(), newer)));
    let other = world.region(3);
    assert!(is_bad(&rollback(&mut world, &other, frozen, newer)), "it is not stopped");
    let members = Epoch { conf_ver: named.conf_ver + 1, ..named };
    assert_eq!(rollback(&mut world, &stopped, frozen, members), Answer::Done);
}

#[test]
fn sources_that_do_not_fit_are_refused() {
    let mut world = two();
    let (stopped, frozen) = prepare(&mut world, 1, 3);
    assert!(is_bad(&commit(&mut world, 3, &stopped, frozen).1), "no neighbours");
    let mut elsewhere = stopped.clone();
    elsewhere.peers.pop();
    let mut joint = stopped.clone();
    joint.peers[0].role = Role::DemotingVoter;
    for source in [Region { id: RegionId(2), ..stopped.clone() }, elsewhere, joint] {
        assert!(is_bad(&commit(&mut world, 2, &source, frozen).1), "{source:?}");
    }
    assert_eq!(world.directory().len(), 3);
}

#[test]
fn a_store_that_lost_the_source_stops() {
    for lost in [true, false] {
        let mut world = two();
        let (stopped, frozen) = prepare(&mut world, 1, 2);
        let frozen = match lost {
            true => {
                world.applier.destroy(RegionId(1)).unwrap();
                frozen
            }
            // Its log does not have that entry.
            false => frozen.next(),
        };
        let command = commit_command(&world.region(2), &stopped, frozen);
        let task = world.task(2, &[command]);
        let error = world.try_apply(vec![task]).0.unwrap_err();
        assert!(matches!(error, EngineError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn a_stopped_region_is_stopped_after_a_restart_and_in_a_snapshot() {
    let mut world = two();
    let (stopped, frozen) = prepare(&mut world, 1, 2);
    let merging = Merging { target: RegionId(2), target_epoch: world.region(2).epoch, frozen };
    world.restart();
    assert!(matches!(&*world.local(1).state(), State::Merging(_, it) if *it == merging));
    assert!(world.local(1).view().is_kept_awake());
    let source = world.applier.snapshot(RegionId(1)).unwrap().unwrap();
    let described = quorate_store::core::snapshot::parse_state(source.state).unwrap();
    assert_eq!((described.merging, described.region), (Some(merging), stopped.clone()));
    assert_eq!(commit(&mut world, 2, &stopped, frozen).1, Answer::Done);
}
