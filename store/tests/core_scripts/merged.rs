//! Stores that were away while a region was taken in: what they are told, and the snapshots that
//! end what they still have.

use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::engine::{Cf, Engine, WriteBatch};
use quorate_consensus::node::Installed;
use quorate_consensus::shard::{Install, Merged};
use quorate_proto::{PeerId, Region, RegionId};
use quorate_store::core::directory::Conflict;
use quorate_store::core::snapshot::parse_state;
use quorate_store::core::{Answer, Applier, State, keys};

use super::merge::{commit_command, prepare};
use super::world::{STORE, World, child, dump, region, stage};

/// `r2` has taken `r1` in.
fn sender() -> (World, Region) {
    let mut world = receiver();
    let (stopped, frozen) = prepare(&mut world, 1, 2);
    let command = commit_command(&world.region(2), &stopped, frozen);
    assert_eq!(world.apply(2, command).1, Answer::Done);
    world.put(2, "b", "new");
    (world, stopped)
}

/// A store with all three, which has heard of nothing.
fn receiver() -> World {
    let mut world = World::new(vec![region(1, "", "m"), region(2, "m", "t"), region(3, "t", "")]);
    for (id, key) in [(1, "a"), (1, "c"), (2, "n"), (3, "x")] {
        world.put(id, key, "old");
    }
    world.engine.sync().unwrap();
    world
}

fn told(region: &Region, into: u64) -> Merged {
    Merged { group: region.id, into: RegionId(into), region: region.into() }
}

/// The picture of a region of the sender, staged on the receiver.
fn receive(sender: &World, id: u64, engine: &dyn Engine) -> Install {
    let source = sender.applier.snapshot(RegionId(id)).unwrap().unwrap();
    let inside =
        |key: &[u8]| key >= &source.start[..] && (source.end.is_empty() || key < &source.end[..]);
    let mut pairs = dump(source.reader.as_ref(), Cf::Data);
    pairs.retain(|key, _| inside(key));
    stage(engine, "s", &pairs);
    Install {
        group: RegionId(id),
        id: "s".to_owned(),
        index: source.index,
        term: source.term,
        state: source.state,
        batch: WriteBatch::new(),
    }
}

/// As the receiver would be asked; `named`: with what the snapshot names as taken in.
fn admit(world: &World, install: &Install, named: bool) -> Result<(), Conflict> {
    let described = parse_state(install.state.clone()).unwrap();
    let taken_in = if named { described.taken_in } else { Vec::new() };
    let peer = world.local(install.group.0).peer();
    world.directory().admit_snapshot(Arc::new(described.region), &taken_in, peer)
}

fn is_replaced(world: &World, installed: &Installed) {
    assert_eq!(installed.merged, [(RegionId(1), PeerId(11))]);
    assert_eq!(world.directory().len(), 2);
    assert!(world.directory().get(RegionId(1)).is_none());
    assert_eq!(world.directory().taken_in(RegionId(1)).unwrap().into, RegionId(2));
    assert_eq!(world.get("b").unwrap(), "new");
    assert_eq!(world.keys(), ["a", "b", "c", "n", "x"]);
}

#[test]
fn a_snapshot_does_not_cover_a_replica_that_is_not_known_to_be_gone() {
    let (sender, stopped) = sender();
    let mut world = receiver();
    let install = receive(&sender, 2, &world.engine);
    let overlap = Conflict::Overlap { region: RegionId(2), other: RegionId(1) };
    assert_eq!(admit(&world, &install, false), Err(overlap.clone()));

    // Somebody tells; the target's log, or this snapshot, will end it.
    assert_eq!(world.applier.merged(told(&stopped, 2)), None);
    assert_eq!(admit(&world, &install, false), Ok(()));
    let installed = world.applier.install(install).unwrap();
    is_replaced(&world, &installed);
    let gone = world.directory().taken_in(RegionId(1)).unwrap();
    assert_eq!(gone.region.as_ref(), &stopped);
    let world = world.crash(0);
    is_replaced(&world, &installed);
}

#[test]
fn a_snapshot_names_what_its_region_took_in() {
    let (sender, stopped) = sender();
    let mut world = receiver();
    let install = receive(&sender, 2, &world.engine);
    assert_eq!(admit(&world, &install, true), Ok(()));
    let installed = world.applier.install(install).unwrap();
    is_replaced(&world, &installed);
    let gone = world.directory().taken_in(RegionId(1)).unwrap();
    assert!(gone.region.epoch.version >= stopped.epoch.version, "never below the last one");
    world.restart();
    assert_eq!(world.directory().taken_in(RegionId(1)).unwrap(), gone);
}

#[test]
fn what_lies_beyond_the_snapshot_goes_with_the_replica() {
    let (mut sender, _) = sender();
    sender.split(2, vec![child(9, "b")]);
    let mut world = receiver();
    let install = receive(&sender, 2, &world.engine);
    assert_eq!(admit(&world, &install, true), Ok(()));
    world.applier.install(install).unwrap();
    assert_eq!(world.keys(), ["b", "c", "n", "x"]);
    assert_eq!(world.region(2).range, region(2, "b", "t").range);
}

#[test]
fn a_replica_goes_at_once_where_nobody_needs_it() {
    let (mut sender, stopped) = sender();
    // The target is not here.
    let mut world = receiver();
    world.applier.destroy(RegionId(2)).unwrap();
    let gone = world.applier.merged(told(&stopped, 2));
    assert_eq!(gone, Some((RegionId(1), PeerId(11))));
    world.applier.destroy(RegionId(1)).unwrap();
    assert_eq!(world.keys(), ["x"]);
    assert_eq!(world.directory().taken_in(RegionId(1)).unwrap().into, RegionId(2));
    let states = keys::region_states(&world.engine).unwrap();
    assert_eq!(states[0].1.merged_into, 2);

    // The target is past the merge, by a snapshot that lies elsewhere.
    sender.split(2, vec![child(9, "m")]);
    let mut world = receiver();
    let install = receive(&sender, 2, &world.engine);
    assert_eq!(admit(&world, &install, false), Ok(()));
    let described = parse_state(install.state.clone()).unwrap();
    assert_eq!(described.taken_in, [RegionId(1)]);
    let mut unnamed = quorate_proto::wire::command::SnapshotState {
        region: Some((&described.region).into()),
        time_ms: described.time_ms,
        ..Default::default()
    };
    unnamed.taken_in.clear();
    let state = Bytes::from(prost::Message::encode_to_vec(&unnamed));
    world.applier.install(Install { state, ..install }).unwrap();
    assert!(matches!(&*world.local(1).state(), State::Serving(_)));
    assert_eq!(world.applier.merged(told(&stopped, 2)), Some((RegionId(1), PeerId(11))));
}

#[test]
fn one_that_is_known_to_be_gone_moves_only_with_its_target() {
    let (_, stopped) = sender();
    let mut world = receiver();
    assert_eq!(world.applier.merged(told(&stopped, 2)), None);
    assert_eq!(world.put(1, "late", "1"), Answer::Undetermined);
    assert!(world.get("late").is_none());
}

#[test]
fn a_word_that_says_too_little_changes_nothing() {
    let (_, stopped) = sender();
    let mut world = receiver();
    world.applier.destroy(RegionId(2)).unwrap();
    let other = Region { id: RegionId(3), ..stopped.clone() };
    let nothing = Merged { region: Default::default(), ..told(&stopped, 2) };
    for word in [told(&stopped, 0), Merged { group: RegionId(1), ..told(&other, 2) }, nothing] {
        assert_eq!(world.applier.merged(word), None);
    }
    assert_eq!(world.put(1, "b", "1"), Answer::Done);
    let unknown = Region { id: RegionId(77), ..stopped };
    assert_eq!(world.applier.merged(told(&unknown, 2)), None);
    let _ = Applier::recover(Arc::new(world.engine.clone()), STORE).unwrap();
}

#[test]
fn a_chain_goes_together() {
    // r2 took r1 in, and r3 took r2 in.
    let (mut sender, first) = sender();
    let (second, frozen) = prepare(&mut sender, 2, 3);
    let command = commit_command(&sender.region(3), &second, frozen);
    assert_eq!(sender.apply(3, command).1, Answer::Done);
    for tell in [true, false] {
        let mut world = receiver();
        let install = receive(&sender, 3, &world.engine);
        if tell {
            assert_eq!(world.applier.merged(told(&first, 2)), None);
            assert!(admit(&world, &install, false).is_err(), "r2 may be needed still");
            assert_eq!(world.applier.merged(told(&second, 3)), None);
        }
        assert_eq!(admit(&world, &install, !tell), Ok(()));
        let installed = world.applier.install(install).unwrap();
        assert_eq!(installed.merged.len(), 2);
        assert_eq!(world.directory().len(), 1);
        assert_eq!(dump(&world.engine, Cf::Data), dump(&sender.engine, Cf::Data));
    }
}
