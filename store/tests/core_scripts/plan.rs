//! Where a region is cut, and what may be proposed.

use bytes::Bytes;
use quorate_proto::limits::SENTINEL_START;
use quorate_proto::wire::placement::SplitIds;
use quorate_proto::{KeyRange, Region};
use quorate_store::core::command::{Commands, delete_all, put_all};
use quorate_store::core::split::{
    self, MAX_PARTS, SplitError, SplitOptions, check, check_epoch, due, plan_half, plan_split,
    requested,
};
use quorate_store::core::{Answer, RegionError};

use super::world::{World, child, region, stamp};

const SMALL: SplitOptions = SplitOptions { max_bytes: 3_000, max_keys: 1_000_000 };

/// `keys` keys of 10 bytes with stored values of 20.
fn filled(keys: u32) -> World {
    let mut world = World::new(vec![region(1, "", "")]);
    let pairs: Vec<(String, [u8; 19])> =
        (0..keys).map(|n| (format!("key{n:07}"), [b'v'; 19])).collect();
    for some in pairs.chunks(5_000) {
        let stamp = stamp(&world.region(1), 0);
        assert_eq!(world.apply(1, put_all(stamp, some).unwrap()).1, Answer::Done);
    }
    world
}

fn ids(count: u64) -> Vec<SplitIds> {
    (0..count)
        .map(|n| SplitIds { region_id: 100 + n, peer_ids: vec![1000 + n, 2000 + n, 3000 + n] })
        .collect()
}

/// Bytes in each part.
fn parts(world: &World, keys: &[Bytes]) -> Vec<u64> {
    let region = world.region(1);
    let mut starts = vec![region.range.start.clone()];
    starts.extend(keys.iter().cloned());
    let mut ends = keys.to_vec();
    ends.push(region.range.end.clone());
    let measure = |(start, end): (Bytes, Bytes)| {
        let part = Region { range: KeyRange { start, end }, ..(*region).clone() };
        plan_split(&world.engine, &part, &SplitOptions::default()).unwrap().bytes
    };
    starts.into_iter().zip(ends).map(measure).collect()
}

#[test]
fn a_region_within_its_bounds_is_left_alone() {
    let world = filled(100);
    let plan = plan_split(&world.engine, &world.region(1), &SMALL).unwrap();
    assert_eq!((plan.bytes, plan.keys, plan.complete), (3_000, 100, true));
    assert!(plan.split_keys.is_empty());
}

#[test]
fn a_region_over_a_bound_is_cut_into_equal_parts_well_below_it() {
    for keys in [101, 150, 300, 1_000] {
        let world = filled(keys);
        let plan = plan_split(&world.engine, &world.region(1), &SMALL).unwrap();
        let parts = parts(&world, &plan.split_keys);
        assert!(parts.len() >= 2, "{keys}");
        assert!(parts.iter().all(|bytes| (900..=2_030).contains(bytes)), "{keys}: {parts:?}");
        assert_eq!(parts.iter().sum::<u64>(), u64::from(keys) * 30);
    }
}

#[test]
fn the_number_of_keys_counts_as_well() {
    let world = filled(100);
    let options = SplitOptions { max_keys: 60, ..SplitOptions::default() };
    let plan = plan_split(&world.engine, &world.region(1), &options).unwrap();
    assert_eq!(parts(&world, &plan.split_keys), [990, 990, 1_020]);
}

#[test]
fn a_plan_reads_and_cuts_no_more_than_its_bounds() {
    let world = filled(20_000);
    let options = SplitOptions { max_bytes: 300, ..SMALL };
    let plan = plan_split(&world.engine, &world.region(1), &options).unwrap();
    assert!(!plan.complete);
    assert!(plan.bytes <= 16 * 300 + 30);
    assert!((plan.split_keys.len() as u64) < MAX_PARTS);
    // Far over with many keys: parts stay equal although not every key is remembered.
    let options = SplitOptions { max_bytes: 100_000, ..SMALL };
    let plan = plan_split(&world.engine, &world.region(1), &options).unwrap();
    assert!(plan.complete);
    let parts = parts(&world, &plan.split_keys);
    assert_eq!(parts.len(), 10);
    assert!(parts.iter().all(|bytes| (57_000..63_000).contains(bytes)), "{parts:?}");
}

#[test]
fn a_half_is_a_half_and_one_key_has_none() {
    let world = filled(5_000);
    let plan = plan_half(&world.engine, &world.region(1)).unwrap();
    let halves = parts(&world, &plan.split_keys);
    assert_eq!(halves.len(), 2);
    assert!(halves[0].abs_diff(halves[1]) < 1_500, "{halves:?}");

    let mut world = World::new(vec![region(1, "a", "")]);
    let half = |world: &World| plan_half(&world.engine, &world.region(1)).unwrap().split_keys;
    assert!(half(&world).is_empty());
    world.put(1, "a", "at the very start");
    assert!(half(&world).is_empty(), "never at the start");
    world.put(1, "b", &"heavy".repeat(100));
    assert_eq!(half(&world), ["b"]);
    world.put(1, "c", "light");
    assert_eq!(half(&world).len(), 1);
}

#[test]
fn a_region_is_due_when_it_has_grown_and_leads() {
    let mut world = filled(200);
    let local = world.local(1);
    assert!(!due(&local, &SMALL), "another replica leads");
    world.lead(1);
    assert!(due(&local, &SMALL), "never measured");
    let plan = check(&world.engine, &local, &SMALL).unwrap().unwrap();
    assert!(due(&local, &SMALL), "until it is split");
    let mut first = child(2, "");
    first.key = plan.split_keys[0].clone();
    world.split(1, vec![first]);
    world.lead(2);
    for id in [1, 2] {
        let local = world.local(id);
        while let Some(plan) = check(&world.engine, &local, &SMALL).unwrap() {
            let mut next = child(id + 10, "");
            next.key = plan.split_keys[0].clone();
            world.split(id, vec![next]);
        }
        assert!(!due(&local, &SMALL), "measured and within bounds");
        assert!(local.stats().is_measured());
    }
    // A little is written: not worth a look. An eighth of the bound and over it: it is.
    let local = world.local(1);
    local.stats().measure(2_900, 90);
    world.put(1, "zz", &"v".repeat(150));
    assert!(!due(&local, &SMALL));
    world.put(1, "zz", &"v".repeat(300));
    assert!(due(&local, &SMALL));
}

#[test]
fn a_region_is_measured_again_once_much_of_it_was_removed() {
    let mut world = filled(10);
    let local = world.local(1);
    world.lead(1);
    local.stats().measure(8 << 20, 4_096);
    let most = SplitOptions::default();
    let stamp = stamp(&world.region(1), 0);
    let gone: Vec<String> = (0..1_023).map(|number| format!("gone-{number}")).collect();
    assert_eq!(world.apply(1, delete_all(stamp, &gone).unwrap()).1, Answer::Done);
    assert!(!due(&local, &most), "not a quarter of it");
    assert_eq!(world.apply(1, delete_all(stamp, &["gone"]).unwrap()).1, Answer::Done);
    assert!(due(&local, &most));
    assert!(check(&world.engine, &local, &most).unwrap().is_none());
    assert_eq!(local.stats().keys(), 10, "as it is");
    assert!(!due(&local, &most));
}

#[test]
fn a_small_region_is_measured_without_reading_it() {
    let world = filled(10);
    let local = world.local(1);
    assert!(check(&world.engine, &local, &SplitOptions::default()).unwrap().is_none());
    assert!(local.stats().is_measured());
}

#[test]
fn the_sentinel_is_never_split() {
    let mut last = region(1, "", "");
    last.range = KeyRange::new(SENTINEL_START, Bytes::new());
    let world = World::new(vec![last.clone()]);
    world.lead(1);
    let local = world.local(1);
    assert!(split::is_sentinel(&last));
    assert!(!due(&local, &SMALL));
    let tiny = SplitOptions { max_bytes: 0, max_keys: 0 };
    assert!(check(&world.engine, &local, &tiny).unwrap().is_none());
    let refused = requested(&last, vec![Bytes::from_static(b"\xff\xff")]).unwrap_err();
    assert!(matches!(refused, SplitError::Sentinel(_)));
}

#[test]
fn requested_keys_are_put_in_order_and_must_cut() {
    let key = |text: &'static str| Bytes::from_static(text.as_bytes());
    let region = region(1, "b", "m");
    let keys = vec![key("f"), key("c"), key("f")];
    assert_eq!(requested(&region, keys).unwrap(), [key("c"), key("f")]);
    for bad in ["a", "b", "m", "z", ""] {
        let refused = requested(&region, vec![key("c"), key(bad)]);
        assert!(matches!(refused, Err(SplitError::BadKey { .. })), "{bad:?}");
    }
    assert!(matches!(requested(&region, vec![]), Err(SplitError::TooSmall(_))));
}

#[test]
fn a_split_command_fits_the_region_it_was_planned_for() {
    let mut world = World::new(vec![region(1, "", "")]);
    let admitted = world.admitted(1);
    let keys = vec![Bytes::from_static(b"f"), Bytes::from_static(b"p")];
    let command = |ids, admitted: &_| split::command(admitted, keys.clone(), ids, 70);
    assert!(matches!(
        command(ids(2), &admitted),
        Err(SplitError::Region(RegionError::NotLeader { .. }))
    ));
    world.lead(1);
    let asked = split::ask(9, &admitted.region, 2);
    assert_eq!((asked.cluster_id, asked.count), (9, 2));
    assert_eq!(command(ids(1), &admitted), Err(SplitError::Ids { wanted: 2, got: 1 }));
    let mut short = ids(2);
    short[1].peer_ids.pop();
    assert_eq!(command(short, &admitted), Err(SplitError::Ids { wanted: 2, got: 1 }));

    let good = command(ids(2), &admitted).unwrap();
    let parsed = Commands::new(good.clone()).next().unwrap().unwrap();
    assert_eq!((parsed.version, parsed.conf_ver, parsed.time_ms), (1, 1, 70));
    assert_eq!(world.apply(1, good).1, Answer::Done);
    assert_eq!(world.directory().len(), 3);

    let late = command(ids(2), &admitted);
    let Err(SplitError::Region(RegionError::EpochNotMatch { current })) = late else {
        panic!("{late:?}");
    };
    assert_eq!(current, [world.region(1)]);
    let now = world.admitted(1);
    assert!(check_epoch(&now, now.region.epoch).is_ok());
    assert!(check_epoch(&now, admitted.region.epoch).is_err());
}
