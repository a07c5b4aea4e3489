//! The operator controller, and what the leader does with requests.

use std::time::Duration;

use quorate_placement::core::command::{Command, JoinRefusal, Joining};
use quorate_placement::core::leader::{Counts, Leader, TransferRefusal};
use quorate_placement::core::operators::{
    Draft, End, Goal, MAX_OPERATORS, Operators, RESEND_AFTER, REST_AFTER_FAILURE, Refused,
};
use quorate_placement::core::stores::{DOWN_AFTER, SUSPECT_AFTER, StoreState};
use quorate_placement::core::tree::RegionTree;
use quorate_proto::{Epoch, RegionId, StoreId, Term};

use crate::support::{Machine, joining, led, region, report, seconds};

fn transfer(id: u64, from: u64, to: u64) -> Draft {
    Draft {
        region: RegionId(id),
        epoch: Epoch { conf_ver: 1, version: 1 },
        goal: Goal::TransferLeader { from: StoreId(from), to: StoreId(to) },
        by: "test",
        reason: "a test".to_owned(),
    }
}

fn ms(seconds: u64) -> u64 {
    1_000 + seconds * 1_000
}

fn one_region() -> (Operators, RegionTree) {
    let mut tree = RegionTree::default();
    tree.offer(led(&region(1, "", "", 1), 1, 6)).unwrap();
    (Operators::new(Term(3), [], [], ms(0)), tree)
}

#[test]
fn an_order_is_sent_once_repeated_and_seen_done() {
    let (mut operators, mut tree) = one_region();
    let id = operators.begin(transfer(1, 1, 2), ms(0)).unwrap();
    assert_eq!(id >> 32, 3, "ids of two leaders differ");
    assert_eq!(operators.due(&tree, ms(0)).into_iter().collect::<Vec<_>>(), [StoreId(1)]);
    assert!(operators.send(StoreId(2), &tree, 9, ms(0)).is_empty());
    assert_eq!(operators.send(StoreId(1), &tree, 9, ms(0)).len(), 1);
    assert!(operators.send(StoreId(1), &tree, 9, ms(0)).is_empty());
    // The stream broke.
    operators.resend(StoreId(1));
    assert_eq!(operators.send(StoreId(1), &tree, 9, ms(0)).len(), 1);
    // Nothing happened.
    let later = ms(0) + RESEND_AFTER.as_millis() as u64;
    assert_eq!(operators.send(StoreId(1), &tree, 9, later).len(), 1);
    let done = led(&region(1, "", "", 1), 2, 7);
    tree.offer(done.clone()).unwrap();
    operators.observe(&done, later);
    assert!(operators.of(RegionId(1)).is_none());
    assert_eq!(operators.ended().last().unwrap().end, End::Done);
    assert!(operators.busy(later).is_empty());
}

#[test]
fn what_is_not_done_in_time_is_given_up_and_the_region_rests() {
    let (mut operators, _) = one_region();
    operators.begin(transfer(1, 1, 2), ms(0)).unwrap();
    operators.expire(|_| false, ms(4));
    assert!(operators.of(RegionId(1)).is_some());
    operators.expire(|_| false, ms(5));
    assert_eq!(operators.ended().last().unwrap().end, End::TimedOut);
    assert!(operators.busy(ms(5)).contains(&RegionId(1)));
    let rested = ms(5) + REST_AFTER_FAILURE.as_millis() as u64;
    operators.expire(|_| false, rested);
    assert!(operators.busy(rested).is_empty());
}

#[test]
fn a_region_that_changes_otherwise_overtakes_its_operator() {
    for news in [led(&region(1, "", "", 1), 3, 7), led(&region(1, "", "m", 2), 1, 6)] {
        let (mut operators, _) = one_region();
        operators.begin(transfer(1, 1, 2), ms(0)).unwrap();
        operators.observe(&news, ms(1));
        assert_eq!(operators.ended().last().unwrap().end, End::Overtaken);
    }
    let (mut operators, _) = one_region();
    operators.begin(transfer(1, 1, 2), ms(0)).unwrap();
    operators.expire(|_| true, ms(1));
    assert_eq!(operators.ended().last().unwrap().end, End::Overtaken);
}

#[test]
fn a_split_is_done_when_the_region_ends_at_a_key() {
    let split = |keys: &[&'static str]| Draft {
        goal: Goal::Split { keys: keys.iter().map(|key| (*key).into()).collect() },
        ..transfer(1, 1, 1)
    };
    for (keys, end) in [(&["f", "m"][..], End::Done), (&["x"], End::Overtaken), (&[], End::Done)] {
        let (mut operators, _) = one_region();
        operators.begin(split(keys), ms(0)).unwrap();
        operators.observe(&led(&region(1, "", "", 1), 3, 7), ms(1));
        assert!(operators.of(RegionId(1)).is_some(), "a new leader does not matter");
        operators.observe(&led(&region(1, "", "f", 2), 1, 6), ms(1));
        assert_eq!(operators.ended().last().unwrap().end, end, "{keys:?}");
    }
}

#[test]
fn one_operator_a_region_and_a_bound_on_all() {
    let (mut operators, _) = one_region();
    let first = operators.begin(transfer(1, 1, 2), ms(0)).unwrap();
    match operators.begin(transfer(1, 1, 3), ms(0)) {
        Err(Refused::Busy { operator, .. }) => assert_eq!(operator, first),
        other => panic!("{other:?}"),
    }
    for id in 2..=MAX_OPERATORS as u64 {
        operators.begin(transfer(id, 1, 2), ms(0)).unwrap();
    }
    assert_eq!(operators.begin(transfer(9_999, 1, 2), ms(0)), Err(Refused::Full));
    assert_eq!(operators.room(), 0);
}

#[test]
fn transfers_on_request_are_checked_first() {
    let machine = Machine::cluster(3, 3);
    let mut leader = Leader::new(Term(1), &machine.state, seconds(0));
    let unknown = TransferRefusal::UnknownRegion(RegionId(8_888));
    assert_eq!(leader.transfer(RegionId(8_888), StoreId(1), seconds(0)), Err(unknown));
    let first = machine.state.initial_regions().unwrap()[0].clone();
    let nobody = TransferRefusal::NoLeader(first.id);
    assert_eq!(leader.transfer(first.id, StoreId(1), seconds(0)), Err(nobody));
    let store = machine.state.stores()[&StoreId(1)].clone();
    let mut info = led(&first, 1, 6);
    info.pending = vec![first.peer_on(StoreId(3)).unwrap().id];
    leader.report(&store, report(1, true, vec![info]), seconds(0));
    assert_eq!(leader.transfer(first.id, StoreId(1), seconds(0)), Ok(None));
    match leader.transfer(first.id, StoreId(3), seconds(0)) {
        Err(TransferRefusal::NotAble { voters, .. }) => assert_eq!(voters, "s1, s2"),
        other => panic!("{other:?}"),
    }
    let begun = leader.transfer(first.id, StoreId(2), seconds(0)).unwrap().unwrap();
    assert_eq!(leader.operators().of(first.id).unwrap().id, begun);
}

#[test]
fn a_store_is_suspected_then_down_and_back_with_its_next_report() {
    let mut machine = Machine::cluster(3, 3);
    let id = StoreId(1);
    let mut leader = Leader::new(Term(1), &machine.state, seconds(0));
    let state = |leader: &Leader, machine: &Machine, now| {
        leader.stores().state(&machine.state.stores()[&id], now)
    };
    assert_eq!(state(&leader, &machine, seconds(1)), StoreState::Joining);
    let store = machine.state.stores()[&id].clone();
    assert!(leader.report(&store, report(1, true, Vec::new()), seconds(1)).activate);
    machine.apply(Command::ActivateStore(id));
    let store = machine.state.stores()[&id].clone();
    assert!(!leader.report(&store, report(1, false, Vec::new()), seconds(2)).activate);
    assert_eq!(state(&leader, &machine, seconds(3)), StoreState::Up);
    let heard = seconds(2);
    assert_eq!(state(&leader, &machine, heard + SUSPECT_AFTER), StoreState::Suspect);
    assert_eq!(state(&leader, &machine, heard + DOWN_AFTER), StoreState::Down);
    let back = heard + DOWN_AFTER + Duration::from_secs(1);
    leader.report(&store, report(1, true, Vec::new()), back);
    assert_eq!(state(&leader, &machine, back), StoreState::Up);
}

#[test]
fn the_address_of_a_living_store_is_taken() {
    let machine = Machine::cluster(2, 2);
    let mut leader = Leader::new(Term(1), &machine.state, seconds(0));
    let store = machine.state.stores()[&StoreId(1)].clone();
    leader.report(&store, report(1, true, Vec::new()), seconds(0));
    let newcomer = Joining { address: joining(1).address, ..joining(7) };
    let address = joining(1).address;
    let refused = leader.may_use_address(&machine.state, &newcomer, seconds(1));
    assert_eq!(refused, Err(JoinRefusal::AddressInUse { store: StoreId(1), address }));
    // Itself, after a restart.
    assert_eq!(leader.may_use_address(&machine.state, &joining(1), seconds(1)), Ok(()));
    // It has been silent for long.
    let later = seconds(0) + SUSPECT_AFTER;
    assert_eq!(leader.may_use_address(&machine.state, &newcomer, later), Ok(()));
}

#[test]
fn a_copied_folder_does_not_join_beside_the_store_it_was_copied_from() {
    let machine = Machine::cluster(2, 2);
    let mut leader = Leader::new(Term(1), &machine.state, seconds(0));
    let store = machine.state.stores()[&StoreId(1)].clone();
    leader.report(&store, report(1, true, Vec::new()), seconds(0));
    let copy = Joining {
        address: joining(7).address,
        incarnation: joining(1).incarnation + 1,
        ..joining(1)
    };
    let address = joining(1).address;
    let refused = leader.may_use_address(&machine.state, &copy, seconds(1));
    assert_eq!(refused, Err(JoinRefusal::IdInUse { store: StoreId(1), address }));
    // A restart at the old address needs no patience, one elsewhere waits for the silence.
    let again = Joining { address: joining(1).address, ..copy.clone() };
    assert_eq!(leader.may_use_address(&machine.state, &again, seconds(1)), Ok(()));
    let moved = seconds(0) + SUSPECT_AFTER;
    assert_eq!(leader.may_use_address(&machine.state, &copy, moved), Ok(()));
}

#[test]
fn a_new_leader_routes_at_once_and_saves_what_changes() {
    let mut machine = Machine::cluster(3, 3);
    let first = machine.state.initial_regions().unwrap()[0].clone();
    let mut leader = Leader::new(Term(1), &machine.state, seconds(0));
    let store = machine.state.stores()[&StoreId(1)].clone();
    leader.report(&store, report(1, true, vec![led(&first, 1, 6)]), seconds(0));
    let saved = leader.to_save(100);
    assert_eq!(saved.len(), 1);
    assert!(leader.to_save(100).is_empty());
    leader.not_saved(&saved);
    machine.apply(Command::SaveRegions(leader.to_save(100)));
    // The same again is no news.
    leader.report(&store, report(1, false, vec![led(&first, 1, 6)]), seconds(1));
    assert!(leader.to_save(100).is_empty());

    let mut next = Leader::new(Term(2), &machine.reloaded(), seconds(9));
    let route = next.tree().find(b"a").unwrap();
    assert_eq!(route.leader.unwrap().store, StoreId(1));
    assert_eq!(next.counts(&machine.state, seconds(9)).regions, 2);
    next.report(&store, report(1, true, vec![led(&first, 1, 6)]), seconds(9));
    // It has lost the region meanwhile, and says so with its next full report.
    next.report(&store, report(1, true, Vec::new()), seconds(10));
    assert!(next.tree().find(b"a").unwrap().leader.is_some(), "the last known leader stays");
}

#[test]
fn a_new_leader_does_not_know_who_leads_before_the_stores_have_told() {
    let mut machine = Machine::cluster(3, 3);
    for number in 1..=3 {
        machine.apply(Command::ActivateStore(StoreId(number)));
    }
    let first = machine.state.initial_regions().unwrap()[0].clone();
    let stores = machine.state.stores().clone();
    let mut leader = Leader::new(Term(2), &machine.state, seconds(0));
    let counts = |leader: &Leader, at| {
        let counts = leader.counts(&machine.state, at);
        let Counts { leaderless, unreported, reported_stores, reporting_stores, .. } = counts;
        (leaderless, unreported, (reported_stores, reporting_stores))
    };
    let state = |leader: &Leader, at| {
        let info = leader.tree().get(first.id).unwrap();
        leader.health(&machine.state, info, at)
    };
    assert_eq!(counts(&leader, seconds(1)), (0, 2, (0, 3)), "neither well nor without leaders");
    let waits = "its leader has not reported to this leader of placement yet";
    assert_eq!(state(&leader, seconds(1)), waits);
    leader.report(&stores[&StoreId(1)], report(1, true, vec![led(&first, 1, 6)]), seconds(1));
    assert_eq!(counts(&leader, seconds(1)), (0, 1, (1, 3)), "the other one may lead the rest");
    assert_eq!(state(&leader, seconds(1)), "healthy");
    // A part of what a store leads is not all of it.
    leader.report(&stores[&StoreId(2)], report(2, false, Vec::new()), seconds(2));
    assert_eq!(counts(&leader, seconds(2)), (0, 1, (1, 3)));
    leader.report(&stores[&StoreId(2)], report(2, true, Vec::new()), seconds(2));
    leader.report(&stores[&StoreId(3)], report(3, true, Vec::new()), seconds(2));
    assert_eq!(counts(&leader, seconds(2)), (1, 0, (3, 3)), "nobody leads it");

    // One that does not come back is not waited for longer than until it is suspected.
    let mut leader = Leader::new(Term(3), &machine.state, seconds(0));
    leader.report(&stores[&StoreId(1)], report(1, true, Vec::new()), seconds(19));
    leader.report(&stores[&StoreId(2)], report(2, true, Vec::new()), seconds(19));
    assert_eq!(counts(&leader, seconds(19)), (0, 2, (2, 3)));
    assert_eq!(counts(&leader, seconds(0) + SUSPECT_AFTER), (2, 0, (2, 2)));
    assert_eq!(
        state(&leader, seconds(0) + SUSPECT_AFTER),
        "2 of 3 voters are alive; no leader that reports"
    );
}
