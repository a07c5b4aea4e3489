//! What is wanted and cannot be is refused with the rule that stands in the way.

use quorate_placement::core::lifecycle::{Aim, ReplicaRole, State, Wish};
use quorate_proto::{NodeId, Role};

use super::{World, member};

fn refusal(world: &mut World, wanted: &Wish) -> String {
    let before = world.records.clone();
    let refused = world.try_wish(wanted, 78).unwrap_err().to_string();
    assert_eq!(world.records, before, "a refusal changes nothing");
    refused
}

#[test]
fn refusals_name_the_rule() {
    let mut world = World::new(3, 3);
    let node = NodeId;
    let add = |at| Wish::Add { node: node(at), role: ReplicaRole::Standard };
    let remove = |at| Wish::Remove { node: node(at), force: false };
    let cases = [
        (add(2), "s2 has a replica of r7 already"),
        (remove(9), "s9 has no replica of r7"),
        (Wish::Move { from: node(9), to: node(4) }, "s9 has no replica of r7"),
        (Wish::Move { from: node(1), to: node(2) }, "s2 has a replica of r7 already"),
        (
            remove(2),
            "r7 has 3 voters and 3 are wanted: a voter goes only in exchange for another one, or \
             when it is forced",
        ),
        (
            Wish::Demote { nodes: vec![node(1), node(2), node(3)], force: true },
            "no voter of r7 would be left: move the last one to another store, or raise `replicas` \
             to 3 first",
        ),
        (Wish::Promote { nodes: vec![node(2)] }, "s2 is no learner of r7"),
    ];
    for (wanted, words) in cases {
        assert_eq!(refusal(&mut world, &wanted), words);
    }
    world.with_learner(4, Aim::Vote { replacing: None }, State::StandbyLearner);
    assert_eq!(
        refusal(&mut world, &Wish::Promote { nodes: vec![node(4)] }),
        "with 3 voters and a target of 3, 1 learners cannot be promoted: the number of voters \
         stays odd, so raise `replicas` first"
    );
    world.group.target = 5;
    assert_eq!(
        refusal(&mut world, &Wish::Promote { nodes: vec![node(4)] }),
        "with 3 voters and a target of 5, 1 learners cannot be promoted: the number of voters \
         stays odd, so add another learner first"
    );
    assert_eq!(
        refusal(&mut world, &Wish::Demote { nodes: vec![node(4)], force: true }),
        "s4 is no voter of r7"
    );
    world.member(2).role = Role::DemotingVoter;
    assert_eq!(
        refusal(&mut world, &add(5)),
        "r7 is being completed from a joint configuration; try again once that is done"
    );
}

#[test]
fn the_only_voter_goes_in_exchange_for_another_one_alone() {
    let mut world = World::new(1, 1);
    let remove = Wish::Remove { node: NodeId(1), force: true };
    assert!(refusal(&mut world, &remove).starts_with("no voter of r7 would be left"));
    let demote = Wish::Demote { nodes: vec![NodeId(1)], force: true };
    assert!(refusal(&mut world, &demote).starts_with("no voter of r7 would be left"));
    assert!(world.try_wish(&Wish::Move { from: NodeId(1), to: NodeId(2) }, 78).is_ok());
}

#[test]
fn a_lost_majority_forbids_everything() {
    let mut world = World::new(3, 3);
    world.member(2).alive = false;
    world.member(3).alive = false;
    let add = Wish::Add { node: NodeId(4), role: ReplicaRole::Analytics };
    assert_eq!(
        refusal(&mut world, &add),
        "only 1 of 3 voters are alive: no majority can agree on a change"
    );
}

#[test]
fn a_forced_removal_takes_a_partner_that_is_dead_rather_than_one_that_lives() {
    let mut world = World::new(5, 5);
    world.member(5).alive = false;
    world.wish(&Wish::Remove { node: NodeId(2), force: true });
    world.seconds(10);
    assert_eq!(world.voters(), [1, 3, 4]);
    assert_eq!(world.group.members.len(), 3);
}

#[test]
fn the_leader_is_removed_after_it_has_handed_over() {
    let mut world = World::new(5, 3);
    world.wish(&Wish::Remove { node: NodeId(1), force: false });
    world.seconds(10);
    assert_eq!(world.role(1), None);
    assert_eq!(world.voters().len(), 3);
    assert!(world.group.led_by().is_some_and(|leader| leader.role == Role::Voter));
}

#[test]
fn a_demoted_pair_stays_as_learners() {
    let mut world = World::new(5, 3);
    world.wish(&Wish::Demote { nodes: vec![NodeId(4), NodeId(5)], force: false });
    world.seconds(100);
    assert_eq!(world.voters(), [1, 2, 3]);
    assert_eq!((world.state(4), world.state(5)), (State::KeepAsLearner, State::KeepAsLearner));
}

#[test]
fn a_partner_stands_where_others_stand_too() {
    let mut world = World::new(5, 3);
    for (node, zone) in [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "d")] {
        world.member(node).domain = vec![format!("zone={zone}")];
    }
    world.wish(&Wish::Remove { node: NodeId(2), force: false });
    world.seconds(10);
    assert_eq!(world.voters(), [1, 3, 5], "one of the two in zone d goes");
    let _ = member(1, Role::Voter);
}
