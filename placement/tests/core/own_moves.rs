//! A member that joined moves to another address: it says so itself, with its folder's data id, and
//! only where it is not heard of at the old one any more.

use std::time::Duration;

use quorate_placement::core::command::{
    Answer, Command, JoiningMember, MOVES_SINCE, MemberRefusal,
};
use quorate_placement::core::leader::OWN;
use quorate_proto::{NodeId, Role};

use super::{Group, joining};

const ELSEWHERE: &str = "10.9.9.9:2379";

/// Three members, two of which joined; one of those.
fn group() -> (Group, NodeId) {
    let mut group = Group::founded(1);
    let second = group.ask(2);
    group.ask(3);
    group.until("three vote", |group| group.voters().len() == 3);
    group.until("all is settled", |group| group.leader.members().of(OWN).is_empty());
    (group, second)
}

/// The second one, as it is started at another address.
fn moved(id: NodeId) -> JoiningMember {
    JoiningMember { id: Some(id), address: ELSEWHERE.to_owned(), ..joining(2) }
}

/// What is replicated of that. Its data id alone says which member it is.
fn command(id: NodeId) -> Command {
    Command::JoinMember(JoiningMember { id: None, ..moved(id) })
}

/// What the leader says to one that asks.
fn asks(group: &Group, joining: &JoiningMember) -> Result<Option<NodeId>, MemberRefusal> {
    let state = &group.machine.state;
    let known = state.may_join_group(joining)?;
    group.leader.may_use_member_address(state, &group.standing(), joining, known)?;
    Ok(known)
}

fn address(group: &Group, id: NodeId) -> String {
    group.machine.state.members()[&id].address.clone()
}

#[test]
fn one_that_joined_moves_once_it_is_not_heard_of_where_it_was() {
    let (mut group, second) = group();
    let there = MemberRefusal::StillThere { member: second, address: "10.0.0.2:2379".to_owned() };
    assert_eq!(asks(&group, &moved(second)), Err(there), "it runs, or its copy does");
    group.dead.insert(second, group.now);
    group.now = group.now + Duration::from_secs(6);
    assert_eq!(asks(&group, &moved(second)), Ok(None));
    let before = group.machine.state.counters();
    let version = before.members_version;
    // Twice, as a proposal that got no answer is made again.
    for _ in 0..2 {
        let answer = group.machine.apply(command(second));
        assert_eq!(answer, Answer::MemberJoined(second));
        assert_eq!(address(&group, second), ELSEWHERE);
    }
    assert_eq!(group.machine.state.counters(), before, "no id is taken, and Raft knows no address");
    assert_eq!(group.machine.reloaded().members(), group.machine.state.members());
    assert_eq!(group.machine.reloaded().candidates(), group.machine.state.candidates());
    assert_eq!(asks(&group, &moved(second)), Ok(Some(second)), "it is known there now");
    // The next change of members takes the address along.
    group.dead.clear();
    group.ask(4);
    group.until("the fourth one is there", |group| group.machine.state.members().len() == 4);
    assert!(group.machine.state.counters().members_version > version);
    assert_eq!(address(&group, second), ELSEWHERE);
}

#[test]
fn nobody_else_says_where_a_member_is() {
    let (mut group, second) = group();
    group.dead.insert(second, group.now);
    group.now = group.now + Duration::from_secs(6);
    // Another folder, or none.
    for data_id in [103, 7_777, 0] {
        let asks_for = JoiningMember { data_id, ..moved(second) };
        let refused = asks(&group, &asks_for);
        assert_eq!(refused, Err(MemberRefusal::Unknown(second)), "data id {data_id}");
    }
    // Somebody alive is there.
    let to = JoiningMember { address: "10.0.1.1:2379".to_owned(), ..moved(second) };
    let refused = asks(&group, &to);
    assert!(matches!(refused, Err(MemberRefusal::AddressInUse { .. })), "{refused:?}");
    // A founding member has no number that the group knows.
    let first = JoiningMember {
        id: Some(NodeId(1)),
        address: ELSEWHERE.to_owned(),
        ..JoiningMember::default()
    };
    assert_eq!(asks(&group, &first), Ok(Some(NodeId(1))));
    assert_eq!(address(&group, NodeId(1)), "10.0.1.1:2379");
    // One that was taken out does not come back by moving.
    let third = group.voters().into_iter().max().unwrap();
    for roles in [
        &[(second, Role::DemotingVoter), (third, Role::DemotingVoter)][..],
        &[(second, Role::Learner), (third, Role::Learner)],
        &[(third, Role::Learner)],
    ] {
        let version = group.machine.state.counters().members_version;
        let members = roles.iter().copied().chain([(NodeId(1), Role::Voter)]).collect();
        let answer = group.machine.apply(Command::ChangeMembers { version, members });
        assert_eq!(answer, Answer::MembersChanged);
    }
    assert_eq!(asks(&group, &moved(second)), Err(MemberRefusal::Left(second)));
    let refused = Answer::MemberRefused(MemberRefusal::Left(second));
    assert_eq!(group.machine.apply(command(second)), refused);
}

#[test]
fn an_older_form_of_the_cluster_moves_nobody() {
    let mut group = Group::founded_at(1, MOVES_SINCE - 1);
    let second = group.ask(2);
    group.until("it is there", |group| group.machine.state.members().contains_key(&second));
    let refused = group.machine.state.may_join_group(&moved(second)).unwrap_err();
    let address_now = "10.0.0.2:2379".to_owned();
    assert_eq!(refused, MemberRefusal::Moved { member: second, address: address_now.clone() });
    let answer = group.machine.apply(command(second));
    assert_eq!(answer, Answer::MemberRefused(refused));
    assert_eq!(address(&group, second), address_now);
    let change = vec![("cluster_version".to_owned(), MOVES_SINCE.to_string())];
    assert_eq!(group.machine.apply(Command::ChangeSettings(change)), Answer::Done);
    assert_eq!(group.machine.state.may_join_group(&moved(second)), Ok(None));
}
