//! Orders are carried out only for the region that placement had in mind.

#![allow(clippy::unwrap_used)]

use quorate_proto::wire::metapb::RegionEpoch;
use quorate_proto::wire::placement::order::Step;
use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::node::clock;
use quorate_consensus::shard::MembersRefusal;
use quorate_consensus::view::{PeerProgress, Replication};
use quorate_proto::wire::placement::change_peers_step::Change;
use quorate_proto::wire::placement::{
    self as wire, AddLearner, ChangePeersStep, DestroyPeerStep, EnterJoint, LeaveJoint,
    RemoveLearner, SplitStep, TransferLeaderStep,
};
use quorate_proto::{Epoch, LogIndex, NodeId, Peer, PeerId, Role, StoreId};

use super::{Dropped, Order, Orders};
use crate::config::LimitsConfig;
use crate::core::peers::PeersChange;
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

fn change(region: u64, conf_ver: u64, change: Change) -> wire::Order {
    let epoch = Some(RegionEpoch { conf_ver, version: 1 });
    let change = Some(change);
    order(Step::ChangePeers(ChangePeersStep { region_id: region, epoch, change }))
}

/// In words.
fn check(store: &TestStore, order: wire::Order) -> Result<Order, String> {
    Order::check(order, &store.directory, 0).map_err(|dropped| match dropped {
        Dropped::Overtaken(why) => format!("overtaken: {why}"),
        Dropped::Refused(why) => format!("refused: {why}"),
    })
}

#[tokio::test]
async fn an_order_is_checked_against_what_is_here() {
    let store = TestStore::new(LimitsConfig::default());
    store.follow(RIGHT, StoreId(2));
    let check = |order| check(&store, order);

    let fine = Order::TransferLeader { region: LEFT, to: NodeId(3) };
    assert_eq!(check(transfer(1, 1, 3)), Ok(fine));
    let dropped = |order| check(order).unwrap_err();
    assert_eq!(dropped(transfer(1, 2, 3)), "overtaken: r1 has another epoch by now");
    assert_eq!(dropped(transfer(1, 1, 9)), "refused: r1 has no replica on s9");
    assert_eq!(dropped(transfer(2, 1, 3)), "overtaken: r2 is led by another store");
    assert_eq!(dropped(transfer(7, 1, 3)), "overtaken: r7 is not on this store");

    let keys = vec!["b".into(), "c".into()];
    assert_eq!(check(split(1, &["b", "c"])), Ok(Order::Split { region: LEFT, keys }));
    assert_eq!(check(split(1, &[])), Ok(Order::Split { region: LEFT, keys: Vec::new() }));
    assert!(dropped(split(1, &["b", "z"])).contains("strictly inside"));
    let unknown = wire::Order { operator_id: 1, reason: String::new(), step: None };
    assert!(dropped(unknown).contains("does not know"));
}

#[tokio::test]
async fn leadership_goes_to_voters_that_have_the_log() {
    let store = TestStore::new(LimitsConfig::default());
    let view = store.directory.get(LEFT).unwrap().view().clone();
    let peer = |peer, matched, silent_since| PeerProgress {
        peer: PeerId(peer),
        matched: LogIndex(matched),
        applied: None,
        snapshot: false,
        silent_since,
    };
    let view_of = |peers| Replication { last: LogIndex(10_000), committed: LogIndex(9_999), peers };
    let peers = vec![peer(12, 8_976, None), peer(13, 8_975, None)];
    view.set_replication(Some(view_of(peers)));
    assert!(check(&store, transfer(1, 1, 2)).is_ok());
    let why = check(&store, transfer(1, 1, 3)).unwrap_err();
    assert_eq!(why, "refused: p13 of r1 cannot take leadership over: it is 1025 entries behind");
    let peers = vec![peer(12, 10_000, Some(clock::now())), peer(13, 10_000, None)];
    view.set_replication(Some(view_of(peers)));
    let why = check(&store, transfer(1, 1, 2)).unwrap_err();
    assert_eq!(why, "refused: p12 of r1 cannot take leadership over: it is silent");
    let applied = |id, at| PeerProgress { applied: Some(LogIndex(at)), ..peer(id, 10_000, None) };
    view.set_replication(Some(view_of(vec![applied(12, 8_975), applied(13, 8_974)])));
    assert!(check(&store, transfer(1, 1, 2)).is_ok());
    let why = check(&store, transfer(1, 1, 3)).unwrap_err();
    assert!(why.ends_with("it has the log but is 1025 entries behind in applying"), "{why}");
}

fn joint(promote: &[u64], demote: &[u64]) -> Change {
    Change::EnterJoint(EnterJoint { promote: promote.to_vec(), demote: demote.to_vec() })
}

fn members(order: Result<Order, String>) -> String {
    let Ok(Order::ChangePeers { change: PeersChange { members, .. }, .. }) = order else {
        panic!("{order:?}");
    };
    let word = |member: &quorate_consensus::shard::Member| {
        let role = match member.role {
            Role::Voter => "",
            Role::Learner => "l",
            Role::IncomingVoter => "i",
            Role::DemotingVoter => "d",
        };
        format!("{}@{}{role}", member.peer, member.node.0)
    };
    members.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_replica_is_moved_step_by_step() {
    let store = TestStore::new(LimitsConfig::default());
    let apply = |order: wire::Order| {
        let orders = orders(&store);
        let region = LEFT;
        let Ok(Order::ChangePeers { change, .. }) = check(&store, order) else { panic!() };
        async move { orders.change_peers(1, region, change).await }
    };
    let add = |store_id, peer_id| Change::AddLearner(AddLearner { store_id, peer_id });
    let remove = |peer_id| Change::RemoveLearner(RemoveLearner { peer_id });

    // Five steps: a learner joins on store 4, swaps with the voter on store 3, which then goes.
    assert_eq!(members(check(&store, change(1, 1, add(4, 14)))), "p11@1 p12@2 p13@3 p14@4l");
    let refused = |order| check(&store, order).unwrap_err();
    assert!(refused(change(1, 1, add(3, 14))).contains("each store has one replica"));
    assert!(refused(change(1, 1, add(0, 14))).contains("names no store"));
    assert!(refused(change(1, 1, joint(&[14], &[13]))).contains("p14 is no replica of r1"));
    assert!(refused(change(1, 1, remove(13))).contains("p13 of r1 is a voter"));
    assert!(refused(change(1, 1, Change::LeaveJoint(LeaveJoint {}))).contains("no joint"));
    apply(change(1, 1, add(4, 14))).await;

    assert!(check(&store, change(1, 1, add(4, 14))).unwrap_err().starts_with("overtaken"));
    assert!(refused(change(1, 2, joint(&[14], &[]))).contains("4 voters"));
    apply(change(1, 2, joint(&[14], &[13]))).await;
    let region = store.directory.get(LEFT).unwrap().region().unwrap();
    assert_eq!(region.epoch, Epoch { conf_ver: 3, version: 1 });
    assert!(refused(change(1, 3, add(5, 15))).contains("leave it first"));
    apply(change(1, 3, Change::LeaveJoint(LeaveJoint {}))).await;
    apply(change(1, 4, remove(13))).await;

    let region = store.directory.get(LEFT).unwrap().region().unwrap();
    let voter = |id, store| Peer { id: PeerId(id), store: StoreId(store), role: Role::Voter };
    assert_eq!(region.peers, [voter(11, 1), voter(12, 2), voter(14, 4)]);
    assert_eq!(region.epoch, Epoch { conf_ver: 5, version: 1 });
    assert!(store.raft.transfers.lock().is_empty());
}

fn orders(store: &TestStore) -> Orders {
    Orders {
        serving: store.serving.clone(),
        raft: store.raft.clone(),
        time: Arc::default(),
        nudge: Arc::default(),
        splits: tokio::sync::mpsc::channel(1).0,
    }
}

#[tokio::test]
async fn a_leader_on_its_way_out_hands_over_first() {
    let store = TestStore::new(LimitsConfig::default());
    let out = change(1, 1, joint(&[], &[11, 12]));
    assert_eq!(check(&store, out), Ok(Order::TransferLeader { region: LEFT, to: NodeId(3) }));

    // In a joint configuration that it leads itself: to the newcomer, which has most of the log.
    let Ok(Order::ChangePeers { change: swap, .. }) =
        check(&store, change(1, 1, Change::AddLearner(AddLearner { store_id: 4, peer_id: 14 })))
    else {
        panic!()
    };
    orders(&store).change_peers(1, LEFT, swap).await;
    store.follow(LEFT, StoreId(2));
    let local = store.directory.get(LEFT).unwrap();
    let refused = check(&store, change(1, 2, joint(&[14], &[11])));
    assert!(refused.unwrap_err().contains("led by another store"));
    store.lead(LEFT);
    let peer = |peer, matched| PeerProgress {
        peer: PeerId(peer),
        matched: LogIndex(matched),
        applied: None,
        snapshot: false,
        silent_since: None,
    };
    let peers = vec![peer(12, 90), peer(13, 99), peer(14, 100)];
    local.view().set_replication(Some(Replication {
        last: LogIndex(100),
        committed: LogIndex(100),
        peers,
    }));
    let swap = check(&store, change(1, 2, joint(&[14], &[11])));
    assert_eq!(swap, Ok(Order::TransferLeader { region: LEFT, to: NodeId(3) }));
}

#[tokio::test]
async fn what_raft_refuses_is_told_to_placement() {
    let store = TestStore::new(LimitsConfig::default());
    *store.raft.refusal.lock() = Some(MembersRefusal::Pending.into());
    let orders = orders(&store);
    let add = Change::AddLearner(AddLearner { store_id: 4, peer_id: 14 });
    orders.carry_out(wire::Order { operator_id: 9, ..change(1, 1, add) });
    orders.carry_out(wire::Order { operator_id: 8, ..split(1, &["z"]) });
    // Overtaken ones are not worth a word.
    orders.carry_out(wire::Order { operator_id: 7, ..transfer(1, 9, 3) });
    let mut told = Vec::new();
    while told.len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        told.extend(orders.nudge.refusals());
    }
    let words: Vec<(u64, u64, bool)> = told
        .iter()
        .map(|told| (told.operator_id, told.region_id, told.reason.contains("not applied yet")))
        .collect();
    assert_eq!(words, [(8, 1, false), (9, 1, true)]);
}

#[tokio::test]
async fn a_replica_is_removed_only_if_its_region_went_on_without_it() {
    let store = TestStore::new(LimitsConfig::default());
    let destroy = |region_id, peer_id, conf_ver| {
        let epoch = Some(RegionEpoch { conf_ver, version: 1 });
        order(Step::DestroyPeer(DestroyPeerStep { region_id, epoch, peer_id }))
    };
    let check = |order| check(&store, order);
    assert_eq!(check(destroy(1, 11, 2)), Ok(Order::Destroy { region: LEFT, peer: PeerId(11) }));
    assert!(check(destroy(1, 11, 1)).unwrap_err().starts_with("refused: p11 is in a conf"));
    assert!(check(destroy(1, 12, 2)).unwrap_err().starts_with("overtaken: p12 of r1 is not"));
    assert!(check(destroy(9, 91, 2)).unwrap_err().starts_with("overtaken"));
    orders(&store).carry_out(destroy(1, 11, 2));
    assert_eq!(*store.raft.destroyed.lock(), [LEFT]);
}
