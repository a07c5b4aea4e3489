//! What placement is told: everything once, then only what changed.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_consensus::node::SnapshotProgress;
use quorate_consensus::time::Instant;
use quorate_consensus::view::{PeerProgress, Replication};
use quorate_proto::wire::placement::{HostedReplica, RegionReport};
use quorate_proto::{LogIndex, NodeId, PeerId, RegionId, Term};
use quorate_store::core::{Reporter, add_snapshots, unled};

use super::world::{World, child, region};

/// Some moment.
const NOW: Instant = Instant::from_millis(60_000);

fn ids(reports: &[RegionReport]) -> Vec<u64> {
    reports.iter().map(|report| report.region.as_ref().unwrap().id).collect()
}

#[test]
fn a_stream_starts_with_everything_and_goes_on_with_changes() {
    let mut world = World::new(vec![region(5, "", "m"), region(2, "m", "t"), region(3, "t", "")]);
    let directory = world.directory();
    world.lead(5);
    world.lead(2);
    world.local(3).view().set_leader(Term(6), Some(PeerId(32)));
    let mut reporter = Reporter::new();
    assert_eq!(reporter.report_one(&world.local(5), NOW), None, "the full report comes first");

    let first = reporter.report(&directory, NOW);
    assert!(first.full);
    assert_eq!(ids(&first.reports), [2, 5], "what this store leads");
    let leader = first.reports[1].leader.unwrap();
    assert_eq!((leader.id, leader.store_id, first.reports[1].term), (51, 1, 6));
    let second = reporter.report(&directory, NOW);
    assert!(!second.full && second.reports.is_empty());

    // A split, a new term, a lost and a won region.
    world.split(5, vec![child(7, "g")]);
    world.lead(7);
    let pushed = reporter.report_one(&world.local(7), NOW).unwrap();
    assert_eq!(pushed.region.unwrap().end_key, "g");
    assert_eq!(ids(&reporter.report(&directory, NOW).reports), [5]);
    world.local(2).view().set_leader(Term(7), Some(PeerId(22)));
    world.lead(3);
    assert_eq!(ids(&reporter.report(&directory, NOW).reports), [3]);
    world.local(2).view().set_leader(Term(8), Some(PeerId(21)));
    let back = reporter.report_one(&world.local(2), NOW).unwrap();
    assert_eq!(back.term, 8);
    assert!(reporter.report(&directory, NOW).reports.is_empty());

    reporter.restart();
    let all = reporter.report(&directory, NOW);
    assert!(all.full);
    assert_eq!(ids(&all.reports), [2, 3, 5, 7]);
}

#[test]
fn load_is_reported_once_there_is_enough_of_it() {
    let mut world = World::new(vec![region(1, "", "")]);
    let directory = world.directory();
    world.put(1, "before", "this store led");
    world.lead(1);
    let mut reporter = Reporter::new();
    let first = reporter.report(&directory, NOW).reports.remove(0);
    assert_eq!((first.written_keys, first.written_bytes), (0, 0), "not the leader's load");
    assert_eq!((first.approximate_keys, first.approximate_bytes), (1, 21));

    world.put(1, "small", "change");
    assert!(reporter.report(&directory, NOW).reports.is_empty());
    for n in 0..10 {
        world.put(1, &format!("large{n}"), &"v".repeat(200_000));
    }
    let second = reporter.report(&directory, NOW).reports.remove(0);
    assert_eq!(second.written_keys, 11, "since it was last reported");
    assert!(second.written_bytes > 2_000_000);
    assert_eq!(second.approximate_keys, 12);

    world.local(1).stats().record_read(65_535);
    assert!(reporter.report(&directory, NOW).reports.is_empty());
    world.local(1).stats().record_read(1);
    assert_eq!(reporter.report(&directory, NOW).reports[0].read_keys, 65_536);
    world.local(1).stats().measure(1_000, 10);
    let shrunk = reporter.report(&directory, NOW).reports.remove(0);
    assert_eq!((shrunk.approximate_bytes, shrunk.read_keys), (1_000, 0));
}

#[test]
fn replicas_that_are_not_settled_are_reported_until_they_are() {
    let world = World::new(vec![region(1, "", "")]);
    let directory = world.directory();
    world.lead(1);
    let mut reporter = Reporter::new();
    let first = reporter.report(&directory, NOW).reports.remove(0);
    assert!(first.progress.is_empty() && first.pending_peers.is_empty());
    assert!(reporter.report(&directory, NOW).reports.is_empty());

    let peer = |peer, matched, snapshot, silent_since| PeerProgress {
        peer: PeerId(peer),
        matched: LogIndex(matched),
        applied: None,
        snapshot,
        silent_since,
    };
    let silent = |seconds: u64| Some(Instant::from_millis(60_000 - seconds * 1_000));
    let peers = vec![
        peer(12, 5_000, false, None),
        peer(13, 3_975, false, silent(10)),
        peer(14, 0, true, silent(9)),
    ];
    let replication = Replication { last: LogIndex(5_000), committed: LogIndex(4_990), peers };
    world.local(1).view().set_replication(Some(replication));
    for _ in 0..2 {
        let report = reporter.report(&directory, NOW).reports.remove(0);
        assert_eq!((report.last_index, report.commit_index), (5_000, 4_990));
        assert_eq!(report.pending_peers, [13, 14]);
        assert_eq!(report.down_peers, [13]);
        let told: Vec<(u64, u64, u64)> = report
            .progress
            .iter()
            .map(|peer| (peer.peer_id, peer.match_index, peer.silent_ms))
            .collect();
        assert_eq!(told, [(12, 5_000, 0), (13, 3_975, 10_000), (14, 0, 9_000)]);
    }
    assert!(reporter.report_one(&world.local(1), NOW).is_some());

    // Once more, so that placement knows it is over.
    world.local(1).view().set_replication(None);
    let last = reporter.report(&directory, NOW).reports.remove(0);
    assert!(last.progress.is_empty() && last.down_peers.is_empty());
    assert!(reporter.report(&directory, NOW).reports.is_empty());
}

#[test]
fn a_replica_that_has_the_log_and_does_not_apply_it_is_told_of() {
    let world = World::new(vec![region(1, "", "")]);
    world.lead(1);
    let peer = |peer, applied: Option<u64>| PeerProgress {
        peer: PeerId(peer),
        matched: LogIndex(5_000),
        applied: applied.map(LogIndex),
        snapshot: false,
        silent_since: None,
    };
    let peers = vec![peer(12, Some(3_976)), peer(13, Some(3_975)), peer(14, None)];
    let replication = Replication { last: LogIndex(5_010), committed: LogIndex(5_000), peers };
    world.local(1).view().set_replication(Some(replication));
    let report = Reporter::new().report(&world.directory(), NOW).reports.remove(0);
    assert_eq!(report.pending_peers, [13], "more than 1024 behind; an older one does not say");
    let told: Vec<u64> = report.progress.iter().map(|peer| peer.applied_index).collect();
    assert_eq!((told, report.commit_index), (vec![3_976, 3_975, 0], 5_000));
}

fn hosted(reports: &[HostedReplica]) -> Vec<u64> {
    reports.iter().map(|replica| replica.region_id).collect()
}

#[test]
fn replicas_that_others_lead_are_told_in_turn() {
    let key = |number: u64| if number == 0 { String::new() } else { format!("{number:04}") };
    let all = |number: u64| {
        let end = if number == 599 { String::new() } else { key(number + 1) };
        region(number + 1, &key(number), &end)
    };
    let world = World::new((0..600).map(all).collect());
    let directory = world.directory();
    world.lead(100);
    let mut reporter = Reporter::new();
    let mut seen = BTreeSet::new();
    for (turn, count) in [256, 256, 87].into_iter().enumerate() {
        let told = reporter.report(&directory, NOW).hosted;
        assert_eq!(told.len(), count, "turn {turn}");
        seen.extend(hosted(&told));
    }
    assert_eq!(seen.len(), 599, "all but the one that is led here");
    assert!(!seen.contains(&100));

    // Then slowly: all of them within 45 minutes, at any pace of reports.
    let mut now = NOW;
    for (seconds, most) in [(1, 1), (10, 3), (60, 14)] {
        let (mut seen, begun) = (BTreeSet::new(), now);
        while seen.len() < 599 {
            now = now + Duration::from_secs(seconds);
            let told = reporter.report(&directory, now).hosted;
            assert!(told.len() <= most, "{told:?}");
            seen.extend(hosted(&told));
        }
        assert!(now.since(begun) <= Duration::from_secs(46 * 60), "{seconds} s apart");
    }
    let first = &reporter.report(&directory, now + Duration::from_secs(60)).hosted[0];
    let known = world.region(first.region_id);
    assert_eq!((first.peer_id, first.conf_ver), (known.id.0 * 10 + 1, known.epoch.conf_ver));

    // Another leader of placement hears of all of them soon.
    reporter.restart();
    assert_eq!(reporter.report(&directory, now).hosted.len(), 256);
}

#[test]
fn a_region_without_leader_is_told_as_its_replica_knows_it() {
    let mut world = World::new(vec![region(1, "", "m"), region(2, "m", "")]);
    world.put(1, "a", "value");
    let local = world.local(1);
    assert_eq!(unled(&local), None, "its leader is heard");
    local.view().set_silent_since(Some(NOW));
    let told = unled(&local).unwrap();
    assert_eq!(told.region, Some(world.region(1).as_ref().into()));
    assert_eq!((told.leader, told.term, told.approximate_keys), (None, 0, 1));
}

#[test]
fn a_learner_that_has_everything_is_told_of_once() {
    let world = World::new(vec![region(1, "", "")]);
    let directory = world.directory();
    world.lead(1);
    let learner = |matched, snapshot| {
        let peer = PeerId(14);
        let peer = PeerProgress {
            peer,
            matched: LogIndex(matched),
            applied: None,
            snapshot,
            silent_since: None,
        };
        let replication =
            Replication { last: LogIndex(9_000), committed: LogIndex(9_000), peers: vec![peer] };
        world.local(1).view().set_replication(Some(replication));
    };
    let mut reporter = Reporter::new();
    let mut told = || {
        let reports = reporter.report(&directory, NOW).reports;
        reports.first().map(|report| report.progress[0].match_index)
    };
    learner(0, true);
    assert_eq!((told(), told()), (Some(0), Some(0)), "a snapshot gets on without the log");
    learner(8_000, false);
    assert_eq!((told(), told()), (Some(8_000), None), "it stands still");
    learner(9_000, false);
    assert_eq!((told(), told(), told()), (Some(9_000), None, None));
}

#[test]
fn a_snapshot_is_told_of_with_its_bytes_and_its_place_in_the_queue() {
    let mut world = World::new(vec![region(1, "", "m"), region(2, "m", "")]);
    let directory = world.directory();
    world.put(1, "a", &"v".repeat(1_000));
    for id in [1, 2] {
        world.lead(id);
        let peer = |peer| PeerProgress {
            peer: PeerId(peer),
            matched: LogIndex(0),
            applied: None,
            snapshot: true,
            silent_since: None,
        };
        let peers = vec![peer(id * 10 + 4), peer(id * 10 + 5)];
        let replication = Replication { last: LogIndex(9), committed: LogIndex(9), peers };
        world.local(id).view().set_replication(Some(replication));
    }
    let mut reports = Reporter::new().report(&directory, NOW).reports;
    let snapshot = |group, peer, sending, (bytes, total_bytes), queue| SnapshotProgress {
        group: RegionId(group),
        peer: PeerId(peer),
        node: NodeId(4),
        sending,
        running: bytes > 0,
        bytes,
        total_bytes,
        queue,
    };
    add_snapshots(
        &mut reports,
        &[
            snapshot(1, 14, true, (300, 900), 0),
            snapshot(1, 15, true, (0, 0), 301),
            snapshot(2, 24, true, (0, 0), 302),
            // It comes in here.
            snapshot(2, 25, false, (70, 90), 0),
        ],
    );
    let told: Vec<(u64, u64, u64, u64)> = reports
        .iter()
        .flat_map(|report| &report.progress)
        .map(|one| {
            let (sent, all) = (one.snapshot_sent_bytes, one.snapshot_total_bytes);
            (one.peer_id, sent, all, one.snapshot_queue)
        })
        .collect();
    let size = reports[0].approximate_bytes;
    assert!(size > 1_000);
    // One that waits has about the size of its region, and never none at all.
    assert_eq!(told, [(14, 300, 900, 0), (15, 0, size, 301), (24, 0, 1, 302), (25, 0, 0, 0)]);
}
