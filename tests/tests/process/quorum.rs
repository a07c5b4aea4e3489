//! A cluster that has lost too many stores says so at once, and goes on when one is back.

use std::time::{Duration, Instant};

use quorate_client::{Error, ReadOptions};
use quorate_proto::StoreId;
use quorate_tests::process::{Cluster, Shape, eventually};

use crate::RECOVERY;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_writes_fail_fast_and_stale_reads_go_on() {
    let mut cluster = Cluster::start(Shape { placements: 1, ..Shape::default() }).await;
    let client = cluster.client().await;
    client.put("k", "1").await.unwrap();
    let ids = cluster.store_ids();
    // The one that leads has the write; the others may lack it yet.
    let leads = client.locate("k").await.unwrap().leader.store;
    let (kept, gone): (Vec<usize>, Vec<usize>) = (0..3).partition(|place| ids[*place] == leads);
    assert_eq!(kept.len(), 1, "{leads} of {ids:?}");
    gone.iter().for_each(|place| cluster.stores[*place].kill());

    // As soon as the store that is left has noticed, it says so: in words, and without a deadline
    // of ten seconds having to pass.
    let (refused, took) = eventually("a write is refused with the reason", RECOVERY, || async {
        let begun = Instant::now();
        match client.put("k", "2").await {
            Err(error @ Error::NoQuorum { .. }) => Ok((error, begun.elapsed())),
            other => Err(format!("{other:?} after {:?}", begun.elapsed())),
        }
    })
    .await;
    assert!(took < Duration::from_secs(5), "{refused} after {took:?}");
    let mut names: Vec<StoreId> = gone.iter().map(|place| ids[*place]).collect();
    names.sort_unstable();
    let silent = format!("2 of its 3 voters are silent ({}, {})", names[0], names[1]);
    assert!(refused.to_string().contains(&silent), "{refused}");
    cluster.quorate(&["kv", "put", "k", "2"]).refused(3, &[&silent, "start those stores again"]);
    cluster.quorate(&["kv", "get", "k"]).refused(3, &[&silent]);

    // What may be old is read on.
    let shown = cluster.quorate(&["kv", "get", "k", "--read", "stale:3600000"]).with_code(0);
    assert!(["1", "2"].contains(&shown.stdout.trim()), "{}", shown.stdout);
    let hour = ReadOptions::stale(Duration::from_secs(3_600));
    assert!(client.get_with("k", hour).await.unwrap().is_some());

    // One store more is a majority.
    cluster.stores[gone[0]].start();
    eventually("writes go on", RECOVERY, || async {
        client.put("k", "3").await.map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(client.get("k").await.unwrap().as_deref(), Some(&b"3"[..]));
}
