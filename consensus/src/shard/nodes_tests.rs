//! Silence, returns and restarts, each told once.

use super::*;

const NODE: NodeId = NodeId(2);

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn nodes() -> Nodes {
    let mut nodes = Nodes::new(Duration::from_millis(600));
    nodes.meet(NODE, at(1_000));
    nodes
}

#[test]
fn a_process_has_time_to_speak_first() {
    let mut nodes = nodes();
    assert!(nodes.silent_since(at(1_599)).is_empty());
    assert_eq!(nodes.silent_since(at(1_600)), [Change::Silent { node: NODE, last: at(1_000) }]);
    assert!(nodes.is_silent(NODE));
    assert!(nodes.silent_since(at(9_000)).is_empty(), "told once");
    // It turns out to live.
    assert_eq!(nodes.beat(NODE, 7, at(9_100)), Some(Change::Returned { node: NODE }));
    assert!(!nodes.is_silent(NODE));
}

#[test]
fn meeting_again_does_not_vouch() {
    let mut nodes = nodes();
    nodes.meet(NODE, at(1_500));
    assert_eq!(nodes.last_beat(NODE), Some(at(1_000)));
}

#[test]
fn a_restart_voids_what_was_vouched_for_even_without_silence() {
    let mut nodes = nodes();
    assert_eq!(nodes.beat(NODE, 7, at(1_100)), None);
    assert_eq!(nodes.beat(NODE, 7, at(1_200)), None);
    assert_eq!(
        nodes.beat(NODE, 8, at(1_400)),
        Some(Change::Restarted { node: NODE, last: at(1_200) })
    );
    assert_eq!(nodes.beat(NODE, 8, at(1_500)), None);
    nodes.silent_since(at(2_100));
    assert_eq!(
        nodes.beat(NODE, 9, at(2_200)),
        Some(Change::Restarted { node: NODE, last: at(1_500) }),
        "a restart after a silence is a restart"
    );
}

#[test]
fn who_shares_a_group_is_a_neighbour_and_who_does_not_is_forgotten() {
    let mut nodes = nodes();
    let (other, third) = (NodeId(3), NodeId(4));
    nodes.beat(other, 1, at(1_000));
    assert_eq!(nodes.neighbours().collect::<Vec<_>>(), [NODE], "it spoke, but shares nothing");
    assert_eq!(nodes.last_beat(other), Some(at(1_000)));
    nodes.meet(other, at(1_100));
    nodes.meet(third, at(1_100));
    assert_eq!(nodes.neighbours().collect::<Vec<_>>(), [NODE, other, third]);
    nodes.silent_since(at(1_700));
    nodes.retain(&[other].into());
    assert_eq!(nodes.neighbours().collect::<Vec<_>>(), [other]);
    assert!(nodes.is_silent(other) && !nodes.is_silent(NODE));
    nodes.beat(third, 1, at(1_800));
    assert_eq!(nodes.neighbours().collect::<Vec<_>>(), [other], "it does not know yet");
}
