//! The first start of a group, and members that come back without their disk.

use std::time::Duration;

use quorate_placement::run;
use quorate_proto::wire::pdpb;

use crate::support::{Member, alone, cluster_id, eventually, free_address, group, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_first_member_is_known_by_what_it_advertises() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = alone(folder.path());
    let port = config.listen.rsplit(':').next().unwrap().to_owned();
    config.listen = format!("0.0.0.0:{port}");
    config.advertise = format!("127.0.0.1:{port}");
    let mut member = Member::start(config.clone());
    member.address = config.advertise.clone();
    member.ready().await;
    let known = member.pd().get_members(pdpb::GetMembersRequest { header: None }).await.unwrap();
    let known = known.into_inner().members;
    assert_eq!(known.len(), 1);
    assert!(known[0].client_urls[0].ends_with(&config.advertise), "{:?}", known[0].client_urls);
    member.stop().await;

    config.advertise = format!("127.0.0.2:{port}");
    let mut said = String::new();
    // Until the last task of the one that was stopped has let go of the folder.
    eventually("the folder is free", async || {
        said = run(config.clone(), std::future::pending()).await.unwrap_err().to_string();
        !said.contains("in use by another process")
    })
    .await;
    assert!(said.contains("its group knows this member as 127.0.0.1"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_founded_once_all_its_members_have_started() {
    let folder = tempfile::tempdir().unwrap();
    let configs = group(folder.path(), 3);
    // Two of three would be a majority; but nobody could tell them from two that lost their disks.
    let first = Member::start(configs[0].clone());
    let second = Member::start(configs[1].clone());
    for member in [&first, &second] {
        eventually("it says whom it waits for", async || {
            let page = crate::support::page(&member.status_address, "/ready").await;
            page.is_some_and(|(status, words)| {
                status == 503 && words.contains("all of its members")
            })
        })
        .await;
    }
    // One that is stopped while it waits is the same one afterwards.
    second.stop().await;
    let second = Member::start(configs[1].clone());
    let third = Member::start(configs[2].clone());
    for member in [&first, &second, &third] {
        member.ready().await;
    }
    for member in [first, second, third] {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_disk_does_not_vote_again() {
    let folder = tempfile::tempdir().unwrap();
    let configs = group(folder.path(), 3);
    let mut members: Vec<Option<Member>> =
        configs.iter().map(|config| Some(Member::start(config.clone()))).collect();
    for member in members.iter().flatten() {
        member.ready().await;
    }
    let cluster = cluster_id(&mut members[0].as_ref().unwrap().pd()).await;

    // The third is away, the second loses its disk, and the first is down: nobody who is there
    // knows what was acknowledged.
    for number in [2, 1, 0] {
        members[number].take().unwrap().stop().await;
    }
    // Its engine may still be writing its own log.
    eventually("the disk is gone", async || std::fs::remove_dir_all(&configs[1].data).is_ok())
        .await;
    let empty = Member::start(configs[1].clone());
    eventually("the second one waits", async || {
        let page = crate::support::page(&empty.status_address, "/ready").await;
        page.is_some_and(|(status, _)| status == 503)
    })
    .await;
    let third = Member::start(configs[2].clone());
    let said = tokio::time::timeout(Duration::from_secs(30), empty.ended()).await.unwrap();
    let said = said.unwrap_err().to_string();
    assert!(said.contains("founded already"), "{said}");
    assert!(said.contains("quorate member replace placement/2 --with"), "{said}");

    // Those that have their disks go on, as the same cluster; and the lost one joins anew, with the
    // folder that it was refused with.
    let first = Member::start(configs[0].clone());
    for member in [&first, &third] {
        member.ready().await;
        assert_eq!(cluster_id(&mut member.pd()).await, cluster);
    }
    let mut newcomer = configs[1].clone();
    (newcomer.members, newcomer.join) = (Vec::new(), vec![configs[0].listen.clone()]);
    (newcomer.listen, newcomer.id) = (free_address(), 1);
    let newcomer = Member::start(newcomer);
    within(Duration::from_secs(60), "it has joined under another number", async || {
        let asked = newcomer.pd().get_members(pdpb::GetMembersRequest { header: None }).await;
        asked.is_ok_and(|members| {
            members.into_inner().header.is_some_and(|header| header.cluster_id == cluster)
        })
    })
    .await;
    for member in [newcomer, first, third] {
        member.stop().await;
    }
}
