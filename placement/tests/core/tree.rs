//! The region tree against stories and against a naive model.

use proptest::prelude::*;
use quorate_placement::core::tree::{RegionInfo, RegionTree, Stale};
use quorate_proto::{KeyRange, Region, RegionId, StoreId, Term};

use crate::support::{led, region};

fn tree_of(infos: impl IntoIterator<Item = RegionInfo>) -> RegionTree {
    let mut tree = RegionTree::default();
    for info in infos {
        tree.offer(info).unwrap();
    }
    tree
}

#[test]
fn a_split_replaces_the_parent_in_either_order() {
    let parent = led(&region(1, "", "", 1), 1, 6);
    let left = led(&region(1, "", "m", 2), 1, 6);
    let right = led(&region(2, "m", "", 2), 1, 6);
    for order in [[&left, &right], [&right, &left]] {
        let mut tree = tree_of([parent.clone()]);
        for child in order {
            assert!(tree.offer(child.clone()).unwrap().routes);
        }
        assert_eq!(tree.len(), 2);
        assert_eq!(tree.find(b"").unwrap().region.id, RegionId(1));
        assert_eq!(tree.find(b"m").unwrap().region.id, RegionId(2));
        // The parent comes late, from a store that has not heard of the split.
        assert_eq!(tree.offer(parent.clone()), Err(Stale::Epoch(RegionId(1))));
    }
    // Only the right part is known yet: the late parent must not come back over it.
    let mut tree = tree_of([parent.clone()]);
    let offered = tree.offer(right.clone()).unwrap();
    assert_eq!(offered.evicted, [RegionId(1)]);
    let stale = Stale::Overlap { region: RegionId(1), known: RegionId(2) };
    assert_eq!(tree.offer(parent), Err(stale));
    assert!(tree.find(b"a").is_none(), "a hole, not a lie");
}

#[test]
fn a_leader_of_an_older_term_is_not_believed() {
    let mut tree = tree_of([led(&region(1, "", "", 1), 2, 7)]);
    let late = led(&region(1, "", "", 1), 1, 6);
    assert_eq!(tree.offer(late.clone()), Err(Stale::Term(RegionId(1))));
    // It knows of a newer epoch: that counts, its leadership does not.
    let mut newer = late;
    newer.region.epoch.conf_ver = 2;
    assert!(tree.offer(newer).unwrap().routes);
    let info = tree.get(RegionId(1)).unwrap();
    assert_eq!((info.region.epoch.conf_ver, info.term), (2, Term(7)));
    assert_eq!(info.leader.unwrap().store, StoreId(2));
}

#[test]
fn news_without_a_new_route_say_so() {
    let mut tree = tree_of([led(&region(1, "", "", 1), 1, 6)]);
    let mut again = led(&region(1, "", "", 1), 1, 6);
    again.stats.keys = 5;
    let offered = tree.offer(again).unwrap();
    assert!(!offered.routes);
    assert_eq!(tree.get(RegionId(1)).unwrap().stats.keys, 5);
    assert!(tree.offer(led(&region(1, "", "", 1), 3, 7)).unwrap().routes);
}

#[test]
fn lookups_at_the_edges() {
    let tree = tree_of([
        led(&region(1, "", "b", 1), 1, 6),
        led(&region(2, "b", "d", 1), 1, 6),
        led(&region(3, "f", "", 1), 1, 6),
    ]);
    let id = |info: Option<&std::sync::Arc<RegionInfo>>| info.map(|info| info.region.id.0);
    assert_eq!(id(tree.find(b"")), Some(1));
    assert_eq!(id(tree.find(b"a\xff")), Some(1));
    assert_eq!(id(tree.find(b"b")), Some(2));
    assert_eq!(id(tree.find(b"d")), None);
    assert_eq!(id(tree.find(b"z")), Some(3));
    assert_eq!(id(tree.before(b"b")), Some(1));
    assert_eq!(id(tree.before(b"")), None);
    assert_eq!(id(tree.before(b"f")), None, "there is a hole before it");
    let range = KeyRange::new("c", "g");
    let ids: Vec<u64> = tree.overlapping(&range).map(|info| info.region.id.0).collect();
    assert_eq!(ids, [2, 3]);
    let all = KeyRange::default();
    assert_eq!(tree.overlapping(&all).count(), 3);
}

#[test]
fn ten_thousand_regions_are_cheap() {
    let key = |number: u64| if number == 0 { String::new() } else { format!("{number:08}") };
    let regions = 10_000u64;
    let end = |number| if number + 1 == regions { String::new() } else { key(number + 1) };
    let mut tree =
        tree_of((0..regions).map(|number| {
            led(&region(number + 1, &key(number), &end(number), 1), number % 3 + 1, 6)
        }));
    assert_eq!(tree.len(), 10_000);
    for number in 0..regions {
        let looked_up = tree.find(format!("{number:08}x").as_bytes()).unwrap();
        assert_eq!(looked_up.region.id.0, number + 1);
        tree.not_led_by(RegionId(number + 1), StoreId(1));
    }
    assert_eq!(tree.iter().filter(|info| !info.led).count(), 3_334);
}

/// The rules again, over a plain list.
#[derive(Default)]
struct Naive(Vec<RegionInfo>);

impl Naive {
    fn offer(&mut self, info: RegionInfo) {
        let mut info = info;
        if let Some(known) = self.0.iter().find(|known| known.region.id == info.region.id) {
            let older = info.region.epoch.is_stale_against(known.region.epoch);
            let same = info.region.epoch == known.region.epoch;
            if older || (same && info.term < known.term) {
                return;
            }
            if info.term < known.term {
                info.term = known.term;
                info.leader = known.leader;
            }
        }
        let overlaps = |known: &&RegionInfo| {
            known.region.id != info.region.id && known.region.range.overlaps(&info.region.range)
        };
        if self
            .0
            .iter()
            .filter(overlaps)
            .any(|known| known.region.epoch.version >= info.region.epoch.version)
        {
            return;
        }
        self.0.retain(|known| {
            known.region.id != info.region.id && !known.region.range.overlaps(&info.region.range)
        });
        self.0.push(info);
        self.0.sort_by(|left, right| left.region.range.start.cmp(&right.region.range.start));
    }

    fn find(&self, key: &[u8]) -> Option<&Region> {
        self.0.iter().map(|info| &info.region).find(|region| region.range.contains(key))
    }
}

fn infos() -> impl Strategy<Value = RegionInfo> {
    (1u64..9, 0u8..12, 1u8..9, 1u64..9, 1u64..4, 1u64..4).prop_map(
        |(id, start, length, version, store, term)| {
            let end = start + length;
            let key = |number: u8| if number == 0 { String::new() } else { format!("{number:02}") };
            let end = if end > 14 { String::new() } else { key(end) };
            // In one epoch a region is one thing.
            let version = version * 1_000 + u64::from(start) * 30 + u64::from(length);
            led(&region(id, &key(start), &end, version), store, term)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn agrees_with_a_list(offers in proptest::collection::vec(infos(), 1..60)) {
        let (mut tree, mut naive) = (RegionTree::default(), Naive::default());
        for info in offers {
            let known = tree.get(info.region.id).map(|known| known.region.epoch);
            let id = info.region.id;
            let _ = tree.offer(info.clone());
            naive.offer(info);
            if let (Some(before), Some(after)) = (known, tree.get(id)) {
                prop_assert!(!after.region.epoch.is_stale_against(before));
            }
            let all = KeyRange::default();
            let listed: Vec<_> = tree.overlapping(&all).map(|info| info.as_ref().clone()).collect();
            prop_assert_eq!(&listed, &naive.0);
            prop_assert_eq!(listed.len(), tree.len());
            for pair in listed.windows(2) {
                prop_assert!(!pair[0].region.range.overlaps(&pair[1].region.range));
            }
            for number in 0..=14u8 {
                let key = format!("{number:02}");
                let found = tree.find(key.as_bytes()).map(|info| &info.region);
                prop_assert_eq!(found, naive.find(key.as_bytes()));
            }
            let range = KeyRange::new("03", "09");
            let within: Vec<_> = tree.overlapping(&range).map(|info| info.region.id).collect();
            let naive_within: Vec<_> = naive.0.iter().map(|info| &info.region)
                .filter(|region| region.range.overlaps(&range)).map(|region| region.id).collect();
            prop_assert_eq!(within, naive_within);
        }
    }
}
