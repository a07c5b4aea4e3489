//! Which changes of members are single legal steps, as a table.

use quorate_proto::{NodeId, PeerId, Role};

use super::*;

/// `1 2l 3i 4d@9`: peer 1 votes, 2 learns, 3 comes in, 4 goes out and is on process 9.
pub(crate) fn members(list: &str) -> Vec<Member> {
    let member = |word: &str| {
        let (word, node) = word.split_once('@').map_or((word, None), |(w, n)| (w, Some(n)));
        let digits = word.trim_end_matches(['l', 'i', 'd']);
        let peer: u64 = digits.parse().unwrap();
        let role = match &word[digits.len()..] {
            "" => Role::Voter,
            "l" => Role::Learner,
            "i" => Role::IncomingVoter,
            "d" => Role::DemotingVoter,
            other => panic!("no role {other}"),
        };
        let node = node.map_or(peer, |node| node.parse().unwrap());
        Member { peer: PeerId(peer), node: NodeId(node), role }
    };
    list.split_whitespace().map(member).collect()
}

fn step(present: &str, wanted: &str) -> Result<Step, MembersRefusal> {
    step_between(&members(present), &members(wanted))
}

fn peers(ids: &[u64]) -> Vec<PeerId> {
    ids.iter().copied().map(PeerId).collect()
}

#[test]
fn the_four_steps_are_recognised_in_any_order() {
    assert_eq!(step("1 2 3", "1 2 3 4l"), Ok(Step::AddLearner(PeerId(4))));
    assert_eq!(step("1 2 3", "4l 3 2 1"), Ok(Step::AddLearner(PeerId(4))));
    assert_eq!(step("1 2 3 4l 5l", "1 2 3 5l"), Ok(Step::RemoveLearner(PeerId(4))));
    let swap = Step::EnterJoint { promote: peers(&[4]), demote: peers(&[1]) };
    assert_eq!(step("1 2 3 4l", "1d 2 3 4i"), Ok(swap));
    let pair = Step::EnterJoint { promote: peers(&[4, 5]), demote: Vec::new() };
    assert_eq!(step("1 2 3 4l 5l 6l", "1 2 3 4i 5i 6l"), Ok(pair));
    let shrink = Step::EnterJoint { promote: Vec::new(), demote: peers(&[2, 3]) };
    assert_eq!(step("1 2 3", "1 2d 3d"), Ok(shrink));
    assert_eq!(step("1d 2 3 4i 5l", "1l 2 3 4 5l"), Ok(Step::LeaveJoint));
}

#[test]
fn anything_else_is_refused_by_its_rule() {
    use MembersRefusal as R;
    let table = [
        ("1 2 3", "1 2 3", R::NoStep),
        ("1 2 3", "1 2 3 4", R::NotLearner(PeerId(4))),
        ("1 2 3", "1 2 3 4i", R::NotLearner(PeerId(4))),
        ("1 2 3", "1 2", R::VoterRemoved(PeerId(3))),
        ("1 2 3", "1 2 3 4l 5l", R::NoStep),
        ("1 2 3 4l 5l", "1 2 3", R::NoStep),
        ("1 2 3 4l", "1 2 3 5l", R::NoStep),
        ("1 2 3 4l", "1 2 3 4", R::NoStep),
        ("1 2 3", "1 2 3l", R::NoStep),
        ("1 2 3 4l", "1d 2 3 4i 5l", R::NoStep),
        ("1 2 3", "1 2 3@9", R::NoStep),
        ("1 2 3", "1 2 3 4l@3", R::Twice),
        ("1 2 3", "1 2 3 3l@4", R::Twice),
        // The number of voters on each side.
        ("1 2 3 4l", "1 2 3 4i", R::Voters { side: Side::Next, voters: 4 }),
        ("1 2 3", "1 2 3d", R::Voters { side: Side::Next, voters: 2 }),
        ("1", "1d", R::Voters { side: Side::Next, voters: 0 }),
        ("1 2 3l", "1 2 3i", R::Voters { side: Side::Present, voters: 2 }),
        ("1 2 3 4 5 6 7 8l 9l", "1 2 3 4 5 6 7 8i 9i", R::Voters { side: Side::Next, voters: 9 }),
        // Joint: nothing but leaving, and all of it.
        ("1d 2 3 4i", "1d 2 3 4i 5l", R::Joint),
        ("1d 2 3 4i 5l", "1d 2 3 4i", R::Joint),
        ("1d 2 3 4i 5l", "1d 2 3 4i 5i", R::Joint),
        ("1d 2 3 4i", "1d 2d 3 4i", R::Joint),
        ("1d 2 3 4i", "2 3 4", R::Joint),
        ("1d 2 3 4i", "1l 2 3 4i", R::NoStep),
        ("1d 2 3 4i", "1d 2 3 4", R::NoStep),
        // No way back but through the next joint configuration.
        ("1d 2 3 4i", "1 2 3 4l", R::NoStep),
    ];
    for (present, wanted, rule) in table {
        assert_eq!(step(present, wanted), Err(rule), "{present} to {wanted}");
        assert_eq!(check_members(&members(present), &members(wanted)), Err(rule));
    }
}
