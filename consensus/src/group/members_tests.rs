//! The leader's rules beyond the shape of a step, and what raft-rs makes of each step.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use quorate_proto::{NodeId, Role};
use raft::storage::MemStorage;
use raft::{Config, RawNode};

use super::*;

/// Only a snapshot helps.
const NO_DATA: u64 = u64::MAX;

struct Known {
    silent: BTreeSet<u64>,
    behind: BTreeMap<u64, u64>,
    unapplied: BTreeMap<u64, u64>,
}

impl Standing for Known {
    fn is_live(&self, member: &Member) -> bool {
        !self.silent.contains(&member.node.0)
    }
    fn behind(&self, peer: PeerId) -> Option<u64> {
        let behind = self.behind.get(&peer.0).copied().unwrap_or(0);
        (behind != NO_DATA).then_some(behind)
    }
    fn unapplied(&self, peer: PeerId) -> u64 {
        self.unapplied.get(&peer.0).copied().unwrap_or(0)
    }
}

/// `1 2l 3i 4d`: peer k on process k.
fn members(list: &str) -> Vec<Member> {
    let member = |word: &str| {
        let digits = word.trim_end_matches(['l', 'i', 'd']);
        let peer = digits.parse().unwrap();
        let role = match &word[digits.len()..] {
            "l" => Role::Learner,
            "i" => Role::IncomingVoter,
            "d" => Role::DemotingVoter,
            _ => Role::Voter,
        };
        Member { peer: PeerId(peer), node: NodeId(peer), role }
    };
    list.split_whitespace().map(member).collect()
}

#[test]
fn a_step_needs_live_majorities_a_leader_that_stays_and_learners_that_are_close() {
    use MembersRefusal as R;
    let behind = |peer, behind| Err(R::Behind { peer: PeerId(peer), behind });
    // Present, wanted, silent processes, (peer, entries behind), what the leader p1 says.
    type Row = (&'static str, &'static str, &'static [u64], Option<(u64, u64)>, Result<(), R>);
    let table: [Row; 24] = [
        ("1 2 3", "1 2 3 4l", &[], None, Ok(())),
        ("1 2 3", "1 2 3 4l", &[3], None, Ok(())),
        ("1 2 3", "1 2 3 4l", &[2, 3], None, Err(R::NoQuorum(Side::Present))),
        // A learner counts in no majority, and need not be there yet.
        ("1 2 3", "1 2 3 4l", &[4], None, Ok(())),
        ("1 2 3 4l 5l", "1 2 3 4l", &[2, 3], None, Err(R::NoQuorum(Side::Present))),
        ("1 2 3 4l", "1 2 3", &[4], None, Ok(())),
        // A swap of a dead voter; one that would lean on a dead newcomer.
        ("1 2 3 4l", "1 2 3d 4i", &[3], None, Ok(())),
        ("1 2 3 4l", "1 2d 3 4i", &[3, 4], None, Err(R::NoQuorum(Side::Next))),
        ("1 2 3 4l 5l", "1 2d 3d 4i 5i", &[4, 5], None, Err(R::NoQuorum(Side::Next))),
        ("1 2l 3l", "1 2i 3i", &[3], None, Err(R::Silent(PeerId(3)))),
        ("1 2 3 4 5 6l", "1 2d 3 4 5 6i", &[6], None, Err(R::Silent(PeerId(6)))),
        ("1 2 3 4l", "1 2 3d 4i", &[], Some((4, NO_DATA)), Err(R::NoData(PeerId(4)))),
        ("1 2l 3l", "1 2i 3i", &[2, 3], None, Err(R::NoQuorum(Side::Next))),
        // The leader goes.
        ("1 2 3 4l", "1d 2 3 4i", &[], None, Err(R::LeaderDemoted)),
        ("1d 2 3 4i", "1l 2 3 4", &[], None, Err(R::LeaderDemoted)),
        // The only voter enters a joint configuration in which it still votes, and cannot leave it.
        ("1 2l", "1d 2i", &[], None, Ok(())),
        ("1d 2i", "1l 2", &[], None, Err(R::LeaderDemoted)),
        ("1 2l", "1d 2i", &[2], None, Err(R::NoQuorum(Side::Next))),
        ("1 2l", "1d 2i", &[], Some((2, NO_DATA)), Err(R::NoData(PeerId(2)))),
        ("1 2l", "1d 2i", &[], Some((2, MAX_BEHIND + 1)), behind(2, MAX_BEHIND + 1)),
        ("1 2l 3l 4l", "1d 2i 3i 4i", &[], None, Err(R::LeaderDemoted)),
        // How close a learner must be.
        ("1 2 3 4l", "1 2 3d 4i", &[], Some((4, MAX_BEHIND)), Ok(())),
        ("1 2 3 4l", "1 2 3d 4i", &[], Some((4, MAX_BEHIND + 1)), behind(4, MAX_BEHIND + 1)),
        ("1 2 3 4l 5l", "1 2 3 4l", &[], Some((5, 1_000_000)), Ok(())),
    ];
    for (present, wanted, silent, lag, answer) in table {
        let known = Known {
            silent: silent.iter().copied().collect(),
            behind: lag.into_iter().collect(),
            unapplied: BTreeMap::new(),
        };
        let (before, after) = (members(present), members(wanted));
        let step = step_between(&before, &after).unwrap();
        let said = check_step(&step, (&before, &after), PeerId(1), &known);
        assert_eq!(said, answer, "{present} to {wanted} without {silent:?}");
    }
}

#[test]
fn a_learner_that_has_the_log_must_have_applied_it_too() {
    let (before, after) = (members("1 2 3 4l"), members("1 2 3d 4i"));
    let step = step_between(&before, &after).unwrap();
    let answer = |peer, unapplied| {
        let known = Known {
            silent: BTreeSet::new(),
            behind: BTreeMap::new(),
            unapplied: BTreeMap::from([(peer, unapplied)]),
        };
        check_step(&step, (&before, &after), PeerId(1), &known)
    };
    assert_eq!(answer(4, MAX_BEHIND), Ok(()));
    let behind = MAX_BEHIND + 1;
    assert_eq!(answer(4, behind), Err(MembersRefusal::Applying { peer: PeerId(4), behind }));
    assert_eq!(answer(2, behind), Ok(()), "who votes already is not asked");
}

/// raft-rs in the configuration of these members, as after a restart.
fn raft_of(members: &[Member]) -> RawNode<MemStorage> {
    let store = MemStorage::new();
    store.wl().set_conf_state(message::unpack_conf(conf_of(members)));
    let config = Config { id: 1, ..Config::default() };
    RawNode::new(&config, store, &slog::Logger::root(slog::Discard, slog::o!())).unwrap()
}

/// A member list that `present` may become: by adding, removing, or turning some of them.
fn next(present: &[Member], turns: &[bool], what: u8) -> Vec<Member> {
    let mut wanted = present.to_vec();
    match what {
        0 => {
            let peer = present.iter().map(|member| member.peer.0).max().unwrap() + 1;
            let role = Role::Learner;
            wanted.push(Member { peer: PeerId(peer), node: NodeId(peer), role });
        }
        1 => {
            let learner = |m: &Member| m.role == Role::Learner;
            if let Some(at) = wanted.iter().rposition(learner) {
                wanted.remove(at);
            }
        }
        2 => {
            for (member, turn) in wanted.iter_mut().zip(turns) {
                member.role = match member.role {
                    Role::Learner if *turn => Role::IncomingVoter,
                    Role::Voter if *turn => Role::DemotingVoter,
                    role => role,
                };
            }
        }
        _ => {
            for member in &mut wanted {
                member.role = match member.role {
                    Role::IncomingVoter => Role::Voter,
                    Role::DemotingVoter => Role::Learner,
                    role => role,
                };
            }
        }
    }
    wanted
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is asked for, what is agreed to keeps both voter sets odd, and raft-rs, before and
    /// after a restart, ends up where `conf_of` says.
    #[test]
    fn raft_follows_the_members_through_any_steps(
        asked in proptest::collection::vec((0..4u8, proptest::collection::vec(any::<bool>(), 12)), 1..60),
    ) {
        let mut present = members("1 2 3");
        let mut node = raft_of(&present);
        for (what, turns) in asked {
            let wanted = next(&present, &turns, what);
            let Ok(step) = step_between(&present, &wanted) else { continue };
            let conf = node.apply_conf_change(&conf_change(&step)).unwrap();
            let should = message::unpack_conf(conf_of(&wanted));
            prop_assert!(message::same_conf(&conf, &should), "{step:?}: {conf:?} is not {should:?}");
            let restarted = raft_of(&wanted).raft.prs().conf().to_conf_state();
            prop_assert!(message::same_conf(&restarted, &should));
            for votes in [Member::is_incoming, Member::is_outgoing] {
                let voters = wanted.iter().filter(|member| votes(member)).count();
                prop_assert!(voters % 2 == 1 && voters <= 7, "{voters} voters after {step:?}");
            }
            present = wanted;
        }
    }
}
