//! What people see and decide of placement's members.

use std::time::Duration;

use quorate_placement::core::leader::MemberAction;
use quorate_proto::NodeId;

use super::Group;
use crate::support::seconds;

#[test]
fn a_join_that_a_person_cancelled_is_not_tried_again_by_itself() {
    let mut group = Group::founded(1);
    let second = group.ask(2);
    let ask_again = |group: &mut Group| {
        group.leader.ask_again(&group.machine.state, second, group.now);
        group.look();
    };
    // Before it is there: the process still waits, and asks again and again.
    group.look_without_a_step();
    group.change(second, MemberAction::Cancel, false).unwrap();
    // Also long after, and across placement's failover.
    for _ in 0..20 {
        ask_again(&mut group);
    }
    group.now = group.now + Duration::from_secs(3_600);
    ask_again(&mut group);
    group.crash();
    ask_again(&mut group);
    assert_eq!(group.state_of(second), Some("Removed"));
    assert_eq!(group.machine.state.members().len(), 1);
    group.change(second, MemberAction::Release, false).unwrap();
    ask_again(&mut group);
    group.until("it stands by", |group| group.state_of(second) == Some("StandbyLearner"));
}

#[test]
fn a_member_that_falls_silent_is_told_of_and_so_is_its_return() {
    let mut group = Group::founded(3);
    group.until("time passes", |group| group.now >= seconds(2));
    group.dead.insert(NodeId(3), group.now);
    group.until("it is silent for long", |group| group.now >= seconds(12));
    let silent = "placement-3 is silent";
    assert_eq!(group.told(), [silent]);
    group.dead.clear();
    group.until("it is heard", |group| group.told().len() > 1);
    assert_eq!(group.told(), [silent, "placement-3 is heard again"]);
}
