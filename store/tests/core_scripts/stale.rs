//! Reads that may be old: what a replica knows of its age, and what it then serves.

use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::time::Instant;
use quorate_consensus::view::Slept;
use quorate_consensus::vigil::Vouched;
use quorate_proto::{NodeId, PeerId, RegionId, Term};
use quorate_store::core::{Effort, Pass, ReadPath, RegionError, StaleClock, Unconfirmed};

use super::world::{World, child, context, peer, region};

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// `r1` with all keys, led by store 2. Placement's clock was at 100,000 when ours began.
fn world() -> World {
    let mut world = World::new(vec![region(1, "", "")]);
    world.put(1, "a", "1");
    world.local(1).view().set_leader(Term(6), Some(peer(1, 2).id));
    world
}

fn reads(world: &World) -> ReadPath {
    ReadPath::new(world.directory(), Arc::new(world.engine.clone()))
}

/// A read at `now` that may be as old as `bound`.
fn admit(world: &World, now: u64, bound: u64) -> Result<Pass, RegionError> {
    vouched(world, now, bound, &|_| None)
}

fn vouched(
    world: &World,
    now: u64,
    bound: u64,
    vouched: &dyn Fn(Slept) -> Option<Vouched>,
) -> Result<Pass, RegionError> {
    let clock = StaleClock { now: at(now), latest_ms: 100_000 + now, vouched };
    reads(world).admit_stale(&context(&world.region(1)), millis(bound), &clock)
}

fn too_old(fresh_ms: u64) -> RegionError {
    RegionError::DataIsNotReady { region: RegionId(1), peer: PeerId(11), fresh_ms }
}

#[test]
fn a_replica_that_cannot_tell_its_age_serves_nothing() {
    let world = world();
    assert_eq!(admit(&world, 1_000, 1_000_000).unwrap_err(), too_old(0));
    world.local(1).view().set_fresh(101_000, at(1_000));
    let clock = StaleClock { now: at(1_000), latest_ms: 0, vouched: &|_| None };
    let refused = reads(&world).admit_stale(&context(&world.region(1)), millis(9_999), &clock);
    assert_eq!(refused.unwrap_err(), too_old(0), "placement's clock is not known");
    let wire = too_old(101_000).to_wire().data_is_not_ready.unwrap();
    assert_eq!((wire.region_id, wire.peer_id, wire.safe_ts >> 18), (1, 11, 101_000));
}

#[test]
fn it_serves_up_to_its_age() {
    let world = world();
    // At 1.0 s it hears that it had everything at 0.9 s.
    world.local(1).view().set_fresh(100_900, at(1_000));
    let pass = admit(&world, 1_200, 300).unwrap();
    let value = reads(&world).get(&pass, b"a", Effort::Whole).unwrap();
    assert_eq!(value.unwrap(), "1");
    assert_eq!(reads(&world).confirm(&pass, at(1_200)), Ok(()));
    assert_eq!(admit(&world, 1_200, 299).unwrap_err(), too_old(100_900));
    // The bound holds for the moment of the answer too, whatever happened in between.
    let pass = admit(&world, 1_200, 400).unwrap();
    assert_eq!(reads(&world).confirm(&pass, at(1_300)), Ok(()));
    let late = reads(&world).confirm(&pass, at(1_301));
    assert_eq!(late, Err(Unconfirmed::Region(too_old(0))));
}

#[test]
fn a_clock_that_jumps_at_placement_makes_nothing_younger() {
    let world = world();
    // The leader's store has heard of a jump by an hour, this one has not.
    world.local(1).view().set_fresh(3_700_900, at(1_000));
    assert!(admit(&world, 1_500, 500).is_ok());
    let refused = admit(&world, 1_501, 500).unwrap_err();
    assert_eq!(refused, too_old(3_700_900), "half a second has passed here");
}

#[test]
fn older_news_do_not_count() {
    let world = world();
    let view = Arc::clone(world.local(1).view());
    view.set_fresh(100_900, at(1_000));
    view.set_fresh(100_500, at(2_000));
    assert_eq!(admit(&world, 2_000, 1_000).unwrap_err(), too_old(100_900));
}

#[test]
fn while_it_sleeps_the_beats_tell_its_age() {
    let world = world();
    let view = Arc::clone(world.local(1).view());
    view.set_fresh(100_900, at(1_000));
    let slept = Slept { leader: NodeId(2), since: 7, until: u64::MAX };
    view.set_slept(slept);
    assert!(view.is_asleep());
    // A minute later: stores 2 and 3 confirmed at 60.8 and 60.7 s, this one is not heard of.
    let beats = |asked: Slept| {
        assert_eq!(asked.leader, NodeId(2));
        if !asked.was_seen_by(50) {
            return None;
        }
        let times = vec![(NodeId(2), 160_800), (NodeId(3), 160_700)];
        Some(Vouched { times, heard: at(60_850) })
    };
    assert!(vouched(&world, 61_000, 300, &beats).is_ok());
    assert_eq!(vouched(&world, 61_000, 299, &beats).unwrap_err(), too_old(160_700));
    // One voter of three is no majority.
    let alone = |_| Some(Vouched { times: vec![(NodeId(2), 160_800)], heard: at(60_850) });
    assert_eq!(vouched(&world, 61_000, 300, &alone).unwrap_err(), too_old(100_900));
    // Woken up after that comparison it is still as fresh as that; before it, it is not.
    view.set_slept(Slept { until: 51, ..slept });
    assert!(!view.is_asleep());
    assert!(vouched(&world, 61_000, 300, &beats).is_ok());
    view.set_slept(Slept { until: 50, ..slept });
    assert_eq!(vouched(&world, 61_000, 300, &beats).unwrap_err(), too_old(100_900));
}

#[test]
fn a_region_that_changes_meanwhile_is_no_answer() {
    let mut world = world();
    world.local(1).view().set_fresh(100_900, at(1_000));
    let old = context(&world.region(1));
    let pass = admit(&world, 1_000, 500).unwrap();
    world.split(1, vec![child(2, "m")]);
    let reads = reads(&world);
    let Err(Unconfirmed::Region(changed)) = reads.confirm(&pass, at(1_000)) else {
        panic!("it was split")
    };
    assert!(matches!(changed, RegionError::EpochNotMatch { .. }));
    let clock = StaleClock { now: at(1_000), latest_ms: 101_000, vouched: &|_| None };
    let refused = reads.admit_stale(&old, millis(500), &clock).unwrap_err();
    assert!(matches!(refused, RegionError::EpochNotMatch { .. }));
    // Of the region that was split off nobody has claimed anything yet.
    let split_off = context(&world.region(2));
    let refused = reads.admit_stale(&split_off, millis(500), &clock).unwrap_err();
    assert!(matches!(refused, RegionError::DataIsNotReady { fresh_ms: 0, .. }));
}
