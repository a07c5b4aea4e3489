//! Small regions are merged by themselves, until the cluster is steady; and why others are not.

use quorate_placement::core::operators::{Draft, Goal};
use quorate_proto::{RegionId, StoreId};

use super::{Cluster, FIRST};

const MIB: u64 = 1024 * 1024;
const MINUTE: u64 = 60;

/// Regions of those sizes, over that many stores, with nothing paused and a short age.
fn cluster(stores: u64, sizes: &[u64]) -> Cluster {
    let mut cluster = Cluster::new(stores, sizes.len() as u64);
    cluster.set("merge.min_age_ms", "60000");
    for (number, bytes) in sizes.iter().enumerate() {
        let hosted = cluster.regions.get_mut(&RegionId(100 + number as u64)).unwrap();
        hosted.bytes = *bytes;
        let number = number as u64;
        for (place, peer) in hosted.region.peers.iter_mut().enumerate() {
            peer.store = StoreId(1 + (number + place as u64) % stores);
        }
        hosted.leader = hosted.region.peers[0].store;
        // Newer than what placement was told first.
        hosted.region.epoch.conf_ver += 1;
        hosted.region.epoch.version += 1;
    }
    cluster.report_all(true);
    cluster.set("schedule.paused", "");
    cluster
}

fn advice(cluster: &Cluster, region: RegionId) -> Option<String> {
    cluster.leader.merge_advice(&cluster.machine.state, region, cluster.now)
}

/// Nothing is under way, and nothing was done for so many minutes.
fn is_steady(cluster: &mut Cluster, minutes: u64) {
    let before = cluster.done.len();
    cluster.seconds(minutes * MINUTE);
    assert_eq!(cluster.done[before..], [] as [String; 0]);
    assert_eq!(cluster.leader.operators().iter().count(), 0);
}

#[test]
fn many_small_regions_become_few_and_then_nothing_moves() {
    let mut cluster = cluster(3, &[MIB; 40]);
    cluster.seconds(10 * MINUTE);
    // Source at most 20 MiB, both at most 60.
    let regions = cluster.leader.tree().len() - 1;
    assert!(regions <= 2, "{regions} regions: {:?}", cluster.done);
    let bytes: u64 = cluster.regions.values().map(|one| one.bytes).sum();
    assert_eq!(bytes, 40 * MIB);
    is_steady(&mut cluster, 20);
}

#[test]
fn where_stores_split_early_less_is_merged() {
    let mut cluster = cluster(3, &[MIB; 40]);
    cluster.stores.values_mut().for_each(|store| store.splits_at = 8 * MIB);
    cluster.report_all(true);
    cluster.seconds(10 * MINUTE);
    let sizes: Vec<u64> = cluster.regions.values().map(|one| one.bytes / MIB).collect();
    assert!(sizes.iter().all(|size| *size < 5), "{sizes:?}");
    assert!(sizes.len() < 30, "{sizes:?}");
    is_steady(&mut cluster, 20);
}

#[test]
fn generated_clusters_come_to_rest_balanced() {
    for seed in 1..=4_u64 {
        let mut draw = seed;
        let sizes: Vec<u64> = (0..48)
            .map(|_| {
                draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed);
                // Half of them small, some as large as regions get.
                match (draw >> 33) % 4 {
                    0 | 1 => (draw >> 40) % (20 * MIB),
                    2 => (draw >> 40) % (90 * MIB),
                    _ => 0,
                }
            })
            .collect();
        let stores = 3 + seed % 3;
        let mut cluster = cluster(stores, &sizes);
        cluster.seconds(60 * MINUTE);
        is_steady(&mut cluster, 20);
        let merged = sizes.len() + 1 - cluster.regions.len();
        assert!(merged >= 10, "seed {seed}: only {merged} merges");
        for one in cluster.regions.values() {
            let was = sizes.contains(&one.bytes);
            assert!(
                was || one.bytes <= 60 * MIB,
                "seed {seed}: {} has {}",
                one.region.id,
                one.bytes
            );
            assert_eq!(one.region.peers.len(), 3);
            let due = advice(&cluster, one.region.id).unwrap_or_default();
            assert!(!due.contains("is due"), "seed {seed}: {due}");
        }
        let replicas: Vec<usize> = cluster
            .stores
            .keys()
            .map(|store| {
                let here = |one: &&super::Hosted| one.region.peer_on(StoreId(*store)).is_some();
                cluster.regions.values().filter(here).count()
            })
            .collect();
        let (least, most) = (replicas.iter().min().unwrap(), replicas.iter().max().unwrap());
        assert!(most - least <= 2, "seed {seed}: {replicas:?}");
    }
}

#[test]
fn a_region_on_other_stores_comes_closer_first_where_that_evens_them_out() {
    let mut cluster = cluster(4, &[MIB, 2 * MIB]);
    // r100 on s1+s2+s3, r101 on s2+s3+s4; more replicas on s1 than on s4.
    for number in 0..2 {
        let mut one = cluster.regions[&FIRST].region.clone();
        one.id = RegionId(300 + number);
        one.range.start = format!("l{number}").into();
        one.range.end = format!("l{}", number + 1).into();
        for peer in &mut one.peers {
            peer.id.0 += 10_000 * (number + 1);
        }
        let matched = one.peers.iter().map(|peer| (peer.id, 1_000)).collect();
        let leader = one.peers[number as usize].store;
        let bytes = 90 * MIB;
        let hosted =
            super::Hosted { leader, matched, region: one, bytes, ..super::Hosted::default() };
        cluster.regions.insert(hosted.region.id, hosted);
    }
    let last = cluster.regions.get_mut(&RegionId(101)).unwrap();
    last.region.range.end = "l0".into();
    cluster.set("schedule.paused", "balance-leader,balance-region,hot-region");
    cluster.seconds(5 * MINUTE);
    let told = format!("{:?}", cluster.done);
    assert!(told.contains("add s4") && told.contains("takes r100 in"), "{told}");
    cluster.set("schedule.paused", "");
    cluster.seconds(5 * MINUTE);
    is_steady(&mut cluster, 10);
}

#[test]
fn what_is_not_merged_says_why() {
    let mut cluster = cluster(3, &[MIB, 2 * MIB, 59 * MIB, 80 * MIB]);
    cluster.set("schedule.paused", "balance-leader,balance-region,hot-region");
    cluster.set("merge.at_once", "0");
    cluster.seconds(MINUTE / 2);
    let is = |cluster: &Cluster, region: u64, words: &str| {
        let said = advice(cluster, RegionId(region)).unwrap_or_default();
        assert!(said.contains(words), "{said}");
    };
    is(
        &cluster,
        100,
        "it is small, but r100 was not seen with the same range and leader for 60 s yet",
    );
    is(&cluster, 101, "it is small, but with r102 it would be too large");
    assert_eq!(advice(&cluster, RegionId(102)), None);
    cluster.seconds(MINUTE);
    is(&cluster, 100, "0 merges are under way");
    cluster.set("merge.at_once", "8");
    cluster.set("merge.enabled", "off");
    cluster.seconds(MINUTE);
    assert_eq!(advice(&cluster, FIRST), None);
    assert!(cluster.done.is_empty());
    let rules = "3 voters from \"k000001\" to \"k000002\"";
    cluster.set("placement.rules", rules);
    cluster.set("merge.enabled", "on");
    cluster.seconds(MINUTE);
    is(&cluster, 100, "other placement rules begin at k000001");
    assert!(cluster.done.is_empty());
    cluster.set("placement.rules", "");
    cluster.seconds(MINUTE);
    assert_eq!(cluster.done[1], "r101 takes r100 in");
}

#[test]
fn what_was_split_on_request_is_left_alone_for_an_hour() {
    let mut cluster = cluster(3, &[3 * MIB]);
    cluster.set("schedule.paused", "balance-leader,balance-region,hot-region");
    let key: bytes::Bytes = "f".into();
    let info = cluster.leader.tree().get(FIRST).unwrap().clone();
    let keys = vec![key.clone()];
    let draft = Draft {
        region: FIRST,
        epoch: info.region.epoch,
        goal: Goal::Split { keys },
        by: "request",
        reason: "on request".to_owned(),
    };
    cluster.leader.split(draft, cluster.now).unwrap();
    let parent = cluster.regions.get_mut(&FIRST).unwrap();
    parent.region.epoch.version += 1;
    let mut child = parent.region.clone();
    child.id = RegionId(500);
    child.range.end = key.clone();
    parent.region.range.start = key;
    for peer in &mut child.peers {
        peer.id.0 += 50_000;
    }
    let (leader, matched) = (parent.leader, child.peers.iter().map(|peer| (peer.id, 9)).collect());
    let child = super::Hosted { leader, matched, region: child, ..super::Hosted::default() };
    cluster.regions.insert(child.region.id, child);
    cluster.seconds(50 * MINUTE);
    let said = advice(&cluster, RegionId(500)).unwrap();
    assert_eq!(said, "it is small, but it was split from r100 on request lately");
    assert!(cluster.done.is_empty());
    cluster.seconds(20 * MINUTE);
    assert_eq!(cluster.done, ["r500 stops for r100", "r100 takes r500 in"]);
}

#[test]
fn a_region_with_load_is_left_alone() {
    let mut cluster = cluster(3, &[MIB, 2 * MIB, 90 * MIB]);
    cluster.regions.get_mut(&FIRST).unwrap().written = 100;
    cluster.seconds(5 * MINUTE);
    assert_eq!(advice(&cluster, FIRST).unwrap(), "it is small, but it has load");
    assert!(cluster.regions.contains_key(&FIRST));
    cluster.regions.get_mut(&FIRST).unwrap().written = 0;
    cluster.seconds(5 * MINUTE);
    assert!(!cluster.regions.contains_key(&FIRST), "{:?}", cluster.done);
}
