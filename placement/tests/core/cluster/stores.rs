//! Stores that die, leave, come back and stay away.

use quorate_placement::core::command::{Answer, Command, JoinRefusal};
use quorate_placement::core::state::StoreLife;
use quorate_placement::core::stores::StoreState;
use quorate_proto::{RegionId, Role, StoreId};

use super::moves::move_replica;
use super::{Cluster, FIRST};
use crate::support::joining;

pub fn remove(cluster: &mut Cluster, store: u64, cancel: bool, dead: bool) -> Result<u64, String> {
    let (state, now) = (&cluster.machine.state, cluster.now);
    let (command, replicas) = cluster
        .leader
        .remove_store(state, StoreId(store), cancel, dead, now)
        .map_err(|refusal| refusal.to_string())?;
    assert_eq!(cluster.machine.apply(command), Answer::Done);
    Ok(replicas)
}

pub fn state(cluster: &Cluster, store: u64) -> StoreState {
    let known = &cluster.machine.state.stores()[&StoreId(store)];
    cluster.leader.stores().state(known, cluster.now)
}

fn not_left_because(cluster: &Cluster, store: u64) -> String {
    let state = &cluster.machine.state;
    let store = &state.stores()[&StoreId(store)];
    cluster.leader.not_left_because(state, store, cluster.now).unwrap_or_default()
}

#[test]
fn a_store_that_is_silent_for_long_is_replaced() {
    let mut cluster = Cluster::new(4, 3);
    cluster.set("store.down_ms", "60000");
    cluster.seconds(2);
    cluster.stores.get_mut(&2).unwrap().dead = true;
    cluster.seconds(30);
    assert_eq!(state(&cluster, 2), StoreState::Suspect);
    assert_eq!(cluster.voters(FIRST), [1, 2, 3], "it may come back");
    cluster.seconds(60);
    for region in 100..=103 {
        assert_eq!(cluster.voters(RegionId(region)), [1, 3, 4], "r{region}");
    }
    let events = cluster.events();
    for told in ["s2 is silent, suspected", "s2 is down, its replicas are replaced"] {
        assert!(events.iter().any(|event| event == told), "{told} is not among {events:?}");
    }
    // Back again, it is a store like any other.
    cluster.stores.get_mut(&2).unwrap().dead = false;
    cluster.seconds(3);
    assert_eq!(state(&cluster, 2), StoreState::Up);
}

#[test]
fn a_store_leaves_leaders_first_and_its_return_is_refused() {
    let mut cluster = Cluster::new(4, 6);
    cluster.seconds(2);
    assert_eq!(not_left_because(&cluster, 1), "");
    assert_eq!(remove(&mut cluster, 1, false, false), Ok(7));
    assert_eq!(not_left_because(&cluster, 1), "regions have replicas there, such as r100");
    cluster.seconds(60);
    assert_eq!(not_left_because(&cluster, 1), "");
    for region in 100..=106 {
        assert_eq!(cluster.voters(RegionId(region)), [2, 3, 4], "r{region}");
    }
    let first_add = cluster.done.iter().position(|step| step.contains("add")).unwrap();
    let leaders = cluster.done.iter().filter(|step| step.contains("leader")).count();
    let early = cluster.done[..first_add].iter().filter(|step| step.contains("leader")).count();
    // The third is the last region's, whose leadership nobody balances: it goes with its replica.
    assert_eq!((leaders, early), (3, 2), "leaders go first: {:?}", cluster.done);
    assert_eq!(state(&cluster, 1), StoreState::Left);
    assert_eq!(cluster.stores[&1].destroyed.len(), 7);
    assert!(cluster.events().iter().any(|event| event == "s1 has left"));
    let back = joining(1);
    let back = quorate_placement::core::command::Joining { store: Some(StoreId(1)), ..back };
    let refused = cluster.machine.state.may_join(&back);
    assert_eq!(refused, Err(JoinRefusal::Left { store: StoreId(1) }));
    assert!(refused.unwrap_err().to_string().contains("start the store with an empty data folder"));
    assert_eq!(remove(&mut cluster, 1, true, false), Err("s1 has left already".to_owned()));
}

#[test]
fn what_could_never_end_is_refused_up_front() {
    let mut cluster = Cluster::new(3, 1);
    cluster.seconds(2);
    assert_eq!(
        remove(&mut cluster, 2, false, false).unwrap_err(),
        "s2 cannot leave: r100 has 3 voters, and no other store is up that could take the one on \
         s2; add a store first, or lower `replicas`"
    );
    assert_eq!(
        remove(&mut cluster, 9, false, false).unwrap_err(),
        "s9 is not known to this cluster; `quorate store list` shows those that are"
    );
    assert_eq!(
        remove(&mut cluster, 2, true, false).unwrap_err(),
        "s2 is not leaving: there is nothing to cancel"
    );
    let fourth = cluster.join(4);
    assert_eq!(remove(&mut cluster, 2, false, false), Ok(2));
    assert!(remove(&mut cluster, 3, false, false).is_err(), "one at a time, with four stores");
    let needed = remove(&mut cluster, fourth, false, false).unwrap_err();
    assert_eq!(
        needed,
        format!(
            "s{fourth} cannot leave: the voter of r100 on s2, which is leaving or down, would have no other \
         place to go; add a store first"
        )
    );
    cluster.join(5);
    assert_eq!(remove(&mut cluster, fourth, false, false), Ok(0));
}

#[test]
fn a_store_that_was_let_go_counts_as_leaving_at_once() {
    let mut cluster = Cluster::new(4, 1);
    cluster.seconds(2);
    let (state, now) = (&cluster.machine.state, cluster.now);
    // Two ask at the same moment; neither command is replicated yet.
    assert!(cluster.leader.remove_store(state, StoreId(2), false, false, now).is_ok());
    assert!(cluster.leader.remove_store(state, StoreId(2), false, false, now).is_ok());
    assert!(cluster.leader.remove_store(state, StoreId(3), false, false, now).is_err());
    // The first one was lost.
    cluster.seconds(20);
    assert_eq!(remove(&mut cluster, 3, false, false), Ok(2));
}

#[test]
fn a_store_has_not_left_while_a_replica_is_on_its_way_to_it() {
    let mut cluster = Cluster::new(5, 1);
    cluster.seconds(2);
    move_replica(&mut cluster, 3, 4);
    remove(&mut cluster, 4, false, false).unwrap();
    cluster.tick();
    assert_eq!(state(&cluster, 4), StoreState::Leaving);
    cluster.seconds(120);
    assert_eq!(state(&cluster, 4), StoreState::Left);
    assert!(!cluster.voters(FIRST).contains(&4), "{:?}", cluster.done);
    assert_eq!(cluster.learners(FIRST), [0; 0]);
}

#[test]
fn a_store_has_not_left_while_a_join_that_was_rolled_back_may_be_followed() {
    for late in [true, false] {
        let mut cluster = Cluster::new(4, 1);
        cluster.seconds(2);
        let told = cluster.stores.get_mut(&1).unwrap();
        (told.holds_all, told.held) = (true, Some(Vec::new()));
        move_replica(&mut cluster, 3, 4);
        cluster.stores.get_mut(&4).unwrap().dead = true;
        cluster.leader.disconnected(StoreId(4));
        remove(&mut cluster, 4, false, true).unwrap();
        cluster.seconds(35);
        assert!(cluster.events().iter().any(|event| event.contains("rolled back")));
        assert_eq!(state(&cluster, 4), StoreState::Leaving);
        assert_eq!(
            not_left_because(&cluster, 4),
            "r100 was told to add a replica there, which was rolled back; its leader may have begun \
             all the same, which shows within a minute, or once it has a quorum"
        );
        let told = cluster.stores.get_mut(&1).unwrap();
        told.holds_all = false;
        let held = told.held.take().unwrap();
        assert!(!held.is_empty(), "nothing was ordered");
        if late {
            held.into_iter().for_each(|order| cluster.obey(StoreId(1), order));
            assert_eq!(cluster.learners(FIRST), [4]);
            cluster.tick();
            assert_eq!(state(&cluster, 4), StoreState::Leaving);
        }
        cluster.seconds(40);
        assert_eq!((cluster.voters(FIRST), cluster.learners(FIRST)), (vec![1, 2, 3], vec![]));
        assert_eq!(state(&cluster, 4), StoreState::Left);
    }
}

#[test]
fn a_move_under_way_does_not_keep_a_store_in() {
    let mut cluster = Cluster::new(4, 1);
    cluster.seconds(2);
    move_replica(&mut cluster, 3, 4);
    let is_joint = |cluster: &Cluster| {
        let info = cluster.leader.tree().get(FIRST).unwrap();
        info.region.peers.iter().any(|peer| peer.role == Role::IncomingVoter)
    };
    let mut ticks = 0;
    while !is_joint(&cluster) {
        cluster.tick();
        ticks += 1;
        assert!(ticks < 600, "the move does not come to its joint change: {:?}", cluster.done);
    }
    // All four stores have a replica now, and s3 will have none.
    assert_eq!(remove(&mut cluster, 1, false, false), Ok(2));
    cluster.seconds(60);
    assert_eq!(cluster.voters(FIRST), [2, 3, 4]);
    assert_eq!(state(&cluster, 1), StoreState::Left);
}

#[test]
fn all_stores_are_exchanged_for_others_at_once() {
    let mut cluster = Cluster::new(6, 6);
    cluster.seconds(2);
    for store in 1..=3 {
        assert_eq!(remove(&mut cluster, store, false, false), Ok(7));
    }
    // Nobody of the voters shall lead for long, and one of them must.
    cluster.seconds(240);
    for region in 100..=106 {
        assert_eq!(cluster.voters(RegionId(region)), [4, 5, 6], "r{region}: {:?}", cluster.done);
    }
    for store in 1..=3 {
        assert_eq!(state(&cluster, store), StoreState::Left);
    }
}

#[test]
fn a_leaving_store_is_taken_back_in() {
    let mut cluster = Cluster::new(4, 1);
    cluster.seconds(2);
    cluster.stores.get_mut(&4).unwrap().stuck = true;
    remove(&mut cluster, 2, false, false).unwrap();
    cluster.seconds(5);
    assert_eq!(state(&cluster, 2), StoreState::Leaving);
    remove(&mut cluster, 2, true, false).unwrap();
    cluster.seconds(2);
    assert_eq!(state(&cluster, 2), StoreState::Up);
}

#[test]
fn a_dead_store_is_not_waited_for() {
    let mut cluster = Cluster::new(4, 2);
    cluster.seconds(2);
    assert_eq!(
        remove(&mut cluster, 2, false, true).unwrap_err(),
        "s2 is alive: stop it first, or remove it without `dead` so that it serves meanwhile"
    );
    cluster.stores.get_mut(&2).unwrap().dead = true;
    cluster.leader.disconnected(StoreId(2));
    remove(&mut cluster, 2, false, true).unwrap();
    cluster.seconds(30);
    assert_eq!(cluster.voters(FIRST), [1, 3, 4]);
    assert_eq!(state(&cluster, 2), StoreState::Left);
    let life = cluster.machine.state.stores()[&StoreId(2)].life;
    assert_eq!(life, StoreLife::Left);
    assert_eq!(cluster.machine.reloaded(), {
        let mut state = cluster.machine.state.clone();
        state.forget_generations();
        state
    });
}

#[test]
fn a_lost_quorum_is_told_and_nothing_is_tried() {
    let mut cluster = Cluster::new(5, 1);
    cluster.seconds(2);
    for store in [2, 3] {
        cluster.stores.get_mut(&store).unwrap().dead = true;
    }
    cluster.seconds(40);
    let lost = "r100 lost its quorum: 1 of 3 voters are alive";
    assert!(cluster.events().iter().any(|event| event == lost), "{:?}", cluster.events());
    assert!(cluster.done.is_empty());
    for store in [2, 3] {
        cluster.stores.get_mut(&store).unwrap().dead = false;
    }
    cluster.seconds(5);
    let again = "r100 has a quorum again: 3 of 3 voters are alive";
    let partly = "r100 has a quorum again: 2 of 3 voters are alive";
    assert!(cluster.events().iter().any(|event| event == again || event == partly));
}

#[test]
fn a_state_of_stores_is_applied_by_its_own_rules() {
    let mut cluster = Cluster::new(4, 1);
    let mut change =
        |store, life| cluster.machine.apply(Command::ChangeStore { store: StoreId(store), life });
    let refused = |words: &str| Answer::Refused(words.to_owned());
    assert_eq!(change(1, StoreLife::Left), refused("s1 is not leaving"));
    assert_eq!(change(9, StoreLife::Left), refused("s9 is not known to this cluster"));
    assert_eq!(change(1, StoreLife::Leaving { dead: false, to: None }), Answer::Done);
    assert_eq!(change(1, StoreLife::Left), Answer::Done);
    assert_eq!(change(1, StoreLife::Active), refused("s1 has left, and does not come back"));
}

pub fn label(cluster: &mut Cluster, store: u64, labels: &[(&str, &str)]) {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let again = quorate_placement::core::command::Joining {
        store: Some(StoreId(store)),
        labels: labels.collect(),
        ..joining(store)
    };
    let answer = cluster.machine.apply(Command::JoinStore(again));
    assert!(matches!(answer, Answer::Joined(_)), "{answer:?}");
}

#[test]
fn a_store_whose_voters_the_rules_want_nowhere_else_stays() {
    let mut cluster = Cluster::new(4, 1);
    for (store, zone) in [(1, "a"), (2, "b"), (3, "b"), (4, "b")] {
        label(&mut cluster, store, &[("zone", zone)]);
    }
    cluster.set("placement.rules", "1 voter where zone=a; 2 voters where zone=b");
    cluster.seconds(2);
    assert_eq!(
        remove(&mut cluster, 1, false, false).unwrap_err(),
        "s1 cannot leave: no other store may take its voter of r100, where the rules are `1 voter \
         where zone=a; 2 voters where zone=b`: s2 has a replica already, s3 has a replica already, \
         s4 is not where the placement rules want a replica; add a store that fits, or change the \
         rules"
    );
    // The others' voters have a place on s4.
    assert_eq!(remove(&mut cluster, 2, false, false), Ok(2));
    cluster.seconds(60);
    assert_eq!(cluster.voters(FIRST), [1, 3, 4]);
}

#[test]
fn a_store_does_not_leave_for_one_whose_disk_is_full() {
    let mut cluster = Cluster::new(4, 1);
    cluster.stores.get_mut(&4).unwrap().full = true;
    cluster.seconds(2);
    let refused = remove(&mut cluster, 2, false, false).unwrap_err();
    assert!(refused.contains("s4 has 1 of 1024 MiB free"), "{refused}");
    cluster.stores.get_mut(&4).unwrap().full = false;
    cluster.seconds(2);
    assert_eq!(remove(&mut cluster, 2, false, false), Ok(2));
}

#[test]
fn a_leaving_store_gives_up_the_voter_that_is_one_too_many() {
    let mut cluster = Cluster::new(5, 1);
    cluster.set("replicas", "5");
    cluster.seconds(40);
    assert_eq!(cluster.voters(FIRST).len(), 5);
    // Nobody else could take it: all have one.
    let life = StoreLife::Leaving { dead: false, to: None };
    cluster.machine.apply(Command::ChangeStore { store: StoreId(5), life });
    cluster.seconds(5);
    assert_eq!(cluster.voters(FIRST).len(), 5);
    cluster.set("replicas", "3");
    cluster.seconds(60);
    assert_eq!((cluster.voters(FIRST).len(), state(&cluster, 5)), (3, StoreState::Left));
}
