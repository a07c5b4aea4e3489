//! A file loaded while regions split, with lines that are none.

use std::fmt::Write as _;

use quorate_tests::process::{Cluster, Shape};

const RECORDS: usize = 20_000;

/// Keys in no order, values of 40 to 240 bytes, and four bad lines; the records and the file.
fn lines() -> (Vec<(String, String)>, String) {
    let (mut records, mut file) = (Vec::new(), String::new());
    for number in 0..RECORDS {
        // 7919 is prime to the count: every number once, far from its neighbours.
        let key = format!("record/{:05}", number * 7919 % RECORDS);
        let value = format!("{number}:{}", "v".repeat(40 + number % 200));
        writeln!(file, "{key}\t{value}").unwrap();
        records.push((key, value));
        match number {
            10 => file.push_str("this line has no tab\n"),
            5_000 => file.push_str("\tno key\n"),
            10_000 => file.push_str("bad\\escape\tvalue\n"),
            15_000 => writeln!(file, "{}\ttoo long a key", "k".repeat(5_000)).unwrap(),
            _ => {}
        }
    }
    (records, file)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_lines_while_regions_split() {
    let shape = Shape::default()
        .store_flag("--split-region-bytes=400000")
        .store_flag("--split-check-interval-ms=100")
        // Bytes are known once they are in the memtable or in files: keys decide here.
        .store_flag("--split-region-keys=2000");
    let mut cluster = Cluster::start(shape).await;
    let (mut records, file) = lines();
    let path = cluster.home().join("records.tsv");
    std::fs::write(&path, file).unwrap();
    let path = path.to_str().unwrap().to_owned();

    let strict = cluster.quorate(&["kv", "import", &path, "--strict"]);
    strict.refused(1, &["line 12", "no TAB", "leave --strict out"]);

    let import = cluster.quorate(&["kv", "import", &path, "--verify", "-o", "json"]).with_code(2);
    let said: serde_json::Value = serde_json::from_str(&import.stdout).unwrap();
    assert_eq!(said["records"], RECORDS);
    assert_eq!(said["bad_lines"], 4);
    assert_eq!(said["verified"], RECORDS);
    for words in ["line 12: no TAB", "line 5003: the key is empty", "line 10004: key:"] {
        assert!(import.stderr.contains(words), "{words:?} is not in {}", import.stderr);
    }
    println!("{}", import.stdout.trim());

    // Every record once more, in the order of the keys and across all regions.
    let client = cluster.client().await;
    let mut found = Vec::new();
    let mut start = bytes::Bytes::from_static(b"record/");
    loop {
        let page = client.scan(start.clone(), "record0", 1_000).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        start = [last.as_ref(), &[0]].concat().into();
        found.extend(page);
    }
    records.sort();
    assert_eq!(found.len(), records.len());
    for ((key, value), (wanted_key, wanted_value)) in found.iter().zip(&records) {
        assert_eq!(
            (key.as_ref(), value.as_ref()),
            (wanted_key.as_bytes(), wanted_value.as_bytes())
        );
    }
    let regions = cluster.covering_regions().await.len();
    println!("{regions} regions");
    assert!(regions >= 8, "only {regions} regions: nothing has split");
    cluster.healthy().await;
}
