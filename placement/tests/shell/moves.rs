//! A lone member that joined is started at another address. That others find one that moves is told
//! with real processes, whose connections end with them.

use quorate_placement::PlacementConfig;
use quorate_proto::wire::pdpb;
use quorate_proto::wire::placement::change_member_request::Action;

use crate::grow::{GROWN, active, change, members, newcomer};
use crate::support::{Member, alone, cluster_id, free_address, within};

/// The addresses of all members, as that one knows them.
async fn known_to(member: &Member) -> Vec<String> {
    let asked = member.pd().get_members(pdpb::GetMembersRequest { header: None }).await;
    let members = asked.map(|answer| answer.into_inner().members).unwrap_or_default();
    let urls = members.into_iter().flat_map(|member| member.client_urls);
    urls.map(|url| url.trim_start_matches("http://").to_owned()).collect()
}

fn elsewhere(config: &PlacementConfig) -> PlacementConfig {
    PlacementConfig { listen: free_address(), status_address: free_address(), ..config.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lone_member_is_replaced_and_the_one_in_its_place_moves() {
    let folder = tempfile::tempdir().unwrap();
    let first = Member::start(alone(folder.path()));
    first.ready().await;
    let id = cluster_id(&mut first.pd()).await;
    let config = newcomer(folder.path(), "b", &[&first]);
    let all = [first.address.clone(), config.listen.clone()];
    let second = Member::start(config.clone());
    let mut fresh = 0;
    within(GROWN, "the second one is ready", async || {
        let listed = members(&all).await;
        let ready = listed.iter().find(|(_, state)| state == "Pairing" || state == "Ready");
        fresh = ready.map_or(0, |(id, _)| *id);
        fresh != 0
    })
    .await;
    change(&all, 1, Action::Replace, fresh).await.unwrap();
    within(GROWN, "it is alone", async || active(&all[1..]).await == [fresh]).await;
    let ended = first.ended().await.unwrap_err().to_string();
    assert!(ended.contains("was taken out of its placement group"), "{ended}");
    assert_eq!(cluster_id(&mut second.pd()).await, id);
    second.stop().await;

    // It has nobody to ask, and says so to itself.
    let config = elsewhere(&config);
    let to = config.listen.clone();
    let moved = Member::start(config);
    within(GROWN, "it leads at its new address", async || {
        known_to(&moved).await == [to.clone()] && active(std::slice::from_ref(&to)).await == [fresh]
    })
    .await;
    assert_eq!(cluster_id(&mut moved.pd()).await, id);
    moved.stop().await;
}
