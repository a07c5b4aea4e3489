//! The placement client: finding the leader and keeping to it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use quorate_client::{Error, PlacementClient, PlacementOptions};
use quorate_proto::{RegionId, StoreId, wire::placement as wire};

use crate::{
    placement,
    world::{CLUSTER, Server, Shared, World},
};

async fn connect(world: &World) -> PlacementClient {
    PlacementClient::connect(&world.endpoints(), PlacementOptions::default()).await.unwrap()
}

fn quick(deadline_ms: u64) -> PlacementOptions {
    PlacementOptions { deadline: Duration::from_millis(deadline_ms), ..PlacementOptions::default() }
}

#[tokio::test]
async fn questions_are_answered() {
    let world = World::with_members(&["g", "p"], 1);
    let placement = connect(&world).await;
    assert_eq!(placement.cluster_id(), CLUSTER);
    let found = placement.get_region("h").await.unwrap();
    assert_eq!((found.region.id, found.leader().unwrap().store), (RegionId(2), StoreId(2)));
    let by_id = placement.get_region_by_id(RegionId(3)).await.unwrap().unwrap();
    assert_eq!(by_id.region.range.start, "p");
    assert_eq!(placement.get_region_by_id(RegionId(99)).await.unwrap(), None);
    let ids = |found: Vec<quorate_client::RegionInfo>| -> Vec<u64> {
        found.iter().map(|info| info.region.id.0).collect()
    };
    assert_eq!(ids(placement.scan_regions("", "", 0).await.unwrap()), [1, 2, 3]);
    assert_eq!(ids(placement.scan_regions("h", "", 0).await.unwrap()), [2, 3]);
    assert_eq!(ids(placement.scan_regions("", "h", 0).await.unwrap()), [1, 2]);
    assert_eq!(ids(placement.scan_regions("", "", 1).await.unwrap()), [1]);
    assert_eq!(placement.get_all_stores().await.unwrap().len(), 3);
    assert_eq!(placement.get_store(StoreId(2)).await.unwrap().id, 2);
    let error = placement.get_store(StoreId(9)).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert_eq!(placement.members().await.unwrap().members.len(), 1);
    assert_eq!(placement.status().await.unwrap().regions, 3);
    let request = wire::SplitRegionRequest { keys: vec!["k".into()], region_id: 0 };
    assert_eq!(placement.split_region(request).await.unwrap().len(), 4);
    let ids = placement.ask_split(wire::AskSplitRequest::default()).await.unwrap();
    assert_eq!(ids.ids[0].region_id, 900);
    let error = placement.transfer_leader(RegionId(1), StoreId(9)).await.unwrap_err();
    assert!(error.to_string().contains("choose one of"), "{error}");
}

#[tokio::test]
async fn a_store_joins_and_reports() {
    let world = World::new(&[]);
    let placement = connect(&world).await;
    let joined = placement.join(wire::JoinRequest::default()).await.unwrap();
    assert_eq!((joined.cluster_id, joined.store_id), (CLUSTER, 4));
    let twice = wire::JoinRequest { store_id: 2, ..Default::default() };
    let error = placement.join(twice).await.unwrap_err();
    assert!(error.to_string().contains("s2 is in use"), "{error}");
    let (reports, outgoing) = tokio::sync::mpsc::channel(4);
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let mut orders = placement.heartbeat(outgoing).await.unwrap();
    for sequence in 1..=3 {
        let report = wire::StoreReport { sequence, ..Default::default() };
        reports.send(report).await.unwrap();
        assert_eq!(orders.message().await.unwrap().unwrap().sequence, sequence);
    }
}

#[tokio::test]
async fn the_leader_is_followed_by_its_hint_and_by_asking_around() {
    let mut world = World::with_members(&[], 3);
    // Only a follower's address is given: the others are learnt.
    world.state().member_leads = 2;
    let one = &world.endpoints()[..1];
    let placement = PlacementClient::connect(one, PlacementOptions::default()).await.unwrap();
    assert_eq!(placement.leader_address().unwrap(), world.endpoints()[2]);
    assert_eq!(placement.endpoints().len(), 3);
    // A transfer: the old leader answers with the hint.
    assert_eq!(placement.transfer_placement_leader(2).await.unwrap(), 2);
    placement.status().await.unwrap();
    assert_eq!(placement.leader_address().unwrap(), world.endpoints()[1]);
    // A kill: nobody is there to hint.
    world.members[1].kill();
    world.state().member_leads = 0;
    let began = Instant::now();
    placement.status().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(placement.leader_address().unwrap(), world.endpoints()[0]);
}

#[tokio::test]
async fn a_stream_finds_the_new_leader_at_the_second_attempt() {
    let world = World::with_members(&[], 3);
    let placement = connect(&world).await;
    world.state().member_leads = 1;
    let open = || placement.heartbeat(tokio_stream::pending());
    let error = open().await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    open().await.unwrap();
}

#[tokio::test]
async fn timestamps_increase_across_callers_and_leaders() {
    let mut world = World::with_members(&[], 3);
    let placement = connect(&world).await;
    let mut last = placement.timestamp().await.unwrap();
    for round in 0..6 {
        let many = join_all((0..100).map(|_| placement.timestamp())).await;
        let mut many: Vec<_> = many.into_iter().map(Result::unwrap).collect();
        many.sort_unstable();
        many.dedup();
        assert_eq!(many.len(), 100, "each is given once");
        assert!(many[0] > last && many[0].as_u64() > last.as_u64());
        last = many[99];
        match round {
            1 => world.state().member_leads = 1,
            3 => {
                world.members[1].kill();
                world.state().member_leads = 2;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_member_of_another_cluster_is_refused() {
    let world = World::new(&[]);
    let other = Shared::default();
    other.lock().unwrap().cluster_id = 5;
    let stranger = Server::start(|l| placement::serve(0, Arc::clone(&other), l));
    other.lock().unwrap().members = vec![stranger.address.to_string()];
    let mut endpoints = world.endpoints();
    endpoints.push(stranger.address.to_string());
    let error = PlacementClient::connect(&endpoints, quick(2_000)).await.err().unwrap();
    assert!(matches!(error, Error::WrongCluster { .. }), "{error}");
}

#[tokio::test]
async fn nobody_there_and_bad_addresses_are_said_clearly() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let error =
        PlacementClient::connect(std::slice::from_ref(&address), quick(200)).await.err().unwrap();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains(&address), "{error}");
    for bad in ["", "no port", "127.0.0.1"] {
        let error = PlacementClient::connect(&[bad.to_owned()], quick(200)).await.err().unwrap();
        assert!(matches!(error, Error::InvalidArgument(_)), "{bad}: {error}");
    }
    let error = PlacementClient::connect(&[], quick(200)).await.err().unwrap();
    assert!(error.to_string().contains("HOST:PORT"), "{error}");
}

#[tokio::test]
async fn a_cluster_that_is_starting_is_waited_for() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    drop(taken);
    let connecting = tokio::spawn({
        let address = address.clone();
        async move { PlacementClient::connect(&[address], quick(5_000)).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let state = Shared::default();
    state.lock().unwrap().members = vec![address.clone()];
    state.lock().unwrap().cluster_id = CLUSTER;
    let _server = Server::start_on(&address, |l| placement::serve(0, Arc::clone(&state), l));
    assert_eq!(connecting.await.unwrap().unwrap().cluster_id(), CLUSTER);
}
