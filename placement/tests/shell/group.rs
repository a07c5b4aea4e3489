//! Restarts and failovers: what was promised stays promised.

use std::collections::BTreeSet;

use quorate_proto::wire::pdpb::{self, pd_client::PdClient};
use quorate_proto::wire::placement as wire;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::{
    FakeStore, Member, alone, cluster_id, eventually, group, header, join_request,
};

async fn timestamp(pd: &mut PdClient<Channel>) -> Option<i64> {
    let asked = tokio_stream::iter([pdpb::TsoRequest { header: None, count: 1 }]);
    let answer = pd.tso(asked).await.ok()?.into_inner().message().await.ok()??;
    let timestamp = answer.timestamp?;
    Some((timestamp.physical << 18) | timestamp.logical)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_remembers_everything_and_routes_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = alone(folder.path());
    let member = Member::start(config.clone());
    member.ready().await;
    let id = cluster_id(&mut member.pd()).await;
    let mut store = FakeStore::start(member.placement(), join_request(1), true).await;
    let splitting = tokio::spawn({
        let mut client = member.placement();
        let request = wire::SplitRegionRequest { keys: vec!["m".into()], region_id: 0 };
        async move { client.split_region(request).await }
    });
    store.obey().await;
    splitting.await.unwrap().unwrap();
    let given: BTreeSet<u64> = store.regions.keys().copied().collect();
    let before = timestamp(&mut member.pd()).await.unwrap();
    // Written behind: wait for it to be on disk.
    eventually("the new route is written", async || {
        let text = crate::support::page(&member.status_address, "/metrics").await.unwrap().1;
        text.contains("quorate_placement_regions 3")
    })
    .await;
    let applied = async |member: &Member| {
        let (_, text) = crate::support::page(&member.status_address, "/health").await.unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["applied"].as_u64().unwrap()
    };
    let seen = applied(&member).await;
    eventually("more is applied", async || applied(&member).await > seen + 1).await;
    member.stop().await;

    let member = Member::start(config);
    member.ready().await;
    let mut pd = member.pd();
    assert_eq!(cluster_id(&mut pd).await, id);
    assert!(timestamp(&mut pd).await.unwrap() > before);
    let find = pdpb::GetRegionRequest { header: header(id), region_key: "x".into() };
    let found = pd.get_region(find).await.unwrap().into_inner();
    assert_eq!(found.region.unwrap().start_key, "m", "before any store has reported");
    assert_eq!(found.leader.unwrap().store_id, 1);
    let mut client = member.placement();
    let again = wire::JoinRequest { store_id: 1, cluster_id: id, ..join_request(1) };
    let joined = client.join(again).await.unwrap().into_inner();
    assert_eq!((joined.store_id, joined.bootstrapped), (1, true));
    let region = store.regions.values().next().unwrap().0.clone();
    let ask = wire::AskSplitRequest { cluster_id: id, region: Some(region), count: 5 };
    for ids in client.ask_split(ask).await.unwrap().into_inner().ids {
        assert!(!given.contains(&ids.region_id), "{} was given before", ids.region_id);
    }
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_members_hand_over_and_timestamps_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let configs = group(folder.path(), 3);
    let mut members: Vec<Option<Member>> =
        configs.iter().map(|config| Some(Member::start(config.clone()))).collect();
    for member in members.iter().flatten() {
        member.ready().await;
    }
    let leader_of = async |member: &Member| {
        let asked = member.pd().get_members(pdpb::GetMembersRequest { header: None }).await;
        asked.ok()?.into_inner().leader.map(|leader| leader.member_id)
    };
    let leader = leader_of(members[0].as_ref().unwrap()).await.unwrap();
    let ids: BTreeSet<u64> = {
        let mut ids = BTreeSet::new();
        for member in members.iter().flatten() {
            ids.insert(cluster_id(&mut member.pd()).await);
        }
        ids
    };
    assert_eq!(ids.len(), 1, "one cluster");
    let id = *ids.first().unwrap();

    // Another member refuses, and says who leads.
    let follower = members
        .iter()
        .flatten()
        .find(|member| member.address != configs[leader as usize - 1].listen);
    let follower = follower.unwrap();
    let find = pdpb::GetRegionRequest { header: header(id), region_key: "k".into() };
    let refused = follower.pd().get_region(find.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let hint = refused.metadata().get("quorate-leader").unwrap().to_str().unwrap();
    assert_eq!(hint, configs[leader as usize - 1].listen);

    let leading = members[leader as usize - 1].as_ref().unwrap();
    let store = FakeStore::start(leading.placement(), join_request(1), true).await;
    let mut last = timestamp(&mut leading.pd()).await.unwrap();

    // Handed over on request, then by a stop, each time with time going on.
    let to = leader % 3 + 1;
    let request = wire::TransferPlacementLeaderRequest { to_member: to };
    let moved = leading.placement().transfer_placement_leader(request).await.unwrap();
    assert_eq!(moved.into_inner().leader, to);
    let mut leader = to;
    for round in 0..2 {
        let leading = members[leader as usize - 1].as_ref().unwrap();
        let mut pd = leading.pd();
        let mut next = None;
        eventually("the new leader gives timestamps", async || {
            next = timestamp(&mut pd).await;
            next.is_some()
        })
        .await;
        assert!(next.unwrap() > last, "time went back in round {round}");
        last = next.unwrap();
        let found = pd.get_region(find.clone()).await.unwrap().into_inner();
        assert_eq!(found.region.unwrap().id, store.joined.initial_regions[0].id);
        if round == 1 {
            break;
        }
        members[leader as usize - 1].take().unwrap().stop().await;
        let survivor = members.iter().flatten().next().unwrap();
        let stopped = leader;
        eventually("another member leads", async || match leader_of(survivor).await {
            Some(now) if now != stopped => {
                leader = now;
                true
            }
            Some(_) | None => false,
        })
        .await;
    }
    for member in members.into_iter().flatten() {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_a_majority_still_names_the_members() {
    let folder = tempfile::tempdir().unwrap();
    let configs = group(folder.path(), 3);
    let member = Member::start(configs[0].clone());
    let mut pd = member.pd();
    let mut members = None;
    eventually("the member listens", async || {
        members = pd.get_members(pdpb::GetMembersRequest { header: None }).await.ok();
        members.is_some()
    })
    .await;
    let members = members.unwrap().into_inner();
    assert_eq!((members.members.len(), members.leader), (3, None));
    let error = members.header.unwrap().error.unwrap();
    assert_eq!(error.r#type(), pdpb::ErrorType::NotBootstrapped);
    let refused = pd.get_region(pdpb::GetRegionRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("a majority of the members must be up"), "{refused}");
    let (status, words) = crate::support::page(&member.status_address, "/ready").await.unwrap();
    assert_eq!(status, 503);
    assert!(words.contains("majority"), "{words}");
    member.stop().await;
}
