//! What an operator types on a cluster of four stores, from explanations to a store that leaves.

use std::time::Duration;

use quorate_tests::process::{Cluster, Node, Shape, eventually, until};
use serde_json::Value;

use crate::RECOVERY;

/// How long a change may take on a machine with other work.
const CHANGE: Duration = Duration::from_secs(90);

fn json(cluster: &Cluster, arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.extend(["-o", "json"]);
    let ran = cluster.quorate(&all).with_code(0);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout))
}

/// The region of a key and the ids of the stores with and without a replica.
struct Place {
    region: String,
    leader: String,
    follower: String,
    fourth: String,
}

impl Place {
    fn of(cluster: &Cluster, key: &str) -> Place {
        let shown = json(cluster, &["region", "show", "--key", key]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let replicas = shown["replicas"].as_array().unwrap();
        let hosts: Vec<String> = replicas.iter().map(|replica| text(&replica["store"])).collect();
        let leader = text(&shown["leader"]);
        let stores = json(cluster, &["store", "list"]);
        let ids = stores.as_array().unwrap().iter().map(|store| text(&store["store"]));
        Place {
            region: text(&shown["region"]),
            follower: hosts.iter().find(|host| **host != leader).cloned().unwrap(),
            fourth: ids.into_iter().find(|id| !hosts.contains(id)).unwrap(),
            leader,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_types() {
    let cluster = Cluster::start(Shape { stores: 4, ..Shape::default() }).await;
    for name in ["balance-region", "balance-leader", "hot-region"] {
        cluster.quorate(&["scheduler", "pause", name]).with_code(0);
    }
    let schedulers = cluster.quorate(&["scheduler", "list"]).with_code(0).stdout;
    assert!(schedulers.contains("balance-region\tpaused"), "{schedulers}");
    assert!(schedulers.contains("replica-checker\trunning"), "{schedulers}");
    cluster.quorate(&["scheduler", "pause", "nobody"]).refused(1, &["no scheduler nobody"]);
    let client = cluster.client().await;
    client.put("a", "1").await.unwrap();

    settings(&cluster);
    replicas(&cluster).await;
    leaders(&cluster);
    a_store_leaves(&cluster);
    a_store_joins(&cluster);
    assert_eq!(client.get("a").await.unwrap().as_deref(), Some(&b"1"[..]));
}

fn settings(cluster: &Cluster) {
    let all = cluster.quorate(&["settings", "list"]).with_code(0).stdout;
    assert!(all.contains("lifecycle.pairing_ms\t120000\t120000\t"), "{all}");
    let set = ["settings", "set", "lifecycle.stable_ms=500", "store_limit.additions=500"];
    let changed = cluster.quorate(&set).with_code(0).stdout;
    assert!(changed.contains("lifecycle.stable_ms\t500\t2000\t"), "{changed}");
    assert_eq!(changed.lines().count(), 2, "only what was changed: {changed}");
    cluster.quorate(&["settings", "set", "replicas=4"]).refused(1, &["replicas", "1, 3, 5"]);
    cluster.quorate(&["settings", "set", "nothing=1"]).refused(1, &["no setting nothing"]);
}

async fn replicas(cluster: &Cluster) {
    let Place { region, follower, fourth, .. } = Place::of(cluster, "a");
    let ran = cluster.quorate(&["region", "move-replica", &region, &follower, &fourth]);
    let operator = ran.with_code(0).stdout.trim().to_owned();
    let shown = cluster.quorate(&["operator", "show", &operator, "-o", "table"]).with_code(0);
    assert!(shown.stdout.contains("move-replica"), "{}", shown.stdout);
    let twice = cluster.quorate(&["region", "move-replica", &region, &follower, &fourth]);
    assert!(twice.code == 0 || twice.code == 1, "taken or refused, in words: {twice:?}");
    until("the replica has moved", CHANGE, || {
        let peers = cluster.quorate(&["region", "peers", &region]).with_code(0).stdout;
        let (old, new) = (format!("\t{follower}\t"), format!("\t{fourth}\tvoter"));
        if peers.contains(&new) && !peers.contains(&old) { Ok(()) } else { Err(peers) }
    });
    let told = cluster.quorate(&["region", "explain", &region, "-o", "table"]).with_code(0).stdout;
    for words in ["voters     3 of 3", "STORE STATE", "DECISION"] {
        assert!(told.contains(words), "{words:?} is not in\n{told}");
    }
    let ended = json(cluster, &["operator", "list", "--ended"]);
    let moved = ended
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["operator"].as_u64() == operator.parse().ok());
    assert_eq!(moved.expect("it is remembered")["ended"], "done", "{ended}");

    // The store that gave it away takes a learner that stays one.
    let add = ["region", "add-replica", &region, &follower, "--learner"];
    eventually("a learner is taken", RECOVERY, || async {
        let ran = cluster.quorate(&add);
        if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
    })
    .await;
    let member = format!("{region}/{follower}");
    until("the learner stays one", CHANGE, || {
        let members = cluster.quorate(&["member", "list", &region]).with_code(0).stdout;
        let line = members.lines().find(|line| line.starts_with(&format!("{member}\t")));
        let kept = line.is_some_and(|line| line.contains("\tKeepAsLearner\tanalytics\t"));
        if kept { Ok(()) } else { Err(members) }
    });
    let read = cluster.quorate(&["kv", "get", "a", "--read", "learner"]).with_code(0);
    assert_eq!(read.stdout, "1\n");
    let events = cluster.quorate(&["events", "--limit", "1000"]).with_code(0).stdout;
    for kind in ["member-joined", "member-ready", "member-promoted"] {
        assert!(events.contains(&format!("\t{kind}\t{region} ")), "{kind} is not in\n{events}");
    }
    cluster.quorate(&["member", "remove", &member]).with_code(0);
    until("the learner is gone", CHANGE, || {
        let peers = cluster.quorate(&["region", "peers", &region]).with_code(0).stdout;
        if peers.lines().count() == 3 { Ok(()) } else { Err(peers) }
    });
    let gone = cluster.quorate(&["member", "promote", "r999999/s1"]);
    gone.refused(1, &["r999999"]);
    cluster.quorate(&["region", "explain", "999999"]).refused(1, &["r999999"]);
    cluster.quorate(&["operator", "cancel", &operator]).refused(1, &[&operator]);
    let member = cluster.quorate(&["member", "list", "placement"]).with_code(0).stdout;
    assert!(member.lines().count() == 3 && member.contains("placement/1\t"), "{member}");
}

fn leaders(cluster: &Cluster) {
    let Place { region, leader, follower, fourth } = Place::of(cluster, "a");
    cluster.quorate(&["region", "transfer-leader", &region, &follower]).with_code(0);
    until("another store leads", CHANGE, || {
        let shown = json(cluster, &["region", "show", &region]);
        if shown["leader"] == follower { Ok(()) } else { Err(shown.to_string()) }
    });
    assert_ne!(leader, follower);
    let refused = cluster.quorate(&["region", "transfer-leader", &region, &fourth]);
    refused.refused(1, &[&region, &fourth]);

    let leads = |status: &Value| {
        let members = status["placement"].as_array().unwrap().clone();
        members.into_iter().find(|one| one["role"] == "leader").map(|one| one["placement"].clone())
    };
    let before = leads(&json(cluster, &["status"])).expect("a member leads");
    let ran = cluster.quorate(&["placement", "transfer-leader"]).with_code(0);
    assert!(ran.stderr.contains("placement/"), "{}", ran.stderr);
    // Healthy again: until the stores have told the new leader what they lead, it is not.
    until("another member leads placement", CHANGE, || {
        let ran = cluster.quorate(&["status", "-o", "json"]);
        if ran.code != 0 {
            return Err(ran.stdout);
        }
        match leads(&serde_json::from_str(&ran.stdout).unwrap()) {
            Some(after) if after != before => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

fn a_store_leaves(cluster: &Cluster) {
    let Place { follower, .. } = Place::of(cluster, "a");
    cluster.quorate(&["scheduler", "resume", "balance-region"]).with_code(0);
    let replace = ["store", "replace", &follower, "--with", "s1"];
    let refused = cluster.quorate(&replace);
    assert_eq!(refused.code, 1, "{refused:?}");
    let left = cluster.quorate(&["store", "remove", &follower, "--watch"]).with_code(0);
    assert!(left.stderr.contains(&format!("{follower} is leaving")), "{}", left.stderr);
    assert!(left.stderr.contains(&format!("{follower} has left")), "{}", left.stderr);
    let others = json(cluster, &["store", "list"]);
    let other = others.as_array().unwrap().iter().find(|store| store["state"] == "up").unwrap();
    let other = other["store"].as_str().unwrap();
    cluster.quorate(&["store", "remove", other]).refused(1, &["cannot leave", "add a store first"]);
    cluster.quorate(&["store", "remove", other, "--cancel"]).refused(1, &["not leaving"]);
    cluster.quorate(&["store", "remove", &follower, "--cancel"]).refused(1, &["has left"]);
}

/// As on another machine: only placement's address is known.
fn a_store_joins(cluster: &Cluster) {
    let join = format!("--join={}", cluster.placement_addresses().join(","));
    let mut node = Node::new(cluster.home(), "store", 5, vec![join]);
    node.start();
    node.ready(RECOVERY);
    let said = until("the store says who it is", RECOVERY, || {
        let log = node.log_text();
        let line = log.lines().find(|line| line.starts_with("joined as s")).map(str::to_owned);
        line.ok_or(log)
    });
    assert!(said.contains("; "), "{said}");
    let stores = cluster.quorate(&["store", "list"]).with_code(0).stdout;
    assert!(stores.lines().any(|line| line.contains(&node.address)), "{stores}");
}
