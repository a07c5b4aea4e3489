//! Regions become one, by themselves and on request, while clients write and processes are killed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use quorate_client::PlacementClient;
use quorate_proto::RegionId;
use quorate_tests::process::{Cluster, Load, LoadOptions, Ran, Shape, eventually, letters, until};

use crate::{RECOVERY, all_letters, clients};

const RECORDS: usize = 12_000;
/// Of so many records one is kept.
const KEPT: usize = 40;
/// How long the last of the small regions may take to be merged.
const MERGED: Duration = Duration::from_secs(180);

fn key(number: usize) -> String {
    format!("record/{number:05}")
}

/// How many regions hold records.
async fn record_regions(placement: &PlacementClient) -> Result<usize, String> {
    let (from, to) = (Bytes::from_static(b"record/"), Bytes::from_static(b"record0"));
    let regions = placement.scan_regions(from, to, 10_000).await;
    regions.map(|regions| regions.len()).map_err(|error| error.to_string())
}

/// No operator is under way, and no region is stopped.
async fn settled(placement: &PlacementClient) -> Result<(), String> {
    let operators = placement.operators(0, false).await.map_err(|error| error.to_string())?;
    let merges = operators.iter().filter(|operator| operator.kind.contains("merge"));
    match merges.clone().count() {
        0 => Ok(()),
        _ => Err(format!("{:?}", merges.collect::<Vec<_>>())),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regions_that_were_emptied_are_merged_by_themselves() {
    let shape = Shape::default()
        .store_flag("--split-region-bytes=400000")
        .store_flag("--split-region-keys=1500")
        .store_flag("--split-check-interval-ms=100");
    let mut cluster = Cluster::start(shape).await;
    cluster.quorate(&["settings", "set", "merge.enabled=off"]).with_code(0);
    cluster.spread().await;
    let placement = cluster.placement().await;
    let mut file = String::new();
    for number in 0..RECORDS {
        // 7919 is prime to the count: every number once, far from its neighbours.
        let number = number * 7919 % RECORDS;
        writeln!(file, "{}\t{number}:{}", key(number), "v".repeat(40)).unwrap();
    }
    let path = cluster.home().join("records.tsv");
    std::fs::write(&path, file).unwrap();
    cluster.quorate(&["kv", "import", path.to_str().unwrap()]).with_code(0);
    let many = eventually("the records are split", MERGED, || async {
        let regions = record_regions(&placement).await?;
        if regions >= 8 { Ok(regions) } else { Err(format!("{regions} regions")) }
    })
    .await;

    let all = all_letters();
    let load = Load::start(&clients(&cluster).await, LoadOptions::default());
    let client = cluster.client().await;
    let gone: Vec<Bytes> =
        (0..RECORDS).filter(|number| number % KEPT != 0).map(|number| key(number).into()).collect();
    for page in gone.chunks(500) {
        client.batch_delete(page.to_vec()).await.unwrap();
    }
    // Well below what is split: a source, and three times that for both.
    for set in ["merge.max_keys=400", "merge.max_bytes=100000", "merge.min_age_ms=2000"] {
        cluster.quorate(&["settings", "set", set]).with_code(0);
    }
    cluster.quorate(&["settings", "set", "merge.enabled=on"]).with_code(0);
    // Whoever starts again measures its regions anew; merges begin meanwhile.
    for number in 0..cluster.stores.len() {
        load.progress(&all, 10, RECOVERY).await;
        cluster.stores[number].kill();
        load.progress(&all, 10, RECOVERY).await;
        cluster.stores[number].start();
        cluster.healthy().await;
        let leader = cluster.placement_leader().await;
        cluster.placements[leader].kill();
        load.progress(&all, 10, RECOVERY).await;
        cluster.placements[leader].start();
        cluster.healthy().await;
    }
    let few = eventually("the regions are merged", MERGED, || async {
        let regions = record_regions(&placement).await?;
        if regions <= 2 { Ok(regions) } else { Err(format!("{regions} regions")) }
    })
    .await;
    eventually("no merge is under way", MERGED, || settled(&placement)).await;
    println!("{many} regions became {few}");
    load.progress(&all, 20, RECOVERY).await;
    let accounts = load.stop().await;
    let gap = accounts.longest_gap(&all, Duration::ZERO, accounts.lasted);
    println!("longest gap {gap:?}");
    accounts.check(&client, 500).await;

    let mut found = BTreeMap::new();
    let mut start = Bytes::from_static(b"record/");
    loop {
        let page = client.scan(start.clone(), "record0", 1_000).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        start = [last.as_ref(), &[0]].concat().into();
        found.extend(page);
    }
    let kept: BTreeMap<Bytes, Bytes> = (0..RECORDS)
        .step_by(KEPT)
        .map(|number| (key(number).into(), format!("{number}:{}", "v".repeat(40)).into()))
        .collect();
    assert_eq!(found, kept);
    cluster.covering_regions().await;
    let status = cluster.healthy().await;
    assert_eq!(status.stopped, 0);
}

async fn region_of(placement: &PlacementClient, letter: u8) -> RegionId {
    let find = || async {
        let found = placement.get_region(Bytes::copy_from_slice(&[letter])).await;
        found.map(|info| info.region.id).map_err(|error| error.to_string())
    };
    eventually("the region of a letter is known", RECOVERY, find).await
}

/// Asks for a merge, which must be taken on: at once, or as soon as placement has heard that the
/// replicas of both are well. A process that was killed just before may still be behind.
#[track_caller]
fn merge(cluster: &Cluster, source: RegionId, into: RegionId, more: &[&str]) -> Ran {
    let (source, into) = (source.to_string(), into.to_string());
    let asked = [&["region", "merge", &source, "--into", &into], more].concat();
    until("the merge is taken on", RECOVERY, || {
        let ran = cluster.quorate(&asked);
        let is_refused = ran.code == 1 && ran.stderr.contains("merge_region refused");
        let waits = is_refused && ran.stderr.contains("merges wait until it is");
        if waits { Err(ran.stderr) } else { Ok(ran.with_code(0)) }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_merged_by_hand_while_processes_are_killed() {
    let mut cluster = Cluster::start(Shape::default()).await;
    cluster.spread().await;
    let all = all_letters();
    let load = Load::start(&clients(&cluster).await, LoadOptions::default());
    load.progress(&all, 20, RECOVERY).await;
    let placement = cluster.placement().await;
    let before = cluster.covering_regions().await.len();

    let sentinel = cluster.covering_regions().await.last().unwrap().region.id.to_string();
    let first = region_of(&placement, b'a').await.to_string();
    let refused = cluster.quorate(&["region", "merge", &sentinel]);
    refused.refused(1, &["the cluster's last region, which is never merged"]);
    let refused = cluster.quorate(&["region", "merge", &first, "--into", &first]);
    refused.refused(1, &["cannot be merged into itself"]);

    for (round, letter) in letters().skip(1).enumerate() {
        let taken = region_of(&placement, letter).await;
        let into = region_of(&placement, letter - 1).await;
        match round % 4 {
            // By the command, which waits.
            0 => {
                let merged = merge(&cluster, taken, into, &[]);
                assert_eq!(merged.stdout.trim(), into.to_string());
            }
            kind => {
                merge(&cluster, taken, into, &["--no-wait"]);
                match kind {
                    1 => {
                        let store = round % cluster.stores.len();
                        cluster.stores[store].kill();
                        load.progress(&all, 5, RECOVERY).await;
                        cluster.stores[store].start();
                    }
                    2 => {
                        let leader = cluster.placement_leader().await;
                        cluster.placements[leader].kill();
                        load.progress(&all, 5, RECOVERY).await;
                        cluster.placements[leader].start();
                    }
                    // Too late or in time: it ends whole either way.
                    _ => {
                        cluster.quorate(&["region", "merge", &taken.to_string(), "--cancel"]);
                    }
                }
                cluster.healthy().await;
                eventually("the merge has ended", MERGED, || settled(&placement)).await;
                // Rolled back, it is asked for again; at rest nothing stands in its way.
                eventually("the regions are one", MERGED, || async {
                    if region_of(&placement, letter).await == into {
                        return Ok(());
                    }
                    let begun = placement.merge_region(taken, Some(into)).await;
                    Err(format!("{begun:?}"))
                })
                .await;
            }
        }
        load.progress(&all, 5, RECOVERY).await;
    }
    eventually("no merge is under way", MERGED, || settled(&placement)).await;
    load.progress(&all, 20, RECOVERY).await;
    let accounts = load.stop().await;
    let gap = accounts.longest_gap(&all, Duration::ZERO, accounts.lasted);
    println!("longest gap {gap:?}");
    accounts.check(&cluster.client().await, 1_000).await;
    let after = cluster.covering_regions().await.len();
    assert_eq!(after, before - (letters().count() - 1));
    let events = cluster.quorate(&["events", "-o", "plain"]).with_code(0);
    assert!(events.stdout.contains("merged"), "{}", events.stdout);
    let status = cluster.healthy().await;
    assert_eq!(status.stopped, 0);
}
