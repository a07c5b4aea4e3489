//! Isolation levels: how far apart stores stand.

use std::collections::BTreeMap;

use proptest::prelude::*;
use quorate_placement::core::labels::{BadLevels, Isolation, Levels, Location, Map};

fn labels(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn places(levels: &Levels, stores: &[BTreeMap<String, String>]) -> Vec<Location> {
    let mut map = Map::new(levels);
    stores.iter().map(|labels| map.locate(labels)).collect()
}

#[test]
fn levels_are_read_and_shown() {
    assert_eq!(Levels::default().to_string(), "zone,rack,host");
    assert_eq!(Levels::parse(" zone , host ").unwrap().to_string(), "zone,host");
    assert_eq!(Levels::parse("").unwrap().names().len(), 0);
    assert_eq!(Levels::parse("zone,,host"), Err(BadLevels::Name(String::new())));
    assert_eq!(Levels::parse("zone,zone"), Err(BadLevels::Twice("zone".to_owned())));
    assert_eq!(Levels::parse("a,b,c,d,e,f,g,h,i"), Err(BadLevels::TooMany(9)));
    assert!(Levels::parse("zo ne").unwrap_err().to_string().contains("zone,rack,host"));
}

#[test]
fn stores_are_apart_at_the_widest_level_that_differs() {
    let levels = Levels::default();
    let stores = [
        labels(&[("zone", "a"), ("rack", "r1"), ("host", "h1")]),
        labels(&[("zone", "a"), ("rack", "r2"), ("host", "h1")]),
        labels(&[("zone", "b"), ("rack", "r1"), ("host", "h1")]),
        labels(&[("zone", "a"), ("rack", "r1"), ("host", "h2")]),
        labels(&[]),
    ];
    let at = places(&levels, &stores);
    assert_eq!(at[0].separated_at(&at[0]), None);
    assert_eq!(at[0].separated_at(&at[1]), Some(1));
    assert_eq!(at[0].separated_at(&at[2]), Some(0));
    assert_eq!(at[0].separated_at(&at[3]), Some(2));
    assert_eq!(at[0].separated_at(&at[4]), None, "it may stand anywhere");
}

#[test]
fn a_wider_level_outweighs_narrower_ones() {
    let levels = Levels::default();
    let store = |zone, host| labels(&[("zone", zone), ("host", host)]);
    let all = [store("a", "1"), store("a", "2"), store("b", "1"), store("b", "2"), store("c", "1")];
    let at = places(&levels, &all);
    let group = |stores: &[usize]| {
        Isolation::among(&stores.iter().map(|store| at[*store]).collect::<Vec<_>>())
    };
    assert!(group(&[0, 2, 4]) > group(&[0, 1, 2]), "three zones before two");
    assert!(group(&[0, 1, 2]) > group(&[0, 1, 1]), "two zones before two hosts");
    assert_eq!(group(&[0, 1, 2]).worse_at(&group(&[0, 2, 4])), Some(0));
    assert_eq!(group(&[0, 2, 4]).worse_at(&group(&[0, 1, 2])), None);
    // Five replicas in three zones: 2 + 2 + 1 before 3 + 1 + 1.
    assert!(group(&[0, 1, 2, 3, 4]) > group(&[0, 1, 1, 2, 4]));
}

proptest! {
    /// What one replica adds is the difference it makes to the group.
    #[test]
    fn a_groups_isolation_is_the_sum_of_its_pairs(
        stores in proptest::collection::vec((0u8..3, 0u8..3, 0u8..3), 1..7),
    ) {
        let levels = Levels::default();
        let named = stores.iter().map(|(zone, rack, host)| {
            let all = [("zone", zone), ("rack", rack), ("host", host)];
            // 0: no label.
            let set = all.iter().filter(|(_, value)| **value != 0);
            set.map(|(name, value)| (name.to_string(), value.to_string())).collect()
        });
        let named: Vec<BTreeMap<String, String>> = named.collect();
        let at = places(&levels, &named);
        let (last, others) = at.split_last().unwrap();
        let (with, without) = (Isolation::among(&at), Isolation::among(others));
        let more = Isolation::of(last, others.iter().copied());
        prop_assert!(with >= without);
        prop_assert_eq!(with == without, more == Isolation::default());
    }
}
