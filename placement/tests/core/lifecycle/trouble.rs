//! How members fare when something goes wrong.

use quorate_placement::core::lifecycle::{Aim, Change, Next, Record, State, cancel};
use quorate_proto::{LogIndex, NodeId, PeerId, Role};

use super::{World, member};

#[test]
fn a_client_supplied_status_is_never_believed() {
    let mut world = World::new(3, 5);
    for node in [4, 5] {
        // Whoever says so: the group's leader knows nothing of it.
        let ready = State::Ready { ready_ms: world.now_ms };
        world.with_learner(node, Aim::Vote { replacing: None }, ready);
        world.member(node).matched = Some(LogIndex(1));
        world.rates.insert(node, 1);
    }
    world.seconds(30);
    assert_eq!(world.voters(), [1, 2, 3]);
    assert_eq!((world.state(4), world.state(5)), (State::Syncing, State::Syncing));
    assert!(world.changes.is_empty());
}

#[test]
fn a_million_entries_behind_is_not_ready_at_ten_million() {
    let mut world = World::new(3, 5);
    world.group.last_index = LogIndex(10_000_000);
    for node in [4, 5] {
        world.with_learner(node, Aim::Vote { replacing: None }, State::Syncing);
        world.member(node).matched = Some(LogIndex(9_000_000));
        world.rates.insert(node, world.writes);
    }
    world.seconds(50);
    assert_eq!((world.state(4), world.state(5)), (State::Syncing, State::Syncing));
}

#[test]
fn a_learner_that_makes_no_progress_is_found() {
    let mut world = World::new(3, 5);
    world.add(4);
    world.rates.insert(4, 0);
    world.seconds(world.limits.stall_ms / 1_000 - 2);
    assert_eq!(world.state(4), State::Syncing);
    world.seconds(4);
    assert_eq!(world.state(4), State::StandbyLearner);
    let stale = |told: &&String| told.starts_with("r7 s4 is stale, no progress for");
    assert_eq!(world.told.iter().filter(stale).count(), 1, "told once");
}

#[test]
fn a_snapshot_under_way_is_progress_however_long_it_takes() {
    let mut world = World::new(3, 5);
    world.add(4);
    world.rates.insert(4, 0);
    world.seconds(2);
    for sent in 1..=600 {
        world.member(4).snapshot = Some((sent * 1_000, 1_000_000));
        world.second();
    }
    assert_eq!(world.state(4), State::Syncing);
    assert!(world.record(4).reason.starts_with("gets a snapshot, 600000 of 1000000"));
}

#[test]
fn a_learner_falls_behind_and_is_checked_again_before_the_joint_change() {
    let mut world = World::new(3, 5);
    world.add(4);
    world.seconds(8);
    world.add(5);
    world.obeys = false;
    world.seconds(1);
    world.obeys = true;
    world.second();
    world.obeys = false;
    world.seconds(4);
    assert!(matches!(world.next, Next::Change(Change::EnterJoint { .. })));
    assert!(matches!(world.state(4), State::Promoting { .. }));
    // The order got lost, and meanwhile the learner is cut off.
    world.rates.insert(4, 0);
    world.member(4).silent_ms = 9_000;
    world.obeys = true;
    world.second();
    assert_eq!(world.state(4), State::Syncing);
    assert!(matches!(world.state(5), State::Pairing { .. } | State::Ready { .. }));
    assert_eq!(world.voters(), [1, 2, 3]);
}

#[test]
fn a_join_that_is_not_seen_in_time_is_rolled_back_whole() {
    let mut world = World::new(3, 5);
    world.add(4);
    world.obeys = false;
    world.seconds(world.limits.join_ms / 1_000);
    assert_eq!(world.state(4), State::Removed);
    assert!(world.has_told("r7 s4 did not join in time, rolled back"));
    // The entry was in a log all the time, and is applied now.
    let peer = world.record(4).peer;
    world.apply(Change::AddLearner { node: NodeId(4), peer });
    world.obeys = true;
    world.seconds(2);
    assert_eq!(world.role(4), None);
    assert_eq!(world.changes, [Change::RemoveLearner { peer }]);
    // In the end nothing is left of it.
    world.seconds(700);
    assert!(world.records.is_empty());
}

#[test]
fn a_join_that_lies_in_a_log_without_a_majority_is_remembered() {
    for leaderless in [false, true] {
        let mut world = World::new(3, 5);
        world.add(4);
        world.obeys = false;
        world.seconds(world.limits.join_ms / 1_000);
        assert_eq!(world.state(4), State::Removed);
        let leader = world.group.leader;
        for voter in [2, 3] {
            world.member(voter).alive = leaderless;
        }
        world.group.leader = leader.filter(|_| !leaderless);
        world.seconds(3_000);
        for voter in [2, 3] {
            world.member(voter).alive = true;
        }
        world.group.leader = leader;
        world.second();
        let peer = world.record(4).peer;
        world.apply(Change::AddLearner { node: NodeId(4), peer });
        world.obeys = true;
        world.seconds(2);
        assert_eq!(world.changes, [Change::RemoveLearner { peer }]);
        world.seconds(700);
        assert!(world.records.is_empty());
    }
}

#[test]
fn a_join_that_was_applied_just_in_time_is_kept() {
    let mut world = World::new(3, 5);
    world.add(4);
    world.obeys = false;
    world.seconds(world.limits.join_ms / 1_000 - 1);
    let peer = world.record(4).peer;
    world.apply(Change::AddLearner { node: NodeId(4), peer });
    world.seconds(5);
    assert!(matches!(world.state(4), State::Ready { .. } | State::Pairing { .. }));
}

#[test]
fn zombies_go_and_who_comes_back_in_time_stays() {
    let mut world = World::new(3, 3);
    world.with_learner(4, Aim::Learn, State::KeepAsLearner);
    world.with_learner(5, Aim::Vote { replacing: None }, State::StandbyLearner);
    for node in [4, 5] {
        world.member(node).silent_ms = world.limits.zombie_ms;
        world.member(node).alive = false;
    }
    // Without a majority nothing is removed.
    for node in [2, 3] {
        world.member(node).alive = false;
    }
    world.seconds(3);
    assert_eq!((world.state(4), world.state(5)), (State::Zombie, State::Zombie));
    assert!(world.changes.is_empty());
    world.member(5).silent_ms = 100;
    world.member(2).alive = true;
    world.seconds(3);
    assert_eq!((world.role(4), world.role(5)), (None, Some(Role::Learner)));
    assert!(world.has_told("r7 s4 is a zombie"));
    assert!(world.has_told("r7 s5 is back before removal"));
}

#[test]
fn silence_before_it_came_in_makes_no_zombie() {
    let mut world = World::new(3, 5);
    world.add(4);
    world.rates.insert(4, 0);
    world.seconds(2);
    // The leader's process and its own shared no group for an hour.
    world.member(4).silent_ms = 3_600_000;
    world.seconds(3);
    assert_eq!(world.state(4), State::Syncing);
    world.seconds(world.limits.stall_ms / 1_000 + 5);
    assert!(world.has_told("r7 s4 is a zombie"), "now it was silent for too long");
}

#[test]
fn who_cannot_have_the_place_of_one_that_is_gone_stands_by() {
    let mut world = World::new(3, 3);
    // As a split leaves it: it was to replace a voter that another one has replaced since.
    let aim = Aim::Vote { replacing: Some(NodeId(9)) };
    world.with_learner(4, aim, State::StandbyLearner);
    world.second();
    assert_eq!(world.record(4).aim, Aim::Vote { replacing: None });
    // So it is there for the next one.
    world.exchange(2, 4);
    world.seconds(30);
    assert_eq!(world.voters(), [1, 3, 4]);
}

#[test]
fn a_held_learner_is_neither_promoted_nor_given_up() {
    let mut world = World::new(3, 5);
    world.add(4);
    world.seconds(8);
    world.records[0].held = true;
    world.add(5);
    world.seconds(1_000);
    assert!(matches!(world.state(4), State::Pairing { .. }));
    assert_eq!(world.voters(), [1, 2, 3]);
    world.member(4).silent_ms = 10_000_000;
    world.seconds(10);
    assert_eq!(world.role(4), Some(Role::Learner));
    world.member(4).silent_ms = 100;
    let held = world.records.iter_mut().find(|record| record.node == NodeId(4)).unwrap();
    held.held = false;
    world.seconds(10);
    assert_eq!(world.voters(), [1, 2, 3, 4, 5]);
}

#[test]
fn a_joint_configuration_is_completed_whoever_finds_it() {
    let mut world = World::new(3, 3);
    world.group.members.push(member(4, Role::IncomingVoter));
    world.member(3).role = Role::DemotingVoter;
    // Nobody knows where it came from.
    assert!(world.records.is_empty());
    // Both majorities are needed: 2 of {1, 2, 3} and 2 of {1, 2, 4}.
    world.member(2).alive = false;
    world.member(4).alive = false;
    world.seconds(100);
    match &world.next {
        Next::Wait(why) => assert!(why.contains("only 1 of the 3 voters afterwards"), "{why}"),
        other => panic!("{other:?}"),
    }
    world.member(4).alive = true;
    world.second();
    assert_eq!(world.changes, [Change::LeaveJoint]);
    assert_eq!(world.voters(), [1, 2, 4]);
}

#[test]
fn a_leader_that_is_being_demoted_hands_over_before_the_joint_configuration_is_left() {
    let mut world = World::new(3, 3);
    world.group.members.push(member(4, Role::IncomingVoter));
    world.member(1).role = Role::DemotingVoter;
    world.second();
    assert_eq!(world.group.leader, Some(PeerId(20)));
    world.second();
    assert_eq!(world.voters(), [2, 3, 4]);
}

#[test]
fn a_cancelled_move_takes_its_new_learner_back() {
    let mut world = World::new(3, 3);
    world.exchange(2, 4);
    world.rates.insert(4, 1);
    world.seconds(5);
    assert_eq!(world.role(4), Some(Role::Learner));
    world.records = cancel(&world.group, &world.records, 77, "cancelled", world.now_ms);
    world.seconds(3);
    assert_eq!(world.voters(), [1, 2, 3]);
    assert_eq!(world.group.members.len(), 3);
    assert_eq!(world.record(4).state, State::Removed);
}

#[test]
fn a_cancelled_move_leaves_a_standby_learner_standing_by() {
    let mut world = World::new(3, 3);
    world.with_learner(4, Aim::Vote { replacing: None }, State::StandbyLearner);
    world.exchange(2, 4);
    world.records = cancel(&world.group, &world.records, 77, "cancelled", world.now_ms);
    world.seconds(10);
    assert_eq!(world.state(4), State::StandbyLearner);
    assert_eq!(world.record(4).aim, Aim::Vote { replacing: None });
    assert_eq!(world.voters(), [1, 2, 3]);
}

#[test]
fn after_the_swap_a_cancelled_move_is_finished() {
    let mut world = World::new(3, 3);
    world.exchange(2, 4);
    while world.role(4) != Some(Role::Voter) {
        world.second();
    }
    assert_eq!(world.role(2), Some(Role::Learner));
    world.records = cancel(&world.group, &world.records, 77, "cancelled", world.now_ms);
    world.seconds(3);
    assert_eq!(world.voters(), [1, 3, 4]);
    assert_eq!(world.role(2), None);
}

#[test]
fn without_a_leader_or_a_majority_everything_waits() {
    let mut world = World::new(3, 3);
    world.exchange(2, 4);
    world.group.leader = None;
    world.seconds(5);
    assert_eq!(world.next, Next::Wait("the group has no leader that reports now".to_owned()));
    world.group.leader = Some(PeerId(10));
    world.member(2).alive = false;
    world.member(3).alive = false;
    world.second();
    assert!(matches!(&world.next, Next::Wait(why) if why.contains("only 1 of 3 voters")));
}

#[test]
fn a_removed_member_that_others_removed_is_noticed() {
    let mut world = World::new(3, 5);
    let learner = member(4, Role::Learner);
    let aim = Aim::Vote { replacing: None };
    let (group, now_ms) = (&world.group, world.now_ms);
    world.records.push(Record::found(group, &learner, aim, State::StandbyLearner, now_ms));
    world.second();
    assert_eq!(world.state(4), State::StandbyLearner, "the same configuration proves nothing");
    world.group.conf_ver += 1;
    world.second();
    assert_eq!(world.state(4), State::Removed);
    assert_eq!(world.record(4).reason, "by a change from elsewhere");
}

#[test]
fn an_old_configuration_decides_nothing() {
    let mut world = World::new(3, 3);
    let before = world.group.clone();
    world.exchange(2, 4);
    world.rates.insert(4, 1);
    world.seconds(4);
    assert_eq!(world.state(4), State::Syncing);
    // The next leader of placement has saved routes of some seconds ago, or believes a store that
    // does not know yet that it was deposed.
    let newest = std::mem::replace(&mut world.group, before);
    let records = world.records.clone();
    world.look();
    assert_eq!(world.records, records);
    assert_eq!(world.next, Next::Wait("its newest configuration is not reported yet".to_owned()));
    world.group = newest;
    world.rates.remove(&4);
    world.seconds(15);
    assert_eq!(world.voters(), [1, 3, 4]);
}

#[test]
fn who_is_missing_where_no_leader_has_reported_was_not_removed() {
    let mut world = World::new(3, 5);
    let learner = member(4, Role::Learner);
    let aim = Aim::Vote { replacing: None };
    world.records.push(Record::found(&world.group, &learner, aim, State::Syncing, world.now_ms));
    // A new placement leader knows the group as it was last saved, which is before it came.
    world.group.leader = None;
    world.second();
    assert_eq!(world.state(4), State::Syncing);
    world.group.members.push(learner);
    world.group.leader = Some(PeerId(10));
    world.second();
    assert_eq!(world.state(4), State::Syncing);
    assert!(world.changes.is_empty(), "nothing to compensate for");
}
