//! Restarts and received snapshots, with crashes in between.
#![allow(clippy::unwrap_used)]

use parking_lot::RwLock;
use quorate_consensus::engine::MemoryEngine;
use quorate_consensus::node::Machine as _;
use quorate_consensus::shard::{ApplyTask, Committed, Install};
use quorate_proto::{Role, StoreId};
use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::core::command::{Answer, CLUSTER_VERSION, Command, Joining, JoiningMember};
use crate::shell::machine::{Ended, GROUP, StateMachine, Token};
use crate::shell::roster::Roster;

fn group() -> Vec<Member> {
    let member = |id| Member {
        id: NodeId(id),
        name: format!("placement-{id}"),
        address: format!("127.0.0.1:{id}"),
        role: Role::Voter,
    };
    (1..=3).map(member).collect()
}

struct Replica {
    engine: Arc<dyn Engine>,
    memory: MemoryEngine,
    state: Arc<RwLock<State>>,
    machine: StateMachine,
    next: LogIndex,
}

impl Replica {
    fn open(id: u64, memory: MemoryEngine) -> Self {
        let engine: Arc<dyn Engine> = Arc::new(memory.clone());
        let opened = open(&engine, Path::new("folder"), NodeId(id), &group()).unwrap();
        let state = Arc::new(RwLock::new(opened.state));
        let next = opened.applied.index.next();
        let roster = Arc::new(Roster::new(opened.applied.members.clone(), Vec::new()));
        let machine = StateMachine::new(engine.clone(), state.clone(), roster, opened.applied);
        Self { engine, memory, state, machine, next }
    }

    /// Applies one entry with these commands and returns their answers.
    fn apply(&mut self, commands: &[Command]) -> Vec<Answer> {
        let (tokens, mut ends): (Vec<_>, Vec<_>) = commands.iter().map(|_| Token::new()).unzip();
        let data = commands.iter().flat_map(Command::encode).collect();
        let (index, changes_members) = (self.next, false);
        let entry = Committed { index, term: Term(6), data, changes_members, tokens };
        let task = ApplyTask { group: GROUP, entries: vec![entry] };
        let outcome = self.machine.apply(vec![task]).unwrap();
        assert_eq!(outcome.progress[0].index, self.next);
        self.next = self.next.next();
        let answer = |end: &mut tokio::sync::oneshot::Receiver<Ended>| match end.try_recv() {
            Ok(Ended::Applied(answer)) => answer,
            other => panic!("not answered: {other:?}"),
        };
        ends.iter_mut().map(answer).collect()
    }

    fn fill(&mut self) {
        let found = Command::Initialize {
            cluster_id: 9,
            members: group(),
            initial_stores: 1,
            replicas: 3,
            version: CLUSTER_VERSION,
        };
        let address = "127.0.0.1:7".to_owned();
        let joining = Joining { address, data_id: 5, ..Joining::default() };
        let answers = self.apply(&[found, Command::JoinStore(joining), Command::Bootstrap]);
        assert_eq!(answers[1..], [Answer::Joined(StoreId(1)), Answer::Bootstrapped(true)]);
        // The entry a new leader begins with.
        self.apply(&[]);
    }

    /// Stages what `from` would send, and the installation of it.
    fn receive(&self, from: &mut Replica) -> Install {
        let source = from.machine.snapshot(GROUP).unwrap().unwrap();
        let mut stage = self.engine.stage("received").unwrap();
        source
            .reader
            .scan(Cf::Data, b"", b"", Direction::Forward, &mut |key, value| {
                stage.put(key, value).unwrap();
                ControlFlow::Continue(())
            })
            .unwrap();
        stage.finish().unwrap();
        let mut batch = WriteBatch::new();
        batch.put(Cf::Raft, "hard state", "of the snapshot");
        let (index, term, state) = (source.index, source.term, source.state);
        Install { group: GROUP, id: "received".to_owned(), index, term, state, batch }
    }
}

#[test]
fn a_crash_loses_only_what_the_log_replays() {
    let mut replica = Replica::open(1, MemoryEngine::new());
    replica.fill();
    let whole = replica.state.read().clone();
    let unsynced = replica.memory.unsynced();
    assert!(unsynced > 0, "applying does not sync");
    // Nothing of it was kept: back to the beginning, and the log does it again.
    let mut again = Replica::open(1, replica.memory.crash(|_| 0));
    assert_eq!(again.next, LogIndex(INITIAL_INDEX + 1));
    assert!(again.state.read().cluster().is_none());
    again.fill();
    assert_eq!(*again.state.read(), whole);
}

#[test]
fn a_snapshot_replaces_everything_and_the_next_entry_follows_it() {
    let mut sender = Replica::open(1, MemoryEngine::new());
    sender.fill();
    let mut receiver = Replica::open(2, MemoryEngine::new());
    receiver.apply(&[Command::AllocateIds { count: 400 }]);
    let install = receiver.receive(&mut sender);
    let members = receiver.machine.install(install).unwrap();
    assert_eq!(members.members.len(), 3);
    receiver.next = sender.next;
    assert_eq!(receiver.state.read().counters(), sender.state.read().counters());
    assert_eq!(receiver.state.read().stores(), sender.state.read().stores());
    assert!(receiver.engine.staged().unwrap().is_empty());
    let more = [Command::AllocateIds { count: 1 }];
    let answers = (receiver.apply(&more), sender.apply(&more));
    assert_eq!(answers.0, answers.1);
    let reopened = Replica::open(2, receiver.memory.crash(|written| written));
    assert_eq!(reopened.next, receiver.next);
}

#[test]
fn an_installation_that_a_crash_interrupted_is_finished_at_the_next_start() {
    let mut sender = Replica::open(1, MemoryEngine::new());
    sender.fill();
    let receiver = Replica::open(2, MemoryEngine::new());
    let install = receiver.receive(&mut sender);
    let applied = Applied { index: install.index, term: install.term, members: group() };
    // The first step alone: the mark and the log's part, synced.
    let mark = wire::Installing { file: install.id, applied: Some(applied_to_wire(&applied)) };
    let mut batch = install.batch;
    batch.put(Cf::Meta, INSTALLING, mark.encode_to_vec());
    receiver.engine.write_synced(batch).unwrap();
    let restarted = Replica::open(2, receiver.memory.crash(|_| 0));
    assert_eq!(restarted.next, applied.index.next());
    assert_eq!(restarted.state.read().cluster(), sender.state.read().cluster());
    assert_eq!(restarted.state.read().saved_regions(), sender.state.read().saved_regions());
    assert!(restarted.engine.get(Cf::Meta, INSTALLING).unwrap().is_none());
    assert!(restarted.engine.staged().unwrap().is_empty());
}

#[test]
fn a_command_of_a_newer_version_stops_the_member() {
    let mut replica = Replica::open(1, MemoryEngine::new());
    let newer =
        wire::Command { version: CLUSTER_VERSION + 1, kind: None }.encode_length_delimited_to_vec();
    let (token, mut end) = Token::new();
    let (index, data, changes_members) = (replica.next, newer.into(), false);
    let entry = Committed { index, term: Term(6), data, changes_members, tokens: vec![token] };
    let task = ApplyTask { group: GROUP, entries: vec![entry] };
    let error = replica.machine.apply(vec![task]).unwrap_err();
    assert!(error.is_fatal());
    assert!(error.to_string().contains("at least as new as the rest"), "{error}");
    assert!(matches!(end.try_recv(), Err(TryRecvError::Closed)), "nobody can say");
}

#[test]
fn groups_are_told_apart_before_they_have_an_id() {
    let mut other = group();
    assert_eq!(fingerprint(&group()), fingerprint(&other));
    other[2].address = "127.0.0.1:4".to_owned();
    assert_ne!(fingerprint(&group()), fingerprint(&other));
}

/// A newcomer gets its id, and then joins Raft's configuration as a learner.
fn admit(replica: &mut Replica) -> NodeId {
    let joining = JoiningMember {
        address: "127.0.0.1:44".to_owned(),
        data_id: 8,
        ..JoiningMember::default()
    };
    let answers = replica.apply(&[Command::JoinMember(joining)]);
    let Answer::MemberJoined(id) = answers[0] else { panic!("not admitted: {answers:?}") };
    let version = replica.state.read().counters().members_version;
    let voters = (1..=3).map(|id| (NodeId(id), Role::Voter));
    let members = voters.chain([(id, Role::Learner)]).collect();
    let answers = replica.apply(&[Command::ChangeMembers { version, members }]);
    assert_eq!(answers, [Answer::MembersChanged]);
    id
}

#[test]
fn members_that_joined_are_found_after_a_restart_and_in_a_snapshot() {
    let mut replica = Replica::open(1, MemoryEngine::new());
    replica.fill();
    let id = admit(&mut replica);
    assert!(id.0 > 3, "ids that founding members were given by hand are skipped");
    let mut replica = Replica::open(1, replica.memory.crash(|written| written));
    let known = replica.state.read().members().get(&id).cloned().unwrap();
    assert_eq!((known.address.as_str(), known.role), ("127.0.0.1:44", Role::Learner));

    // It moves: those who reach it, and the next start, know it there.
    let moving = JoiningMember {
        address: "127.0.0.1:55".to_owned(),
        data_id: 8,
        ..JoiningMember::default()
    };
    assert_eq!(replica.apply(&[Command::JoinMember(moving)]), [Answer::MemberJoined(id)]);
    let mut replica = Replica::open(1, replica.memory.crash(|written| written));
    assert_eq!(replica.state.read().members()[&id].address, "127.0.0.1:55");
    let opened = open(&replica.engine, Path::new("folder"), NodeId(1), &group()).unwrap();
    let applied = opened.applied.members.into_iter().find(|member| member.id == id).unwrap();
    assert_eq!(applied, Member { address: "127.0.0.1:55".to_owned(), ..known.clone() });

    let newcomer = MemoryEngine::new();
    let engine: Arc<dyn Engine> = Arc::new(newcomer.clone());
    let told = Joined {
        data_id: 8,
        fingerprint: fingerprint(&group()),
        name: String::new(),
        address: known.address,
    };
    begin_joining(engine.as_ref(), Path::new("folder"), &told).unwrap();
    assert_eq!(identity(engine.as_ref(), Path::new("folder")).unwrap().unwrap().member, NodeId(0));
    joined(engine.as_ref(), id, &told, &group()).unwrap();
    let (applied, state) = load(&engine, Path::new("folder")).unwrap();
    assert_eq!((applied.index, applied.members.len()), (LogIndex(0), 0));
    let roster = Arc::new(Roster::new(Vec::new(), group()));
    assert_eq!(roster.get(NodeId(2)).unwrap().address, "127.0.0.1:2", "told of");
    let state = Arc::new(RwLock::new(state));
    let machine = StateMachine::new(engine.clone(), state.clone(), roster.clone(), applied);
    let mut receiver = Replica { engine, memory: newcomer, state, machine, next: LogIndex(1) };
    let install = receiver.receive(&mut replica);
    assert_eq!(receiver.machine.install(install).unwrap().members.len(), 4);
    assert_eq!(roster.list().len(), 4);
    assert_eq!(receiver.state.read().members(), replica.state.read().members());
    let engine: Arc<dyn Engine> = Arc::new(receiver.memory.crash(|written| written));
    let again = identity(engine.as_ref(), Path::new("folder")).unwrap().unwrap();
    assert_eq!((again.member, again.joined.unwrap().data_id), (id, 8));
    assert_eq!(load(&engine, Path::new("folder")).unwrap().0.members.len(), 4);
}
