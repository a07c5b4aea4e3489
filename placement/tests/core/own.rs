//! The placement group changes its own members, told as stories: it grows by pairs while its
//! leaders crash, replaces a dead member, and refuses what would cost it the quorum.

#[path = "own_lone.rs"]
mod lone;
#[path = "own_moves.rs"]
mod moves;
#[path = "own_watched.rs"]
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_consensus::shard::{Member as Peer, check_members, replaces_only_voter};
use quorate_consensus::time::Instant;
use quorate_placement::core::command::{
    Answer, CLUSTER_VERSION, Command, JoiningMember, Member, MemberRefusal,
};
use quorate_placement::core::leader::{Leader, MemberAction, OWN, Other, OwnStep, Standing};
use quorate_placement::core::oracle::CEILING_AHEAD_MS;
use quorate_proto::{LogIndex, NodeId, Role, StoreId, Term};

use crate::support::{Machine, seconds};

/// A placement group whose log takes everything at once, as long as a majority is alive.
struct Group {
    machine: Machine,
    leader: Leader,
    me: NodeId,
    term: u64,
    now: Instant,
    last: u64,
    /// Since when members are dead.
    dead: BTreeMap<NodeId, Instant>,
    /// What was done, in words.
    done: Vec<String>,
}

fn joining(number: u64) -> JoiningMember {
    JoiningMember {
        address: format!("10.0.0.{number}:2379"),
        data_id: 100 + number,
        ..JoiningMember::default()
    }
}

impl Group {
    fn founded(members: u64) -> Self {
        Self::founded_at(members, CLUSTER_VERSION)
    }

    fn founded_at(members: u64, version: u32) -> Self {
        let mut machine = Machine::default();
        let member = |id| Member {
            id: NodeId(id),
            name: format!("placement-{id}"),
            address: format!("10.0.1.{id}:2379"),
            role: Role::Voter,
        };
        machine.apply(Command::Initialize {
            cluster_id: 77,
            members: (1..=members).map(member).collect(),
            initial_stores: 1,
            replicas: 3,
            version,
        });
        machine.apply(Command::ExtendTime { ceiling_ms: 10_000_000 });
        let leader = Leader::new(Term(1), &machine.state, seconds(0));
        Self {
            machine,
            leader,
            me: NodeId(1),
            term: 1,
            now: seconds(0),
            last: 1_000,
            dead: BTreeMap::new(),
            done: Vec::new(),
        }
    }

    fn ask(&mut self, number: u64) -> NodeId {
        match self.machine.apply(Command::JoinMember(joining(number))) {
            Answer::MemberJoined(id) => id,
            other => panic!("not admitted: {other:?}"),
        }
    }

    fn standing(&self) -> Standing {
        let others = self.machine.state.members().values().filter(|member| member.id != self.me);
        let other = |member: &Member| Other {
            member: member.id,
            matched: LogIndex(self.last),
            applied: Some(LogIndex(self.last)),
            snapshot: None,
            silent_ms: self
                .dead
                .get(&member.id)
                .map_or(0, |since| u64::try_from(self.now.since(*since).as_millis()).unwrap()),
        };
        let last = LogIndex(self.last);
        Standing { me: self.me, last, committed: last, others: others.map(other).collect() }
    }

    /// One look of the leader, and what it leads to.
    fn look(&mut self) {
        self.now = self.now + Duration::from_millis(200);
        self.last += 1;
        let standing = self.standing();
        let step = self.leader.advance_own(&self.machine.state, &standing, self.now);
        for command in self.leader.to_propose(&self.machine.state, self.now) {
            self.machine.apply(command);
        }
        match step {
            None => {}
            Some(OwnStep::Transfer { to, .. }) => {
                self.done.push(format!("lead {}", to.0));
                self.elect(to);
            }
            Some(OwnStep::Change { members, command, what }) => {
                self.check(&members);
                self.done.push(what);
                assert_eq!(self.machine.apply(command.clone()), Answer::MembersChanged);
                // The same entry again changes nothing.
                let again = self.machine.apply(command);
                assert!(matches!(again, Answer::Refused(_)), "{again:?}");
            }
        }
        assert_eq!(self.machine.reloaded().members(), self.machine.state.members());
    }

    /// One look of the leader, whose step is not taken.
    fn look_without_a_step(&mut self) {
        let (standing, now) = (self.standing(), self.now);
        self.leader.advance_own(&self.machine.state, &standing, now);
        for command in self.leader.to_propose(&self.machine.state, now) {
            self.machine.apply(command);
        }
    }

    /// What Raft would say.
    fn check(&self, wanted: &[(NodeId, Role)]) {
        let present: Vec<Peer> = self.machine.state.members().values().map(Member::raft).collect();
        let wanted: Vec<Peer> = wanted.iter().map(|(id, role)| Member::peer(*id, *role)).collect();
        check_members(&present, &wanted).unwrap();
        for side in [Peer::is_incoming, Peer::is_outgoing] {
            let voters: Vec<&Peer> = wanted.iter().filter(|peer| side(peer)).collect();
            assert!(voters.len() % 2 == 1, "{wanted:?}");
            let alive = voters.iter().filter(|peer| !self.dead.contains_key(&peer.node)).count();
            assert!(alive * 2 > voters.len(), "{wanted:?} has no live majority");
        }
        let leader = wanted.iter().find(|peer| peer.node == self.me).unwrap();
        let stays = leader.is_incoming() || replaces_only_voter(&present, &wanted);
        assert!(stays, "the leader is demoted: {wanted:?}");
    }

    fn elect(&mut self, to: NodeId) {
        // No former leader's time has reached the ceiling that the next one finds.
        let ceiling_ms = self.leader.time_ms(self.now) + CEILING_AHEAD_MS + 1;
        self.machine.apply(Command::ExtendTime { ceiling_ms });
        self.me = to;
        self.term += 1;
        self.now = self.now + Duration::from_secs(1);
        self.leader = Leader::new(Term(self.term), &self.machine.state, self.now);
    }

    /// The leader loses what only it knows, and another voter goes on where there is one.
    fn crash(&mut self) {
        let members = self.machine.state.members().values();
        let voters = members.filter(|m| m.role != Role::Learner && !self.dead.contains_key(&m.id));
        let voters: Vec<NodeId> = voters.map(|member| member.id).collect();
        let next = voters.iter().find(|id| **id > self.me).or(voters.first());
        self.elect(*next.unwrap());
    }

    fn until(&mut self, what: &str, is: impl Fn(&Self) -> bool) {
        for _ in 0..3_000 {
            if is(self) {
                return;
            }
            self.look();
        }
        panic!("{what} never came; done: {:?}, waits: {}", self.done, self.leader.own_waits());
    }

    fn voters(&self) -> BTreeSet<NodeId> {
        let members = self.machine.state.members().values();
        members.filter(|member| member.role == Role::Voter).map(|member| member.id).collect()
    }

    fn state_of(&self, id: NodeId) -> Option<&'static str> {
        let records = self.leader.members().of(OWN);
        records.iter().find(|record| record.node == id).map(|record| record.state.name())
    }

    fn told(&self) -> Vec<String> {
        let events = self.machine.state.events().after(0, 0);
        events.into_iter().map(|event| event.news.text).collect()
    }

    fn change(&mut self, id: NodeId, action: MemberAction, force: bool) -> Result<(), String> {
        let (standing, now) = (self.standing(), self.now);
        let changed =
            self.leader.change_own(&self.machine.state, &standing, id, action, force, now);
        changed.map_err(|refused| refused.to_string())
    }
}

#[test]
fn a_lone_member_grows_to_three_and_to_five_by_pairs() {
    let mut group = Group::founded(1);
    let second = group.ask(2);
    assert_eq!(group.ask(2), second, "the same folder has the same id");
    group.until("a lone learner waits for a partner", |group| {
        group.state_of(second) == Some("Pairing")
    });
    group.until("it stands by", |group| group.state_of(second) == Some("StandbyLearner"));
    assert_eq!(group.voters().len(), 1, "two voters survive no more than one");
    let third = group.ask(3);
    group.until("three vote", |group| group.voters().len() == 3);
    group.until("all is settled", |group| group.leader.members().of(OWN).is_empty());
    let (fourth, fifth) = (group.ask(4), group.ask(5));
    group.until("five vote", |group| group.voters().len() == 5);
    let [two, three, four, five] = [second, third, fourth, fifth].map(|id| id.0);
    assert_eq!(
        group.done,
        [
            format!("add placement-{two} as a learner"),
            format!("add placement-{three} as a learner"),
            format!("promote placement-{two}+placement-{three}"),
            "leave the joint configuration".to_owned(),
            format!("add placement-{four} as a learner"),
            format!("add placement-{five} as a learner"),
            format!("promote placement-{four}+placement-{five}"),
            "leave the joint configuration".to_owned(),
        ]
    );
    group.until("the news are told", |group| {
        group.told().iter().any(|text| text.ends_with("promoted, voters 5"))
    });
    let told = group.told();
    let has = |text: String| assert!(told.contains(&text), "{text} in {told:#?}");
    has(format!("placement-{two} joined as learner"));
    has(format!("placement-{two} ready, waiting for a partner (voters 1, target 3)"));
    has(format!("placement-{two} stands by as a learner: no partner came in time"));
    has(format!("placement-{two}+placement-{three} promoted, voters 3"));
    // A sixth stands by for good: more than five voters would only be slower.
    let sixth = group.ask(6);
    group.until("it stands by", |group| group.state_of(sixth) == Some("StandbyLearner"));
    assert_eq!(group.voters().len(), 5);
}

#[test]
fn a_leader_that_crashes_at_any_look_leaves_the_next_one_to_go_on() {
    for crash_at in 0..60 {
        let mut group = Group::founded(1);
        group.ask(2);
        group.ask(3);
        for look in 0..60 {
            if look == crash_at {
                group.crash();
            }
            group.look();
        }
        group.until("three vote", |group| group.voters().len() == 3);
        group.ask(4);
        group.ask(5);
        for look in 0..60 {
            if look == crash_at {
                group.crash();
            }
            group.look();
        }
        group.until("five vote", |group| group.voters().len() == 5);
        let adds = group.done.iter().filter(|what| what.starts_with("add ")).count();
        assert_eq!(adds, 4, "nobody is added twice: {:?}", group.done);
    }
}

#[test]
fn a_leader_that_crashes_after_every_step_is_no_obstacle() {
    let mut group = Group::founded(1);
    for number in 2..=5 {
        group.ask(number);
    }
    let mut seen = 0;
    group.look();
    while group.voters().len() < 5 {
        let done = group.done.len();
        assert!(seen < 3_000, "done: {:?}", group.done);
        if done > seen {
            seen = done;
            group.crash();
        }
        group.look();
    }
}

#[test]
fn a_dead_member_is_replaced_on_request_and_does_not_come_back() {
    let mut group = Group::founded(3);
    let two = NodeId(2);
    group.dead.insert(two, group.now);
    group.look();
    let words = group.change(two, MemberAction::Remove, false).unwrap_err();
    assert!(
        words.contains("a voter goes only in exchange for another one"),
        "the rule is named: {words}"
    );
    let nobody = group.change(two, MemberAction::Replace { with: StoreId(9) }, false).unwrap_err();
    assert_eq!(
        nobody,
        "placement-9 is no member of placement; `quorate member list placement` shows them"
    );
    let new = group.ask(4);
    group.until("it is ready", |group| group.state_of(new) == Some("Pairing"));
    group.change(two, MemberAction::Replace { with: StoreId(new.0) }, false).unwrap();
    group.until("the dead one is out", |group| !group.machine.state.members().contains_key(&two));
    assert_eq!(group.voters(), [NodeId(1), NodeId(3), new].into());
    let back = JoiningMember {
        id: Some(two),
        address: "10.0.1.2:2379".to_owned(),
        ..JoiningMember::default()
    };
    assert_eq!(group.machine.state.may_join_group(&back), Err(MemberRefusal::Left(two)));
    let again = group.machine.state.may_join_group(&joining(4));
    assert_eq!(again, Ok(Some(new)), "one that is in is told so");
    group
        .until("the end is told", |group| group.told().contains(&"placement-2 removed".to_owned()));
}

#[test]
fn a_leader_that_is_replaced_hands_over_first() {
    let mut group = Group::founded(3);
    let new = group.ask(4);
    group.until("it is ready", |group| group.state_of(new) == Some("Pairing"));
    let me = group.me;
    group.change(me, MemberAction::Replace { with: StoreId(new.0) }, false).unwrap();
    group.until("it is out", |group| !group.machine.state.members().contains_key(&me));
    assert!(group.done.iter().any(|what| what == "lead 2"), "{:?}", group.done);
    assert_eq!(group.voters(), [NodeId(2), NodeId(3), new].into());
}

#[test]
fn a_voter_that_is_lost_for_long_is_replaced_by_one_that_stands_by() {
    let mut group = Group::founded(3);
    let change = vec![("store.down_ms".to_owned(), "60000".to_owned())];
    assert_eq!(group.machine.apply(Command::ChangeSettings(change)), Answer::Done);
    let new = group.ask(4);
    group.until("it stands by", |group| group.state_of(new) == Some("StandbyLearner"));
    group.dead.insert(NodeId(3), group.now);
    group.until("it votes", |group| group.voters().contains(&new));
    group.until("the lost one is out", |group| {
        !group.machine.state.members().contains_key(&NodeId(3))
    });
    // The next one does not wait until that one is forgotten, ten minutes later.
    let next = group.ask(5);
    group.until("it is ready", |group| group.state_of(next) == Some("Pairing"));
    group.dead.insert(NodeId(2), group.now);
    for _ in 0..500 {
        group.look();
    }
    assert!(group.voters().contains(&next), "waits: {}", group.leader.own_waits());
}

#[test]
fn what_was_cancelled_goes_again() {
    let mut group = Group::founded(3);
    let new = group.ask(4);
    group.until("it joined", |group| group.machine.state.members().contains_key(&new));
    group.change(new, MemberAction::Cancel, false).unwrap();
    group.until("it is out", |group| !group.machine.state.members().contains_key(&new));
    let refused = group.machine.apply(Command::JoinMember(joining(4)));
    assert_eq!(refused, Answer::MemberRefused(MemberRefusal::Left(new)));
}

#[test]
fn an_older_form_of_the_cluster_does_not_change_its_members() {
    let mut machine = Group::founded_at(1, 2).machine;
    let refused = machine.state.may_join_group(&joining(2)).unwrap_err();
    assert_eq!(refused, MemberRefusal::OldVersion);
    let change = vec![("cluster_version".to_owned(), "3".to_owned())];
    assert_eq!(machine.apply(Command::ChangeSettings(change)), Answer::Done);
    assert_eq!(machine.state.may_join_group(&joining(2)), Ok(None));
}
