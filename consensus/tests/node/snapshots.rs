//! Snapshots between real nodes: limits, broken connections, restarts on either side, damage.

use std::time::{Duration, Instant};

use quorate_consensus::node::{SnapshotOptions, SnapshotProgress};
use quorate_consensus::shard::RaftOptions;
use quorate_proto::wire::peer::peer_client::PeerClient;
use quorate_proto::wire::peer::snapshot_answer::Answer;
use quorate_proto::wire::peer::{
    ConfState, Envelope, Hello, Plane, SnapshotChunk, SnapshotHeader, SnapshotMeta,
};
use quorate_proto::{NodeId, RegionId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::cluster::{CLUSTER, Cluster, Setup, eventually};

/// Each number takes so much, so that a few hundred make many chunks.
const PADDING: usize = 16 * 1024;
const NUMBERS: u64 = 512;
/// Bytes of all of them, roughly: 8 MiB, 32 chunks.
const BYTES: u64 = NUMBERS * (PADDING as u64 + 32);

fn setup(snapshots: SnapshotOptions) -> Setup {
    let raft = RaftOptions {
        truncate_entries: 16,
        max_log_entries: 64,
        entry_bytes: 1,
        sleep_after_ticks: 0,
        ..RaftOptions::default()
    };
    Setup { raft, snapshots, padding: PADDING }
}

/// A transfer takes some seconds: time to do something to it.
fn slow() -> SnapshotOptions {
    SnapshotOptions { send_mib_per_sec: 2, checkpoint_mib: 1, ..SnapshotOptions::default() }
}

/// `away` is down while the others write, and their logs forget what it lacks.
async fn leave_behind(cluster: &mut Cluster, away: u64, groups: &[u64]) {
    for group in groups {
        let leader = cluster.leader(*group).await;
        if leader == away {
            let next = 1 + away % 3;
            cluster.hand_over(*group, away, next).await;
        }
        let leader = cluster.leader(*group).await;
        cluster.propose_all(leader, *group, 0..10).await;
    }
    cluster.stop_node(away).await;
    for group in groups {
        let leader = cluster.leader(*group).await;
        for first in (10..NUMBERS).step_by(50) {
            cluster.propose_all(leader, *group, first..(first + 50).min(NUMBERS)).await;
        }
    }
}

fn receiving(cluster: &Cluster, node: u64) -> Option<SnapshotProgress> {
    cluster.node(node).snapshots().into_iter().find(|snapshot| !snapshot.sending)
}

/// Waits until so many bytes are staged on `node`; returns the chunks it has by then.
async fn staged(cluster: &Cluster, node: u64, bytes: u64) -> u64 {
    let so_far = || receiving(cluster, node).is_some_and(|snapshot| snapshot.bytes >= bytes);
    eventually("a part of the snapshot is there", so_far).await;
    cluster.node(node).counters().snapshot_chunks_received.get()
}

async fn has_everything(cluster: &Cluster, node: u64, group: u64) {
    let all = || cluster.count(node, group) as u64 == NUMBERS;
    eventually("the snapshot is installed", all).await;
    cluster.assert_level(group).await;
    // Counted just after it can be seen.
    let counted = || cluster.node(node).counters().snapshots_installed.get() >= 1;
    eventually("it came by a snapshot, not by the log", counted).await;
    let clean = || {
        let engine = cluster.engine(node);
        engine.staged().unwrap().is_empty() && engine.unfinished().unwrap().is_empty()
    };
    eventually("nothing is left behind", clean).await;
}

/// The leader and its count of chunks sent.
async fn sent(cluster: &Cluster, group: u64) -> (u64, u64) {
    let leader = cluster.leader(group).await;
    (leader, cluster.node(leader).counters().snapshot_chunks_sent.get())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_goes_on_where_it_was() {
    // Node 1 is on RocksDB, node 3 in memory.
    for away in [1, 3] {
        let mut cluster = Cluster::set_up(setup(slow()), &[1]).await;
        leave_behind(&mut cluster, away, &[1]).await;
        cluster.start_node(away).await;
        cluster.put_proxy_before(away).await;
        cluster.proxy(away).cut_after(BYTES / 2);
        let (leader, _) = sent(&cluster, 1).await;
        has_everything(&cluster, away, 1).await;
        assert_eq!(cluster.proxy(away).done().0, 1, "the connection was cut");
        let counters = cluster.node(leader).counters();
        assert!(counters.snapshots_broken.get() >= 1);
        assert!(counters.snapshots_resumed.get() >= 1);
        assert_eq!(counters.snapshots_sent.get(), 1);
        // Begun anew it would have been half as much again.
        let (chunks, all) = (counters.snapshot_chunks_sent.get(), BYTES / (256 * 1024));
        assert!(chunks < all + all / 4, "{chunks} chunks were sent of {all}");
        let received = cluster.node(away).counters().snapshot_chunks_received.get();
        assert!(received <= all + 1, "{received} chunks were staged of {all}");
        cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_restarted_goes_on_where_it_was() {
    for (away, killed) in [(1, false), (3, false), (3, true)] {
        let mut cluster = Cluster::set_up(setup(slow()), &[1]).await;
        leave_behind(&mut cluster, away, &[1]).await;
        cluster.start_node(away).await;
        let before = staged(&cluster, away, BYTES / 2).await;
        if killed {
            cluster.kill_node(away).await;
        } else {
            cluster.stop_node(away).await;
        }
        cluster.start_node(away).await;
        let found = receiving(&cluster, away).expect("what was staged is remembered");
        assert!(found.bytes >= BYTES / 4, "{found:?}");
        let (leader, _) = sent(&cluster, 1).await;
        has_everything(&cluster, away, 1).await;
        let counters = cluster.node(leader).counters();
        assert!(counters.snapshots_resumed.get() >= 1);
        let (chunks, all) = (counters.snapshot_chunks_sent.get(), BYTES / (256 * 1024));
        // What came behind the last checkpoint is sent again where it was killed: a MiB and what
        // was on its way.
        assert!(chunks < all + before, "{chunks} chunks were sent of {all}, {before} before");
        let after = cluster.node(away).counters().snapshot_chunks_received.get();
        assert!(after < all, "{after} chunks of {all} after the restart");
        cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_is_restarted_begins_anew() {
    let mut cluster = Cluster::set_up(setup(slow()), &[1]).await;
    leave_behind(&mut cluster, 3, &[1]).await;
    cluster.start_node(3).await;
    let before = staged(&cluster, 3, BYTES / 2).await;
    let old = cluster.engine(3).unfinished().unwrap();
    let leader = cluster.leader(1).await;
    cluster.stop_node(leader).await;
    cluster.start_node(leader).await;
    has_everything(&cluster, 3, 1).await;
    // Another picture under another name; the old one is gone.
    let after = cluster.node(3).counters().snapshot_chunks_received.get() - before;
    assert!(after >= BYTES / (256 * 1024), "{after} chunks after {before}");
    assert!(old.iter().all(|(name, _)| cluster.engine(3).resume_stage(name).unwrap().is_none()));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_on_the_way_is_sent_again() {
    let mut cluster = Cluster::set_up(setup(slow()), &[1]).await;
    leave_behind(&mut cluster, 1, &[1]).await;
    cluster.start_node(1).await;
    cluster.put_proxy_before(1).await;
    cluster.proxy(1).flip_after(BYTES / 3);
    has_everything(&cluster, 1, 1).await;
    assert_eq!(cluster.proxy(1).done().1, 1, "a byte was flipped");
    let (leader, _) = sent(&cluster, 1).await;
    assert!(cluster.node(leader).counters().snapshots_broken.get() >= 1, "and noticed");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold() {
    let limits = SnapshotOptions {
        sending: 2,
        receiving: 1,
        send_mib_per_sec: 8,
        ..SnapshotOptions::default()
    };
    let groups = [1, 2, 3];
    let mut cluster = Cluster::set_up(setup(limits), &groups).await;
    leave_behind(&mut cluster, 3, &groups).await;
    // One sender of all of them.
    for group in groups {
        if !cluster.leads(2, group) {
            cluster.node(1).transfer_leader(RegionId(group), NodeId(2));
        }
    }
    eventually("one leads them all", || groups.iter().all(|group| cluster.leads(2, *group))).await;
    cluster.start_node(3).await;
    let began = Instant::now();
    let (mut most_sent, mut most_received) = (0, 0);
    let done = || {
        let count = |node: u64, sending: bool| {
            let all = cluster.node(node).snapshots();
            all.iter().filter(|one| one.running && one.sending == sending).count()
        };
        most_sent = most_sent.max(count(2, true));
        most_received = most_received.max(count(3, false));
        groups.iter().all(|group| cluster.count(3, *group) as u64 == NUMBERS)
    };
    eventually("all are installed", done).await;
    let took = began.elapsed();
    assert!(most_sent <= 2 && most_received == 1, "{most_sent} sent, {most_received} received");
    let counters = cluster.node(2).counters();
    // The sender hears of an installation after it is there.
    eventually("all are delivered", || counters.snapshots_sent.get() == 3).await;
    assert!(counters.snapshots_postponed.get() >= 1, "the second sender was told to come again");
    // A tenth of a second is given in advance, and of the last chunk nobody waits for the end.
    let bytes = counters.snapshot_bytes_sent.get();
    let least = Duration::from_secs_f64(bytes as f64 / f64::from(8 << 20));
    assert!(took + Duration::from_millis(250) >= least, "{bytes} bytes in {took:?}");
    for group in groups {
        cluster.assert_level(group).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_goes_on_with_is_removed() {
    let options = SnapshotOptions { resume_secs: 1, ..slow() };
    let mut cluster = Cluster::set_up(setup(options), &[1]).await;
    leave_behind(&mut cluster, 3, &[1]).await;
    cluster.start_node(3).await;
    staged(&cluster, 3, BYTES / 3).await;
    // Nobody is left to go on.
    cluster.stop_node(1).await;
    cluster.stop_node(2).await;
    eventually("it is removed", || receiving(&cluster, 3).is_none()).await;
    eventually("from the disk too", || cluster.engine(3).unfinished().unwrap().is_empty()).await;
    assert_eq!(cluster.node(3).counters().snapshots_abandoned.get(), 1);
    cluster.stop().await;
}

/// A sender made by hand.
struct Sender {
    chunks: mpsc::Sender<SnapshotChunk>,
    answers: Streaming<quorate_proto::wire::peer::SnapshotAnswer>,
}

impl Sender {
    async fn call(cluster: &Cluster, to: u64) -> Self {
        let hello = Hello {
            protocol: 1,
            cluster_id: CLUSTER,
            from_node: 2,
            to_node: to,
            incarnation: 9,
            plane: Plane::Bulk.into(),
            ..Hello::default()
        };
        let conf = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
        // It ends before anything that is applied: received whole, then not wanted.
        let meta = SnapshotMeta {
            id: "by-hand".to_owned(),
            index: 5,
            term: 5,
            conf: Some(conf),
            state: "numbers".into(),
        };
        let message = Envelope {
            group: 1,
            from_peer: 2,
            to_peer: to,
            kind: 7,
            term: 6,
            snapshot: Some(meta),
            ..Envelope::default()
        };
        let header =
            SnapshotHeader { hello: Some(hello), message: Some(message), total_bytes: 100 };
        let (chunks, receiver) = mpsc::channel(16);
        chunks
            .send(SnapshotChunk { header: Some(header), ..SnapshotChunk::default() })
            .await
            .unwrap();
        let mut client =
            PeerClient::connect(format!("http://{}", cluster.address(to))).await.unwrap();
        let answers = client.snapshot(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        Self { chunks, answers }
    }

    async fn answer(&mut self) -> Result<Answer, Status> {
        self.answers.message().await.map(|answer| answer.unwrap().answer.unwrap())
    }

    async fn next_sequence(&mut self) -> u64 {
        let answer = self.answer().await.unwrap();
        let Answer::GoOn(go_on) = answer else { panic!("unexpected {answer:?}") };
        go_on.next_sequence
    }
}

/// A chunk with one record.
fn chunk(sequence: u64) -> SnapshotChunk {
    let mut data = [8, 0, 0, 0, 1, 0, 0, 0].to_vec();
    data.extend_from_slice(&(1_000 + sequence).to_be_bytes());
    data.push(7);
    let crc = crc32fast::hash(&data);
    SnapshotChunk { sequence, data: data.into(), crc, ..SnapshotChunk::default() }
}

fn digest(chunks: u64) -> u32 {
    (0..chunks).fold(0, |digest: u32, sequence| {
        let crc = chunk(sequence).crc;
        crc32fast::hash(&[digest.to_le_bytes(), crc.to_le_bytes()].concat())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_chunk_is_refused_and_what_came_before_is_kept() {
    let cluster = Cluster::set_up(setup(SnapshotOptions::default()), &[1]).await;
    let mut sender = Sender::call(&cluster, 1).await;
    assert_eq!(sender.next_sequence().await, 0);
    for sequence in 0..3 {
        sender.chunks.send(chunk(sequence)).await.unwrap();
    }
    let damaged = SnapshotChunk { crc: 1, ..chunk(3) };
    sender.chunks.send(damaged).await.unwrap();
    let status = sender.answer().await.unwrap_err();
    assert!(status.message().contains("chunk 3 is damaged"), "{}", status.message());

    // A chunk that was left out, and one that comes twice, are no better.
    for wrong in [4, 2] {
        let mut sender = Sender::call(&cluster, 1).await;
        assert_eq!(sender.next_sequence().await, 3);
        sender.chunks.send(chunk(wrong)).await.unwrap();
        let status = sender.answer().await.unwrap_err();
        assert!(status.message().contains("out of order"), "{}", status.message());
    }

    // The end must fit to all of it, however many calls it took.
    let mut sender = Sender::call(&cluster, 1).await;
    assert_eq!(sender.next_sequence().await, 3);
    sender.chunks.send(chunk(3)).await.unwrap();
    let end = SnapshotChunk { last: true, records: 5, digest: digest(5) ^ 1, ..chunk(4) };
    sender.chunks.send(end).await.unwrap();
    let Answer::Result(result) = sender.answer().await.unwrap() else { panic!("no result") };
    assert!(!result.accepted && result.reason.contains("not what was sent"), "{result:?}");

    // That was the end of it: a new call begins anew, and is taken when everything is right.
    let mut sender = Sender::call(&cluster, 1).await;
    assert_eq!(sender.next_sequence().await, 0);
    for sequence in 0..4 {
        sender.chunks.send(chunk(sequence)).await.unwrap();
    }
    let end = SnapshotChunk { last: true, records: 5, digest: digest(5), ..chunk(4) };
    sender.chunks.send(end).await.unwrap();
    let Answer::Result(result) = sender.answer().await.unwrap() else { panic!("no result") };
    assert!(result.accepted, "{result:?}");
    // The same call again, as if the answer had been lost.
    let mut sender = Sender::call(&cluster, 1).await;
    let Answer::Result(result) = sender.answer().await.unwrap() else { panic!("no result") };
    assert!(result.accepted, "{result:?}");
    // The group has no use for it.
    eventually("it is removed", || cluster.engine(1).staged().unwrap().is_empty()).await;
    cluster.stop().await;
}
