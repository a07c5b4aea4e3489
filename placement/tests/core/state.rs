//! The replicated state: bootstrap, joining, ids, saved routes, reload.

use quorate_placement::core::command::{
    Answer, BadCommand, CLUSTER_VERSION, Command, JoinRefusal, Joining, SavedRegion,
};
use quorate_placement::core::ids::IdRange;
use quorate_placement::core::state::{State, StoreLife};
use quorate_proto::limits::SENTINEL_START;
use quorate_proto::{Epoch, RegionId, StoreId, Term};

use crate::support::{Machine, initialize, joining, led, region};

/// Everything that is replicated; the generation of the stores counts from the process's start.
fn assert_same(left: &State, right: &State) {
    assert_eq!(left.cluster(), right.cluster());
    assert_eq!(left.members(), right.members());
    assert_eq!(left.stores(), right.stores());
    assert_eq!(left.counters(), right.counters());
    assert_eq!(left.initial_regions(), right.initial_regions());
    assert_eq!(left.saved_regions(), right.saved_regions());
}

#[test]
fn cluster_is_initialised_once() {
    let mut machine = Machine::default();
    assert_eq!(machine.apply(initialize(77, 3)), Answer::Initialized(77));
    assert_eq!(machine.apply(initialize(99, 5)), Answer::Initialized(77));
    let cluster = machine.state.cluster().unwrap();
    assert_eq!((cluster.id, cluster.initial_stores, cluster.replicas), (77, 3, 3));
    assert_eq!(machine.state.members().len(), 3);
}

#[test]
fn bootstrap_waits_for_the_initial_stores_and_happens_once() {
    let mut machine = Machine::cluster(3, 2);
    assert_eq!(machine.state.missing_stores(), 1);
    assert_eq!(machine.apply(Command::Bootstrap), Answer::Bootstrapped(false));
    machine.apply(Command::JoinStore(joining(3)));
    assert_eq!(machine.apply(Command::Bootstrap), Answer::Bootstrapped(true));

    let first = machine.state.initial_regions().unwrap().to_vec();
    assert_eq!(first.len(), 2);
    assert_eq!(first[0].range.start, "");
    assert_eq!(first[0].range.end, SENTINEL_START);
    assert_eq!(first[1].range.start, SENTINEL_START);
    assert_eq!(first[1].range.end, "");
    for region in &first {
        assert_eq!(region.epoch, Epoch { conf_ver: 1, version: 1 });
        let stores: Vec<u64> = region.peers.iter().map(|peer| peer.store.0).collect();
        assert_eq!(stores, [1, 2, 3]);
    }
    let mut ids: Vec<u64> = first
        .iter()
        .flat_map(|region| region.peers.iter().map(|peer| peer.id.0).chain([region.id.0]))
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (4..=11).collect::<Vec<_>>(), "one allocator for stores, regions and peers");

    machine.apply(Command::JoinStore(joining(4)));
    assert_eq!(machine.apply(Command::Bootstrap), Answer::Bootstrapped(true));
    assert_eq!(machine.state.initial_regions().unwrap(), first);
    assert_eq!(machine.state.saved_regions().len(), 2);
}

#[test]
fn first_regions_have_an_odd_number_of_voters() {
    for (stores, voters) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 3)] {
        let machine = Machine::cluster(stores as u32, stores);
        for region in machine.state.initial_regions().unwrap() {
            assert_eq!(region.peers.len(), voters, "of {stores} stores");
        }
    }
}

#[test]
fn joining_again_is_the_same_store() {
    let mut machine = Machine::cluster(1, 1);
    // Its answer was lost: the folder has no id yet.
    assert_eq!(machine.apply(Command::JoinStore(joining(1))), Answer::Joined(StoreId(1)));
    // It restarts with its id, at another address.
    let restarted = Joining {
        cluster_id: 77,
        store: Some(StoreId(1)),
        address: "127.0.0.1:30000".to_owned(),
        incarnation: 2,
        ..joining(1)
    };
    assert_eq!(machine.apply(Command::JoinStore(restarted)), Answer::Joined(StoreId(1)));
    assert_eq!(machine.state.stores().len(), 1);
    let store = &machine.state.stores()[&StoreId(1)];
    assert_eq!((store.address.as_str(), store.incarnation), ("127.0.0.1:30000", 2));
}

#[test]
fn joins_that_would_mix_up_stores_are_refused() {
    let mut machine = Machine::cluster(2, 2);
    let before = machine.state.clone();
    let mut refused = |joining: Joining| match machine.apply(Command::JoinStore(joining)) {
        Answer::JoinRefused(refusal) => refusal,
        other => panic!("joined: {other:?}"),
    };
    let copied = Joining { store: Some(StoreId(1)), data_id: 5, ..joining(3) };
    let address = "127.0.0.1:20001".to_owned();
    assert_eq!(refused(copied), JoinRefusal::IdInUse { store: StoreId(1), address });
    let foreign = Joining { cluster_id: 78, ..joining(3) };
    assert_eq!(refused(foreign), JoinRefusal::WrongCluster { theirs: 78, ours: 77 });
    let unknown = Joining { store: Some(StoreId(9)), ..joining(3) };
    assert_eq!(refused(unknown), JoinRefusal::UnknownStore { store: StoreId(9) });
    let nameless = Joining { address: String::new(), ..joining(3) };
    assert!(matches!(refused(nameless), JoinRefusal::Incomplete(_)));
    let folderless = Joining { data_id: 0, ..joining(3) };
    assert!(matches!(refused(folderless), JoinRefusal::Incomplete(_)));
    assert_same(&machine.state, &before);
}

#[test]
fn an_address_belongs_to_the_last_store_that_joined_with_it() {
    let mut machine = Machine::cluster(2, 2);
    let replacement = Joining { address: joining(1).address, ..joining(3) };
    let Answer::Joined(newcomer) = machine.apply(Command::JoinStore(replacement)) else {
        panic!("not joined")
    };
    assert_eq!(machine.state.stores()[&StoreId(1)].address, "");
    assert_eq!(machine.state.stores()[&newcomer].address, joining(1).address);
}

#[test]
fn a_store_is_active_once_it_reported() {
    let mut machine = Machine::cluster(1, 1);
    assert_eq!(machine.state.stores()[&StoreId(1)].life, StoreLife::Joining);
    machine.apply(Command::ActivateStore(StoreId(1)));
    machine.apply(Command::ActivateStore(StoreId(9)));
    assert_eq!(machine.state.stores()[&StoreId(1)].life, StoreLife::Active);
    machine.apply(Command::JoinStore(joining(1)));
    assert_eq!(machine.state.stores()[&StoreId(1)].life, StoreLife::Active);
    assert_eq!(machine.state.stores().len(), 1);
}

#[test]
fn ids_are_never_handed_out_twice_across_leaders() {
    let mut machine = Machine::cluster(3, 3);
    let mut seen = std::collections::BTreeSet::new();
    for _leader in 0..4 {
        let Answer::Ids { first, count } = machine.apply(Command::AllocateIds { count: 10 }) else {
            panic!("no ids")
        };
        let mut range = IdRange::new(first, count);
        // A leader falls with most of its range unused.
        for _ in 0..2 {
            let taken = range.take(3).unwrap();
            for id in taken..taken + 3 {
                assert!(seen.insert(id), "{id} was handed out twice");
            }
        }
        assert_eq!(range.take(5), None);
        machine.state = machine.reloaded();
        let Answer::Joined(store) = machine.apply(Command::JoinStore(joining(50 + first))) else {
            panic!("not joined")
        };
        assert!(seen.insert(store.0), "{store} has the id of something else");
    }
}

#[test]
fn counters_only_grow() {
    let mut machine = Machine::default();
    let raise = |ceiling_ms| Command::ExtendTime { ceiling_ms };
    let time = |previous_ms, ceiling_ms| Answer::Time { previous_ms, ceiling_ms };
    assert_eq!(machine.apply(raise(5_000)), time(0, 5_000));
    assert_eq!(machine.apply(raise(4_000)), time(5_000, 5_000));
    assert_eq!(machine.apply(raise(9_000)), time(5_000, 9_000));
    assert_eq!(machine.apply(Command::RaiseSafePoint(7)), Answer::SafePoint(7));
    assert_eq!(machine.apply(Command::RaiseSafePoint(3)), Answer::SafePoint(7));
}

#[test]
fn routes_are_saved_by_the_rules_of_the_tree_and_loaded_as_they_were() {
    let mut machine = Machine::cluster(3, 3);
    let parent = machine.state.initial_regions().unwrap()[0].clone();
    let mut left = parent.clone();
    left.range.end = "m".into();
    left.epoch.version = 2;
    let mut right = region(500, "m", "", 2);
    right.range.end = parent.range.end.clone();
    let saved = |info: quorate_placement::core::tree::RegionInfo| info.to_saved();
    let routes = vec![saved(led(&right, 2, 7)), saved(led(&left, 1, 6))];
    machine.apply(Command::SaveRegions(routes));
    assert_eq!(machine.state.saved_regions().len(), 3);
    // Late news of the parent change nothing.
    machine.apply(Command::SaveRegions(vec![saved(led(&parent, 3, 9))]));
    let tree = machine.state.saved_regions();
    assert_eq!(tree.find(b"a").unwrap().leader.unwrap().store, StoreId(1));
    assert_eq!(tree.find(b"x").unwrap().region.id, RegionId(500));
    assert_eq!(tree.find(b"x").unwrap().term, Term(7));
    assert!(!tree.find(b"x").unwrap().led, "what was saved is not known to be led now");
    assert_same(&machine.reloaded(), &machine.state);
}

#[test]
fn what_a_newer_member_wrote_is_told_from_damage() {
    use prost::Message;
    use quorate_proto::wire::placement_state as wire;
    let newer = wire::Command { version: CLUSTER_VERSION + 1, kind: None };
    let mut bytes = newer.encode_length_delimited_to_vec().into();
    let refused = Command::decode(&mut bytes);
    assert_eq!(
        refused,
        Err(BadCommand::Newer { found: CLUSTER_VERSION + 1, known: CLUSTER_VERSION })
    );
    let mut damaged = bytes::Bytes::from_static(&[5, 0xff, 0xff]);
    assert!(matches!(Command::decode(&mut damaged), Err(BadCommand::Decode(_))));
    let mut unbounded = Command::AllocateIds { count: u64::MAX }.encode();
    assert!(matches!(Command::decode(&mut unbounded), Err(BadCommand::Bound(_))));
}

mod random {
    use super::*;
    use proptest::prelude::*;

    fn commands() -> impl Strategy<Value = Command> {
        let route = (1u64..8, 0u64..9, 1u64..9, 1u64..6, 1u64..4, 1u64..6).prop_map(
            |(id, start, length, version, store, term)| -> SavedRegion {
                let key = |number: u64| format!("{number:02}");
                let region = region(id + 100, &key(start), &key(start + length), version);
                led(&region, store, term).to_saved()
            },
        );
        prop_oneof![
            (1u64..6, proptest::bool::ANY, 0u64..8).prop_map(|(number, known, address)| {
                let store = known.then_some(StoreId(number));
                let address = format!("127.0.0.1:{address}");
                Command::JoinStore(Joining { store, address, ..joining(number) })
            }),
            (1u64..6).prop_map(|store| Command::ActivateStore(StoreId(store))),
            Just(Command::Bootstrap),
            (1u64..50).prop_map(|count| Command::AllocateIds { count }),
            (0u64..9_000).prop_map(|ceiling_ms| Command::ExtendTime { ceiling_ms }),
            proptest::collection::vec(route, 1..4).prop_map(Command::SaveRegions),
            (0u64..100).prop_map(Command::RaiseSafePoint),
        ]
    }

    proptest! {
        /// Whatever was applied: a restart, or a snapshot, brings back the same state.
        #[test]
        fn a_restart_at_any_point_loads_what_was_applied(
            commands in proptest::collection::vec(commands(), 1..60),
            restart_every in 1usize..20,
        ) {
            let (mut steady, mut restarting) = (Machine::default(), Machine::default());
            steady.apply(initialize(7, 2));
            restarting.apply(initialize(7, 2));
            for (number, command) in commands.into_iter().enumerate() {
                let answers = (steady.apply(command.clone()), restarting.apply(command));
                prop_assert_eq!(answers.0, answers.1);
                if number % restart_every == 0 {
                    restarting.state = restarting.reloaded();
                    assert_same(&restarting.state, &steady.state);
                }
            }
        }
    }
}
