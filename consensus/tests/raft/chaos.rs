//! Members change at random while processes die, links break and leaders move.
//!
//! At every applied configuration both voter sets are odd; replicas that have applied as much are
//! equal; a term has one leader. Once everything works again, the group goes on, and all its
//! members catch up.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use quorate_consensus::shard::{Event, Member, RaftOptions};
use quorate_proto::{NodeId, PeerId, RegionId, Role};

use crate::cluster::Cluster;
use crate::host::list;

const GROUP: u64 = 1;
/// Processes 1 to 6; the group starts on the first three, or on the first one alone.
const NODES: u64 = 6;

#[derive(Debug, Clone)]
enum Step {
    /// Add a learner on that process, where there is none.
    Add(u64),
    /// Turn these, by their place among the members: learners come in, voters go out.
    Turn(Vec<bool>),
    Leave,
    /// Remove the nth learner.
    Remove(usize),
    Transfer(u64),
    Propose,
    /// Of its unsynced writes, so many survive.
    Stop(u64, usize),
    Restart(u64),
    Cut(u64, u64),
    Heal,
    Tick(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 1..=NODES;
    prop_oneof![
        4 => node().prop_map(Step::Add),
        6 => vec(any::<bool>(), 8).prop_map(Step::Turn),
        4 => Just(Step::Leave),
        3 => (0..3usize).prop_map(Step::Remove),
        2 => node().prop_map(Step::Transfer),
        4 => Just(Step::Propose),
        2 => (node(), 0..4usize).prop_map(|(node, keep)| Step::Stop(node, keep)),
        3 => node().prop_map(Step::Restart),
        2 => (node(), node()).prop_map(|(one, other)| Step::Cut(one, other)),
        2 => Just(Step::Heal),
        10 => (1..9u64).prop_map(Step::Tick),
    ]
}

struct Chaos {
    cluster: Cluster,
    /// What was applied at each index.
    applied: BTreeMap<u64, String>,
    /// Ids that were given out, so that none comes twice.
    joined: u64,
    changes: usize,
    /// Configurations in which one voter alone took the place of another.
    exchanges: BTreeSet<u64>,
}

impl Chaos {
    fn new(voters: u64) -> Self {
        let options = RaftOptions {
            truncate_entries: 4,
            max_log_entries: 16,
            sleep_after_ticks: 5,
            ..RaftOptions::default()
        };
        let mut cluster = Cluster::new(options);
        for node in 1..=NODES {
            cluster.host(node);
        }
        for node in 1..=voters {
            cluster.create(node, GROUP, (1..=voters).collect(), false);
        }
        cluster.settle();
        let (applied, exchanges) = (BTreeMap::new(), BTreeSet::new());
        Self { cluster, applied, joined: 1, changes: 0, exchanges }
    }

    /// The process that leads in the highest term, and the members as it has applied them.
    fn leader(&self) -> Option<(u64, Vec<Member>)> {
        let hosts = self.cluster.hosts.iter().filter(|(_, host)| host.runs);
        let led = hosts.filter_map(|(node, host)| {
            let hosted = host.groups.get(&GROUP).filter(|hosted| hosted.view.is_leader())?;
            Some((hosted.view.term(), *node, hosted.applied.members.clone()))
        });
        led.max_by_key(|(term, ..)| *term).map(|(_, node, members)| (node, members))
    }

    fn change(&mut self, change: impl FnOnce(&mut Vec<Member>)) {
        let Some((leader, mut members)) = self.leader() else { return };
        change(&mut members);
        self.cluster.change(leader, GROUP, &list(&members), None);
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Add(node) => {
                self.joined += 1;
                let peer = PeerId(self.joined * 10 + node);
                self.change(|members| {
                    members.push(Member { peer, node: NodeId(node), role: Role::Learner });
                });
            }
            Step::Turn(turns) => self.change(|members| {
                for (member, turn) in members.iter_mut().zip(turns) {
                    member.role = match member.role {
                        Role::Learner if turn => Role::IncomingVoter,
                        Role::Voter if turn => Role::DemotingVoter,
                        role => role,
                    };
                }
            }),
            Step::Leave => self.change(|members| {
                for member in members {
                    member.role = match member.role {
                        Role::IncomingVoter => Role::Voter,
                        Role::DemotingVoter => Role::Learner,
                        role => role,
                    };
                }
            }),
            Step::Remove(nth) => self.change(|members| {
                let learners = members.iter().filter(|member| member.role == Role::Learner);
                if let Some(peer) = learners.map(|member| member.peer).nth(nth) {
                    members.retain(|member| member.peer != peer);
                }
            }),
            Step::Transfer(to) => {
                if let Some((leader, _)) = self.leader() {
                    let (group, to) = (RegionId(GROUP), NodeId(to));
                    self.cluster.step(leader, Event::TransferLeader { group, to });
                }
            }
            Step::Propose => {
                if let Some((leader, _)) = self.leader() {
                    self.cluster.propose(leader, GROUP, "x", false);
                }
            }
            Step::Stop(node, keep) => {
                if self.cluster.host(node).runs {
                    self.cluster.stop(node, keep);
                }
            }
            Step::Restart(node) => {
                if !self.cluster.host(node).runs {
                    self.cluster.restart(node);
                }
            }
            Step::Cut(one, other) => {
                self.cluster.cuts.insert((one, other));
            }
            Step::Heal => self.cluster.cuts.clear(),
            Step::Tick(count) => {
                let all: Vec<u64> = (1..=NODES).collect();
                for _ in 0..count {
                    self.cluster.tick(&all);
                    self.settle();
                }
            }
        }
        self.settle();
    }

    /// Everything comes to rest; replicas that are missing somewhere are hosted, as placement
    /// would have it.
    fn settle(&mut self) {
        self.cluster.settle();
        let newest = self.cluster.hosts.values().filter_map(|host| host.groups.get(&GROUP));
        let newest = newest.max_by_key(|hosted| hosted.applied.conf_ver);
        let members = newest.map(|hosted| hosted.applied.members.clone()).unwrap_or_default();
        for (node, peer) in std::mem::take(&mut self.cluster.strangers) {
            let belongs = members.iter().any(|member| member.peer.0 == peer);
            let here = self.cluster.host(node).groups.get(&GROUP).map(|hosted| hosted.peer);
            if belongs && here.is_some_and(|here| here < peer) {
                // Replaced while it was away.
                let old = PeerId(here.unwrap_or_default());
                self.cluster.step(node, Event::Destroy { group: RegionId(GROUP), peer: old });
                self.cluster.settle();
            }
            if belongs && !self.cluster.host(node).groups.contains_key(&GROUP) {
                self.cluster.host_empty(node, GROUP, peer);
                self.cluster.settle();
            }
        }
        self.check();
    }

    fn check(&mut self) {
        for host in self.cluster.hosts.values().filter(|host| host.runs) {
            let Some(hosted) = host.groups.get(&GROUP) else { continue };
            let applied = &hosted.applied;
            if applied.members.is_empty() {
                continue;
            }
            let words = format!("{applied:?}");
            let known = self.applied.entry(applied.index).or_insert_with(|| words.clone());
            assert_eq!(*known, words, "n{} differs", host.node);
            for votes in [Member::is_incoming, Member::is_outgoing] {
                let voters = applied.members.iter().filter(|member| votes(member)).count();
                assert_eq!(voters % 2, 1, "{}", list(&applied.members));
            }
            self.changes = self.changes.max(applied.conf_ver as usize - 1);
            let vote = |role| applied.members.iter().filter(|member| member.role == role).count();
            let (comes, goes) = (vote(Role::IncomingVoter), vote(Role::DemotingVoter));
            if (comes, goes, vote(Role::Voter)) == (1, 1, 0) {
                self.exchanges.insert(applied.conf_ver);
            }
        }
        let mut leaders = BTreeMap::new();
        for (term, leader) in &self.cluster.leaders {
            let known = leaders.entry(*term).or_insert(*leader);
            assert_eq!(known, leader, "two leaders in t{term}");
        }
    }

    /// Everything works again: a command goes through, and all members have it.
    fn heal(&mut self) {
        self.cluster.cuts.clear();
        for node in 1..=NODES {
            self.run(Step::Restart(node));
        }
        self.run(Step::Tick(60));
        for _ in 0..4 {
            let before = self.cluster.said.len();
            self.run(Step::Propose);
            self.run(Step::Tick(30));
            self.cluster.said.drain(..before);
        }
        let (leader, members) = self.leader().expect("somebody leads once everything works");
        let applied = self.cluster.hosts[&leader].groups[&GROUP].applied.clone();
        for member in members {
            let node = member.node.0;
            let hosted = self.cluster.hosts[&node].groups.get(&GROUP);
            let hosted = hosted.unwrap_or_else(|| panic!("n{node} has no replica"));
            assert_eq!(hosted.peer, member.peer.0);
            assert_eq!(hosted.applied.index, applied.index, "n{node} has caught up");
        }
    }
}

/// Changes, and exchanges of an only voter, in all runs together; and how many runs there were.
fn run(voters: u64) -> (usize, usize, usize) {
    let config = ProptestConfig { failure_persistence: None, ..Default::default() };
    let cases = config.cases as usize;
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let seen = std::cell::Cell::new((0, 0));
    runner
        .run(&vec(step(), 1..120), |steps| {
            let mut chaos = Chaos::new(voters);
            chaos.run(Step::Tick(8));
            for step in steps {
                chaos.run(step);
            }
            chaos.heal();
            let (changes, exchanges) = seen.get();
            seen.set((changes + chaos.changes, exchanges + chaos.exchanges.len()));
            Ok(())
        })
        .unwrap();
    let (changes, exchanges) = seen.get();
    (changes, exchanges, cases)
}

#[test]
fn members_change_under_failures() {
    let (changes, _, cases) = run(3);
    assert!(changes > cases * 3, "only {changes} changes were applied");
}

#[test]
fn a_group_of_one_goes_from_process_to_process_under_failures() {
    let (changes, exchanges, cases) = run(1);
    assert!(changes > cases * 3, "only {changes} changes were applied");
    assert!(exchanges > cases / 8, "only {exchanges} only voters were exchanged in {cases} runs");
}
