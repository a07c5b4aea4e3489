//! Three nodes on loopback ports.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate_consensus::engine::{Engine, MemoryEngine, RocksEngine, RocksOptions};
use quorate_consensus::node::{Addresses, MAILBOX_BYTES, Node, NodeOptions, SnapshotOptions};
use quorate_consensus::shard::{Member, NewGroup, RaftOptions, Stranger};
use quorate_consensus::view::GroupView;
use quorate_proto::{LogIndex, NodeId, PeerId, RegionId, Role, Term};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use crate::machine::{Answer, Answers, Numbers, Token, applied, change_members, checksum, count};
use crate::proxy::Proxy;

pub(crate) const CLUSTER: u64 = 7;

/// Waits until something is so; the test fails if it never is.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[derive(Default)]
struct Book(Mutex<HashMap<NodeId, String>>);

impl Addresses for Book {
    fn address(&self, node: NodeId) -> Option<String> {
        self.0.lock().get(&node).cloned()
    }
}

/// What survives the end of a node. Node 1 is on RocksDB, the others in memory.
enum Disk {
    Rocks(TempDir),
    Memory(MemoryEngine),
}

struct Running {
    node: Arc<Node<Token>>,
    engine: Arc<dyn Engine>,
    views: HashMap<u64, Arc<GroupView>>,
    strangers: mpsc::Receiver<Stranger>,
    runtime: Runtime,
}

/// How the nodes of a cluster run.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) raft: RaftOptions,
    pub(crate) snapshots: SnapshotOptions,
    /// Bytes that each number takes beside itself.
    pub(crate) padding: usize,
}

pub(crate) struct Cluster {
    setup: Setup,
    /// Stands between a node and those who call it.
    proxies: BTreeMap<u64, Proxy>,
    groups: Vec<u64>,
    book: Arc<Book>,
    disks: BTreeMap<u64, Disk>,
    nodes: BTreeMap<u64, Running>,
    starts: u64,
}

fn members() -> Vec<Member> {
    (1..=3).map(|n| Member { peer: PeerId(n), node: NodeId(n), role: Role::Voter }).collect()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

impl Cluster {
    pub(crate) async fn start(raft: RaftOptions, groups: &[u64]) -> Self {
        Self::start_with(raft, groups, 3).await
    }

    pub(crate) async fn start_with(raft: RaftOptions, groups: &[u64], nodes: u64) -> Self {
        Self::set_up_with(Setup { raft, ..Setup::default() }, groups, nodes).await
    }

    pub(crate) async fn set_up(setup: Setup, groups: &[u64]) -> Self {
        Self::set_up_with(setup, groups, 3).await
    }

    /// The groups are on the first three nodes.
    async fn set_up_with(setup: Setup, groups: &[u64], nodes: u64) -> Self {
        let rocks = Disk::Rocks(tempfile::tempdir().unwrap());
        let memory = |node| (node, Disk::Memory(MemoryEngine::new()));
        let mut cluster = Self {
            setup,
            proxies: BTreeMap::new(),
            groups: groups.to_vec(),
            book: Arc::default(),
            disks: (2..=nodes).map(memory).chain([(1, rocks)]).collect(),
            nodes: BTreeMap::new(),
            starts: 0,
        };
        for node in 1..=nodes {
            cluster.start_node(node).await;
        }
        cluster
    }

    pub(crate) async fn start_node(&mut self, node: u64) {
        let engine: Arc<dyn Engine> = match &self.disks[&node] {
            Disk::Rocks(folder) => {
                Arc::new(RocksEngine::open(folder.path(), &RocksOptions::default()).unwrap())
            }
            Disk::Memory(engine) => Arc::new(engine.clone()),
        };
        let mut views = HashMap::new();
        let mut groups = Vec::new();
        for group in self.groups.iter().filter(|_| node <= 3) {
            let view = GroupView::new(RegionId(*group), PeerId(node));
            views.insert(*group, view.clone());
            groups.push(NewGroup {
                group: RegionId(*group),
                peer: PeerId(node),
                members: members(),
                applied: applied(&*engine, RegionId(*group)).unwrap(),
                view,
                campaign: false,
            });
        }
        self.starts += 1;
        let options = NodeOptions {
            mailbox_bytes: MAILBOX_BYTES,
            node: NodeId(node),
            cluster_id: CLUSTER,
            incarnation: self.starts,
            workers: 1,
            raft: self.setup.raft.clone(),
            snapshots: self.setup.snapshots.clone(),
        };
        let members = groups.iter().map(|group| (group.group, group.members.clone())).collect();
        let padding = self.setup.padding;
        let machine = Numbers { engine: engine.clone(), members, padding };
        // A runtime of its own, so that all its connections end with it, as those of a process do.
        let runtime = runtime();
        let (told, strangers) = mpsc::sync_channel(64);
        let running = Node::start(
            options,
            engine.clone(),
            machine,
            Arc::new(Answers(told)),
            self.book.clone(),
            groups,
            runtime.handle().clone(),
        )
        .unwrap();
        let bind = TcpListener::bind("127.0.0.1:0");
        let listener = runtime.spawn(bind).await.unwrap().unwrap();
        let address = listener.local_addr().unwrap().to_string();
        match self.proxies.get(&node) {
            Some(proxy) => proxy.lead_to(address),
            None => drop(self.book.0.lock().insert(NodeId(node), address)),
        }
        let serving = Server::builder()
            .add_service(running.peer_service())
            .serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(serving);
        self.nodes.insert(node, Running { node: running, engine, views, strangers, runtime });
    }

    pub(crate) async fn stop_node(&mut self, node: u64) {
        let Running { node, engine, runtime, .. } = self.nodes.remove(&node).unwrap();
        let stopping = tokio::task::spawn_blocking(move || {
            node.shutdown();
            drop(node);
            runtime.shutdown_timeout(Duration::from_secs(10));
        });
        stopping.await.unwrap();
        // The folder can be opened again once the last handle of the engine is gone.
        eventually("the engine is free", || Arc::strong_count(&engine) == 1).await;
    }

    /// Ends a node in memory as `kill -9` would: nothing it still wants to do is done.
    pub(crate) async fn kill_node(&mut self, node: u64) {
        match self.disks.get_mut(&node) {
            Some(Disk::Memory(engine)) => *engine = engine.crash(|unsynced| unsynced),
            Some(Disk::Rocks(_)) | None => panic!("only memory engines can be killed"),
        }
        self.stop_node(node).await;
    }

    /// From now on, and over restarts, others reach that node through a proxy.
    pub(crate) async fn put_proxy_before(&mut self, node: u64) {
        let proxy = Proxy::start(self.address(node)).await;
        self.book.0.lock().insert(NodeId(node), proxy.address());
        self.proxies.insert(node, proxy);
    }

    pub(crate) fn proxy(&self, node: u64) -> &Proxy {
        &self.proxies[&node]
    }

    /// All replicas of a group hold the same.
    pub(crate) async fn assert_level(&self, group: u64) {
        let level = || {
            let sums: Vec<u32> = self
                .nodes
                .values()
                .map(|running| checksum(&*running.engine, RegionId(group)))
                .collect();
            sums.windows(2).all(|pair| pair[0] == pair[1])
        };
        eventually("the replicas are equal", level).await;
    }

    pub(crate) async fn stop(mut self) {
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.stop_node(node).await;
        }
    }

    pub(crate) fn node(&self, node: u64) -> &Node<Token> {
        &self.nodes[&node].node
    }

    pub(crate) fn engine(&self, node: u64) -> &dyn Engine {
        &*self.nodes[&node].engine
    }

    pub(crate) fn address(&self, node: u64) -> String {
        self.book.address(NodeId(node)).unwrap()
    }

    pub(crate) fn fail_next_sync(&mut self, node: u64) {
        match &self.disks[&node] {
            Disk::Memory(engine) => engine.fail_next_sync(),
            Disk::Rocks(_) => panic!("only memory engines fail on demand"),
        }
    }

    pub(crate) fn leads(&self, node: u64, group: u64) -> bool {
        self.nodes.get(&node).is_some_and(|running| running.views[&group].is_leader())
    }

    pub(crate) fn known_leader(&self, node: u64, group: u64) -> Option<u64> {
        self.nodes[&node].views[&group].leader().map(|peer| peer.0)
    }

    pub(crate) fn count(&self, node: u64, group: u64) -> usize {
        count(self.engine(node), RegionId(group))
    }

    /// The node that leads in the highest term.
    pub(crate) async fn leader(&self, group: u64) -> u64 {
        let find = || {
            let views =
                self.nodes.iter().filter_map(|(node, r)| Some((*node, r.views.get(&group)?)));
            let newest = views.clone().map(|(_, view)| view.term()).max()?;
            let mut leaders = views.filter(|(_, view)| view.is_leader() && view.term() == newest);
            leaders.next().map(|(node, _)| node)
        };
        eventually("somebody leads", || find().is_some()).await;
        find().unwrap()
    }

    /// Hands leadership over. It is asked for again and again: a leader does not offer it to a
    /// member that it has not heard of yet.
    pub(crate) async fn hand_over(&self, group: u64, from: u64, to: u64) {
        let done = || {
            self.node(from).transfer_leader(RegionId(group), NodeId(to));
            self.leads(to, group)
        };
        eventually("the other leads", done).await;
    }

    pub(crate) fn propose(
        &self,
        node: u64,
        group: u64,
        number: u64,
    ) -> impl Future<Output = Result<Answer, oneshot::error::RecvError>> + use<> {
        let (token, answer) = oneshot::channel();
        let command = bytes::Bytes::copy_from_slice(&number.to_be_bytes());
        self.node(node).propose(RegionId(group), command, token, false);
        answer
    }

    pub(crate) async fn propose_all(&self, node: u64, group: u64, numbers: Range<u64>) {
        let answers: Vec<_> = numbers.map(|number| self.propose(node, group, number)).collect();
        for answer in answers {
            let answer = answer.await.unwrap();
            assert!(matches!(answer, Answer::Applied), "{answer:?}");
        }
    }

    pub(crate) async fn read(&self, node: u64, group: u64) -> Answer {
        let (token, answer) = oneshot::channel();
        self.node(node).read(RegionId(group), token);
        answer.await.unwrap()
    }

    /// Asks for these members until the group has them: a fresh leader refuses for a moment, a
    /// learner has to catch up.
    pub(crate) async fn change(&self, node: u64, group: u64, members: &[Member]) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let (token, answer) = oneshot::channel();
            let command = change_members(members);
            self.node(node).change_members(RegionId(group), members.to_vec(), command, token);
            let answer = answer.await.unwrap();
            if matches!(answer, Answer::Applied) {
                return;
            }
            assert!(Instant::now() < deadline, "{answer:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Hosts an empty peer as soon as somebody speaks to it.
    pub(crate) async fn host(&mut self, node: u64, group: u64, peer: u64) {
        let running = self.nodes.get_mut(&node).unwrap();
        let (group, peer) = (RegionId(group), PeerId(peer));
        let strangers = &running.strangers;
        let spoken_to = || {
            strangers.try_iter().any(|stranger| (stranger.group, stranger.peer) == (group, peer))
        };
        eventually("somebody speaks to it", spoken_to).await;
        let view = GroupView::new(group, peer);
        running.views.insert(group.0, view.clone());
        running.node.create(NewGroup {
            group,
            peer,
            members: Vec::new(),
            applied: (LogIndex(0), Term(0)),
            view,
            campaign: false,
        });
    }

    pub(crate) fn view(&self, node: u64, group: u64) -> &GroupView {
        &self.nodes[&node].views[&group]
    }
}
