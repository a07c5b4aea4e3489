//! What takes long, or for ever: deadlines that end, lost voters that do not wait, failures that are
//! remembered.

use quorate_placement::core::leader::Leader;
use quorate_placement::core::lifecycle::Change;
use quorate_placement::core::operators::{CHANGE_AT_MOST, Draft, End, Goal, Order, Step};
use quorate_proto::{Peer, PeerId, Role, StoreId, Term};

use super::moves::{move_replica, request};
use super::{Behaviour, Cluster, FIRST};

impl Behaviour {
    /// True for an order that has no effect yet: it is lost, or lies in a log.
    pub fn swallows(&mut self, order: &Order) -> bool {
        let Step::Change(change) = &order.step else { return false };
        let held =
            self.holds && self.entering.is_none() && matches!(change, Change::EnterJoint { .. });
        if held {
            self.entering = Some(order.clone());
        }
        held || self.deaf
    }

    /// Why it does not carry the step out, where it does not.
    pub fn refusal(&self, step: &Step) -> Option<String> {
        match step {
            Step::Change(_) => {}
            Step::PrepareMerge { .. } => return self.refuses.clone(),
            Step::TransferLeader { .. }
            | Step::Split { .. }
            | Step::Destroy { .. }
            | Step::CommitMerge { .. }
            | Step::RollbackMerge { .. }
            | Step::RefuseMerge => return None,
        }
        let pending =
            (self.holds && self.entering.is_some()).then(|| "a change is pending".to_owned());
        self.refuses.clone().or(pending)
    }
}

fn ended(cluster: &Cluster, id: u64) -> Option<End> {
    let mut ended = cluster.leader.operators().ended();
    ended.find(|ended| ended.operator.id == id).map(|ended| ended.end.clone())
}

#[test]
fn writes_do_not_extend_the_deadline_of_a_change_that_nobody_carries_out() {
    let mut cluster = Cluster::new(5, 1);
    cluster.set("replicas", "5");
    cluster.seconds(40);
    assert_eq!(cluster.voters(FIRST).len(), 5);
    cluster.set("replicas", "3");
    let leader = cluster.regions[&FIRST].leader.0;
    cluster.stores.get_mut(&leader).unwrap().deaf = true;
    let id = request(&mut cluster, Goal::RemoveReplica { from: StoreId(5) }).unwrap();
    cluster.seconds(590);
    assert_eq!(ended(&cluster, id), None);
    cluster.seconds(30);
    assert_eq!(ended(&cluster, id), Some(End::TimedOut));
}

#[test]
fn a_learner_slower_than_the_writes_does_not_hold_its_region_for_ever() {
    let mut cluster = Cluster::new(4, 1);
    cluster.stores.get_mut(&4).unwrap().slow = true;
    let id = move_replica(&mut cluster, 2, 4);
    cluster.seconds(CHANGE_AT_MOST.as_secs() - 60);
    assert_eq!(ended(&cluster, id), None, "it gets on");
    cluster.seconds(120);
    assert_eq!(ended(&cluster, id), Some(End::TimedOut));
    cluster.seconds(20);
    assert_eq!((cluster.voters(FIRST), cluster.learners(FIRST)), (vec![1, 2, 3], vec![]));
}

#[test]
fn a_lost_voter_does_not_wait_for_a_move_that_only_makes_things_better() {
    let mut cluster = Cluster::new(5, 1);
    cluster.set("store.down_ms", "60000");
    cluster.seconds(2);
    cluster.stores.get_mut(&4).unwrap().slow = true;
    let epoch = cluster.regions[&FIRST].region.epoch;
    let goal = Goal::MoveReplica { from: StoreId(2), to: StoreId(4) };
    let reason = "s4 has fewer".to_owned();
    let draft = Draft { region: FIRST, epoch, goal, by: "balance-region", reason };
    let (state, now) = (&cluster.machine.state, cluster.now);
    let id = cluster.leader.begin(state, draft, false, now).unwrap();
    cluster.seconds(10);
    assert_eq!(cluster.learners(FIRST), [4]);
    cluster.stores.get_mut(&3).unwrap().dead = true;
    cluster.seconds(100);
    assert_eq!(ended(&cluster, id), Some(End::Overtaken));
    assert_eq!((cluster.voters(FIRST), cluster.learners(FIRST)), (vec![1, 2, 5], vec![]));
}

#[test]
fn what_a_person_asked_for_is_not_overtaken() {
    let mut cluster = Cluster::new(5, 1);
    cluster.set("store.down_ms", "60000");
    cluster.seconds(2);
    cluster.stores.get_mut(&4).unwrap().slow = true;
    let id = move_replica(&mut cluster, 2, 4);
    cluster.stores.get_mut(&3).unwrap().dead = true;
    cluster.seconds(100);
    assert_eq!(ended(&cluster, id), None);
}

#[test]
fn a_joint_change_that_may_lie_in_a_log_is_not_given_up_for_refusals() {
    let mut cluster = Cluster::new(4, 1);
    let leader = cluster.regions[&FIRST].leader.0;
    cluster.stores.get_mut(&leader).unwrap().holds = true;
    let id = move_replica(&mut cluster, 2, 4);
    cluster.seconds(60);
    let held = cluster.stores.get_mut(&leader).unwrap().entering.take().expect("an order to enter");
    // Asked every two seconds, far more than ten times.
    let told = cluster.decisions(FIRST);
    assert!(told.iter().any(|why| why.ends_with("a change is pending")), "{told:?}");
    assert_eq!(ended(&cluster, id), None);
    cluster.stores.get_mut(&leader).unwrap().holds = false;
    cluster.carry_out(StoreId(leader), held);
    cluster.seconds(10);
    assert_eq!(ended(&cluster, id), Some(End::Done));
    assert_eq!((cluster.voters(FIRST), cluster.learners(FIRST)), (vec![1, 3, 4], vec![]));
}

#[test]
fn what_the_next_leader_has_not_heard_of_yet_keeps_its_lifecycles() {
    let mut cluster = Cluster::new(4, 1);
    cluster.seconds(2);
    cluster.stores.get_mut(&4).unwrap().stuck = true;
    let id = move_replica(&mut cluster, 2, 4);
    cluster.seconds(5);
    assert_eq!(cluster.learners(FIRST), [4]);
    // Routes were never saved, and the store that leads the region is late with its report.
    cluster.term += 1;
    let state = cluster.machine.reloaded();
    cluster.leader = Leader::new(Term(cluster.term), &state, cluster.now);
    assert!(cluster.leader.tree().get(FIRST).is_none());
    let late = cluster.regions[&FIRST].leader.0;
    cluster.stores.get_mut(&late).unwrap().dead = true;
    cluster.report_all(true);
    for _ in 0..8 {
        cluster.tick();
    }
    assert_eq!(cluster.machine.state.lifecycles()[&FIRST].len(), 2);
    assert!(cluster.machine.state.operators().contains_key(&id));
    cluster.stores.get_mut(&late).unwrap().dead = false;
    cluster.stores.get_mut(&4).unwrap().stuck = false;
    cluster.report_all(true);
    cluster.seconds(20);
    assert_eq!((cluster.voters(FIRST), cluster.learners(FIRST)), (vec![1, 3, 4], vec![]));
    // One that all have told of, and nobody leads, is no more.
    cluster.stores.get_mut(&2).unwrap().stuck = true;
    let id = move_replica(&mut cluster, 4, 2);
    cluster.seconds(5);
    cluster.regions.remove(&FIRST);
    cluster.failover();
    cluster.seconds(1);
    assert!(!cluster.machine.state.lifecycles().contains_key(&FIRST));
    assert!(!cluster.machine.state.operators().contains_key(&id));
}

#[test]
fn a_store_that_fails_again_and_again_rests_for_longer_each_time() {
    let mut cluster = Cluster::new(4, 1);
    cluster.set("store.down_ms", "60000");
    cluster.seconds(2);
    cluster.stores.get_mut(&4).unwrap().stuck = true;
    cluster.stores.get_mut(&3).unwrap().dead = true;
    cluster.seconds(1_500);
    let tried = |cluster: &Cluster| {
        let failed = |end: &End| matches!(end, End::Failed(_));
        let operators = cluster.leader.operators();
        operators.ended().filter(|one| one.operator.region == FIRST && failed(&one.end)).count()
    };
    // A minute each, and 15 s, 30 s, 60 s… between them; at 15 s it would be twenty times.
    let times = tried(&cluster);
    assert!((5..=9).contains(&times), "{times}");
    let told = cluster.decisions(FIRST);
    let rests = "s4 could not take a replica of it";
    assert!(told.iter().any(|why| why.contains(rests)), "{told:?}");
    // Another store need not wait.
    let fifth = cluster.join(5);
    cluster.seconds(120);
    assert_eq!(cluster.voters(FIRST), [1, 2, fifth]);
}

#[test]
fn a_joint_configuration_that_lasts_is_told_of_whoever_is_busy_with_it() {
    let mut cluster = Cluster::new(5, 1);
    cluster.seconds(2);
    let hosted = cluster.regions.get_mut(&FIRST).unwrap();
    for (store, peer) in [(4, PeerId(9_994)), (5, PeerId(9_995))] {
        let store = StoreId(store);
        hosted.region.peers.push(Peer { id: peer, store, role: Role::IncomingVoter });
        hosted.matched.insert(peer, hosted.last);
    }
    for peer in &mut hosted.region.peers {
        if [2, 3].contains(&peer.store.0) {
            peer.role = Role::DemotingVoter;
        }
    }
    hosted.region.epoch.conf_ver += 3;
    for store in [2, 3] {
        cluster.stores.get_mut(&store).unwrap().dead = true;
    }
    let stuck = "r100 is in a joint configuration for long: it needs both majorities to leave it";
    let times = |cluster: &Cluster, text: &str| {
        cluster.events().iter().filter(|event| event.as_str() == text).count()
    };
    cluster.seconds(25);
    assert_eq!(times(&cluster, stuck), 0);
    // The new side is whole, and helps nothing.
    assert_eq!(times(&cluster, "r100 lost its quorum: 1 of 3 voters are alive"), 1);
    cluster.seconds(15);
    assert_eq!(times(&cluster, stuck), 1);
    cluster.seconds(900);
    assert_eq!(times(&cluster, stuck), 1, "told once");
}
