//! The production shell: three nodes in one process, on loopback ports, over real engines.
#![allow(clippy::unwrap_used)]

mod cluster;
mod machine;
mod proxy;
mod snapshots;

use std::time::Duration;

use quorate_consensus::shard::{Member, RaftOptions, Refusal, Reply};
use quorate_proto::wire::peer::peer_client::PeerClient;
use quorate_proto::wire::peer::{Frame, Hello, Plane, SnapshotChunk, SnapshotHeader};
use quorate_proto::{NodeId, PeerId, Role};

use cluster::{CLUSTER, Cluster, eventually};
use machine::Answer;

fn small_logs() -> RaftOptions {
    RaftOptions {
        truncate_entries: 16,
        max_log_entries: 64,
        entry_bytes: 1,
        sleep_after_ticks: 0,
        ..RaftOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_commands_reach_every_replica() {
    let cluster = Cluster::start(RaftOptions::default(), &[1, 2, 3]).await;
    for group in [1, 2, 3] {
        let leader = cluster.leader(group).await;
        let mut answers = Vec::new();
        for number in 0..10_000 {
            answers.push(cluster.propose(leader, group, number));
        }
        for answer in answers {
            assert!(matches!(answer.await.unwrap(), Answer::Applied));
        }
        for node in [1, 2, 3] {
            // A follower's read index makes it wait until it has applied what the leader has.
            assert!(matches!(cluster.read(node, group).await, Answer::Reply(Reply::ReadAt(_))));
            assert_eq!(cluster.count(node, group), 10_000, "n{node} r{group}");
        }
    }
    let counters = cluster.node(1).counters();
    assert!(counters.log_syncs.get() < 3 * 10_000, "writes are merged");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_comes_back_from_its_engine() {
    let mut cluster = Cluster::start(RaftOptions::default(), &[1]).await;
    let leader = cluster.leader(1).await;
    cluster.propose_all(leader, 1, 0..100).await;
    let follower = 1 + leader % 3;
    cluster.stop_node(follower).await;
    cluster.propose_all(leader, 1, 100..200).await;
    cluster.start_node(follower).await;
    eventually("the follower has everything", || cluster.count(follower, 1) == 200).await;
    assert_eq!(cluster.node(follower).counters().snapshots_installed.get(), 0);

    // Now the leader: the others elect, nothing acknowledged is lost.
    cluster.stop_node(leader).await;
    let next = cluster.leader(1).await;
    assert_ne!(next, leader);
    cluster.propose_all(next, 1, 200..300).await;
    cluster.start_node(leader).await;
    eventually("the old leader has everything", || cluster.count(leader, 1) == 300).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_missed_too_much_gets_a_snapshot() {
    let mut cluster = Cluster::start(small_logs(), &[1]).await;
    let leader = cluster.leader(1).await;
    cluster.propose_all(leader, 1, 0..10).await;
    let follower = 1 + leader % 3;
    cluster.stop_node(follower).await;
    // In many messages: a few would wait in the outbox until the follower is back.
    for tens in 1..100 {
        cluster.propose_all(leader, 1, tens * 10..(tens + 1) * 10).await;
    }
    cluster.start_node(follower).await;
    eventually("the follower has everything", || cluster.count(follower, 1) == 1_000).await;
    let counters = cluster.node(follower).counters();
    eventually("by a snapshot", || counters.snapshots_installed.get() >= 1).await;
    assert!(counters.snapshots_received.get() >= 1);
    // It takes part again: with the third node gone, it is needed for a majority.
    cluster.stop_node(1 + follower % 3).await;
    let leader = cluster.leader(1).await;
    cluster.propose_all(leader, 1, 1_000..1_010).await;
    eventually("the follower goes on", || cluster.count(follower, 1) == 1_010).await;
    let staged = cluster.engine(follower).staged().unwrap();
    assert!(staged.is_empty(), "left behind: {staged:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_and_refusals_name_the_leader() {
    let cluster = Cluster::start(RaftOptions::default(), &[1]).await;
    let leader = cluster.leader(1).await;
    let next = 1 + leader % 3;
    cluster.hand_over(1, leader, next).await;
    eventually("the first knows", || cluster.known_leader(leader, 1) == Some(next)).await;
    let refused = cluster.propose(leader, 1, 1).await.unwrap();
    let Answer::Reply(Reply::Refused(Refusal::NotLeader { leader: Some(named) })) = refused else {
        panic!("unexpected {refused:?}");
    };
    assert_eq!(named.0, next);
    cluster.propose_all(next, 1, 0..1).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_with_a_reason() {
    let cluster = Cluster::start(RaftOptions::default(), &[1]).await;
    let good = Hello {
        protocol: 1,
        cluster_id: CLUSTER,
        from_node: 2,
        to_node: 1,
        incarnation: 9,
        plane: Plane::Control.into(),
        lease_ms: 400,
        vote_promise_ms: 600,
    };
    let cases = [
        (Hello { cluster_id: 8, ..good }, "belongs to cluster 7, the caller to cluster 8"),
        (Hello { protocol: 2, ..good }, "newer than ours"),
        (Hello { to_node: 3, ..good }, "stale address"),
        (Hello { vote_promise_ms: 500, ..good }, "reads could be stale"),
        (Hello { lease_ms: 500, ..good }, "400 and 600 here, 500 and 600 at the caller"),
        (Hello { from_node: 1, ..good }, "two processes use the id"),
    ];
    let address = format!("http://{}", cluster.address(1));
    for (hello, words) in cases {
        let mut client = PeerClient::connect(address.clone()).await.unwrap();
        let frame = Frame { hello: Some(hello), ..Frame::default() };
        let status = client.stream(tokio_stream::iter([frame])).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        assert!(status.message().contains(words), "{}", status.message());
        let header = SnapshotHeader { hello: Some(hello), ..SnapshotHeader::default() };
        let chunk = SnapshotChunk { header: Some(header), ..SnapshotChunk::default() };
        let status = client.snapshot(tokio_stream::iter([chunk])).await.unwrap_err();
        assert!(status.message().contains(words), "{}", status.message());
    }
    let mut client = PeerClient::connect(address).await.unwrap();
    let status = client.stream(tokio_stream::iter([Frame::default()])).await.unwrap_err();
    assert!(status.message().contains("hello"), "{}", status.message());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_stops_the_node() {
    let mut cluster = Cluster::start(RaftOptions::default(), &[1]).await;
    let leader = cluster.leader(1).await;
    cluster.propose_all(leader, 1, 0..1).await;
    cluster.fail_next_sync(leader);
    // Whatever becomes of the command, it is not acknowledged here.
    let answer = cluster.propose(leader, 1, 1);
    let failed = tokio::time::timeout(Duration::from_secs(20), cluster.node(leader).failed());
    assert!(failed.await.unwrap().is_fatal());
    assert!(!matches!(answer.await, Ok(Answer::Applied)));
    // The others go on without it.
    cluster.stop_node(leader).await;
    let next = cluster.leader(1).await;
    cluster.propose_all(next, 1, 2..10).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_moves_to_another_node_while_commands_come() {
    let mut cluster = Cluster::start_with(small_logs(), &[1], 4).await;
    let leader = cluster.leader(1).await;
    cluster.propose_all(leader, 1, 0..100).await;
    let goes = 1 + leader % 3;
    let stays = 1 + goes % 3;
    let step = |out, new| {
        let roles = [(leader, Role::Voter), (stays, Role::Voter), (goes, out), (4, new)];
        let member = |(peer, role)| Member { peer: PeerId(peer), node: NodeId(peer), role };
        roles.map(member).to_vec()
    };

    cluster.change(leader, 1, &step(Role::Voter, Role::Learner)).await;
    cluster.host(4, 1, 4).await;
    cluster.propose_all(leader, 1, 100..200).await;
    eventually("the learner has everything", || cluster.count(4, 1) == 200).await;
    eventually("by a snapshot", || cluster.node(4).counters().snapshots_installed.get() > 0).await;
    cluster.change(leader, 1, &step(Role::DemotingVoter, Role::IncomingVoter)).await;
    cluster.propose_all(leader, 1, 200..300).await;
    cluster.change(leader, 1, &step(Role::Learner, Role::Voter)).await;
    cluster.propose_all(leader, 1, 300..400).await;
    let mut rest = step(Role::Learner, Role::Voter);
    rest.retain(|member| member.peer != PeerId(goes));
    cluster.change(leader, 1, &rest).await;
    eventually("the data of the removed one is gone", || cluster.count(goes, 1) == 0).await;
    assert_eq!(cluster.view(goes, 1).leader(), None);

    // The newcomer votes: with it, the group goes on without the old leader.
    cluster.stop_node(leader).await;
    let leads = || [4, stays].into_iter().find(|node| cluster.leads(*node, 1));
    eventually("another leads", || leads().is_some()).await;
    let next = cluster.leader(1).await;
    cluster.propose_all(next, 1, 400..500).await;
    eventually("the newcomer has everything", || cluster.count(4, 1) == 500).await;
    cluster.stop().await;
}
