//! Tests of the bits: they are too many for the small histories to reach.

use super::seen::{Placed, Seen};
use super::timeline::OpId;

const COMPLETED: usize = 130;
const TOTAL: usize = 300;

/// The set of `ids`, of [`COMPLETED`] operations and [`TOTAL`].
fn set(ids: impl IntoIterator<Item = usize>) -> Placed {
    let mut placed = Placed::new(COMPLETED, TOTAL);
    ids.into_iter().for_each(|id| placed.insert(OpId(id)));
    placed
}

#[test]
fn every_operation_has_a_bit_of_its_own() {
    for id in 0..TOTAL {
        let mut placed = set([id]);
        let present: Vec<usize> = (0..TOTAL).filter(|&id| placed.contains(OpId(id))).collect();
        assert_eq!(present, [id]);
        placed.remove(OpId(id));
        assert!(!placed.contains(OpId(id)));
    }
}

#[test]
fn a_node_is_known_again_by_its_operations_and_its_state() {
    let mut seen = Seen::default();
    let prefixes = (0..=COMPLETED).map(|end| (0..end).collect::<Vec<_>>());
    let gaps = (0..COMPLETED - 1).map(|gap| (0..COMPLETED).filter(|&id| id != gap).collect());
    let singles = (1..COMPLETED).map(|id| vec![id]);
    let sets: Vec<Vec<usize>> = prefixes.chain(gaps).chain(singles).collect();
    for ids in &sets {
        assert!(seen.insert(&set(ids.clone()), &'x'), "{ids:?}");
        assert!(seen.insert(&set(ids.clone()), &'y'), "{ids:?}");
    }
    for ids in &sets {
        assert!(!seen.insert(&set(ids.clone()), &'x'), "{ids:?}");
    }
}

#[test]
fn a_node_gives_way_to_one_with_fewer_unknown_operations() {
    let mut seen = Seen::default();
    let known = [0, 1, 2];
    let (a, b, c) = (COMPLETED, COMPLETED + 64, TOTAL - 1);
    let mut insert =
        |unknown: &[usize]| seen.insert(&set(known.iter().chain(unknown).copied()), &());
    assert!(insert(&[a, b]));
    assert!(!insert(&[a, b]));
    assert!(!insert(&[a, b, c]));
    assert!(insert(&[c]), "neither contains the other");
    assert!(insert(&[b]), "fewer");
    assert!(!insert(&[a, b]), "more than the fewer");
    assert!(insert(&[]));
    assert!(!insert(&[a]));
}
