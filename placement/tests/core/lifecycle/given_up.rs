//! What is given up, and what of it happens all the same: an order that lies in a log cannot be
//! called back.

use quorate_placement::core::lifecycle::{Aim, Change, Next, State, Wish, cancel};
use quorate_proto::{NodeId, Role};

use super::{World, member};

/// Orders are held back until the next one enters a joint configuration; that one.
fn until_it_enters(world: &mut World) -> Change {
    for _ in 0..60 {
        world.obeys = false;
        world.second();
        match &world.next {
            Next::Change(change @ Change::EnterJoint { .. }) => return change.clone(),
            Next::Change(_) | Next::Transfer { .. } => world.obey(),
            Next::Nothing | Next::Wait(_) => {}
        }
    }
    panic!("no joint change is wanted: {:?}", world.next);
}

fn give_up(world: &mut World) {
    world.records = cancel(&world.group, &world.records, 77, "given up", world.now_ms);
    world.second();
}

#[test]
fn a_swap_that_was_given_up_while_it_lay_in_a_log_is_finished() {
    let mut world = World::new(3, 3);
    world.exchange(2, 4);
    let enter = until_it_enters(&mut world);
    give_up(&mut world);
    assert_eq!(world.record(4).aim, Aim::Leave { replaced_by: None });
    world.apply(enter);
    world.obeys = true;
    world.seconds(10);
    assert_eq!(world.voters(), [1, 3, 4]);
    assert_eq!((world.role(2), world.group.members.len()), (None, 3));
    let open = world.records.iter().filter(|record| record.state != State::Removed).count();
    assert_eq!(open, 0, "{:?}", world.records);
}

#[test]
fn a_pair_that_was_given_up_while_it_lay_in_a_log_votes() {
    let mut world = World::new(3, 5);
    world.add(4);
    world.add(5);
    let enter = until_it_enters(&mut world);
    give_up(&mut world);
    world.apply(enter);
    world.obeys = true;
    world.seconds(10);
    assert_eq!(world.voters(), [1, 2, 3, 4, 5]);
    assert!(world.records.is_empty(), "{:?}", world.records);
}

#[test]
fn a_demotion_that_was_given_up_while_it_lay_in_a_log_leaves_nobody_behind() {
    let mut world = World::new(5, 3);
    world.wish(&Wish::Remove { node: NodeId(5), force: false });
    let enter = until_it_enters(&mut world);
    give_up(&mut world);
    world.apply(enter);
    world.obeys = true;
    world.seconds(10);
    assert_eq!((world.voters().len(), world.group.members.len()), (3, 3));
}

#[test]
fn a_cancelled_promotion_gives_back_what_the_learner_was_for() {
    let mut world = World::new(3, 5);
    world.with_learner(4, Aim::Learn, State::KeepAsLearner);
    world.with_learner(5, Aim::Vote { replacing: None }, State::StandbyLearner);
    world.member(5).alive = false;
    world.member(5).silent_ms = 60_000;
    world.wish(&Wish::Promote { nodes: vec![NodeId(4)] });
    assert_eq!(world.record(4).aim, Aim::Vote { replacing: None });
    world.second();
    world.records = cancel(&world.group, &world.records, 77, "cancelled", world.now_ms);
    world.member(5).alive = true;
    world.member(5).silent_ms = 100;
    world.seconds(100);
    assert_eq!((world.record(4).aim, world.state(4)), (Aim::Learn, State::KeepAsLearner));
    assert_eq!(world.voters(), [1, 2, 3]);
    assert!(world.changes.is_empty());
}

#[test]
fn a_learner_that_nobody_knew_of_is_not_removed_by_a_cancelled_promotion() {
    let mut world = World::new(3, 5);
    world.group.members.push(member(4, Role::Learner));
    world.with_learner(5, Aim::Vote { replacing: None }, State::StandbyLearner);
    world.member(5).alive = false;
    world.member(5).silent_ms = 60_000;
    world.wish(&Wish::Promote { nodes: vec![NodeId(4)] });
    world.second();
    world.records = cancel(&world.group, &world.records, 77, "cancelled", world.now_ms);
    world.seconds(100);
    assert_eq!(world.role(4), Some(Role::Learner));
    assert!(world.changes.is_empty());
}

#[test]
fn leadership_goes_to_the_voter_whose_process_leads_least() {
    let mut world = World::new(5, 5);
    for (node, leaders) in [(2, 9), (3, 7), (4, 2), (5, 2)] {
        world.member(node).leaders = leaders;
    }
    world.exchange(1, 6);
    world.seconds(6);
    assert_eq!(world.group.led_by().map(|leader| leader.node), Some(NodeId(4)));
}
