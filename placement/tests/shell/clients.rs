//! What a client of TiKV asks, in the order in which it does.

use quorate_proto::limits::SENTINEL_START;
use quorate_proto::wire::health::health_client::HealthClient;
use quorate_proto::wire::health::{HealthCheckRequest, health_check_response::ServingStatus};
use quorate_proto::wire::pdpb;
use tokio_stream::StreamExt as _;

use crate::support::{
    FakeStore, Member, alone, channel, cluster_id, eventually, header, join_request, page,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_starts_finds_its_regions_and_gets_timestamps() {
    let folder = tempfile::tempdir().unwrap();
    let member = Member::start(alone(folder.path()));
    member.ready().await;
    let mut pd = member.pd();

    let members = pd.get_members(pdpb::GetMembersRequest { header: None }).await.unwrap();
    let members = members.into_inner();
    let id = members.header.unwrap().cluster_id;
    assert!(id > 0);
    let leader = members.leader.unwrap();
    assert_eq!(leader.client_urls, [format!("http://{}", member.address)]);
    assert_eq!((leader.member_id, leader.name.as_str()), (1, "placement-1"));

    // No store has joined: said in the header, not left out.
    let request = pdpb::GetRegionRequest { header: header(id), region_key: "k".into() };
    let early = pd.get_region(request.clone()).await.unwrap().into_inner();
    let error = early.header.unwrap().error.unwrap();
    assert_eq!(error.r#type(), pdpb::ErrorType::NotBootstrapped);
    assert!(error.message.contains("1 more store"), "{}", error.message);

    let store = FakeStore::start(member.placement(), join_request(1), true).await;
    let found = pd.get_region(request.clone()).await.unwrap().into_inner();
    assert_eq!(found.header.unwrap().error, None);
    let region = found.region.unwrap();
    assert_eq!((region.start_key.as_ref(), region.end_key.as_ref()), (&b""[..], SENTINEL_START));
    assert_eq!(found.leader.unwrap().store_id, store.joined.store_id);

    let last = pdpb::GetRegionRequest { header: header(id), region_key: vec![0xff, 0xff].into() };
    let last = pd.get_region(last).await.unwrap().into_inner().region.unwrap();
    assert_eq!(last.start_key.as_ref(), SENTINEL_START);
    let before = pdpb::GetRegionRequest { header: header(id), region_key: last.start_key.clone() };
    let before = pd.get_prev_region(before).await.unwrap().into_inner().region.unwrap();
    assert_eq!(before.id, region.id);
    let by_id = pdpb::GetRegionByIdRequest { header: header(id), region_id: last.id };
    assert_eq!(pd.get_region_by_id(by_id).await.unwrap().into_inner().region.unwrap().id, last.id);

    let scan = pdpb::ScanRegionsRequest { header: header(id), ..Default::default() };
    let scanned = pd.scan_regions(scan).await.unwrap().into_inner();
    assert_eq!((scanned.regions.len(), scanned.region_metas.len()), (2, 2));
    let ranges = vec![pdpb::KeyRange::default(), pdpb::KeyRange::default()];
    let scan = pdpb::BatchScanRegionsRequest {
        header: header(id),
        ranges,
        contain_all_key_range: true,
        ..Default::default()
    };
    let scanned = pd.batch_scan_regions(scan).await.unwrap().into_inner();
    assert_eq!(scanned.header.unwrap().error, None);
    assert_eq!(scanned.regions.len(), 4);

    let ask = |store_id| pdpb::GetStoreRequest { header: header(id), store_id };
    let known = pd.get_store(ask(1)).await.unwrap().into_inner();
    assert_eq!(known.store.unwrap().address, "127.0.0.1:20001");
    let unknown = pd.get_store(ask(99)).await.unwrap().into_inner();
    assert!(unknown.header.unwrap().error.unwrap().message.contains("s99 is not known"));
    assert!(unknown.store.is_some(), "clients unwrap it");
    let all = pdpb::GetAllStoresRequest { header: header(id), exclude_tombstone_stores: true };
    assert_eq!(pd.get_all_stores(all).await.unwrap().into_inner().stores.len(), 1);

    let raise = |safe_point| pdpb::UpdateGcSafePointRequest { header: header(id), safe_point };
    for (asked, now) in [(100, 100), (50, 100), (200, 200)] {
        let answer = pd.update_gc_safe_point(raise(asked)).await.unwrap().into_inner();
        assert_eq!(answer.new_safe_point, now);
    }
    let state = pdpb::GetGcStateRequest { header: header(id), keyspace_scope: None };
    let state = pd.get_gc_state(state).await.unwrap().into_inner().gc_state.unwrap();
    assert_eq!(state.gc_safe_point, 200);

    let wrong = pdpb::GetRegionRequest { header: header(id + 1), region_key: "k".into() };
    let refused = pd.get_region(wrong).await.unwrap().into_inner();
    let error = refused.header.unwrap().error.unwrap();
    assert!(error.message.contains(&format!("this is cluster {id}")), "{}", error.message);
    assert!(refused.region.is_none());
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timestamps_come_in_order_with_their_counts() {
    let folder = tempfile::tempdir().unwrap();
    let member = Member::start(alone(folder.path()));
    member.ready().await;
    let mut pd = member.pd();
    let id = cluster_id(&mut pd).await;
    let counts = [1u32, 10, 3, 200_000, 200_000, 1, 262_143];
    let requests = counts.map(|count| pdpb::TsoRequest { header: header(id), count });
    let answers = pd.tso(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let answers: Vec<_> = answers.collect().await;
    assert_eq!(answers.len(), counts.len());
    let mut last = 0;
    for (answer, count) in answers.into_iter().zip(counts) {
        let answer = answer.unwrap();
        assert_eq!(answer.count, count);
        assert_eq!(answer.header.unwrap().cluster_id, id);
        let timestamp = answer.timestamp.unwrap();
        let highest = (timestamp.physical << 18) | timestamp.logical;
        assert!(timestamp.logical >= i64::from(count) - 1);
        assert!(highest - i64::from(count) >= last, "overlap");
        last = highest;
    }
    for count in [0, 1 << 18] {
        let asked = tokio_stream::iter([pdpb::TsoRequest { header: header(id), count }]);
        let mut answers = pd.tso(asked).await.unwrap().into_inner();
        let refused = answers.message().await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
    let asked = tokio_stream::iter([pdpb::TsoRequest { header: header(id + 1), count: 1 }]);
    let refused = pd.tso(asked).await.unwrap().into_inner().message().await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_pages_tell_how_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let member = Member::start(alone(folder.path()));
    member.ready().await;
    let mut health = HealthClient::new(channel(&member.address));
    let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let answer = health.check(ask("")).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    assert_eq!(health.check(ask("x")).await.unwrap_err().code(), tonic::Code::NotFound);
    let mut watch = health.watch(ask("pdpb.PD")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);

    let store = FakeStore::start(member.placement(), join_request(1), true).await;
    eventually("the page shows the store as up", async || {
        let (status, text) = page(&member.status_address, "/health").await.unwrap();
        assert_eq!(status, 200);
        let page: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(page["role"], "leader");
        assert_eq!(page["leader"]["address"], member.address);
        assert!(page["applied"].as_u64().unwrap() >= 5);
        assert_eq!(page["regions"], 2);
        page["store_states"][store.joined.store_id.to_string()] == "Up"
    })
    .await;
    let (_, text) = page(&member.status_address, "/metrics").await.unwrap();
    for line in ["quorate_placement_leading 1", "quorate_placement_regions 2"] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    member.stop().await;
    let news = watch.message().await;
    let ended = news.map(|news| news.is_none_or(|news| news.status() == ServingStatus::NotServing));
    assert!(ended.unwrap_or(true), "it does not claim to serve");
}
