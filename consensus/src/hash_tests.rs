//! The same in every run, and spread well enough for ids that come in a row.

use std::collections::BTreeSet;

use super::*;

fn hash(id: u64) -> u64 {
    FixedState.hash_one(id)
}

#[test]
fn hashes_are_the_same_in_every_run() {
    assert_eq!([hash(1), hash(2)], [0x9e37_79b9_7f4a_7c15, 0x3c6e_f372_fe94_f82b]);
}

#[test]
fn ids_in_a_row_or_in_strides_fall_into_many_buckets() {
    for stride in [1, 3, 64, 1 << 20, 1 << 40] {
        let ids = (1..=4_096u64).map(|id| hash(id.wrapping_mul(stride)));
        let low: BTreeSet<u64> = ids.clone().map(|hash| hash & 0xfff).collect();
        let high: BTreeSet<u64> = ids.map(|hash| hash >> 57).collect();
        // Balls thrown at random would hit 63 % of the buckets.
        assert!(low.len() > 1_500, "stride {stride}: {} buckets of 4096", low.len());
        assert!(high.len() > 100, "stride {stride}: {} tags of 128", high.len());
    }
}

#[test]
fn pairs_differ_in_both_parts() {
    let pairs: BTreeSet<u64> =
        (0..100u64).flat_map(|a| (0..100u64).map(move |b| FixedState.hash_one((a, b)))).collect();
    assert_eq!(pairs.len(), 10_000);
}
