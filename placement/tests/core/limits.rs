//! Store limits: tokens, bursts, credit.

use std::time::Duration;

use quorate_placement::core::limit::{Burden, FULL_REGION_BYTES, LimitRates, Limits, cost};
use quorate_placement::core::operators::{Goal, ReplicaRole};
use quorate_proto::StoreId;

use crate::support::seconds;

const S1: StoreId = StoreId(1);
const S2: StoreId = StoreId(2);

fn limits(additions: f64) -> Limits {
    Limits::new(LimitRates { additions, ..LimitRates::default() })
}

fn add(to: StoreId) -> Goal {
    Goal::AddReplica { to, role: ReplicaRole::Standard }
}

#[test]
fn a_bucket_empties_and_fills_again() {
    let mut limits = limits(30.0);
    let tokens = |limits: &Limits, now| limits.tokens(S1, Burden::Addition, now);
    assert_eq!(tokens(&limits, seconds(0)), 5.0, "ten seconds' worth");
    let mut begun = 0;
    while tokens(&limits, seconds(0)) > 0.0 {
        limits.began(&add(S1), FULL_REGION_BYTES, seconds(0));
        begun += 1;
    }
    assert_eq!(begun, 5);
    assert_eq!(limits.tokens(S2, Burden::Addition, seconds(0)), 5.0, "each store has its own");
    assert!((tokens(&limits, seconds(3)) - 1.5).abs() < 1e-9);
    assert_eq!(tokens(&limits, seconds(60)), 5.0, "no more than it holds");
}

#[test]
fn in_a_minute_no_more_than_the_rate_and_the_burst_begin() {
    let mut limits = limits(15.0);
    let mut begun = 0;
    for tenth in 0..600 {
        let now = seconds(0) + Duration::from_millis(tenth * 100);
        if limits.tokens(S1, Burden::Addition, now) > 0.0 {
            limits.began(&add(S1), FULL_REGION_BYTES, now);
            begun += 1;
        }
    }
    assert!((15..=18).contains(&begun), "{begun}");
}

#[test]
fn small_regions_cost_their_part_and_large_ones_one_token() {
    assert_eq!(cost(0), 0.05);
    assert_eq!(cost(FULL_REGION_BYTES / 2), 0.5);
    assert_eq!(cost(10 * FULL_REGION_BYTES), 1.0);
}

#[test]
fn a_move_costs_both_stores_and_a_transfer_none() {
    let mut limits = Limits::new(LimitRates::default());
    let full = limits.tokens(S1, Burden::Removal, seconds(0));
    limits.began(&Goal::MoveReplica { from: S1, to: S2 }, FULL_REGION_BYTES, seconds(0));
    assert_eq!(limits.tokens(S1, Burden::Removal, seconds(0)), full - 1.0);
    assert_eq!(limits.tokens(S1, Burden::Addition, seconds(0)), full);
    assert_eq!(limits.tokens(S2, Burden::Addition, seconds(0)), full - 1.0);
    limits.began(&Goal::TransferLeader { from: S1, to: S2 }, FULL_REGION_BYTES, seconds(0));
    limits.began(&Goal::RemoveReplica { from: S2 }, 0, seconds(0));
    assert_eq!(limits.tokens(S2, Burden::Removal, seconds(0)), full - 0.05);
    assert_eq!(limits.tokens(S2, Burden::Addition, seconds(0)), full - 1.0);
}

#[test]
fn a_rate_of_zero_lets_nothing_begin() {
    let mut limits = limits(0.0);
    assert_eq!(limits.tokens(S1, Burden::Addition, seconds(9_999)), 0.0);
    limits.set_rates(LimitRates::default());
    assert!(limits.tokens(S1, Burden::Addition, seconds(9_999)) > 0.0);
}
