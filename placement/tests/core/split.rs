//! From requested keys to one split for each region.

use bytes::Bytes;
use quorate_placement::core::operators::Goal;
use quorate_placement::core::split::{
    MAX_KEYS_PER_SPLIT, MAX_SPLIT_KEYS, SplitRefusal, check_keys, halve, plan,
};
use quorate_placement::core::tree::RegionTree;
use quorate_proto::RegionId;
use quorate_proto::limits::SENTINEL_START;

use crate::support::{led, region};

fn tree() -> RegionTree {
    let mut tree = RegionTree::default();
    tree.offer(led(&region(1, "", "m", 1), 1, 6)).unwrap();
    let mut second = region(2, "m", "", 1);
    second.range.end = SENTINEL_START.into();
    tree.offer(led(&second, 2, 6)).unwrap();
    let mut sentinel = region(3, "", "", 1);
    sentinel.range.start = SENTINEL_START.into();
    tree.offer(led(&sentinel, 3, 6)).unwrap();
    tree
}

fn keys(keys: &[&'static str]) -> Vec<Bytes> {
    keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect()
}

#[test]
fn keys_are_grouped_by_region_and_boundaries_are_done() {
    let wanted = check_keys(&keys(&["x", "c", "m", "f", "c"])).unwrap();
    let drafts = plan(&tree(), &wanted).unwrap();
    assert_eq!(drafts.len(), 2);
    assert_eq!(drafts[0].region, RegionId(1));
    assert_eq!(drafts[0].goal, Goal::Split { keys: keys(&["c", "f"]) });
    assert_eq!(drafts[1].region, RegionId(2));
    assert_eq!(drafts[1].goal, Goal::Split { keys: keys(&["x"]) });
    assert_eq!(plan(&tree(), &check_keys(&keys(&["m"])).unwrap()), Ok(Vec::new()));
}

#[test]
fn a_long_list_is_cut_into_steps() {
    let many: Vec<Bytes> = (0..200).map(|number| format!("a{number:04}").into()).collect();
    let drafts = plan(&tree(), &check_keys(&many).unwrap()).unwrap();
    let Goal::Split { keys } = &drafts[0].goal else { panic!("not a split") };
    assert_eq!((drafts.len(), keys.len()), (1, MAX_KEYS_PER_SPLIT));
}

#[test]
fn requests_that_cannot_be_are_refused() {
    assert_eq!(check_keys(&[]), Err(SplitRefusal::Nothing));
    assert_eq!(check_keys(&keys(&["a", ""])), Err(SplitRefusal::EmptyKey));
    let long = Bytes::from(vec![b'a'; 5_000]);
    assert_eq!(check_keys(&[long]), Err(SplitRefusal::LongKey(5_000)));
    let many = vec![Bytes::from_static(b"a"); MAX_SPLIT_KEYS + 1];
    assert_eq!(check_keys(&many), Err(SplitRefusal::TooManyKeys(MAX_SPLIT_KEYS + 1)));
    let beyond = check_keys(&[Bytes::from_static(&[0xff, 0xff])]).unwrap();
    assert!(matches!(plan(&tree(), &beyond), Err(SplitRefusal::Sentinel(_))));
    let early = check_keys(&keys(&["a"])).unwrap();
    assert!(matches!(plan(&RegionTree::default(), &early), Err(SplitRefusal::NoRegion(_))));
    assert!(matches!(halve(&tree(), RegionId(3)), Err(SplitRefusal::Sentinel(_))));
    assert_eq!(halve(&tree(), RegionId(9)), Err(SplitRefusal::UnknownRegion(RegionId(9))));
    assert_eq!(halve(&tree(), RegionId(2)).unwrap().region, RegionId(2));
}
