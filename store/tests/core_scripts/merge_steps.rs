//! Placement's steps of a merge, as the leader's store checks them before it proposes anything.

use bytes::Bytes;
use quorate_consensus::time::Instant;
use quorate_consensus::view::{PeerProgress, Replication};
use quorate_proto::wire::placement::{
    CommitMergeStep, PrepareMergeStep, RefuseMergeStep, RollbackMergeStep,
};
use quorate_proto::{Epoch, LogIndex, PeerId, Region, Term};
use quorate_store::core::merge::{self, MergeError};
use quorate_store::core::{Answer, RegionError, Reporter};

use super::merge::prepare;
use super::world::{World, child, peer, region};

const NOW: Instant = Instant::from_millis(60_000);

/// Three regions that this store leads, with everybody in step.
fn led() -> World {
    let world = World::new(vec![region(1, "", "m"), region(2, "m", "t"), region(3, "t", "")]);
    for id in 1..=3 {
        world.lead(id);
        world.local(id).view().set_everywhere(LogIndex(5));
    }
    world
}

fn prepare_step(source: &Region, target: &Region) -> PrepareMergeStep {
    PrepareMergeStep {
        region_id: source.id.0,
        epoch: Some(source.epoch.into()),
        target_id: target.id.0,
        target_epoch: Some(target.epoch.into()),
    }
}

fn try_prepare(world: &World, source: u64, target: u64) -> Result<Bytes, MergeError> {
    let step = prepare_step(&world.region(source), &world.region(target));
    merge::prepare(&world.directory(), &world.local(source), &step, 1)
}

fn commit_step(target: &Region, source: &Region, frozen: LogIndex) -> CommitMergeStep {
    CommitMergeStep {
        region_id: target.id.0,
        epoch: Some(target.epoch.into()),
        source: Some(source.into()),
        frozen_index: frozen.0,
    }
}

fn rollback_step(source: &Region, frozen: LogIndex, target: &Region) -> RollbackMergeStep {
    RollbackMergeStep {
        region_id: source.id.0,
        epoch: Some(source.epoch.into()),
        frozen_index: frozen.0,
        target: Some(target.into()),
    }
}

#[test]
fn a_merge_step_by_step() {
    let mut world = led();
    let command = try_prepare(&world, 1, 2).unwrap();
    assert_eq!(world.apply(1, command).1, Answer::Done);
    let (stopped, merging) = world.local(1).merging().unwrap();
    let step = commit_step(&world.region(2), &stopped, merging.frozen);
    let command = merge::commit(&world.directory(), &world.local(2), &step, 1).unwrap();
    assert_eq!(world.apply(2, command).1, Answer::Done);
    assert_eq!(world.region(2).range, region(2, "", "t").range);
}

#[test]
fn a_source_stops_only_where_all_is_well() {
    let world = led();
    assert!(matches!(try_prepare(&world, 1, 3), Err(MergeError::Rule { .. })), "no neighbours");
    let old = Region { epoch: Epoch { conf_ver: 1, version: 0 }, ..(*world.region(2)).clone() };
    let step = prepare_step(&world.region(1), &old);
    let late = merge::prepare(&world.directory(), &world.local(1), &step, 1);
    assert!(matches!(late, Err(MergeError::NotYet { .. })), "{late:?}");
    let step = prepare_step(&old, &world.region(1));
    let other = merge::prepare(&world.directory(), &world.local(2), &step, 1);
    assert!(matches!(other, Err(MergeError::Region(RegionError::EpochNotMatch { .. }))));

    // Somebody lags, has not answered in this term, or is silent.
    let view = std::sync::Arc::clone(world.local(1).view());
    view.set_committed(LogIndex(5_000));
    assert!(matches!(try_prepare(&world, 1, 2), Err(MergeError::Rule { .. })));
    view.set_everywhere(LogIndex(4_990));
    assert!(try_prepare(&world, 1, 2).is_ok());
    let silent = PeerProgress {
        peer: PeerId(12),
        matched: LogIndex(5_000),
        applied: None,
        snapshot: false,
        silent_since: Some(NOW),
    };
    view.set_replication(Some(Replication {
        last: LogIndex(5_000),
        committed: LogIndex(5_000),
        peers: vec![silent],
    }));
    assert!(matches!(try_prepare(&world, 1, 2), Err(MergeError::Rule { .. })));
    view.set_replication(None);
    view.set_everywhere(LogIndex(0));
    assert!(matches!(try_prepare(&world, 1, 2), Err(MergeError::Rule { .. })));
    view.set_leader(Term(7), Some(PeerId(12)));
    let away = try_prepare(&world, 1, 2);
    assert!(matches!(away, Err(MergeError::Region(RegionError::NotLeader { .. }))), "{away:?}");
}

#[test]
fn replicas_must_be_on_the_same_stores() {
    let mut elsewhere = region(2, "m", "t");
    elsewhere.peers[2] = peer(2, 4);
    let world = World::new(vec![region(1, "", "m"), elsewhere]);
    for id in [1, 2] {
        world.lead(id);
        world.local(id).view().set_everywhere(LogIndex(5));
    }
    let refused = try_prepare(&world, 1, 2).unwrap_err().to_string();
    assert!(refused.contains("same stores"), "{refused}");
}

#[test]
fn one_merge_at_a_time_for_each_target() {
    let mut world = led();
    prepare(&mut world, 1, 2);
    let refused = try_prepare(&world, 3, 2).unwrap_err().to_string();
    assert!(refused.contains("waits to be taken in by the target"), "{refused}");
    let refused = try_prepare(&world, 2, 3).unwrap_err().to_string();
    assert!(refused.contains("waits to be taken in by it"), "{refused}");
}

#[test]
fn a_target_takes_in_what_it_knows_to_be_stopped_for_it() {
    let mut world = led();
    let target = world.region(2);
    let commit = |world: &World, step| {
        merge::commit(&world.directory(), &world.local(2), &step, 1).map(|_| ())
    };
    let step = commit_step(&target, &world.region(1), LogIndex(6));
    assert!(matches!(commit(&world, step), Err(MergeError::NotYet { .. })));
    let (stopped, frozen) = prepare(&mut world, 1, 2);
    let other = Region { range: region(1, "a", "m").range, ..stopped.clone() };
    for step in [
        commit_step(&target, &stopped, frozen.next()),
        commit_step(&target, &other, frozen),
        CommitMergeStep { source: None, ..commit_step(&target, &stopped, frozen) },
    ] {
        assert!(matches!(commit(&world, step), Err(MergeError::Rule { .. })));
    }
    // A replica of the target that has no data may get a snapshot of before the merge.
    let view = std::sync::Arc::clone(world.local(2).view());
    view.set_everywhere(LogIndex(0));
    let step = || commit_step(&target, &stopped, frozen);
    assert!(matches!(commit(&world, step()), Err(MergeError::NotYet { .. })));
    view.set_everywhere(LogIndex(5));
    assert_eq!(commit(&world, step()), Ok(()));
}

#[test]
fn a_source_goes_on_with_the_word_of_its_target_alone() {
    let mut world = led();
    let (stopped, frozen) = prepare(&mut world, 1, 2);
    let rollback = |world: &World, target: &Region| {
        let step = rollback_step(&stopped, frozen, target);
        merge::rollback(&world.local(1), &step, 1)
    };
    let target = (*world.region(2)).clone();
    assert!(matches!(rollback(&world, &target), Err(MergeError::Rule { .. })), "it may yet");
    let refuse = RefuseMergeStep { region_id: 2, epoch: Some(target.epoch.into()) };
    let command = merge::refuse(&world.local(2), &refuse, 1).unwrap();
    assert_eq!(world.apply(2, command).1, Answer::Done);
    assert!(merge::refuse(&world.local(2), &refuse, 1).is_err(), "another epoch by now");
    let other = Region { id: world.region(3).id, ..(*world.region(2)).clone() };
    assert!(matches!(rollback(&world, &other), Err(MergeError::Rule { .. })));
    // It took the region in and split it off again, for all that can be seen.
    let mut above = (*world.region(2)).clone();
    above.epoch.version = stopped.epoch.version + 2;
    assert!(matches!(rollback(&world, &above), Err(MergeError::Rule { .. })));
    let command = rollback(&world, &world.region(2)).unwrap();
    assert_eq!(world.apply(1, command).1, Answer::Done);
    assert!(world.local(1).region().is_some());
}

#[test]
fn a_stopped_region_is_reported_until_it_is_not() {
    let mut world = led();
    let directory = world.directory();
    let mut reporter = Reporter::new();
    reporter.report(&directory, NOW);
    let (_, frozen) = prepare(&mut world, 1, 2);
    let local = world.local(1);
    assert!(!reporter.has_sent(&local));
    let mut merging = || {
        let report = reporter.report(&directory, NOW).reports.remove(0);
        report.merging.map(|merging| (merging.target_id, merging.frozen_index, merging.everywhere))
    };
    assert_eq!(merging(), Some((2, frozen.0, false)));
    assert_eq!(merging(), Some((2, frozen.0, false)), "again, until it is settled");
    local.view().set_everywhere(frozen);
    assert_eq!(merging(), Some((2, frozen.0, true)));
    assert!(reporter.has_sent(&local));
    world.split(2, vec![child(9, "p")]);
    let step = rollback_step(&local.merging().unwrap().0, frozen, &world.region(2));
    let command = merge::rollback(&local, &step, 1).unwrap();
    assert_eq!(world.apply(1, command).1, Answer::Done);
    let report = reporter.report_one(&local, NOW).unwrap();
    assert_eq!(report.merging, None);
}
