//! Hot regions: spread by what they do, not by how many there are, and then left alone.

use std::collections::BTreeMap;

use quorate_placement::core::operators::Goal;
use quorate_proto::{RegionId, StoreId};

use super::model::{MIB, Model};
use super::{STEP, assert_rests, even};

fn hot(number: u64) -> RegionId {
    RegionId(100 + number)
}

/// Work of the regions each store leads.
fn led_work(model: &Model) -> BTreeMap<StoreId, u64> {
    let mut work: BTreeMap<StoreId, u64> = model.stores.keys().map(|id| (*id, 0)).collect();
    for truth in model.truth.values() {
        *work.get_mut(&truth.leader).unwrap() += truth.writes + truth.reads;
    }
    work
}

#[test]
fn six_hot_leaders_on_one_store_are_shared_by_three() {
    let mut model = Model::plain(3);
    model.fill(&even(60, 24 * MIB));
    // Every third region is led by the first store.
    for number in 0..6 {
        model.truth.get_mut(&hot(number * 3)).unwrap().writes = 2_000;
    }
    model.run(10, STEP);
    assert_eq!(led_work(&model).into_values().collect::<Vec<_>>(), [4_000; 3]);
    let (_, leaders, _) = model.skews();
    assert!(leaders <= 0.10, "cold leaders make up for them: {:?}", model.counts());
    model.run(5, STEP);
    assert_rests(&model);
    model.assert_no_thrash();
    let moves = model.begun.iter().filter(|begun| begun.draft.by == "hot-region");
    assert_eq!(moves.count(), 4);
}

#[test]
fn one_hot_region_stays_where_it_is() {
    let mut model = Model::plain(3);
    model.fill(&even(30, 24 * MIB));
    model.truth.get_mut(&hot(0)).unwrap().reads = 50_000;
    model.run(10, STEP);
    assert_eq!(model.begun.len(), 0, "moving it would only move the trouble");
    let status = &model.schedulers.list()[1];
    assert_eq!(status.name, "hot-region");
    assert_eq!(status.last, "1 regions are hot; no move would even them out noticeably");
}

#[test]
fn work_spread_over_many_regions_makes_none_hot() {
    let mut model = Model::plain(3);
    model.fill(&even(120, 24 * MIB));
    for truth in model.truth.values_mut() {
        truth.reads = 3_000;
    }
    model.run(8, STEP);
    assert_eq!(model.begun.len(), 0);
    assert_eq!(model.schedulers.list()[1].last, "no region is hot");
}

#[test]
fn followers_move_where_no_leader_can() {
    // The hot regions are all on the first three of six stores.
    let mut model = Model::plain(6);
    let near = (0..30).map(|n: u64| (vec![n % 3 + 1, (n + 1) % 3 + 1, (n + 2) % 3 + 1], 24 * MIB));
    let far = (0..30).map(|n: u64| (vec![n % 3 + 4, (n + 1) % 3 + 4, (n + 2) % 3 + 4], 24 * MIB));
    model.fill(&near.chain(far).collect::<Vec<_>>());
    for number in 0..6 {
        model.truth.get_mut(&hot(number)).unwrap().reads = 20_000;
    }
    model.run(40, STEP);
    let work = led_work(&model);
    let most = *work.values().max().unwrap();
    assert!(most <= 20_000, "each store leads one: {work:?}");
    let followers = model.begun.iter().filter(|begun| {
        begun.draft.by == "hot-region" && matches!(begun.draft.goal, Goal::MoveReplica { .. })
    });
    assert!(followers.count() >= 3);
    let (replicas, leaders, _) = model.skews();
    assert!(replicas <= 0.10 && leaders <= 0.10, "{:?}", model.counts());
    model.run(5, STEP);
    assert_rests(&model);
    model.assert_no_thrash();
}

#[test]
fn load_that_wavers_moves_nothing() {
    let mut model = Model::plain(3);
    model.fill(&even(30, 24 * MIB));
    for number in 0..9 {
        model.truth.get_mut(&hot(number)).unwrap().writes = 3_000;
    }
    // Three hot leaders a store; each region's work goes up and down by a quarter every minute.
    for _ in 0..20 {
        for number in 0..9 {
            let wave = model.draw(1_500);
            model.truth.get_mut(&hot(number)).unwrap().writes = 2_250 + wave;
        }
        model.run(1, STEP);
    }
    assert_eq!(model.begun.len(), 0, "{:?}", model.begun);
}

#[test]
fn while_hot_region_is_paused_its_regions_are_as_any_other() {
    let mut model = Model::plain(3);
    let mut regions = even(12, 24 * MIB);
    for (stores, _) in &mut regions {
        stores.sort_unstable();
    }
    model.fill(&regions);
    for number in 0..12 {
        model.truth.get_mut(&hot(number)).unwrap().reads = 20_000;
    }
    model.schedulers.set_paused("hot-region", true).unwrap();
    model.schedulers.set_paused("balance-leader", true).unwrap();
    model.run(4, STEP);
    assert_eq!(model.begun.len(), 0);
    model.schedulers.set_paused("balance-leader", false).unwrap();
    // Counted by the model as hot, so its potential would not fall: by counts alone here.
    for truth in model.truth.values_mut() {
        truth.reads = 0;
    }
    model.run(1, STEP);
    assert!(model.skews().1 <= 0.01, "{:?}", model.counts());
    assert!(model.begun.iter().all(|begun| begun.draft.by == "balance-leader"));
}
