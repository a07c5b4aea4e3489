//! What people ask for, and what they are told.

use quorate_placement::core::leader::MemberAction;
use quorate_placement::core::operators::{End, Goal, ReplicaRole, story};
use quorate_proto::StoreId;

use super::moves::{move_replica, request};
use super::{Cluster, FIRST};

fn act(cluster: &mut Cluster, store: u64, action: MemberAction) -> Result<u64, String> {
    let (state, now) = (&cluster.machine.state, cluster.now);
    let begun = cluster.leader.change_member(state, FIRST, StoreId(store), action, false, now);
    begun.map_err(|refused| refused.to_string())
}

#[test]
fn refusals_say_what_to_do() {
    let mut cluster = Cluster::new(4, 1);
    cluster.seconds(2);
    let add = |to| Goal::AddReplica { to: StoreId(to), role: ReplicaRole::Standard };
    for (goal, words) in [
        (add(9), "s9 is not known to this cluster: name a store that is up"),
        (add(2), "s2 has a replica of r100 already"),
        (Goal::RemoveReplica { from: StoreId(4) }, "s4 has no replica of r100"),
        (Goal::RemoveReplica { from: StoreId(2) }, "r100 has 3 voters and 3 are wanted"),
    ] {
        let refused = request(&mut cluster, goal).unwrap_err();
        assert!(refused.starts_with(words), "{refused}");
    }
    assert_eq!(cluster.leader.operators().iter().count(), 0);
    let why = cluster.decisions(FIRST);
    assert!(
        why.last().unwrap().starts_with("request: remove the replica on s2: on request; refused")
    );
    let id = move_replica(&mut cluster, 2, 4);
    let busy = request(&mut cluster, add(4)).unwrap_err();
    assert!(busy.starts_with(&format!("r100 is busy with operator {id}")), "{busy}");
}

#[test]
fn an_operator_is_cancelled_until_it_goes_only_forward() {
    let mut cluster = Cluster::new(4, 1);
    cluster.stores.get_mut(&4).unwrap().stuck = true;
    let id = move_replica(&mut cluster, 2, 4);
    cluster.seconds(5);
    assert_eq!(cluster.learners(FIRST), [4]);
    cluster.leader.cancel(id, cluster.now).unwrap();
    cluster.seconds(20);
    assert_eq!((cluster.voters(FIRST), cluster.learners(FIRST)), (vec![1, 2, 3], vec![]));
    let cancelled = cluster.leader.operators().ended().find(|ended| ended.operator.id == id);
    assert_eq!(cancelled.unwrap().end, End::Cancelled);
    let gone = cluster.leader.cancel(id, cluster.now).unwrap_err().to_string();
    assert_eq!(gone, format!("operator {id} is not under way"));

    cluster.stores.get_mut(&4).unwrap().stuck = false;
    let id = move_replica(&mut cluster, 2, 4);
    while !cluster.done.iter().any(|step| step == "r100 enter +1 -1") {
        cluster.tick();
    }
    let refused = cluster.leader.cancel(id, cluster.now).unwrap_err().to_string();
    assert!(refused.ends_with("a joint configuration is always completed"), "{refused}");
    cluster.seconds(10);
    assert_eq!(cluster.voters(FIRST), [1, 3, 4]);
}

#[test]
fn members_are_held_promoted_and_demoted() {
    let mut cluster = Cluster::new(5, 1);
    cluster.seconds(2);
    let refused = act(&mut cluster, 2, MemberAction::Hold).unwrap_err();
    assert_eq!(refused, "s2 is no member on its way of r100");
    for store in [4, 5] {
        let role = ReplicaRole::Standard;
        request(&mut cluster, Goal::AddReplica { to: StoreId(store), role }).unwrap();
        cluster.seconds(10);
        act(&mut cluster, store, MemberAction::Hold).unwrap();
    }
    cluster.set("replicas", "5");
    cluster.seconds(600);
    assert_eq!((cluster.voters(FIRST), cluster.learners(FIRST)), (vec![1, 2, 3], vec![4, 5]));
    act(&mut cluster, 4, MemberAction::Release).unwrap();
    act(&mut cluster, 5, MemberAction::Release).unwrap();
    cluster.seconds(20);
    assert_eq!(cluster.voters(FIRST), [1, 2, 3, 4, 5]);
    // Down again by hand.
    cluster.set("replicas", "3");
    act(&mut cluster, 4, MemberAction::Demote).unwrap();
    cluster.seconds(20);
    assert_eq!(cluster.voters(FIRST).len(), 3);
    assert!(cluster.learners(FIRST).contains(&4));
}

#[test]
fn an_operator_is_told_as_steps() {
    let mut cluster = Cluster::new(4, 1);
    let id = move_replica(&mut cluster, 1, 4);
    let mut seen = Vec::new();
    for _ in 0..300 {
        cluster.tick();
        let Some(under_way) = cluster.leader.operator(id) else { continue };
        let info = cluster.leader.tree().get(FIRST).unwrap();
        let records = cluster.leader.members().of(FIRST);
        let story = story(&under_way.operator.goal, &info.region, records);
        if seen.last() != Some(&story.done) {
            seen.push(story.done);
        }
        assert_eq!(story.steps.len(), 6, "{:?}", story.steps);
    }
    assert!(seen.is_sorted(), "{seen:?}");
    assert!(seen.len() >= 4, "{seen:?}");
}

#[test]
fn a_region_says_how_it_is() {
    let mut cluster = Cluster::new(4, 1);
    cluster.seconds(2);
    let health = |cluster: &Cluster| {
        let info = cluster.leader.tree().get(FIRST).unwrap();
        cluster.leader.health(&cluster.machine.state, info, cluster.now)
    };
    assert_eq!(health(&cluster), "healthy");
    cluster.stores.get_mut(&3).unwrap().dead = true;
    cluster.seconds(3);
    assert_eq!(health(&cluster), "2 of 3 voters are alive");
    cluster.set("replicas", "5");
    cluster.seconds(1);
    assert_eq!(health(&cluster), "2 of 3 voters are alive; 3 voters, 5 are wanted");
    let counts = cluster.leader.counts(&cluster.machine.state, cluster.now);
    assert_eq!((counts.regions, counts.under_replicated), (2, 2));
}

#[test]
fn settings_are_checked_before_they_are_changed() {
    let mut cluster = Cluster::new(3, 1);
    let check = |name: &str, value: &str| {
        let changes = vec![(name.to_owned(), value.to_owned())];
        let checked = cluster.machine.state.check_settings(&changes);
        checked.map_err(|bad| bad.to_string())
    };
    assert_eq!(check("replicas", "5"), Ok(()));
    assert_eq!(check("replicas", "4"), Err("replicas must be 1, 3, 5 or 7, not \"4\"".into()));
    assert_eq!(
        check("lifecycle.pairing_ms", "soon"),
        Err("lifecycle.pairing_ms must be a whole number from 1 to 86400000, not \"soon\"".into())
    );
    assert_eq!(
        check("colour", "red"),
        Err("there is no setting colour; `quorate settings list` shows those there are".into())
    );
    assert_eq!(
        check("store.suspect_ms", "86400000"),
        Err("store.down_ms must exceed store.suspect_ms".into())
    );
    cluster.set("lifecycle.pairing_ms", "5000");
    assert_eq!(cluster.machine.reloaded().settings().limits().pairing_ms, 5_000);
    cluster.set("lifecycle.pairing_ms", "120000");
    cluster.set("schedule.paused", "");
    assert!(cluster.machine.state.settings().changed().is_empty(), "a default is not kept");
}

#[test]
fn a_forced_removal_names_who_goes_along_before_and_in_its_reason() {
    let mut cluster = Cluster::new(3, 1);
    cluster.seconds(2);
    let (state, now) = (&cluster.machine.state, cluster.now);
    let (replica, remove) = ((FIRST, StoreId(2)), MemberAction::Remove);
    let along = cluster.leader.go_along(state, replica, remove, true, now).unwrap();
    let [partner] = along[..] else { panic!("{along:?} go along") };
    assert_ne!(partner, StoreId(2));
    assert_eq!(cluster.leader.operators().iter().count(), 0, "nothing has begun");
    assert!(cluster.leader.go_along(state, replica, remove, false, now).is_err());
    let demoted = MemberAction::Demote;
    assert_eq!(cluster.leader.go_along(state, replica, demoted, true, now).unwrap(), along);
    cluster.leader.change_member(state, FIRST, StoreId(2), remove, true, now).unwrap();
    let operator = cluster.leader.operators().iter().next().unwrap();
    let reason = format!("on request, and {partner} with it: voters go in pairs");
    assert_eq!(operator.reason, reason);
    cluster.seconds(30);
    // As was said; what is missing then is repaired.
    let events = cluster.events();
    for gone in [StoreId(2), partner] {
        let removed = format!("{FIRST} {gone} removed");
        assert!(events.contains(&removed), "{removed} is not among {events:?}");
    }
}

#[test]
fn checkers_are_listed_and_a_paused_one_repairs_nothing() {
    let mut cluster = Cluster::new(4, 1);
    cluster.set("store.down_ms", "30000");
    cluster.set("schedule.paused", "replica-checker,balance-region");
    cluster.stores.get_mut(&2).unwrap().dead = true;
    cluster.seconds(90);
    assert_eq!(cluster.voters(FIRST), [1, 2, 3]);
    let status = |cluster: &Cluster| cluster.leader.checkers().list()[0].clone();
    let paused = status(&cluster);
    assert_eq!((paused.name, paused.paused, paused.begun), ("replica-checker", true, 0));
    assert_eq!(paused.last, "is paused");
    cluster.set("schedule.paused", "balance-region");
    cluster.seconds(90);
    assert_eq!(cluster.voters(FIRST), [1, 3, 4]);
    let resumed = status(&cluster);
    assert!(!resumed.paused && resumed.begun >= 1, "{resumed:?}");
    assert!(resumed.last.contains("r10"), "{}", resumed.last);
    let names: Vec<&str> = cluster.leader.checkers().list().iter().map(|one| one.name).collect();
    assert_eq!(names, ["replica-checker", "split-checker", "merge-checker"]);
}

#[test]
fn a_member_is_cancelled_only_by_its_own_name() {
    let mut cluster = Cluster::new(4, 1);
    let id = move_replica(&mut cluster, 2, 4);
    assert_eq!(
        act(&mut cluster, 3, MemberAction::Cancel).unwrap_err(),
        format!(
            "operator {id} of r100 (move a replica from s2 to s4) is not about s3; cancel it with \
             `quorate operator cancel {id}`"
        )
    );
    assert_eq!(act(&mut cluster, 4, MemberAction::Cancel), Ok(id));
    assert_eq!(
        act(&mut cluster, 4, MemberAction::Cancel).unwrap_err(),
        "r100 has no operator under way"
    );
}

#[test]
fn a_bound_that_stores_do_not_share_counts_as_theirs() {
    let mut cluster = Cluster::new(3, 1);
    let lag = |cluster: &Cluster| cluster.machine.state.settings().limits().max_lag;
    assert_eq!(lag(&cluster), 1_024);
    cluster.set("lifecycle.max_lag", "4096");
    assert_eq!(lag(&cluster), 1_024);
    cluster.set("lifecycle.max_lag", "10");
    assert_eq!(lag(&cluster), 10);
}
