//! What every process tells over HTTP, and what a client of gRPC health is told.

use std::collections::BTreeSet;

use quorate_tests::process::{Cluster, Shape, eventually};

use crate::RECOVERY;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_process_tells_how_it_is() {
    let cluster = Cluster::start(Shape::small()).await;
    let client = cluster.client().await;
    client.put("a", "b").await.unwrap();
    assert_eq!(client.get("a").await.unwrap().as_deref(), Some(&b"b"[..]));

    let placement = cluster.placements[0].health().unwrap();
    assert_eq!((&placement["id"], &placement["role"]), (&1.into(), &"leader".into()));
    for number in ["term", "committed", "applied", "regions", "cluster_id"] {
        assert!(placement[number].as_u64().is_some_and(|number| number > 0), "{placement}");
    }
    let store = cluster.stores[0].health().unwrap();
    assert_eq!((&store["role"], &store["state"]), (&"store".into(), &"serving".into()));
    assert_eq!((&store["regions"], &store["leaders"]), (&2.into(), &2.into()));
    assert_eq!(store["cluster_id"], placement["cluster_id"]);
    let regions = cluster.stores[0].page("/health?regions=1").unwrap();
    let regions: serde_json::Value = serde_json::from_str(&regions.body).unwrap();
    for region in regions["region_list"].as_array().unwrap() {
        assert_eq!(region["is_leader"], true);
        for number in ["id", "term", "commit_index", "applied_index", "version"] {
            assert!(region[number].as_u64().is_some_and(|number| number > 0), "{region}");
        }
    }

    for node in cluster.placements.iter().chain(&cluster.stores) {
        assert_eq!(node.page("/ready").unwrap().status, 200, "{}", node.name);
        assert_eq!(node.page("/nowhere").unwrap().status, 404, "{}", node.name);
        let page = node.page("/metrics").unwrap();
        assert_eq!(page.status, 200);
        let samples = page.body.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let mut count = 0;
        for sample in samples {
            let (name, value) = sample.rsplit_once(' ').unwrap_or_else(|| panic!("{sample}"));
            assert!(value.parse::<f64>().is_ok(), "{}: {sample}", node.name);
            assert!(name.starts_with("quorate_") || name.starts_with("process_"), "{sample}");
            count += 1;
        }
        assert!(count > 10, "{} shows {count} samples", node.name);
    }
    alerts_are_about_metrics_that_exist(&cluster);
    // What did not happen yet is there, at zero: growth from nothing is what alerts look for.
    let page = cluster.stores[0].page("/metrics").unwrap().body;
    let none = r#"quorate_store_requests_total{kind="raw_delete",outcome="ok"} 0"#;
    assert!(page.lines().any(|line| line == none), "{page}");
    eventually("events are counted by kind, and once", RECOVERY, || async {
        let page = cluster.placements[0].page("/metrics").map_err(|error| error.to_string())?;
        let has = |sample: &str| page.body.lines().any(|line| line == sample);
        let joined = has(r#"quorate_placement_events_total{kind="store-joined"} 1"#);
        let partition = has(r#"quorate_placement_events_total{kind="partition-found"} 0"#);
        let memory = page.body.contains("\nprocess_resident_memory_bytes ");
        if joined && partition && memory { Ok(()) } else { Err(page.body) }
    })
    .await;
    let metrics = cluster.stores[0].page("/metrics").unwrap().body;
    let leaders = metrics.lines().find(|line| line.starts_with("quorate_store_leaders"));
    assert_eq!(leaders, Some("quorate_store_leaders 2"));
}

/// Every metric that a ready rule names is on the page of some process.
fn alerts_are_about_metrics_that_exist(cluster: &Cluster) {
    let nodes = cluster.placements.iter().chain(&cluster.stores);
    let pages: String = nodes.map(|node| node.page("/metrics").unwrap().body).collect();
    let names: BTreeSet<&str> =
        pages.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    let rules = include_str!("../../../docs/prometheus-rules.yml");
    let mut checked = 0;
    let part_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for word in rules.split(|c: char| !part_of_name(c)) {
        if word.starts_with("quorate_") || word.starts_with("process_") {
            assert!(names.contains(word), "no process has the metric {word}");
            checked += 1;
        }
    }
    assert!(checked >= 10, "only {checked} metrics found in the rules");
}
