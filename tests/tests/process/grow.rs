//! Placement grows from one process to three while a cluster serves, and loses the first.

use std::time::Duration;

use quorate_tests::process::{Cluster, Node, Shape, eventually, free_pair};
use serde_json::Value;

use crate::RECOVERY;

/// A newcomer syncs, waits for its partner and is promoted within seconds; this machine may be slow.
const GROWN: Duration = Duration::from_secs(90);

/// The members of placement as the program lists them: name and state.
fn members(cluster: &Cluster, through: &str) -> Result<Vec<(String, String)>, String> {
    let given = format!("--placement={through}");
    let ran = cluster.quorate(&["member", "list", "placement", "-o", "json", &given]);
    if ran.code != 0 {
        return Err(ran.stderr);
    }
    let rows: Value = serde_json::from_str(&ran.stdout).map_err(|error| error.to_string())?;
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let rows = rows.as_array().ok_or_else(|| format!("no list: {}", ran.stdout))?;
    Ok(rows.iter().map(|row| (text(row, "member"), text(row, "state"))).collect())
}

fn all_active(members: &[(String, String)], count: usize) -> Result<(), String> {
    let active = members.iter().filter(|(_, state)| state == "Active").count();
    match active == count && members.len() == count {
        true => Ok(()),
        false => Err(format!("{members:?}")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_placement_member_becomes_three_and_the_first_may_die() {
    let mut cluster = Cluster::start(Shape { placements: 1, ..Shape::default() }).await;
    let client = cluster.client().await;
    client.put("a/before", "one member").await.unwrap();
    let first = cluster.placements[0].address.clone();
    for number in 2..=3 {
        let flags = vec![format!("--join={first}")];
        let mut node = Node::new(cluster.home(), "placement", number, flags);
        node.start();
        cluster.placements.push(node);
    }
    eventually("three members are active", GROWN, || async {
        all_active(&members(&cluster, &first)?, 3)
    })
    .await;
    for store in &cluster.stores {
        // The store was told of the first member only.
        eventually("the store learns of the new members", RECOVERY, || async {
            let learnt = store.log_text().matches("learnt of a placement member").count();
            (learnt >= 2).then_some(()).ok_or_else(|| format!("{learnt} are learnt"))
        })
        .await;
    }
    cluster.placements[0].kill();
    let second = cluster.placements[1].address.clone();
    eventually("the others list the members", GROWN, || async {
        all_active(&members(&cluster, &second)?, 3)
    })
    .await;
    eventually("the client goes on", RECOVERY, || async {
        client.put("a/after", "two of three").await.map_err(|error| error.to_string())
    })
    .await;
    let fresh = cluster.client().await;
    assert_eq!(fresh.get("a/before").await.unwrap().as_deref(), Some(&b"one member"[..]));
    assert_eq!(fresh.get("a/after").await.unwrap().as_deref(), Some(&b"two of three"[..]));
    // A store that starts anew was only ever given the address of the member that is gone.
    let all: Vec<String> = cluster.placements.iter().map(|node| node.address.clone()).collect();
    eventually("the store keeps the members", RECOVERY, || async {
        let log = cluster.stores[0].log_text();
        let kept = log.lines().any(|line| {
            line.contains("keeps the placement members") && all.iter().all(|a| line.contains(a))
        });
        kept.then_some(()).ok_or_else(|| "not yet".to_owned())
    })
    .await;
    cluster.stores[0].kill();
    cluster.stores[0].start();
    eventually("the store reports again", RECOVERY, || async {
        let page = cluster.stores[0].page("/metrics").map_err(|error| error.to_string())?;
        let reports = page.body.lines().find_map(|line| {
            line.strip_prefix("quorate_store_reports_total ")?.trim().parse::<u64>().ok()
        });
        // Counted only once placement has let it join.
        reports.filter(|count| *count > 0).map(|_| ()).ok_or_else(|| format!("{reports:?}"))
    })
    .await;
    // Only the leader that stores report to can say so.
    cluster.placements[0].start();
    cluster.healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_placement_member_that_joined_is_started_at_another_address() {
    let mut cluster = Cluster::start(Shape { placements: 1, ..Shape::default() }).await;
    let client = cluster.client().await;
    let first = cluster.placements[0].address.clone();
    for number in 2..=3 {
        let mut node =
            Node::new(cluster.home(), "placement", number, vec![format!("--join={first}")]);
        node.start();
        cluster.placements.push(node);
    }
    eventually("three members are active", GROWN, || async {
        all_active(&members(&cluster, &first)?, 3)
    })
    .await;
    let moving = &mut cluster.placements[2];
    moving.terminate();
    moving.ended(Duration::from_secs(60));
    let (from, to) = (moving.address.clone(), free_pair().0);
    moving.replace_flag(&format!("--listen={to}"));
    moving.address.clone_from(&to);
    moving.start();
    moving.ready(GROWN);
    let placement = cluster.placement().await;
    let addresses = || async {
        let status = placement.status().await.map_err(|error| error.to_string())?;
        Ok::<_, String>(status.members.into_iter().map(|member| member.address).collect::<Vec<_>>())
    };
    eventually("the group knows it there", GROWN, || async {
        let known = addresses().await?;
        let moved = known.len() == 3 && known.contains(&to) && !known.contains(&from);
        moved.then_some(()).ok_or_else(|| format!("{known:?}"))
    })
    .await;
    // Without the first one, the one that moved is needed, and hears the other.
    cluster.placements[0].kill();
    eventually("the other two serve", GROWN, || async { all_active(&members(&cluster, &to)?, 3) })
        .await;
    client.put("a/moved", "two of three").await.unwrap();
    // Where it is known it asks nobody when it starts again.
    cluster.placements[2].kill();
    cluster.placements[2].start();
    cluster.placements[2].ready(GROWN);
    let asked = cluster.placements[2].log_text().matches("asks the group to know it there").count();
    assert_eq!(asked, 1);
    cluster.placements[0].start();
    cluster.healthy().await;
}
