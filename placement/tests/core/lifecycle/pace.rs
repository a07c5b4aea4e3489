//! Who gets on, who stands still, and who only seems to.

use quorate_placement::core::lifecycle::{Aim, MAX_LAG, Pace, State};
use quorate_proto::LogIndex;

use super::World;

fn stale(world: &World) -> usize {
    world.told.iter().filter(|text| text.starts_with("r7 s4 is stale, no progress for")).count()
}

#[test]
fn a_learner_that_stands_by_and_does_not_get_on_is_found_once() {
    let mut world = World::new(3, 5);
    world.with_learner(4, Aim::Vote { replacing: None }, State::StandbyLearner);
    world.rates.insert(4, 0);
    let stall = world.limits.stall_ms / 1_000;
    world.seconds(stall - 2);
    assert!(!world.record(4).stale);
    world.seconds(4);
    assert!(world.record(4).stale);
    world.seconds(10 * stall);
    assert_eq!((world.state(4), stale(&world)), (State::StandbyLearner, 1), "told once");
    world.rates.remove(&4);
    world.seconds(5);
    assert!(!world.record(4).stale, "it gets on again");
    world.rates.insert(4, 0);
    world.seconds(stall + 2);
    assert_eq!(stale(&world), 2);
}

#[test]
fn a_learner_for_good_that_stalls_is_one_again_once_it_has_caught_up() {
    let mut world = World::new(3, 3);
    world.with_learner(4, Aim::Learn, State::KeepAsLearner);
    world.rates.insert(4, 0);
    world.seconds(world.limits.stall_ms / 1_000 + 2);
    assert_eq!((world.state(4), stale(&world)), (State::StandbyLearner, 1));
    world.rates.remove(&4);
    world.seconds(6);
    assert_eq!((world.state(4), world.record(4).stale), (State::KeepAsLearner, false));
    assert!(world.has_told("r7 s4 ready, stays a learner"));
}

#[test]
fn a_burst_after_a_long_rest_is_no_stall() {
    let mut world = World::new(3, 3);
    world.with_learner(4, Aim::Vote { replacing: None }, State::Syncing);
    world.seconds(5);
    let State::Ready { ready_ms } = world.state(4) else { panic!("{:?}", world.state(4)) };
    world.writes = 0;
    world.seconds(2 * world.limits.stall_ms / 1_000);
    assert_eq!(world.state(4), State::Ready { ready_ms });
    // It lacks much for some seconds: the stall clock begins with that, not with the rest.
    world.writes = 5_000;
    world.rates.insert(4, 0);
    world.seconds(3);
    assert_eq!((world.state(4), stale(&world)), (State::Syncing, 0));
    world.writes = 100;
    world.rates.remove(&4);
    world.seconds(4);
    assert_eq!(world.state(4), State::Ready { ready_ms }, "the promotion window runs on");
}

#[test]
fn a_snapshot_that_waits_for_its_turn_gets_on_with_the_queue() {
    let mut world = World::new(3, 5);
    world.add(4);
    world.rates.insert(4, 0);
    world.seconds(2);
    world.member(4).snapshot = Some((0, 1_000_000));
    let stall = world.limits.stall_ms / 1_000;
    for moved in 1..=10 {
        world.member(4).queue = moved;
        world.seconds(stall - 10);
    }
    assert_eq!((world.state(4), stale(&world)), (State::Syncing, 0));
    world.seconds(12);
    assert_eq!((world.state(4), stale(&world)), (State::StandbyLearner, 1), "it moves no more");
}

#[test]
fn a_learner_is_ready_by_the_bound_that_its_leader_promotes_by() {
    let mut world = World::new(3, 5);
    for node in [4, 5] {
        world.with_learner(node, Aim::Vote { replacing: None }, State::Syncing);
        // Fast enough for its lag, which never falls below what the leader's store refuses.
        world.member(node).matched = Some(LogIndex(1_000));
        world.rates.insert(node, 10_000);
    }
    world.writes = 10_000;
    world.group.last_index = LogIndex(1_000 + MAX_LAG + 500);
    world.seconds(20);
    assert_eq!((world.state(4), world.state(5)), (State::Syncing, State::Syncing));
    assert_eq!(world.voters(), [1, 2, 3]);
}

#[test]
fn a_lapse_across_placements_failover_does_not_begin_the_promotion_window_anew() {
    let mut world = World::new(3, 3);
    world.with_learner(4, Aim::Vote { replacing: None }, State::Syncing);
    world.seconds(5);
    let State::Ready { ready_ms } = world.state(4) else { panic!("{:?}", world.state(4)) };
    // It lags for some seconds, and meanwhile another leader of placement goes on with its record.
    world.writes = 5_000;
    world.rates.insert(4, 0);
    world.seconds(3);
    assert_eq!(world.state(4), State::Syncing);
    let now_ms = world.now_ms;
    for record in &mut world.records {
        record.pace = Pace::new(now_ms);
    }
    world.writes = 100;
    world.rates.remove(&4);
    world.seconds(6);
    assert_eq!(world.state(4), State::Ready { ready_ms });
    // Not where it lagged for long.
    world.writes = 5_000;
    world.rates.insert(4, 4_000);
    world.seconds(world.limits.stall_ms / 1_000 + 5);
    world.writes = 100;
    world.rates.remove(&4);
    world.seconds(6);
    assert!(matches!(world.state(4), State::Ready { ready_ms: later } if later > ready_ms));
}

#[test]
fn a_learner_that_has_the_log_is_ready_once_it_has_applied_it() {
    let mut world = World::new(3, 3);
    world.limits.promotion_ms = u64::MAX / 2;
    world.with_learner(4, Aim::Vote { replacing: None }, State::Syncing);
    world.seconds(5);
    assert!(matches!(world.state(4), State::Ready { .. }), "{:?}", world.state(4));
    // It takes in everything and applies nothing more.
    world.applies.insert(4, 0);
    world.seconds(MAX_LAG / world.writes);
    assert!(matches!(world.state(4), State::Ready { .. }), "not far behind yet");
    world.seconds(2);
    assert_eq!(world.state(4), State::Syncing);
    let why = "has the log but is 1100 entries behind in applying";
    assert!(world.has_told(&format!("r7 s4 is not ready any more: {why}")), "{:?}", world.told);
    // Standing still is a stall, though the log gets on; being slow is not.
    world.applies.insert(4, world.writes);
    world.seconds(2 * world.limits.stall_ms / 1_000);
    assert_eq!((world.state(4), stale(&world)), (State::Syncing, 0));
    assert!(world.record(4).reason.ends_with("behind in applying"), "{}", world.record(4).reason);
    world.applies.remove(&4);
    world.seconds(5);
    assert!(matches!(world.state(4), State::Ready { .. }), "{:?}", world.state(4));
}

#[test]
fn a_learner_whose_applying_stands_still_is_stale_though_its_log_gets_on() {
    let mut world = World::new(3, 5);
    world.with_learner(4, Aim::Vote { replacing: None }, State::Syncing);
    world.applies.insert(4, 0);
    let stall = world.limits.stall_ms / 1_000;
    world.seconds(MAX_LAG / world.writes + stall - 1);
    assert_eq!((world.state(4), stale(&world)), (State::Syncing, 0));
    world.seconds(4);
    assert_eq!((world.state(4), stale(&world)), (State::StandbyLearner, 1));
    assert_eq!(world.record(4).pace.matched(), world.group.last_index);
}

#[test]
fn a_learner_of_an_older_version_is_only_asked_for_its_log() {
    let mut world = World::new(3, 3);
    world.with_learner(4, Aim::Vote { replacing: None }, State::Syncing);
    world.member(4).applied = None;
    world.seconds(30);
    assert!(matches!(world.state(4), State::Ready { .. }), "{:?}", world.state(4));
    assert_eq!(stale(&world), 0);
}
