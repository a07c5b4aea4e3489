//! The rules as tables.

use quorate_placement::core::lifecycle::{Aim, NoProof, Record, State, choose, proof, safe_batch};
use quorate_proto::{PeerId, Role};

use super::{group, member};

#[test]
fn the_safe_batch_of_rule_five() {
    for (voters, candidates, batch) in
        [(2, 2, 1), (1, 1, 0), (1, 2, 2), (3, 1, 0), (3, 2, 2), (2, 1, 1)]
    {
        assert_eq!(safe_batch(voters, candidates, 7), batch, "({voters}, {candidates})");
    }
    assert_eq!(safe_batch(3, 100, 5), 2, "capped by the target");
    assert_eq!(safe_batch(1, 100, 5), 4);
    assert_eq!(safe_batch(3, 100, 3), 0);
    assert_eq!(safe_batch(5, 2, 3), 0);
}

#[test]
fn three_voters_and_a_hundred_learners_promote_two() {
    let mut world = super::World::new(3, 5);
    for node in 4..104 {
        world.with_learner(node, Aim::Vote { replacing: None }, State::Syncing);
    }
    world.seconds(10);
    assert_eq!(world.voters(), [1, 2, 3, 4, 5]);
    world.seconds(400);
    assert_eq!(world.voters(), [1, 2, 3, 4, 5]);
    assert_eq!(world.group.members.len(), 103, "nobody is expelled");
}

#[test]
fn three_voters_and_two_learners_change_once_and_one_learner_waits() {
    let mut world = super::World::new(3, 5);
    for node in 4..6 {
        world.with_learner(node, Aim::Vote { replacing: None }, State::Syncing);
    }
    world.seconds(10);
    assert_eq!(world.voters(), [1, 2, 3, 4, 5]);
    assert_eq!(world.changes.len(), 2, "one joint change: entered and left");

    let mut world = super::World::new(3, 5);
    world.with_learner(4, Aim::Vote { replacing: None }, State::Syncing);
    world.seconds(10_000);
    assert!(world.changes.is_empty(), "(3,1) waits and is not expelled");
    assert_eq!(world.role(4), Some(Role::Learner));
}

#[test]
fn pairs_by_failure_domain_then_by_arrival() {
    let mut group = group(3, 5);
    let zone = |zone: &str| vec![format!("zone={zone}")];
    for (at, name) in ["a", "b", "b"].iter().enumerate() {
        group.members[at].domain = zone(name);
    }
    let learner = |node: u64, joined_ms: u64, name: &str| {
        let mut learner = member(node, Role::Learner);
        learner.domain = zone(name);
        let aim = Aim::Vote { replacing: None };
        (Record::found(&learner, aim, State::StandbyLearner, joined_ms), learner)
    };
    let learners =
        [learner(4, 10, "a"), learner(5, 20, "c"), learner(6, 30, "c"), learner(7, 40, "d")];
    let candidates = || learners.iter().map(|(record, member)| (record, member)).collect();
    let chosen = |count| -> Vec<u64> {
        let chosen = choose(&group, candidates(), count);
        chosen.iter().map(|(record, _)| record.node.0).collect()
    };
    assert_eq!(chosen(2), [5, 7], "two new zones before the older learner of a known one");
    assert_eq!(chosen(4), [5, 7, 4, 6], "then by arrival");
}

#[test]
fn proof_before_proposal() {
    let peers = |nodes: &[u64]| -> Vec<PeerId> { nodes.iter().map(|n| PeerId(n * 10)).collect() };
    let prove = |dead: &[u64], promote: &[u64], demote: &[u64]| {
        let mut group = group(3, 5);
        group.members.extend([member(4, Role::Learner), member(5, Role::Learner)]);
        for member in &mut group.members {
            member.alive = !dead.contains(&member.node.0);
        }
        proof(&group, &peers(promote), &peers(demote))
    };
    assert_eq!(prove(&[], &[4, 5], &[]), Ok(()));
    assert_eq!(prove(&[], &[4], &[2]), Ok(()));
    assert_eq!(prove(&[2], &[4], &[2]), Ok(()), "a dead voter is replaced");
    assert_eq!(prove(&[], &[4], &[]), Err(NoProof::Even(4)));
    assert_eq!(prove(&[], &[], &[2]), Err(NoProof::Even(2)));
    assert_eq!(prove(&[], &[4], &[1]), Err(NoProof::Leader));
    assert_eq!(prove(&[], &[3], &[]), Err(NoProof::NotThat(PeerId(30), "learner")));
    assert_eq!(prove(&[], &[], &[4]), Err(NoProof::NotThat(PeerId(40), "voter")));
    let lost = NoProof::OldQuorum { alive: 1, voters: 3 };
    assert_eq!(prove(&[2, 3], &[4], &[2]), Err(lost));
    let lost = NoProof::NewQuorum { alive: 2, voters: 5 };
    assert_eq!(prove(&[3, 4, 5], &[4, 5], &[]), Err(lost));
    let worse = NoProof::Worse { before: 1, after: 0 };
    assert_eq!(prove(&[4], &[4], &[2]), Err(worse.clone()), "no dead one comes in");
    assert_eq!(prove(&[4, 5], &[4, 5], &[]), Err(worse));
    let mut joint = group(3, 3);
    joint.members[2].role = Role::DemotingVoter;
    assert_eq!(proof(&joint, &[], &[]), Err(NoProof::Joint));
}
