//! A snapshot that takes long is seen on its way, and its replica is waited for.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::wire::placement as wire;
use quorate_proto::{Role, StoreId};
use quorate_tests::process::{Cluster, Shape, eventually};

use crate::RECOVERY;

/// A learner that does not get on for so long is stale: shorter than the snapshot takes.
const STALL_MS: u64 = 4_000;
/// What the snapshot has, at 1 MiB a second.
const MIB: u64 = 12;
/// How long it may take on a machine with other work.
const LONG: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_takes_longer_than_the_stall_limit_is_seen_and_waited_for() {
    let shape = Shape::default().store_flag("--snapshot-send-mib-per-sec=1");
    let mut cluster = Cluster::start(shape).await;
    let placement = cluster.placement().await;
    for name in ["balance-region", "balance-leader", "hot-region"] {
        placement.set_scheduler(name, true).await.unwrap();
    }
    let stall = vec![("lifecycle.stall_ms".to_owned(), STALL_MS.to_string())];
    placement.change_settings(stall).await.unwrap();
    let client = cluster.client().await;
    for n in 0..MIB * 4 {
        let value = vec![n as u8; 256 << 10];
        client.put(format!("a{n:04}"), value).await.unwrap();
    }
    let three = cluster.store_ids();
    let fourth = cluster.join_store(&["--snapshot-send-mib-per-sec=1"]);
    let region = placement.get_region(Bytes::from_static(b"a")).await.unwrap().region;
    let follower = {
        let info = placement.get_region(Bytes::from_static(b"a")).await.unwrap();
        let leader = info.leader.map(|leader| leader.store);
        three.iter().copied().find(|store| Some(*store) != leader).unwrap()
    };
    let request = wire::ChangeReplicaRequest {
        region_id: region.id.0,
        add_store_id: fourth.0,
        remove_store_id: follower.0,
        analytics: false,
    };
    let id = eventually("the move begins", RECOVERY, || async {
        placement.change_replica(request).await.map_err(|error| error.to_string())
    })
    .await;

    let on_its_way = |told: &wire::ExplainRegionResponse| {
        let is_there = |replica: &&wire::ReplicaStatus| {
            replica.peer.as_ref().is_some_and(|peer| StoreId(peer.store_id) == fourth)
        };
        told.replicas.iter().find(is_there).cloned()
    };
    let seen = eventually("some of the snapshot is there", LONG, || async {
        let told = placement.explain_region(region.id).await.map_err(|error| error.to_string())?;
        let replica = on_its_way(&told).ok_or("no replica yet")?;
        let (sent, all) = (replica.snapshot_sent_bytes, replica.snapshot_total_bytes);
        let seen = sent > 0 && sent < all && replica.pending;
        if seen { Ok(replica) } else { Err(format!("{replica:?}")) }
    })
    .await;
    assert!(seen.snapshot_total_bytes > (MIB - 1) << 20, "{seen:?}");
    let listed = cluster.quorate(&["region", "snapshot-info", &region.id.0.to_string()]);
    assert!(listed.with_code(0).stdout.contains(&fourth.to_string()), "it is listed");

    let ended = eventually("the move has ended", LONG, || async {
        let told = placement.operators(id, true).await.map_err(|error| error.to_string())?;
        let one = told.first().cloned().ok_or("unknown")?;
        if one.ended.is_empty() { Err(format!("{one:?}")) } else { Ok(one) }
    })
    .await;
    assert_eq!(ended.ended, "done", "{ended:?}");
    let moved = placement.get_region(Bytes::from_static(b"a")).await.unwrap().region;
    assert!(moved.peer_on(fourth).is_some_and(|peer| peer.role == Role::Voter), "{moved:?}");

    let mut events = placement.events(wire::EventsRequest::default()).await.unwrap();
    let mut told = Vec::new();
    while let Some(event) = events.message().await.unwrap() {
        told.push((event.kind, event.text, event.at_ms));
    }
    let member = format!("{} {fourth} ", region.id);
    let at = |kind: &str| {
        let mut of = told.iter().filter(|(is, text, _)| is == kind && text.starts_with(&member));
        of.next().map(|(.., at_ms)| *at_ms)
    };
    assert_eq!(at("member-stale"), None, "{told:#?}");
    let (joined, ready) = (at("member-joined").unwrap(), at("member-ready").unwrap());
    assert!(ready - joined > STALL_MS, "it was no long snapshot: {told:#?}");
}
