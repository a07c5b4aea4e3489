//! The placement group changes its members while it serves.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quorate_placement::{PlacementConfig, run};
use quorate_proto::wire::pdpb::{self, pd_client::PdClient};
use quorate_proto::wire::placement::change_member_request::Action;
use quorate_proto::wire::placement::{self as wire, admin_client::AdminClient};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::{Member, alone, channel, cluster_id, eventually, free_address, within};

/// How long a change of members may take on a machine that is busy with other things.
pub const GROWN: Duration = Duration::from_secs(120);

/// Settings of one that joins.
pub fn newcomer(folder: &Path, name: &str, through: &[&Member]) -> PlacementConfig {
    PlacementConfig {
        listen: free_address(),
        status_address: free_address(),
        data: folder.join(name),
        join: through.iter().map(|member| member.address.clone()).collect(),
        ..PlacementConfig::default()
    }
}

/// Calls whoever leads.
pub async fn at_leader<T>(
    addresses: &[String],
    call: impl AsyncFn(AdminClient<Channel>) -> Result<T, Status>,
) -> Result<T, Status> {
    let mut last = Status::unavailable("nobody was asked");
    for address in addresses {
        match call(AdminClient::new(channel(address))).await {
            Err(status) if status.code() == Code::Unavailable => last = status,
            ended => return ended,
        }
    }
    Err(last)
}

/// The members as the leader lists them: number and state.
pub async fn members(addresses: &[String]) -> Vec<(u64, String)> {
    let listed = at_leader(addresses, async |mut admin| {
        admin.members(wire::MembersRequest { region_id: 0, placement: true }).await
    });
    let listed = listed.await.map(|answer| answer.into_inner().members).unwrap_or_default();
    listed.into_iter().map(|member| (member.node_id, member.state)).collect()
}

/// The numbers of those that vote, once all members do. Those who left are remembered for a while.
pub async fn active(addresses: &[String]) -> Vec<u64> {
    let mut members = members(addresses).await;
    members.retain(|(_, state)| state != "Removed");
    match members.iter().all(|(_, state)| state == "Active") {
        true => members.into_iter().map(|(id, _)| id).collect(),
        false => Vec::new(),
    }
}

pub async fn change(
    addresses: &[String],
    node: u64,
    action: Action,
    with: u64,
) -> Result<(), Status> {
    let request = wire::ChangeMemberRequest {
        region_id: 0,
        node_id: node,
        action: action.into(),
        with_node_id: with,
        force: false,
        preview: false,
    };
    let changed = at_leader(addresses, async |mut admin| admin.change_member(request).await);
    changed.await.map(|_| ())
}

/// Asks whoever leads for timestamps until told to stop; each is later than the one before.
async fn ask_for_time(addresses: Vec<String>, stop: Arc<AtomicBool>) -> usize {
    let mut pds: Vec<PdClient<Channel>> =
        addresses.iter().map(|address| PdClient::new(channel(address))).collect();
    let (mut last, mut given) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        for pd in &mut pds {
            let asked = tokio_stream::iter([pdpb::TsoRequest { header: None, count: 1 }]);
            let Ok(answers) = pd.tso(asked).await else { continue };
            let Ok(Some(answer)) = answers.into_inner().message().await else { continue };
            let timestamp = answer.timestamp.unwrap();
            let timestamp = (timestamp.physical << 18) | timestamp.logical;
            assert!(timestamp > last, "{timestamp} after {last}");
            (last, given) = (timestamp, given + 1);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    given
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_group_grows_under_load_and_replaces_a_member_that_died() {
    let folder = tempfile::tempdir().unwrap();
    let first = Member::start(alone(folder.path()));
    first.ready().await;
    let id = cluster_id(&mut first.pd()).await;
    let configs: Vec<PlacementConfig> =
        ["b", "c", "d"].map(|name| newcomer(folder.path(), name, &[&first])).into();
    let stop = Arc::new(AtomicBool::new(false));
    let addresses = [first.address.clone()].into_iter();
    let addresses = addresses.chain(configs.iter().map(|config| config.listen.clone()));
    let all: Vec<String> = addresses.collect();
    let asking = tokio::spawn(ask_for_time(all.clone(), Arc::clone(&stop)));

    let second = Member::start(configs[0].clone());
    within(GROWN, "the second one waits for a partner", async || {
        let listed = members(&all).await;
        listed.iter().any(|(_, state)| state == "Pairing")
    })
    .await;
    let third = Member::start(configs[1].clone());
    within(GROWN, "three vote", async || active(&all).await.len() == 3).await;
    let three = active(&all).await;
    assert_eq!(cluster_id(&mut third.pd()).await, id, "it knows the cluster");
    let known = second.pd().get_members(pdpb::GetMembersRequest { header: None }).await.unwrap();
    assert_eq!(known.into_inner().members.len(), 3, "every member knows all");

    // It dies, and another one takes its place.
    let refused = change(&all, three[1], Action::Remove, 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("only in exchange for another one"), "{refused}");
    let dead = eventually_listed(&first, &configs[0].listen).await;
    second.stop().await;
    let fourth = Member::start(configs[2].clone());
    let mut fresh = 0;
    within(GROWN, "the fourth one is ready", async || {
        let listed = members(&all).await;
        let ready = listed
            .iter()
            .find(|(id, state)| !three.contains(id) && (state == "Pairing" || state == "Ready"));
        fresh = ready.map_or(0, |(id, _)| *id);
        fresh != 0
    })
    .await;
    change(&all, dead, Action::Replace, fresh).await.unwrap();
    within(GROWN, "it votes in the place of the dead one", async || {
        let now = active(&all).await;
        now.len() == 3 && now.contains(&fresh) && !now.contains(&dead)
    })
    .await;

    stop.store(true, Ordering::Relaxed);
    let given = asking.await.unwrap();
    assert!(given > 50, "only {given} timestamps were given");
    for member in [fourth, third, first] {
        member.stop().await;
    }
}

/// The number of the member at that address.
async fn eventually_listed(member: &Member, address: &str) -> u64 {
    let mut found = 0;
    eventually("the member is listed", async || {
        let asked = member.pd().get_members(pdpb::GetMembersRequest { header: None }).await;
        let members = asked.map(|answer| answer.into_inner().members).unwrap_or_default();
        let url = format!("http://{address}");
        let of = members.iter().find(|member| member.client_urls.contains(&url));
        found = of.map_or(0, |member| member.member_id);
        found != 0
    })
    .await;
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_cannot_join_is_told_why_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let first = Member::start(alone(folder.path()));
    first.ready().await;
    let refused = async |config: PlacementConfig| {
        let ended = run(config, std::future::pending());
        tokio::time::timeout(crate::support::PATIENCE, ended)
            .await
            .unwrap()
            .unwrap_err()
            .to_string()
    };
    // The folder of another founding member.
    let founded = alone(&folder.path().join("founded"));
    let other = Member::start(founded.clone());
    other.ready().await;
    other.stop().await;
    let mut config = founded;
    config.join = vec![first.address.clone()];
    let words = refused(config).await;
    assert!(words.contains("leave join out, or name an empty data folder"), "{words}");
    // Somebody alive is at that address.
    let mut config = newcomer(folder.path(), "taken", &[&first]);
    config.advertise = first.address.clone();
    let words = refused(config).await;
    assert!(words.contains("is the address of placement-1, which is alive"), "{words}");
    // Both at once.
    let mut config = newcomer(folder.path(), "both", &[&first]);
    config.members = vec![format!("1={}", config.listen)];
    let words = refused(config).await;
    assert!(words.contains("leave one of them out"), "{words}");
    first.stop().await;
}
