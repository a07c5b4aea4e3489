//! Stores: joining, reporting, being told what to do.

use quorate_proto::wire::pdpb;
use quorate_proto::wire::placement as wire;
use tonic::Code;

use crate::support::{FakeStore, Member, alone, cluster_id, eventually, header, join_request};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_join_once_and_the_cluster_starts_when_enough_have() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = alone(folder.path());
    config.initial_stores = 3;
    let member = Member::start(config);
    member.ready().await;
    let mut client = member.placement();
    for number in 1..=2 {
        let joined = client.join(join_request(number)).await.unwrap().into_inner();
        assert_eq!(joined.store_id, number);
        assert!(!joined.bootstrapped);
        assert_eq!(u64::from(joined.missing_stores), 3 - number);
        assert!(joined.initial_regions.is_empty());
        // Asking again while waiting is the same store.
        let again = client.join(join_request(number)).await.unwrap().into_inner();
        assert_eq!(again, joined);
    }
    let third = client.join(join_request(3)).await.unwrap().into_inner();
    assert!(third.bootstrapped);
    assert_eq!((third.initial_regions.len(), third.missing_stores), (2, 0));
    assert!(third.initial_regions.iter().all(|region| region.peers.len() == 3));
    let first = client.join(join_request(1)).await.unwrap().into_inner();
    assert_eq!(first.initial_regions, third.initial_regions);
    let later = client.join(join_request(4)).await.unwrap().into_inner();
    assert!(later.bootstrapped);
    assert!(later.initial_regions.is_empty(), "it has no part in the first regions");
    assert_eq!(later.stores.len(), 4);

    let copied = wire::JoinRequest { store_id: 1, ..join_request(5) };
    let refused = client.join(copied).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert!(refused.message().contains("do not copy a store's folder"), "{refused}");
    let foreign = wire::JoinRequest { cluster_id: 1, ..join_request(5) };
    assert_eq!(client.join(foreign).await.unwrap_err().code(), Code::FailedPrecondition);
    let unknown = wire::JoinRequest { store_id: 50, ..join_request(5) };
    assert_eq!(client.join(unknown).await.unwrap_err().code(), Code::NotFound);
    let nameless = wire::JoinRequest { address: String::new(), ..join_request(5) };
    assert_eq!(client.join(nameless).await.unwrap_err().code(), Code::InvalidArgument);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_of_a_living_store_is_refused_until_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let member = Member::start(alone(folder.path()));
    member.ready().await;
    let store = FakeStore::start(member.placement(), join_request(1), true).await;
    let mut client = member.placement();
    let same = wire::JoinRequest { data_id: 99, ..join_request(1) };
    let refused = client.join(same.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert!(refused.message().contains("s1, which is alive"), "{refused}");
    drop(store);
    eventually("the address is free", async || client.join(same.clone()).await.is_ok()).await;
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn splits_on_request_go_to_the_leader_and_show_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let member = Member::start(alone(folder.path()));
    member.ready().await;
    let mut store = FakeStore::start(member.placement(), join_request(1), true).await;
    let cluster = store.joined.cluster_id;
    let obeying = tokio::spawn(async move {
        for _ in 0..2 {
            store.obey().await;
        }
        store
    });
    let mut client = member.placement();
    let keys = vec!["m".into(), "c".into()];
    let request = wire::SplitRegionRequest { keys: keys.clone(), region_id: 0 };
    let split = client.split_region(request.clone()).await.unwrap().into_inner();
    let starts: Vec<_> = split.regions.iter().map(|region| region.start_key.clone()).collect();
    assert_eq!(starts, ["c", "m"]);
    let mut pd = member.pd();
    let find = pdpb::GetRegionRequest { header: header(cluster), region_key: "d".into() };
    let found = pd.get_region(find).await.unwrap().into_inner().region.unwrap();
    assert_eq!(found, split.regions[0]);
    // Again: it is so already.
    let again = client.split_region(request).await.unwrap().into_inner();
    assert_eq!(again.regions, split.regions);

    let halve = wire::SplitRegionRequest { keys: Vec::new(), region_id: found.id };
    let parts = client.split_region(halve).await.unwrap().into_inner().regions;
    assert_eq!(parts.len(), 2);
    assert_eq!(parts[1].start_key, "half");
    let store = obeying.await.unwrap();
    assert_eq!(store.regions.len(), 5);
    let mut ids: Vec<u64> = store
        .regions
        .values()
        .flat_map(|(region, _)| region.peers.iter().map(|peer| peer.id).chain([region.id]))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 10, "every region and peer has an id of its own");

    for keys in [vec![], vec!["".into()], vec![vec![0xff, 0xff].into()]] {
        let request = wire::SplitRegionRequest { keys, region_id: 0 };
        let refused = client.split_region(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    let stale = store.joined.initial_regions[0].clone();
    let ask = wire::AskSplitRequest { cluster_id: cluster, region: Some(stale), count: 1 };
    assert_eq!(client.ask_split(ask).await.unwrap_err().code(), Code::FailedPrecondition);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_move_on_request_and_the_status_tells() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = alone(folder.path());
    config.initial_stores = 3;
    let member = Member::start(config);
    member.ready().await;
    let mut client = member.placement();
    for number in 1..=3 {
        client.join(join_request(number)).await.unwrap();
    }
    let mut first = FakeStore::start(member.placement(), join_request(1), true).await;
    let mut second = FakeStore::start(member.placement(), join_request(2), false).await;
    let region = first.joined.initial_regions[0].clone();
    let moving = tokio::spawn({
        let mut client = client.clone();
        let request = wire::TransferLeaderRequest { region_id: region.id, to_store: 2 };
        async move { client.transfer_leader(request).await }
    });
    match first.obey().await {
        wire::order::Step::TransferLeader(step) => {
            assert_eq!((step.region_id, step.to_store), (region.id, 2));
        }
        other @ (wire::order::Step::Split(_)
        | wire::order::Step::ChangePeers(_)
        | wire::order::Step::DestroyPeer(_)
        | wire::order::Step::PrepareMerge(_)
        | wire::order::Step::CommitMerge(_)
        | wire::order::Step::RollbackMerge(_)
        | wire::order::Step::RefuseMerge(_)) => panic!("{other:?}"),
    }
    second.regions.insert(region.id, (region.clone(), 7));
    second.report(&[region.id]).await;
    moving.await.unwrap().unwrap();

    eventually("the stores that report are up", async || {
        let status = client.status(wire::StatusRequest {}).await.unwrap().into_inner();
        let states: Vec<&str> = status.stores.iter().map(|store| store.state.as_str()).collect();
        assert_eq!((status.regions, status.leaderless <= 2, status.replicas), (2, true, 3));
        assert_eq!(status.members.len(), 1);
        assert!(status.members[0].leader && status.members[0].healthy);
        states == ["Up", "Up", "Joining"] && status.leaderless == 0
    })
    .await;
    let nowhere = wire::TransferLeaderRequest { region_id: region.id, to_store: 9 };
    let refused = client.transfer_leader(nowhere).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("s1, s2, s3"), "{refused}");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let member = Member::start(alone(folder.path()));
    member.ready().await;
    let mut client = member.placement();
    let id = cluster_id(&mut member.pd()).await;
    let report = wire::StoreReport { cluster_id: id, store_id: 1, ..Default::default() };
    let mut send = async |report: wire::StoreReport| {
        client.heartbeat(tokio_stream::iter([report])).await.unwrap_err().code()
    };
    assert_eq!(send(report.clone()).await, Code::NotFound);
    assert_eq!(send(wire::StoreReport::default()).await, Code::InvalidArgument);
    let foreign = wire::StoreReport { cluster_id: id + 1, ..report.clone() };
    assert_eq!(send(foreign).await, Code::FailedPrecondition);
    let empty = wire::RegionReport::default();
    let regionless = wire::StoreReport { regions: vec![empty], ..report };
    assert_eq!(send(regionless).await, Code::InvalidArgument);
    member.stop().await;
}
