//! Whatever happens: no step leads to an even number of voters on either side, none is ordered
//! without a live majority, a joint configuration is left forward, and healthy learners stay.

use proptest::prelude::*;
use quorate_placement::core::lifecycle::{Change, Group, Next, ReplicaRole, State, Wish, cancel};
use quorate_proto::{LogIndex, NodeId, PeerId, Role};

use super::World;

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    Wish(Wish),
    Cancel,
    Alive(u64, bool),
    Target(usize),
    Rate(u64, u64),
    Lead(u64),
    Lost(u64),
    Repeat,
    Snapshot(u64),
    Seconds(u64),
}

const NODES: u64 = 9;

fn wishes() -> impl Strategy<Value = Wish> {
    let node = || (1..=NODES).prop_map(NodeId);
    prop_oneof![
        (node(), any::<bool>()).prop_map(|(node, analytics)| Wish::Add {
            node,
            role: if analytics { ReplicaRole::Analytics } else { ReplicaRole::Standard },
        }),
        (node(), node()).prop_map(|(from, to)| Wish::Move { from, to }),
        (node(), any::<bool>()).prop_map(|(node, force)| Wish::Remove { node, force }),
        prop::collection::vec(node(), 1..3).prop_map(|nodes| Wish::Promote { nodes }),
        (prop::collection::vec(node(), 1..3), any::<bool>())
            .prop_map(|(nodes, force)| Wish::Demote { nodes, force }),
    ]
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => wishes().prop_map(Event::Wish),
        1 => Just(Event::Cancel),
        3 => (1..=NODES, any::<bool>()).prop_map(|(node, alive)| Event::Alive(node, alive)),
        1 => prop::sample::select(vec![1usize, 3, 5, 7]).prop_map(Event::Target),
        2 => (1..=NODES, prop::sample::select(vec![0u64, 50, 100, 100_000]))
            .prop_map(|(node, rate)| Event::Rate(node, rate)),
        2 => (1..=NODES).prop_map(Event::Lead),
        2 => (1..40u64).prop_map(Event::Lost),
        1 => Just(Event::Repeat),
        1 => (1..=NODES).prop_map(Event::Snapshot),
        8 => (1..200u64).prop_map(Event::Seconds),
    ]
}

fn living<'a>(
    members: impl Iterator<Item = &'a quorate_placement::core::lifecycle::Member>,
) -> bool {
    let (all, alive) =
        members.fold((0, 0), |(all, alive), member| (all + 1, alive + usize::from(member.alive)));
    alive * 2 > all
}

/// What is ordered is proven on a copy of the group, before anybody obeys.
fn check(world: &World) {
    let Next::Change(change) = &world.next else { return };
    let before: &Group = &world.group;
    assert!(living(before.voters()) && living(before.outgoing()), "{change:?} without a majority");
    match change {
        Change::AddLearner { .. } => {}
        Change::EnterJoint { promote, demote } => {
            assert!(!before.is_joint(), "a joint change in a joint configuration");
            let demotes_the_leader = demote.iter().any(|peer| before.leader == Some(*peer));
            let swaps_the_only_voter = before.voters().count() == 1 && promote.len() == 1;
            assert!(!demotes_the_leader || swaps_the_only_voter, "demotes the leader");
            let after = before.members.iter().filter(|member| {
                (member.role == Role::Voter && !demote.contains(&member.peer))
                    || promote.contains(&member.peer)
            });
            assert!(living(after.clone()), "no live majority afterwards");
            assert_eq!(after.count() % 2, 1);
            for peer in promote {
                let member = before.peer(*peer).unwrap();
                assert!(member.silent_ms <= world.limits.contact_ms, "promotes a silent one");
            }
        }
        Change::LeaveJoint => {
            assert!(before.is_joint());
            let leads = before.led_by().unwrap();
            assert_ne!(leads.role, Role::DemotingVoter, "the leader would go");
        }
        Change::RemoveLearner { peer } => {
            let record = world.records.iter().find(|record| record.peer == *peer).unwrap();
            let standby = matches!(record.state, State::StandbyLearner | State::KeepAsLearner);
            let wanted =
                matches!(record.aim, quorate_placement::core::lifecycle::Aim::Leave { .. });
            assert!(wanted || !standby, "a healthy learner is removed: {record:?}");
        }
    }
}

fn pass(world: &mut World, seconds: u64) {
    for _ in 0..seconds {
        for member in &mut world.group.members {
            member.silent_ms = if member.alive { 100 } else { member.silent_ms + 1_000 };
            member.can_lead = member.alive && member.role != Role::Learner;
        }
        let led = world.group.led_by().is_some_and(|leader| leader.alive);
        let commits = living(world.group.voters()) && living(world.group.outgoing());
        if !led {
            // Somebody who can is elected, if there is a majority.
            let able = world.group.members.iter().find(|m| m.can_lead && commits);
            world.group.leader = able.map(|member| member.peer);
        }
        let obeys = world.obeys;
        world.obeys = false;
        world.second();
        check(world);
        world.obeys = obeys;
        if obeys && commits && world.group.leader.is_some() {
            world.obey();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_change_is_safe(
        voters in prop::sample::select(vec![1u64, 3, 5]),
        target in prop::sample::select(vec![1usize, 3, 5, 7]),
        script in prop::collection::vec(events(), 1..40),
    ) {
        let mut world = World::new(voters, target);
        world.limits.pairing_ms = 20_000;
        world.limits.promotion_ms = 40_000;
        world.limits.zombie_ms = 60_000;
        let mut operator = 100;
        for event in script {
            match event {
                Event::Wish(wanted) => {
                    operator += 1;
                    let _ = world.try_wish(&wanted, operator);
                }
                Event::Cancel => {
                    if !world.group.is_joint() {
                        let now_ms = world.now_ms;
                        world.records =
                            cancel(&world.group, &world.records, operator, "test", now_ms);
                    }
                }
                Event::Alive(node, alive) => {
                    if world.role(node).is_some() {
                        world.member(node).alive = alive;
                    }
                }
                Event::Target(target) => world.group.target = target,
                Event::Rate(node, rate) => {
                    world.rates.insert(node, rate);
                }
                Event::Lead(node) => {
                    let able = world.group.on(NodeId(node)).is_some_and(|member| {
                        member.alive && member.role != Role::Learner
                            && member.role != Role::IncomingVoter
                    });
                    if able {
                        world.group.leader = Some(world.member(node).peer);
                    }
                }
                Event::Lost(seconds) => {
                    world.obeys = false;
                    pass(&mut world, seconds);
                    world.obeys = true;
                }
                // The next leader of placement knows what is replicated, and no pace.
                Event::Repeat => {
                    let now_ms = world.now_ms;
                    for record in &mut world.records {
                        record.pace = quorate_placement::core::lifecycle::Pace::new(now_ms);
                    }
                }
                Event::Snapshot(node) => {
                    if world.role(node) == Some(Role::Learner) {
                        world.member(node).matched = Some(LogIndex(0));
                    }
                }
                Event::Seconds(seconds) => pass(&mut world, seconds),
            }
        }
        // All heal: the group settles in a plain configuration, with nothing left to do.
        for node in 1..=NODES {
            world.rates.remove(&node);
            if world.role(node).is_some() {
                world.member(node).alive = true;
            }
        }
        for record in &mut world.records {
            record.held = false;
        }
        pass(&mut world, 300);
        prop_assert!(!world.group.is_joint());
        prop_assert!(
            !matches!(world.next, Next::Change(_) | Next::Transfer { .. }),
            "still busy: {:?} {:?}", world.next, world.records
        );
        let _ = PeerId(0);
    }
}
