//! Merges on request: refused with the rule, or told until the neighbour has the keys.

use quorate_placement::PlacementConfig;
use quorate_proto::wire::pdpb;
use quorate_proto::wire::placement::{self as wire, admin_client::AdminClient};
use tonic::Code;

use crate::support::{FakeStore, Member, alone, channel, eventually, header, join_request, page};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_on_request_is_followed_until_it_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let member = Member::start(PlacementConfig { replicas: 1, ..alone(folder.path()) });
    member.ready().await;
    let mut store = FakeStore::start(member.placement(), join_request(1), true).await;
    let cluster = store.joined.cluster_id;
    let split = tokio::spawn(async move {
        store.obey().await;
        store
    });
    let mut client = member.placement();
    let keys = vec!["m".into()];
    let request = wire::SplitRegionRequest { keys, region_id: 0 };
    let right = client.split_region(request).await.unwrap().into_inner().regions[0].id;
    let mut store = split.await.unwrap();
    let regions: Vec<u64> = store.regions.keys().copied().collect();
    let [left, sentinel] = [regions[0], regions[1]];

    let mut admin = AdminClient::new(channel(&member.address));
    let request = |source_id, target_id| wire::MergeRegionRequest { source_id, target_id };
    for (source, target, code, words) in [
        (0, 0, Code::InvalidArgument, "name a region"),
        (999, 0, Code::NotFound, "r999 is not known"),
        (left, 999, Code::NotFound, "r999 is not known"),
        (left, left, Code::FailedPrecondition, "cannot be merged into itself"),
        (right, sentinel, Code::FailedPrecondition, "the cluster's last region"),
        (left, sentinel, Code::FailedPrecondition, "the cluster's last region"),
    ] {
        let refused = admin.merge_region(request(source, target)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains(words), "{refused}");
    }

    let begun = admin.merge_region(request(right, 0)).await.unwrap().into_inner();
    assert_eq!(begun.target_id, left);
    let ask = wire::OperatorsRequest { operator_id: begun.operator_id, ended: true };
    let told = admin.operators(ask).await.unwrap().into_inner().operators;
    let steps = [
        format!("r{right} stops"),
        format!("every replica of r{right} has its log"),
        format!("r{left} takes r{right} in"),
    ];
    assert_eq!((told[0].kind.as_str(), told[0].steps.as_slice()), ("merge", &steps[..]));
    let busy = admin.merge_region(request(left, right)).await.unwrap_err();
    assert!(busy.message().contains("is busy with operator"), "{busy}");
    assert!(matches!(store.obey().await, wire::order::Step::PrepareMerge(_)));
    let explain = wire::ExplainRegionRequest { region_id: right };
    let stopped = format!("stopped, to be taken in by r{left}");
    eventually("the region is known to be stopped", async || {
        admin.explain_region(explain).await.unwrap().into_inner().state == stopped
    })
    .await;
    assert!(matches!(store.obey().await, wire::order::Step::CommitMerge(_)));
    eventually("the operator has ended", async || {
        let told = admin.operators(ask).await.unwrap().into_inner().operators;
        told[0].ended == "done" && told[0].done == 3
    })
    .await;
    let find = pdpb::GetRegionRequest { header: header(cluster), region_key: "z".into() };
    let found = member.pd().get_region(find).await.unwrap().into_inner().region.unwrap();
    assert_eq!(found.id, left);
    let (_, metrics) = page(&member.status_address, "/metrics").await.unwrap();
    assert!(metrics.contains("quorate_placement_operators_ended{end=\"done\"} 2"), "{metrics}");
    member.stop().await;
}
