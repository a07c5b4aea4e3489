//! Leaders are spread over the others when a store leaves.

use std::sync::Arc;
use std::time::Duration;

use quorate_proto::{NodeId, StoreId};
use tokio::time::Instant;

use super::{drain, hand_over, targets};
use crate::config::LimitsConfig;
use crate::testing::{LEFT, RIGHT, TestStore};

#[tokio::test]
async fn leaders_are_spread_over_the_other_stores() {
    let store = TestStore::new(LimitsConfig::default());
    let chosen = targets(&store.directory, 0);
    assert_eq!(chosen, [(LEFT, NodeId(2)), (RIGHT, NodeId(3))]);
    let next = targets(&store.directory, 1);
    assert_eq!(next, [(LEFT, NodeId(3)), (RIGHT, NodeId(2))], "another one in each round");
    store.follow(LEFT, StoreId(2));
    assert_eq!(targets(&store.directory, 0), [(RIGHT, NodeId(2))]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_nobody_takes_over_is_asked_for_again_and_then_left() {
    let store = TestStore::new(LimitsConfig::default());
    store.follow(LEFT, StoreId(2));
    let raft = Arc::clone(&store.raft);
    let deadline = Instant::now() + Duration::from_secs(10);
    assert_eq!(hand_over(&store.directory, raft.as_ref(), deadline).await, 1);
    let asked: Vec<NodeId> = raft.transfers.lock().iter().map(|(_, to)| *to).collect();
    assert_eq!(asked, [NodeId(2), NodeId(3), NodeId(2)]);

    store.follow(RIGHT, StoreId(3));
    assert_eq!(hand_over(&store.directory, raft.as_ref(), deadline).await, 0);
    assert!(drain(&store.serving, &store.metrics, deadline).await, "nothing is under way");
}
