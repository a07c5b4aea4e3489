//! What became of operators is known to the next leader of placement: it tells of them, and does not
//! try at once again what has just failed.

use quorate_placement::core::command::{Command, NOTES_SINCE};
use quorate_placement::core::ended::EndedOperators;
use quorate_placement::core::operators::{End, Ended, Goal, REMEMBERED};
use quorate_proto::StoreId;

use super::moves::move_replica;
use super::{Cluster, FIRST};
use crate::support::Machine;

fn ended(cluster: &Cluster) -> Vec<Ended> {
    cluster.leader.operators().ended().cloned().collect()
}

fn kept(kept: &EndedOperators) -> Vec<u64> {
    kept.iter().map(|ended| ended.operator.id).collect()
}

/// One move that is done, one that is given up because of its store's refusals, one that somebody
/// cancelled.
fn with_history() -> (Cluster, [u64; 3]) {
    let mut cluster = Cluster::new(4, 1);
    cluster.seconds(2);
    let done = move_replica(&mut cluster, 2, 4);
    cluster.seconds(20);
    let leader = cluster.regions[&FIRST].leader.0;
    cluster.stores.get_mut(&leader).unwrap().refuses = Some("a change is pending".to_owned());
    let refused = move_replica(&mut cluster, 3, 2);
    cluster.seconds(60);
    cluster.stores.get_mut(&leader).unwrap().refuses = None;
    cluster.stores.get_mut(&2).unwrap().stuck = true;
    cluster.seconds(60);
    let cancelled = move_replica(&mut cluster, 4, 2);
    cluster.seconds(5);
    cluster.leader.cancel(cancelled, cluster.now).unwrap();
    cluster.seconds(20);
    (cluster, [done, refused, cancelled])
}

#[test]
fn the_next_leader_tells_how_operators_ended_and_why() {
    let (mut cluster, ids) = with_history();
    let before = ended(&cluster);
    cluster.failover();
    assert_eq!(ended(&cluster), before);
    let ends: Vec<(End, String, String)> = ids
        .iter()
        .map(|id| before.iter().find(|over| over.operator.id == *id).unwrap().clone())
        .map(|over| (over.end, over.operator.by, over.operator.reason))
        .collect();
    let told = |end| (end, "request".to_owned(), "on request".to_owned());
    let refused = End::Refused("a change is pending".to_owned());
    assert_eq!(ends, [told(End::Done), told(refused), told(End::Cancelled)]);
    let decisions = cluster.decisions(FIRST);
    for what in [
        "request: move a replica from s2 to s4: done",
        "request: move a replica from s3 to s2: refused: a change is pending",
        "request: move a replica from s4 to s2: cancelled",
    ] {
        assert!(decisions.iter().any(|told| told == what), "{what} is not in {decisions:#?}");
    }
    // And the one after that, although that one has ended none itself.
    cluster.failover();
    assert_eq!(ended(&cluster), before);
    assert_eq!(cluster.machine.reloaded().ended(), cluster.machine.state.ended());
}

#[test]
fn a_note_waits_for_an_entry_that_goes_out_anyway() {
    let (cluster, _) = with_history();
    let all = cluster.machine.state.ended().iter().cloned().collect();
    let plan = quorate_placement::core::command::Plan { notes: all, ..Default::default() };
    assert!(plan.is_empty());
}

#[test]
fn an_entry_that_comes_twice_is_noted_once_and_only_the_last_are_kept() {
    let (mut cluster, _) = with_history();
    let one = ended(&cluster).pop().unwrap();
    let save = |cluster: &mut Cluster, notes: Vec<Ended>| {
        let plan = quorate_placement::core::command::Plan { notes, ..Default::default() };
        cluster.machine.apply(Command::SavePlan(plan));
    };
    let before = kept(cluster.machine.state.ended());
    save(&mut cluster, vec![one.clone()]);
    assert_eq!(kept(cluster.machine.state.ended()), before);
    for id in 1..=REMEMBERED as u64 + 10 {
        let mut another = one.clone();
        another.operator.id = id;
        save(&mut cluster, vec![another]);
    }
    let last: Vec<u64> = (11..=REMEMBERED as u64 + 10).collect();
    assert_eq!(kept(cluster.machine.state.ended()), last);
    assert_eq!(kept(cluster.machine.reloaded().ended()), last);
}

#[test]
fn long_words_are_cut_between_letters() {
    let mut cluster = Cluster::new(4, 1);
    cluster.seconds(2);
    let words = "ä".repeat(1_000);
    let leader = cluster.regions[&FIRST].leader.0;
    cluster.stores.get_mut(&leader).unwrap().refuses = Some(words);
    move_replica(&mut cluster, 3, 4);
    cluster.seconds(60);
    let over = ended(&cluster).into_iter().find(|over| over.end != End::Done).unwrap();
    assert_eq!(over.end, End::Refused(format!("{}…", "ä".repeat(128))));
    cluster.failover();
    assert!(ended(&cluster).contains(&over));
}

#[test]
fn what_has_failed_is_not_tried_at_once_by_the_next_leader() {
    let mut cluster = Cluster::new(4, 1);
    cluster.set("store.down_ms", "60000");
    cluster.seconds(2);
    cluster.stores.get_mut(&4).unwrap().stuck = true;
    cluster.stores.get_mut(&3).unwrap().dead = true;
    let failures = |cluster: &Cluster| {
        let failed = |over: &&Ended| {
            let to = matches!(over.operator.goal, Goal::MoveReplica { to: StoreId(4), .. });
            to && over.operator.region == FIRST && matches!(over.end, End::Failed(_))
        };
        cluster.leader.operators().ended().filter(failed).count()
    };
    while failures(&cluster) < 4 {
        cluster.seconds(1);
    }
    let rests = |cluster: &Cluster| {
        let now_ms = cluster.leader.time_ms(cluster.now);
        cluster.leader.operators().failed(now_ms).get(&(FIRST, StoreId(4))).copied()
    };
    // 15 s, doubled three times.
    let (times, before_ms) = rests(&cluster).unwrap();
    assert_eq!(times, 4);
    assert!((110_000..=120_000).contains(&before_ms), "{before_ms}");
    cluster.failover();
    let (times, after_ms) = rests(&cluster).unwrap();
    assert_eq!(times, 4, "the fifth rest will be longer than the fourth");
    assert!((before_ms - 5_000..=before_ms).contains(&after_ms), "{before_ms}, then {after_ms}");
    let tries = cluster.done.len();
    cluster.seconds(after_ms / 1_000 - 5);
    assert_eq!(cluster.done[tries..].iter().filter(|step| step.contains("r100 add")).count(), 0);
    cluster.seconds(120);
    assert_eq!(rests(&cluster).map(|(times, _)| times), Some(5));
}

#[test]
fn an_older_form_of_the_cluster_takes_no_notes_until_it_is_raised() {
    let mut cluster = Cluster::new(4, 1);
    cluster.machine = Machine::older(NOTES_SINCE - 1, 4);
    cluster.failover();
    cluster.seconds(2);
    let first = move_replica(&mut cluster, 2, 4);
    cluster.seconds(20);
    assert_eq!(cluster.voters(FIRST), [1, 3, 4]);
    assert_eq!(kept(cluster.machine.state.ended()), [0; 0]);
    cluster.set("cluster_version", &NOTES_SINCE.to_string());
    // What this leader knows goes with the next entry.
    let second = move_replica(&mut cluster, 4, 2);
    cluster.seconds(20);
    let known = kept(cluster.machine.state.ended());
    assert!(known.contains(&first) && known.contains(&second), "{known:?}");
    assert_eq!(cluster.machine.reloaded().ended(), cluster.machine.state.ended());
}
