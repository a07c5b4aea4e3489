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

/// The sum of a metric over the stores that run.
fn metric(cluster: &Cluster, name: &str) -> u64 {
    let of = |page: String| {
        let sample = |line: &str| line.strip_prefix(name)?.trim().parse::<u64>().ok();
        page.lines().find_map(sample).unwrap_or(0)
    };
    let pages = cluster.stores.iter().filter_map(|store| store.page("/metrics").ok());
    pages.map(|page| of(page.body)).sum()
}

/// Stale reads that the stores have served by themselves.
fn served(cluster: &Cluster) -> u64 {
    metric(cluster, "quorate_store_stale_reads_total")
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
    let leader = cluster.leaders().await[&b'k'];
    let leads = cluster.store_ids().iter().position(|id| *id == leader).unwrap();
    cluster.stores[(leads + 1) % 3].kill();
    let (mut reads, until) = (0, Instant::now() + Duration::from_secs(5));
    while Instant::now() < until {
        reads += u32::from(read(&client, &written, second).await.is_ok());
    }
    assert!(reads >= 20, "{reads} reads in five seconds");
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    let last = written.before(Instant::now());

    // The group falls asleep; the beats of the two stores that are left vouch for it.
    eventually("all groups sleep", RECOVERY * 2, || async {
        let asleep = metric(&cluster, "quorate_store_regions_asleep");
        let all = metric(&cluster, "quorate_store_regions");
        if asleep == all { Ok(()) } else { Err(format!("{asleep} of {all}")) }
    })
    .await;
    let before = served(&cluster);
    eventually("a sleeping group is fresh", RECOVERY, || async {
        let number = read(&client, &written, second).await?;
        assert!(number >= last, "read {number} after {last}");
        if served(&cluster) > before { Ok(()) } else { Err("the leader answered".to_owned()) }
    })
    .await;

    // Another store is killed, so that no majority is left. Within the bound reads go on; a read
    // that may not be so old is not answered.
    cluster.stores[leads].kill();
    let hour = Duration::from_secs(3_600);
    for _ in 0..20 {
        eventually("reads go on", RECOVERY, || async {
            let number = read(&client, &written, hour).await?;
            assert!(number >= last, "read {number} after {last}");
            Ok(())
        })
        .await;
    }
    eventually("a read of the last second is refused", RECOVERY, || async {
        match read(&client, &written, second).await {
            Ok(number) => Err(format!("read {number}")),
            Err(_) => Ok(()),
        }
    })
    .await;
    // What the beats said before the second store was lost is remembered.
    let minute = read(&client, &written, Duration::from_secs(60)).await;
    assert!(minute.is_ok_and(|number| number >= last), "it was fresh less than a minute ago");
    let shown = cluster.quorate(&["kv", "get", "k", "--read", "stale:3600000"]).with_code(0);
    assert!(shown.stdout.trim().parse::<u64>().unwrap() >= last, "{}", shown.stdout);
    let scanned = cluster.quorate(&["kv", "scan", "--read", "stale:3600000"]).with_code(0);
    assert!(scanned.stdout.contains('k'), "{}", scanned.stdout);
    let wrong = cluster.quorate(&["kv", "get", "k", "--read", "anybody"]);
    wrong.refused(1, &["leader, follower, learner, stale"]);
}
