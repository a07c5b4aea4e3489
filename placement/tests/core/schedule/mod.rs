//! Clusters that come to balance, and then to rest.

mod execute;
mod hot;
mod measure;
mod model;
mod potential;
mod scheduler;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{MIB, Model, SENTINEL};
use proptest::prelude::*;
use quorate_placement::core::limit::{LimitRates, Limits};
use quorate_placement::core::operators::Goal;
use quorate_placement::core::stores::DOWN_AFTER;
use quorate_proto::{RegionId, StoreId};

const STEP: Duration = Duration::from_millis(250);

/// Regions of one size on the stores 1 to 3, led in turn.
fn even(regions: usize, bytes: u64) -> Vec<(Vec<u64>, u64)> {
    let stores = |n: usize| (0..3).map(|k| (n as u64 + k) % 3 + 1).collect();
    (0..regions).map(|n| (stores(n), bytes)).collect()
}

/// Nothing was begun in the last five minutes.
fn assert_rests(model: &Model) {
    let lately = model.begun_lately(5);
    assert!(lately.is_empty(), "still at it: {lately:?}");
    assert_eq!(model.view().moves + model.view().transfers, 0);
}

#[test]
fn a_fourth_store_joins_three_with_200_regions() {
    let mut model = Model::plain(3);
    model.fill(&even(200, 24 * MIB));
    model.run(3, STEP);
    assert_eq!(model.begun.len(), 0, "three even stores are left alone");
    model.add_store(&[]);
    model.run(10, STEP);
    let (replicas, leaders, bytes) = model.skews();
    assert!(replicas <= 0.10, "replicas: {:?}", model.counts());
    assert!(leaders <= 0.10, "leaders: {:?}", model.counts());
    assert!(bytes <= 0.10, "bytes: {:?}", model.counts());
    model.run(5, STEP);
    assert_rests(&model);
    model.assert_no_thrash();
    let moves = model.begun.iter().filter(|begun| begun.draft.by == "balance-region").count();
    assert!(moves <= 150, "{moves} moves, where 150 make it perfectly even");
    let moved: BTreeSet<RegionId> = model
        .begun
        .iter()
        .filter(|begun| matches!(begun.draft.goal, Goal::MoveReplica { .. }))
        .map(|begun| begun.draft.region)
        .collect();
    assert_eq!(moved.len(), moves, "each region at most once");
    assert_eq!(model.truth[&SENTINEL].region.epoch.conf_ver, 1);
}

#[test]
fn the_store_limits_hold_at_any_minute() {
    let mut model = Model::plain(3);
    // Full regions cost a token each.
    model.fill(&even(60, 96 * MIB));
    model.add_store(&[]);
    let rates = LimitRates { additions: 12.0, removals: 6.0, ..LimitRates::default() };
    model.limits = Limits::new(rates);
    model.run(8, STEP);
    let mut minutes: BTreeMap<(u64, StoreId, bool), usize> = BTreeMap::new();
    for begun in &model.begun {
        if let Goal::MoveReplica { from, to } = begun.draft.goal {
            let minute = begun.at.0 / 60_000_000_000;
            *minutes.entry((minute, from, false)).or_default() += 1;
            *minutes.entry((minute, to, true)).or_default() += 1;
        }
    }
    // One minute's tokens, those saved for ten seconds, and one taken on credit.
    let most = |adds: &bool| if *adds { 12 + 2 + 1 } else { 6 + 1 + 1 };
    assert!(minutes.iter().all(|((.., adds), count)| *count <= most(adds)), "{minutes:?}");
    let (replicas, leaders, _) = model.skews();
    assert!(replicas <= 0.10 && leaders <= 0.14, "{:?}", model.counts());
}

#[test]
fn uneven_sizes_come_out_even_in_count_and_nearly_in_bytes() {
    let mut model = Model::plain(3);
    let mut regions = even(200, 0);
    for region in &mut regions {
        region.1 = (1 + model.draw(192)) * MIB;
    }
    model.fill(&regions);
    model.add_store(&[]);
    model.run(40, STEP);
    let (replicas, leaders, bytes) = model.skews();
    assert!(replicas <= 0.10 && leaders <= 0.10, "{:?}", model.counts());
    assert!(bytes <= 0.12, "bytes: {:?}", model.counts());
    assert_rests(&model);
    model.assert_no_thrash();
}

#[test]
fn large_regions_on_one_side_are_moved_for_their_size() {
    let mut model = Model::plain(6);
    // Two sets of stores with 60 replicas each; one set's regions are ten times as large.
    let large = (0..60).map(|n: u64| (vec![n % 3 + 1, (n + 1) % 3 + 1, (n + 2) % 3 + 1], 90 * MIB));
    let small = (0..60).map(|n: u64| (vec![n % 3 + 4, (n + 1) % 3 + 4, (n + 2) % 3 + 4], 9 * MIB));
    model.fill(&large.chain(small).collect::<Vec<_>>());
    model.run(40, STEP);
    let (replicas, leaders, bytes) = model.skews();
    assert!(replicas <= 0.10 && leaders <= 0.10, "{:?}", model.counts());
    assert!(bytes <= 0.15, "bytes: {:?}", model.counts());
    assert!(model.begun.iter().any(|begun| begun.draft.reason.contains("swapped")));
    assert_rests(&model);
    model.assert_no_thrash();
}

#[test]
fn ten_thousand_regions_get_a_fourth_store() {
    let mut model = Model::plain(3);
    model.fill(&even(10_000, 2 * MIB));
    model.limits = Limits::new(LimitRates {
        additions: 600.0,
        removals: 600.0,
        arriving: 32,
        ..LimitRates::default()
    });
    model.run(1, STEP);
    model.add_store(&[]);
    let step = Duration::from_millis(1_000);
    let mut minutes = 0;
    while !model.begun_lately(1).is_empty() || minutes < 2 {
        minutes += 1;
        assert!(minutes <= 40, "{:?}", model.counts());
        model.run(1, step);
    }
    model.run(6, step);
    let (replicas, leaders, _) = model.skews();
    assert!(replicas <= 0.10 && leaders <= 0.10, "{:?}", model.counts());
    assert_rests(&model);
    model.assert_no_thrash();
}

#[test]
fn a_zone_that_loses_one_of_its_stores_keeps_its_replicas() {
    let zones: [&[(&str, &str)]; 6] = [
        &[("zone", "a"), ("host", "a1")],
        &[("zone", "a"), ("host", "a2")],
        &[("zone", "b"), ("host", "b1")],
        &[("zone", "b"), ("host", "b2")],
        &[("zone", "c"), ("host", "c1")],
        &[("zone", "c"), ("host", "c2")],
    ];
    let mut model = Model::new(&zones);
    let stores = |n: u64| vec![1 + n % 2, 3 + (n / 2) % 2, 5 + (n / 4) % 2];
    model.fill(&(0..120).map(|n| (stores(n), 24 * MIB)).collect::<Vec<_>>());
    model.run(4, STEP);
    let apart = |model: &Model| {
        let regions = model.truth.values().filter(|truth| truth.region.id != SENTINEL);
        let stores =
            regions.map(|truth| truth.region.peers.iter().map(|peer| peer.store).collect());
        stores.map(|stores| potential::pairs_apart(model, &stores)).min().unwrap()
    };
    assert_eq!(apart(&model), [3, 3, 3]);
    model.kill(StoreId(1));
    model.run(DOWN_AFTER.as_secs() / 60 + 30, Duration::from_millis(500));
    let counts = model.counts();
    assert_eq!(counts[&StoreId(2)].0, 120, "zone a has one store left: {counts:?}");
    assert_eq!(apart(&model), [3, 3, 3], "every region still stands in three zones");
    assert_rests(&model);
    // Leaders are spread over the five that are left.
    assert!(model.skews().1 <= 0.10, "{counts:?}");
    let gone = model.truth.values().filter(|truth| truth.region.id != SENTINEL);
    assert!(gone.clone().all(|truth| truth.region.peer_on(StoreId(1)).is_none()));
}

#[test]
fn a_fourth_zone_takes_replicas_but_no_region_comes_closer_together() {
    let zones: [&[(&str, &str)]; 4] =
        [&[("zone", "a")], &[("zone", "b")], &[("zone", "c")], &[("zone", "c")]];
    let mut model = Model::new(&zones);
    let mut regions = even(90, 24 * MIB);
    // Zone c has two stores, of which the fourth begins empty.
    for (stores, _) in &mut regions {
        stores.rotate_left(1);
    }
    model.fill(&regions);
    model.run(12, STEP);
    let counts = model.counts();
    let replicas: Vec<usize> = counts.values().map(|count| count.0).collect();
    assert_eq!(replicas[..2], [90, 90], "zones a and b keep all: {counts:?}");
    assert!(replicas[2].abs_diff(replicas[3]) <= 3, "zone c is shared: {counts:?}");
    model.run(6, STEP);
    assert_rests(&model);
    model.assert_no_thrash();
}

/// A cluster for the property: stores with labels or without, regions anywhere.
#[derive(Clone, Debug)]
struct Any {
    zones: Vec<u64>,
    regions: Vec<(Vec<u64>, u64)>,
}

fn any_cluster() -> impl Strategy<Value = Any> {
    let zones = proptest::collection::vec(0u64..4, 3..8);
    zones.prop_flat_map(|zones| {
        let stores: Vec<u64> = (1..=zones.len() as u64).collect();
        let region = (Just(stores).prop_shuffle(), 0..300u64);
        let regions = proptest::collection::vec(region, 1..150);
        (Just(zones), regions).prop_map(|(zones, regions)| Any {
            zones,
            regions: regions
                .into_iter()
                .map(|(stores, mib)| (stores[..3].to_vec(), mib * MIB))
                .collect(),
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// The model asserts with every plan that each draft lowers the potential and that no region's
    /// replicas come closer together.
    #[test]
    fn any_cluster_comes_to_rest(any in any_cluster()) {
        let names: Vec<String> = any.zones.iter().map(|zone| format!("z{zone}")).collect();
        let labels: Vec<Vec<(&str, &str)>> = any.zones.iter().zip(&names).map(|(zone, name)| {
            if *zone == 0 { Vec::new() } else { vec![("zone", name.as_str())] }
        }).collect();
        let labels: Vec<&[(&str, &str)]> = labels.iter().map(Vec::as_slice).collect();
        let mut model = Model::new(&labels);
        model.limits = Limits::new(LimitRates {
            additions: 600.0, removals: 600.0, ..LimitRates::default()
        });
        model.fill(&any.regions);
        model.run(6, STEP);
        let begun = model.begun.len();
        model.run(3, STEP);
        prop_assert_eq!(model.begun.len(), begun, "it rests");
        if any.zones.iter().all(|zone| *zone == any.zones[0]) {
            let counts = model.counts();
            let replicas: Vec<usize> = counts.values().map(|count| count.0).collect();
            let mean = replicas.iter().sum::<usize>() as f64 / replicas.len() as f64;
            let apart = replicas.iter().max().unwrap() - replicas.iter().min().unwrap();
            prop_assert!(apart <= ((mean * 0.04) as usize).max(1), "{:?}", counts);
        }
    }
}
