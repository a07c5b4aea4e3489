//! Orders are carried out only for the region that placement had in mind.

#![allow(clippy::unwrap_used)]

use quorate_proto::wire::metapb::RegionEpoch;
use quorate_proto::wire::placement::order::Step;
use quorate_proto::wire::placement::{self as wire, SplitStep, TransferLeaderStep};
use quorate_proto::{NodeId, StoreId};

use super::Order;
use crate::config::LimitsConfig;
use crate::testing::{LEFT, RIGHT, TestStore};

fn order(step: Step) -> wire::Order {
    wire::Order { operator_id: 1, reason: "test".to_owned(), step: Some(step) }
}

fn transfer(region: u64, version: u64, to_store: u64) -> wire::Order {
    let epoch = Some(RegionEpoch { conf_ver: 1, version });
    order(Step::TransferLeader(TransferLeaderStep { region_id: region, epoch, to_store }))
}

fn split(region: u64, keys: &[&'static str]) -> wire::Order {
    let epoch = Some(RegionEpoch { conf_ver: 1, version: 1 });
    let keys = keys.iter().map(|key| key.as_bytes().into()).collect();
    order(Step::Split(SplitStep { region_id: region, epoch, keys }))
}

#[tokio::test]
async fn an_order_is_checked_against_what_is_here() {
    let store = TestStore::new(LimitsConfig::default());
    store.follow(RIGHT, StoreId(2));
    let check = |order| Order::check(order, &store.directory);

    let fine = Order::TransferLeader { region: LEFT, to: NodeId(3) };
    assert_eq!(check(transfer(1, 1, 3)), Ok(fine));
    assert!(check(transfer(1, 2, 3)).unwrap_err().contains("epoch"));
    assert!(check(transfer(1, 1, 9)).unwrap_err().contains("no replica on s9"));
    assert!(check(transfer(2, 1, 3)).unwrap_err().contains("led by another store"));
    assert!(check(transfer(7, 1, 3)).unwrap_err().contains("not on this store"));

    let keys = vec!["b".into(), "c".into()];
    assert_eq!(check(split(1, &["b", "c"])), Ok(Order::Split { region: LEFT, keys }));
    assert_eq!(check(split(1, &[])), Ok(Order::Split { region: LEFT, keys: Vec::new() }));
    assert!(check(split(1, &["b", "z"])).unwrap_err().contains("strictly inside"));
    let unknown = wire::Order { operator_id: 1, reason: String::new(), step: None };
    assert!(check(unknown).unwrap_err().contains("does not know"));
}
