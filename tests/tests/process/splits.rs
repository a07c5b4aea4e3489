//! A hundred splits while clients write: nothing is lost on the way from one region to the next.

use std::time::Duration;

use bytes::Bytes;
use quorate_tests::process::{Cluster, Load, LoadOptions, Shape, letter_key, letters};

use crate::{RECOVERY, all_letters, clients};

/// Splits of each letter.
const ROUNDS: u64 = 9;
/// Keys of the ledger between two splits.
const STEP: u64 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_splits_under_load() {
    let mut cluster = Cluster::start(Shape::default()).await;
    let all = all_letters();
    // No region but the first: the splits at letters are under load as well.
    let load = Load::start(&clients(&cluster).await, LoadOptions::default());
    load.progress(&all, 5, RECOVERY).await;
    let placement = cluster.placement().await;
    let begun = load.elapsed();
    let mut splits = letters().skip(1).count();
    cluster.spread().await;
    for round in 0..ROUNDS {
        // Into the middle of what was just written, where the next writes go as well.
        load.progress(&all, STEP, RECOVERY).await;
        let mut keys: Vec<Bytes> =
            letters().map(|letter| letter_key(letter, (round + 1) * STEP)).collect();
        // By the command for one of them.
        let typed = keys.pop().unwrap();
        splits += keys.len() + 1;
        cluster.split(&placement, keys).await;
        let typed = String::from_utf8(typed.to_vec()).unwrap();
        cluster.quorate(&["region", "split", &typed]).with_code(0);
    }
    let took = load.elapsed() - begun;
    load.progress(&all, 20, RECOVERY).await;
    let accounts = load.stop().await;
    let gap = accounts.longest_gap(&all, Duration::ZERO, accounts.lasted);
    println!("{splits} splits in {took:?}; longest gap {gap:?}");
    assert!(splits >= 100);
    accounts.check(&cluster.client().await, 1_000).await;
    // The first region and the sentinel are there beside those that were split off.
    assert_eq!(cluster.covering_regions().await.len(), splits + 2);
    cluster.healthy().await;
}
