//! The lifecycle machine against a small model of a group: told as stories, then at random.

mod given_up;
mod pace;
mod rules;
mod safety;
mod stories;
mod trouble;
mod wishes;

use std::collections::BTreeMap;

use quorate_placement::core::lifecycle::{
    Aim, Change, Group, Limits, Member, Next, Record, ReplicaRole, State, Wish, step, wish,
};
use quorate_proto::{LogIndex, NodeId, PeerId, RegionId, Role};

/// A group that does what it is told, as its leader reports it, one report a second.
pub struct World {
    pub group: Group,
    pub records: Vec<Record>,
    pub limits: Limits,
    pub now_ms: u64,
    /// Entries that the leader appends each second.
    pub writes: u64,
    /// Entries a second that a learner takes in; without one it keeps up.
    pub rates: BTreeMap<u64, u64>,
    /// Entries a second that a member applies of what it has; without one it keeps up.
    pub applies: BTreeMap<u64, u64>,
    /// False: orders are lost.
    pub obeys: bool,
    /// What happened, in words.
    pub told: Vec<String>,
    /// What was ordered, in order.
    pub changes: Vec<Change>,
    pub next: Next,
    next_peer: u64,
}

pub fn member(node: u64, role: Role) -> Member {
    Member {
        node: NodeId(node),
        peer: PeerId(node * 10),
        role,
        matched: Some(LogIndex(1_000)),
        applied: Some(LogIndex(1_000)),
        snapshot: None,
        queue: 0,
        silent_ms: 100,
        alive: true,
        can_lead: role == Role::Voter,
        leaves: false,
        leaders: 0,
        domain: Vec::new(),
    }
}

pub fn group(voters: u64, target: usize) -> Group {
    Group {
        id: RegionId(7),
        conf_ver: 1,
        leader: Some(PeerId(10)),
        last_index: LogIndex(1_000),
        committed: LogIndex(1_000),
        target,
        members: (1..=voters).map(|node| member(node, Role::Voter)).collect(),
    }
}

impl World {
    /// Voters on the nodes from 1 on, led by the first.
    pub fn new(voters: u64, target: usize) -> Self {
        Self {
            group: group(voters, target),
            records: Vec::new(),
            limits: Limits::default(),
            now_ms: 1_000_000,
            writes: 100,
            rates: BTreeMap::new(),
            applies: BTreeMap::new(),
            obeys: true,
            told: Vec::new(),
            changes: Vec::new(),
            next: Next::Nothing,
            next_peer: 500,
        }
    }

    pub fn wish(&mut self, wanted: &Wish) {
        self.try_wish(wanted, 77).unwrap();
    }

    pub fn try_wish(
        &mut self,
        wanted: &Wish,
        operator: u64,
    ) -> Result<(), quorate_placement::core::lifecycle::CannotBe> {
        let (group, records) = (&self.group, &self.records);
        self.records = wish(group, records, wanted, operator, &self.limits, self.now_ms)?;
        Ok(())
    }

    pub fn add(&mut self, node: u64) {
        self.wish(&Wish::Add { node: NodeId(node), role: ReplicaRole::Standard });
    }

    pub fn exchange(&mut self, from: u64, to: u64) {
        self.wish(&Wish::Move { from: NodeId(from), to: NodeId(to) });
    }

    pub fn member(&mut self, node: u64) -> &mut Member {
        self.group.members.iter_mut().find(|member| member.node == NodeId(node)).unwrap()
    }

    pub fn role(&self, node: u64) -> Option<Role> {
        self.group.on(NodeId(node)).map(|member| member.role)
    }

    pub fn record(&self, node: u64) -> &Record {
        self.records.iter().find(|record| record.node == NodeId(node)).unwrap()
    }

    pub fn state(&self, node: u64) -> State {
        self.record(node).state
    }

    pub fn voters(&self) -> Vec<u64> {
        self.group.voters().map(|member| member.node.0).collect()
    }

    /// A second passes: entries are written and replicated, the leader reports, and what is
    /// ordered is done.
    pub fn second(&mut self) {
        self.now_ms += 1_000;
        self.group.last_index.0 += self.writes;
        let last = self.group.last_index;
        self.group.committed = last;
        for member in &mut self.group.members {
            let rate = self.rates.get(&member.node.0).copied().unwrap_or(u64::MAX);
            let matched = member.matched.unwrap_or_default().0;
            let matched = matched.saturating_add(rate).min(last.0);
            member.matched = Some(LogIndex(matched));
            let rate = self.applies.get(&member.node.0).copied().unwrap_or(u64::MAX);
            let applied = member.applied.map(|applied| applied.0.saturating_add(rate).min(matched));
            member.applied = applied.map(LogIndex);
        }
        self.look();
        if self.obeys {
            self.obey();
        }
    }

    pub fn seconds(&mut self, count: u64) {
        for _ in 0..count {
            self.second();
        }
    }

    /// What placement sees and decides; new peers get their ids as the replicated state gives them.
    pub fn look(&mut self) {
        let stepped = step(&self.group, &self.records, &self.limits, self.now_ms);
        self.records = stepped.records;
        for record in &mut self.records {
            if record.peer == PeerId(0) {
                self.next_peer += 1;
                record.peer = PeerId(self.next_peer);
            }
        }
        self.told.extend(stepped.transitions.into_iter().map(|transition| transition.text));
        self.next = stepped.next;
    }

    /// What the group does with the order.
    pub fn obey(&mut self) {
        match self.next.clone() {
            Next::Nothing | Next::Wait(_) => {}
            Next::Transfer { to, .. } => {
                self.group.leader = self.group.on(to).map(|member| member.peer);
            }
            Next::Change(change) => {
                self.changes.push(change.clone());
                self.apply(change);
            }
        }
    }

    pub fn apply(&mut self, change: Change) {
        self.apply_unchecked(change);
        let (new, old) = (self.group.voters().count(), self.group.outgoing().count());
        assert_eq!((new % 2, old % 2), (1, 1), "an even number of voters: {new} and {old}");
    }

    pub fn apply_unchecked(&mut self, change: Change) {
        self.group.conf_ver += 1;
        let alone = self.group.voters().count() == 1;
        let members = &mut self.group.members;
        match change {
            Change::AddLearner { node, peer } => {
                assert!(members.iter().all(|member| member.node != node && member.peer != peer));
                let nothing = Some(LogIndex(0));
                let learner = member(node.0, Role::Learner);
                members.push(Member { peer, matched: nothing, applied: nothing, ..learner });
            }
            Change::EnterJoint { promote, demote } => {
                for member in members.iter_mut() {
                    match member.role {
                        Role::Learner if promote.contains(&member.peer) => {
                            member.role = Role::IncomingVoter;
                            member.can_lead = true;
                        }
                        Role::Voter if demote.contains(&member.peer) => {
                            let leads = self.group.leader == Some(member.peer);
                            assert!(!leads || alone, "a leader is demoted");
                            member.role = Role::DemotingVoter;
                        }
                        _ => {}
                    }
                }
            }
            Change::LeaveJoint => {
                for member in members.iter_mut() {
                    match member.role {
                        Role::IncomingVoter => member.role = Role::Voter,
                        Role::DemotingVoter => member.role = Role::Learner,
                        Role::Voter | Role::Learner => {}
                    }
                }
            }
            Change::RemoveLearner { peer } => {
                let gone = members.iter().position(|member| member.peer == peer).unwrap();
                assert_eq!(members[gone].role, Role::Learner, "only a learner is removed");
                members.remove(gone);
            }
        }
    }

    /// A learner that is there already, of an earlier time.
    pub fn with_learner(&mut self, node: u64, aim: Aim, state: State) {
        let learner = member(node, Role::Learner);
        self.group.members.push(learner.clone());
        self.records.push(Record::found(&self.group, &learner, aim, state, self.now_ms));
    }

    pub fn has_told(&self, text: &str) -> bool {
        self.told.iter().any(|told| told == text)
    }
}
