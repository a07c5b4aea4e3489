//! How members come, wait and go when all is well.

use quorate_placement::core::lifecycle::{Aim, Change, Next, ReplicaRole, State, Wish};
use quorate_proto::{NodeId, PeerId, Role};

use super::World;

#[test]
fn two_learners_join_pair_and_are_promoted_in_one_joint_change() {
    let mut world = World::new(3, 5);
    world.add(4);
    world.seconds(8);
    assert!(matches!(world.state(4), State::Pairing { .. }), "{:?}", world.state(4));
    assert_eq!(world.voters(), [1, 2, 3]);
    assert_eq!(world.next, Next::Wait("s4 waits for a partner".to_owned()));
    world.add(5);
    world.seconds(10);
    assert_eq!(world.voters(), [1, 2, 3, 4, 5]);
    assert!(world.records.is_empty(), "who votes is on its way no longer");
    let told: Vec<&str> = world.told.iter().map(String::as_str).collect();
    assert_eq!(
        told,
        [
            "r7 s4 joined as learner",
            "r7 s4 syncing, match 1300 of 1300",
            "r7 s4 ready, waiting for a partner (voters 3, target 5)",
            "r7 s5 joined as learner",
            "r7 s5 syncing, match 2100 of 2100",
            "r7 s5 ready (voters 3, target 5)",
            "r7 s4+s5 promoted, voters 5",
        ]
    );
    let joint = |change: &&Change| matches!(change, Change::EnterJoint { .. });
    assert_eq!(world.changes.iter().filter(joint).count(), 1);
    assert_eq!(world.changes.last(), Some(&Change::LeaveJoint));
}

#[test]
fn a_lone_learner_waits_stands_by_and_is_promoted_once_a_partner_is_ready() {
    let mut world = World::new(3, 5);
    world.add(4);
    world.seconds(8);
    world.seconds(world.limits.pairing_ms / 1_000 + 1);
    assert_eq!(world.state(4), State::StandbyLearner);
    assert!(world.has_told("r7 s4 stands by as a learner: no partner came in time"));
    // A day later it is still there, and healthy.
    world.seconds(24 * 3_600);
    assert_eq!(world.state(4), State::StandbyLearner);
    assert_eq!(world.role(4), Some(Role::Learner));
    world.add(5);
    world.seconds(15);
    assert_eq!(world.voters(), [1, 2, 3, 4, 5]);
    assert_eq!(world.told.last().unwrap(), "r7 s4+s5 promoted, voters 5");
}

#[test]
fn a_replica_moves_by_one_joint_swap() {
    let mut world = World::new(3, 3);
    world.exchange(2, 4);
    world.seconds(15);
    assert_eq!(world.voters(), [1, 3, 4]);
    assert_eq!(world.role(2), None);
    assert_eq!(world.state(2), State::Removed);
    let peer = world.group.on(NodeId(4)).unwrap().peer;
    assert_eq!(
        world.changes,
        [
            Change::AddLearner { node: NodeId(4), peer },
            Change::EnterJoint { promote: vec![peer], demote: vec![PeerId(20)] },
            Change::LeaveJoint,
            Change::RemoveLearner { peer: PeerId(20) },
        ]
    );
    assert!(world.has_told("r7 s4 promoted in place of s2, voters 3"));
    assert!(world.has_told("r7 s2 removed"));
}

#[test]
fn a_leader_hands_over_before_it_is_replaced() {
    let mut world = World::new(3, 3);
    world.exchange(1, 4);
    for _ in 0..20 {
        world.second();
        if let Next::Transfer { to, why } = &world.next {
            assert_eq!((to.0, why.as_str()), (2, "s1 leads and is about to be replaced"));
            assert_eq!(world.voters(), [1, 2, 3], "nothing has changed yet");
        }
    }
    assert_eq!(world.group.leader, Some(PeerId(20)));
    assert_eq!(world.voters(), [2, 3, 4]);
    assert_eq!(world.role(1), None);
}

#[test]
fn an_analytics_learner_stays_one() {
    let mut world = World::new(3, 5);
    world.wish(&Wish::Add { node: NodeId(4), role: ReplicaRole::Analytics });
    world.seconds(10);
    assert_eq!(world.state(4), State::KeepAsLearner);
    // It is no partner for anybody.
    world.add(5);
    world.seconds(600);
    assert_eq!(world.voters(), [1, 2, 3]);
    assert_eq!((world.state(4), world.state(5)), (State::KeepAsLearner, State::StandbyLearner));
    world.wish(&Wish::Promote { nodes: vec![NodeId(4)] });
    world.seconds(10);
    assert_eq!(world.voters(), [1, 2, 3, 4, 5], "on request it is");
}

#[test]
fn an_analytics_learner_moves_without_touching_a_voter() {
    let mut world = World::new(3, 3);
    world.with_learner(4, Aim::Learn, State::KeepAsLearner);
    world.exchange(4, 5);
    world.seconds(15);
    assert_eq!((world.role(4), world.role(5)), (None, Some(Role::Learner)));
    assert_eq!(world.state(5), State::KeepAsLearner);
    assert!(world.changes.iter().all(|change| !matches!(change, Change::EnterJoint { .. })));
}

#[test]
fn five_voters_become_three_in_one_step() {
    let mut world = World::new(5, 3);
    world.wish(&Wish::Remove { node: NodeId(2), force: false });
    world.seconds(10);
    assert_eq!(world.voters().len(), 3);
    assert_eq!(world.role(2), None);
    assert_eq!(world.group.members.len(), 3, "its partner is gone too");
    assert_eq!(world.role(1), Some(Role::Voter), "the leader is nobody's partner");
    let joint = |change: &&Change| matches!(change, Change::EnterJoint { .. });
    assert_eq!(world.changes.iter().filter(joint).count(), 1);
}

#[test]
fn a_standby_learner_is_the_first_choice_for_a_lost_voter() {
    let mut world = World::new(3, 3);
    world.with_learner(4, Aim::Vote { replacing: None }, State::StandbyLearner);
    world.seconds(3);
    world.member(3).alive = false;
    world.member(3).silent_ms = 1_800_000;
    world.exchange(3, 4);
    world.seconds(6);
    assert_eq!(world.voters(), [1, 2, 4]);
    assert!(world.changes.iter().all(|change| !matches!(change, Change::AddLearner { .. })));
}

#[test]
fn joins_are_one_at_a_time_first_in_first_out() {
    let mut world = World::new(3, 5);
    world.obeys = false;
    world.add(5);
    world.now_ms += 10;
    world.add(4);
    let added = |world: &World| match &world.next {
        Next::Change(Change::AddLearner { node, .. }) => node.0,
        other => panic!("{other:?}"),
    };
    world.seconds(2);
    assert_eq!(added(&world), 5);
    world.obeys = true;
    world.second();
    world.obeys = false;
    world.second();
    assert_eq!(added(&world), 4);
}

#[test]
fn two_voters_of_an_older_time_become_three() {
    let mut world = World::new(2, 3);
    world.add(3);
    for _ in 0..10 {
        let even = world.group.voters().count().is_multiple_of(2);
        world.obeys = !even;
        world.second();
        if let (true, Next::Change(change)) = (even, world.next.clone()) {
            world.changes.push(change.clone());
            world.apply_unchecked(change);
        }
    }
    assert_eq!(world.voters(), [1, 2, 3]);
}

#[test]
fn the_only_voter_hands_over_in_the_joint_configuration() {
    let mut world = World::new(1, 1);
    world.exchange(1, 4);
    let mut told = Vec::new();
    for _ in 0..20 {
        world.second();
        if let Next::Transfer { to, why } = &world.next {
            assert_eq!((to.0, why.as_str()), (4, "the joint configuration demotes the leader"));
            assert_eq!(world.role(1), Some(Role::DemotingVoter), "it has its vote still");
            told.push(world.changes.len());
        }
    }
    let peer = world.group.on(NodeId(4)).unwrap().peer;
    assert_eq!(told, [2], "leadership goes over once, after the second change");
    assert_eq!(
        world.changes,
        [
            Change::AddLearner { node: NodeId(4), peer },
            Change::EnterJoint { promote: vec![peer], demote: vec![PeerId(10)] },
            Change::LeaveJoint,
            Change::RemoveLearner { peer: PeerId(10) },
        ]
    );
    assert_eq!((world.voters(), world.group.leader), (vec![4], Some(peer)));
    assert!(world.has_told("r7 s4 promoted in place of s1, voters 1"));
    assert!(world.has_told("r7 s1 removed"));
}

#[test]
fn the_only_voter_waits_for_one_that_could_lead() {
    let mut world = World::new(1, 1);
    world.exchange(1, 4);
    while world.role(4) != Some(Role::IncomingVoter) {
        world.second();
    }
    // It falls silent: nothing is left, and nobody is asked to lead, until it is back.
    world.member(4).can_lead = false;
    world.member(4).alive = false;
    world.seconds(30);
    let waits =
        "the joint configuration demotes the leader, and no other voter is able to lead now";
    assert_eq!(world.next, Next::Wait(waits.to_owned()));
    assert_eq!((world.role(1), world.group.leader), (Some(Role::DemotingVoter), Some(PeerId(10))));
    world.member(4).alive = true;
    world.member(4).can_lead = true;
    world.seconds(5);
    assert_eq!(world.voters(), [4]);
    assert_eq!(world.role(1), None);
}

#[test]
fn a_voter_whose_replacement_stands_by_stays_until_it_is_wanted_anew() {
    let mut world = World::new(3, 3);
    let exchange = Wish::Move { from: NodeId(1), to: NodeId(4) };
    world.try_wish(&exchange, 0).unwrap();
    for voter in 1..=3 {
        world.member(voter).can_lead = false;
    }
    world.seconds(600);
    assert_eq!(world.state(4), State::StandbyLearner);
    assert_eq!(world.records.len(), 1, "the one that leads is to go no more: {:?}", world.records);
    world.member(2).can_lead = true;
    world.seconds(60);
    assert_eq!(world.voters(), [1, 2, 3]);
    world.try_wish(&exchange, 0).unwrap();
    world.seconds(60);
    assert_eq!(world.voters(), [2, 3, 4]);
}

#[test]
fn voters_that_shall_all_go_lead_until_it_is_their_turn() {
    let mut world = World::new(3, 3);
    for voter in 1..=3 {
        world.member(voter).leaves = true;
    }
    world.exchange(1, 4);
    while world.voters().contains(&1) {
        world.second();
    }
    world.seconds(5);
    let leads = |world: &World| world.group.led_by().map(|member| member.node.0);
    assert!(matches!(leads(&world), Some(2 | 3)), "{:?}", leads(&world));
    // One that stays is chosen where there is one.
    let leader = leads(&world).unwrap();
    world.exchange(leader, 5);
    while world.voters().contains(&leader) {
        world.second();
    }
    assert_eq!(leads(&world), Some(4));
}

#[test]
fn the_only_voter_stays_where_the_other_one_does_not_catch_up() {
    let mut world = World::new(1, 1);
    world.rates.insert(4, 10);
    world.exchange(1, 4);
    world.seconds(600);
    assert_eq!((world.voters(), world.role(4)), (vec![1], Some(Role::Learner)));
    let joint = |change: &&Change| matches!(change, Change::EnterJoint { .. });
    assert_eq!(world.changes.iter().filter(joint).count(), 0);
}
