//! Reads that may be old, while stores are killed: how old they are, and that they go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate_client::{Client, ReadOptions};
use quorate_tests::process::{Cluster, Shape, eventually};

use crate::RECOVERY;

/// What a writer had acknowledged, and when; the value is the number.
#[derive(Default)]
struct Written(Mutex<BTreeMap<u64, Instant>>);

impl Written {
    /// The newest number that was acknowledged before then.
    fn before(&self, then: Instant) -> u64 {
        let written = self.0.lock();
        written.iter().rev().find(|(_, at)| **at <= then).map_or(0, |(number, _)| *number)
    }
}

/// Writes ascending numbers to `k` until told to stop.
fn write(
    client: Client,
    written: Arc<Written>,
    stop: Arc<AtomicBool>,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        for number in 1u64.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            if client.put("k", number.to_string()).await.is_ok() {
                written.0.lock().insert(number, Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
}

/// Reads `k`, and checks that nothing is missing that was acknowledged `bound` before.
async fn read(client: &Client, written: &Written, bound: Duration) -> Result<u64, String> {
    let begun = Instant::now();
    let options =
        ReadOptions { deadline: Some(Duration::from_secs(3)), ..ReadOptions::stale(bound) };
    let value = client.get_with("k", options).await.map_err(|error| error.to_string())?;
    let text = value.map_or(String::new(), |value| String::from_utf8(value.to_vec()).unwrap());
    let number = text.parse().unwrap_or(0);
    let least = begun.checked_sub(bound).map_or(0, |then| written.before(then));
    assert!(number >= least, "read {number}, but {least} was there {bound:?} before");
    Ok(number)
}

/// Stale reads that all stores have served by themselves.
fn served(cluster: &Cluster) -> u64 {
    let of = |page: String| {
        let line = page.lines().find(|line| line.starts_with("quorate_store_stale_reads_total "));
        line.and_then(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).unwrap_or(0)
    };
    let pages = cluster.stores.iter().filter_map(|store| store.page("/metrics").ok());
    pages.map(|page| of(page.body)).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_reads_keep_their_bound_and_go_on_without_a_quorum() {
    let mut cluster = Cluster::start(Shape { placements: 1, ..Shape::default() }).await;
    let client = cluster.client().await;
    let (written, stop) = (Arc::new(Written::default()), Arc::new(AtomicBool::new(false)));
    let writer = write(cluster.client().await, Arc::clone(&written), Arc::clone(&stop));
    let second = Duration::from_secs(1);
    eventually("replicas serve", RECOVERY, || async {
        read(&client, &written, second).await?;
        if served(&cluster) >= 20 { Ok(()) } else { Err(format!("{} reads", served(&cluster))) }
    })
    .await;

    // One store of three is killed while writes and reads go on: no read is older than it may be.
    let killed = usize::from(cluster.store_ids()[0] == cluster.leaders().await[&b'k']);
    cluster.stores[1 - killed].kill();
    let (mut reads, until) = (0, Instant::now() + Duration::from_secs(5));
    while Instant::now() < until {
        reads += u32::from(read(&client, &written, second).await.is_ok());
    }
    assert!(reads >= 20, "{reads} reads in five seconds");
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    let last = written.before(Instant::now());

    // The group falls asleep; the beats of the two that are left vouch for it.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = served(&cluster);
    let two = Duration::from_secs(2);
    eventually("a sleeping group is fresh", RECOVERY, || async {
        assert_eq!(read(&client, &written, two).await?, last);
        if served(&cluster) > before { Ok(()) } else { Err("the leader answered".to_owned()) }
    })
    .await;

    // Another one is killed, so that no majority is left. Within the bound reads go on; a read
    // that may not be so old is refused, and a write of course.
    cluster.stores[killed].kill();
    let lost = Instant::now();
    let hour = Duration::from_secs(3_600);
    for _ in 0..20 {
        eventually("reads go on", RECOVERY, || async {
            let number = read(&client, &written, hour).await?;
            if number == last { Ok(()) } else { Err(format!("{number} instead of {last}")) }
        })
        .await;
    }
    tokio::time::sleep(Duration::from_secs(3).saturating_sub(lost.elapsed())).await;
    let refused = read(&client, &written, second).await.unwrap_err();
    assert!(refused.contains("old") || refused.contains("leader"), "{refused}");
    let shown = cluster.quorate(&["kv", "get", "k", "--read", "stale:3600000"]).with_code(0);
    assert_eq!(shown.stdout.trim(), last.to_string());
    let wrong = cluster.quorate(&["kv", "get", "k", "--read", "anybody"]);
    wrong.refused(2, &["leader, follower, stale"]);
}
