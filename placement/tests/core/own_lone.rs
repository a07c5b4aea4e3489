//! A placement group of one: its member is replaced by one that joined.

use quorate_placement::core::command::MemberRefusal;
use quorate_placement::core::leader::{MemberAction, OWN};
use quorate_proto::{NodeId, StoreId};

use super::{Group, joining};

const FIRST: NodeId = NodeId(1);

/// A lone member, and one that joined and is ready to take its place.
fn group() -> (Group, NodeId) {
    let mut group = Group::founded(1);
    let new = group.ask(2);
    group.until("it is ready", |group| group.state_of(new) == Some("Pairing"));
    group.done.clear();
    (group, new)
}

#[test]
fn a_lone_member_is_replaced_by_the_one_that_joined() {
    let (mut group, new) = group();
    group.change(FIRST, MemberAction::Replace { with: StoreId(new.0) }, false).unwrap();
    group
        .until("the first one is out", |group| !group.machine.state.members().contains_key(&FIRST));
    let name = format!("placement-{}", new.0);
    assert_eq!(
        group.done,
        [
            format!("promote {name} in place of placement-1"),
            format!("lead {}", new.0),
            "leave the joint configuration".to_owned(),
            "remove placement-1".to_owned(),
        ]
    );
    assert_eq!((group.voters(), group.me), ([new].into(), new));
    assert_eq!(group.machine.state.may_join_group(&joining(2)), Ok(Some(new)));
    let back = super::JoiningMember {
        id: Some(FIRST),
        address: "10.0.1.1:2379".to_owned(),
        ..Default::default()
    };
    assert_eq!(group.machine.state.may_join_group(&back), Err(MemberRefusal::Left(FIRST)));
}

#[test]
fn whoever_leads_at_whatever_look_the_lone_member_is_replaced() {
    for crash_at in 0..40 {
        let (mut group, new) = group();
        group.change(FIRST, MemberAction::Replace { with: StoreId(new.0) }, false).unwrap();
        // What a leader planned and nobody has replicated is forgotten with it.
        group.look();
        for look in 0..40 {
            if look == crash_at {
                group.crash();
            }
            group.look();
        }
        group.until("the first one is out", |group| {
            !group.machine.state.members().contains_key(&FIRST)
        });
        assert_eq!(group.voters(), [new].into(), "{:?}", group.done);
    }
}

#[test]
fn a_lone_member_does_not_just_go() {
    let (mut group, new) = group();
    for action in [MemberAction::Remove, MemberAction::Demote] {
        assert_eq!(
            group.change(FIRST, action, true).unwrap_err(),
            "no voter of placement would be left: let another member join and put it in the place \
             of the last one, or let two join"
        );
    }
    assert_eq!(group.voters(), [FIRST].into());
    assert!(group.leader.members().of(OWN).iter().all(|record| record.node == new));
}
