//! Replicas that are added, moved and removed, on request and by the checkers.

use quorate_placement::core::operators::{End, Goal, ReplicaRole};
use quorate_proto::StoreId;

use super::{Cluster, FIRST};

pub fn move_replica(cluster: &mut Cluster, from: u64, to: u64) -> u64 {
    let goal = Goal::MoveReplica { from: StoreId(from), to: StoreId(to) };
    request(cluster, goal).unwrap()
}

pub fn request(cluster: &mut Cluster, goal: Goal) -> Result<u64, String> {
    let (state, now) = (&cluster.machine.state, cluster.now);
    let begun = cluster.leader.change_replica(state, FIRST, goal, false, now);
    begun.map_err(|refused| refused.to_string())
}

#[test]
fn a_replica_moves_on_request_step_by_step() {
    let mut cluster = Cluster::new(4, 3);
    cluster.seconds(2);
    // Store 1 leads the region.
    let id = move_replica(&mut cluster, 1, 4);
    cluster.seconds(20);
    assert_eq!(cluster.voters(FIRST), [2, 3, 4]);
    assert_eq!(cluster.learners(FIRST), [0; 0]);
    assert_eq!(
        cluster.done,
        [
            "r100 add s4",
            "r100 leader s2",
            "r100 enter +1 -1",
            "r100 leave",
            "r100 remove",
            "r100 s1 destroys p1001",
        ]
    );
    let ended = cluster.leader.operators().ended().last().unwrap();
    assert_eq!((ended.operator.id, ended.end.clone()), (id, End::Done));
    assert!(cluster.machine.state.operators().is_empty());
    let events = cluster.events();
    for told in [
        "r100 s4 joined as learner",
        "r100 s4 ready (voters 3, target 3)",
        "r100 s4 promoted in place of s1, voters 3",
        "r100 s1 demoted to learner",
        "r100 s1 removed",
    ] {
        assert!(events.iter().any(|event| event == told), "{told} is not among {events:?}");
    }
    // And then it is left alone.
    cluster.seconds(300);
    assert_eq!(cluster.done.len(), 6);
}

#[test]
fn orders_that_arrive_twice_do_no_harm() {
    let mut cluster = Cluster::new(4, 1);
    cluster.repeats = true;
    move_replica(&mut cluster, 2, 4);
    cluster.seconds(30);
    assert_eq!(cluster.voters(FIRST), [1, 3, 4]);
    let adds = cluster.done.iter().filter(|step| step.contains("add")).count();
    assert_eq!(adds, 1);
}

#[test]
fn five_replicas_are_reached_in_one_joint_change_and_three_again() {
    let mut cluster = Cluster::new(5, 2);
    cluster.set("replicas", "5");
    cluster.seconds(40);
    for region in [FIRST, quorate_proto::RegionId(101), quorate_proto::RegionId(102)] {
        assert_eq!(cluster.voters(region), [1, 2, 3, 4, 5], "{region}, the sentinel too");
    }
    let changes: Vec<&String> =
        cluster.done.iter().filter(|step| step.starts_with("r100 enter")).collect();
    assert_eq!(changes, ["r100 enter +2 -0"]);
    assert!(cluster.events().iter().any(|event| event == "r100 s4+s5 promoted, voters 5"));
    cluster.set("replicas", "3");
    cluster.seconds(40);
    assert_eq!(cluster.voters(FIRST).len(), 3);
    assert_eq!(cluster.learners(FIRST), [0; 0]);
    assert!(cluster.done.iter().any(|step| step == "r100 enter +0 -2"));
    let steps = cluster.done.len();
    cluster.seconds(300);
    assert_eq!(cluster.done.len(), steps, "and then it is left alone");
}

#[test]
fn a_lone_learner_waits_and_is_never_removed() {
    let mut cluster = Cluster::new(4, 1);
    cluster.set("replicas", "5");
    cluster.seconds(20);
    assert_eq!((cluster.voters(FIRST), cluster.learners(FIRST)), (vec![1, 2, 3], vec![4]));
    cluster.seconds(3_600);
    assert_eq!((cluster.voters(FIRST), cluster.learners(FIRST)), (vec![1, 2, 3], vec![4]));
    let stands_by = "r100 s4 stands by as a learner: no partner came in time";
    assert!(cluster.events().iter().any(|event| event == stands_by));
    let stuck = cluster.decisions(FIRST);
    assert!(
        stuck.iter().any(|why| why.starts_with("replica-checker: 4 of 5 voters; no store")),
        "{stuck:?}"
    );
    let fifth = cluster.join(5);
    cluster.seconds(30);
    assert_eq!(cluster.voters(FIRST), [1, 2, 3, 4, fifth]);
}

#[test]
fn an_analytics_replica_stays_a_learner_and_goes_on_request() {
    let mut cluster = Cluster::new(4, 1);
    let goal = Goal::AddReplica { to: StoreId(4), role: ReplicaRole::Analytics };
    request(&mut cluster, goal).unwrap();
    cluster.seconds(20);
    assert_eq!(cluster.learners(FIRST), [4]);
    cluster.seconds(600);
    assert_eq!((cluster.voters(FIRST), cluster.learners(FIRST)), (vec![1, 2, 3], vec![4]));
    request(&mut cluster, Goal::RemoveReplica { from: StoreId(4) }).unwrap();
    cluster.seconds(10);
    assert_eq!(cluster.learners(FIRST), [0; 0]);
    assert_eq!(cluster.stores[&4].destroyed.len(), 1);
}

#[test]
fn a_store_that_refuses_is_given_up_with_its_reason_and_everything_goes_back() {
    let mut cluster = Cluster::new(4, 1);
    cluster.stores.get_mut(&1).unwrap().refuses = Some("a change is pending".to_owned());
    move_replica(&mut cluster, 2, 4);
    cluster.seconds(60);
    let ended = cluster.leader.operators().ended().last().unwrap();
    assert_eq!(ended.end, End::Refused("a change is pending".to_owned()));
    assert_eq!(cluster.voters(FIRST), [1, 2, 3]);
    let told = cluster.decisions(FIRST);
    assert!(told.iter().any(|why| why.contains("did not carry out")), "{told:?}");
    cluster.stores.get_mut(&1).unwrap().refuses = None;
    cluster.seconds(60);
    assert_eq!((cluster.voters(FIRST), cluster.learners(FIRST)), (vec![1, 2, 3], vec![]));
}

#[test]
fn a_stuck_learner_ends_its_move_and_is_taken_back() {
    let mut cluster = Cluster::new(4, 1);
    cluster.stores.get_mut(&4).unwrap().stuck = true;
    move_replica(&mut cluster, 2, 4);
    cluster.seconds(30);
    assert_eq!(cluster.learners(FIRST), [4]);
    cluster.seconds(90);
    assert_eq!((cluster.voters(FIRST), cluster.learners(FIRST)), (vec![1, 2, 3], vec![]));
    let ended = cluster.leader.operators().ended().find(|ended| ended.end != End::Done).unwrap();
    match &ended.end {
        End::Failed(why) => assert!(why.starts_with("no progress for"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(cluster.events().iter().any(|event| event.contains("s4 is stale, no progress")));
}

#[test]
fn nothing_is_ordered_before_it_is_replicated() {
    let mut cluster = Cluster::new(4, 1);
    cluster.replicates = false;
    move_replica(&mut cluster, 2, 4);
    cluster.seconds(5);
    assert!(cluster.done.is_empty(), "{:?}", cluster.done);
    let waits = cluster.leader.operators().under_way().next().unwrap().waits_for.clone();
    assert_eq!(waits, "what is planned is being replicated");
    cluster.replicates = true;
    cluster.seconds(20);
    assert_eq!(cluster.voters(FIRST), [1, 3, 4]);
}
