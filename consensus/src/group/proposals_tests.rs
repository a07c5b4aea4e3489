//! Tokens follow their commands through queue, entries and outcome.

use super::*;

fn queue(commands: &[&'static str]) -> Proposals<usize> {
    let mut proposals = Proposals::new();
    for (token, command) in commands.iter().enumerate() {
        proposals.push(Bytes::from_static(command.as_bytes()), token, command.starts_with('!'));
    }
    proposals
}

fn data(batch: &Batch<usize>) -> Vec<&[u8]> {
    batch.entries.iter().map(|entry| &entry.data[..]).collect()
}

#[test]
fn small_commands_share_an_entry() {
    let mut proposals = queue(&["aa", "bb", "cc", "dddddd", "e"]);
    assert_eq!((proposals.len(), proposals.queued_bytes()), (5, 13));
    let batch = proposals.take_batch(4);
    assert_eq!(data(&batch), [b"aabb".as_slice(), b"cc", b"dddddd", b"e"]);
    assert_eq!(batch.tokens, [vec![0, 1], vec![2], vec![3], vec![4]]);
    assert!(!batch.suspends_lease && !proposals.has_queued());
    assert_eq!(proposals.queued_bytes(), 0);
    assert!(queue(&["a", "!b"]).take_batch(4).suspends_lease);
    assert!(queue(&[]).take_batch(4).entries.is_empty());
}

#[test]
fn each_outcome_is_told_once() {
    let mut proposals = queue(&["a", "b", "c"]);
    let batch = proposals.take_batch(1);
    proposals.proposed(10, 6, Instant(1), batch.tokens);
    assert_eq!((proposals.len(), proposals.is_idle()), (3, false));
    let mut refused = Vec::new();
    // An entry of before, ours, then somebody else's in the place of ours.
    assert!(proposals.committed(9, 6, |token| refused.push(token)).is_empty());
    assert_eq!(proposals.committed(10, 6, |token| refused.push(token)), [0]);
    assert!(refused.is_empty());
    assert!(proposals.committed(11, 7, |token| refused.push(token)).is_empty());
    assert_eq!(refused, [1]);
    assert_eq!(proposals.len(), 1);
    proposals.drain_proposed(|token| refused.push(token));
    assert_eq!(refused, [1, 2]);
    assert!(proposals.is_idle() && proposals.len() == 0);
}

#[test]
fn who_leads_again_forgets_what_its_log_has_lost() {
    let mut proposals = queue(&["a", "b", "c"]);
    let batch = proposals.take_batch(1);
    proposals.proposed(10, 6, Instant(1), batch.tokens);
    // Another leader kept entry 10 and put its own in the place of 11; then this peer leads again
    // with an empty entry at 12.
    let log = |index, term| (index, term) == (10, 6);
    let mut refused = Vec::new();
    proposals.keep_logged(log, |token| refused.push(token));
    assert_eq!((refused.as_slice(), proposals.len()), ([1, 2].as_slice(), 1));
    proposals.proposed(13, 8, Instant(2), vec![vec![3]]);
    let nobody = |token| panic!("{token} is refused");
    assert_eq!(proposals.committed(10, 6, nobody), [0]);
    assert_eq!(proposals.committed(13, 8, nobody), [3]);
    assert!(proposals.is_idle());
}

#[test]
fn only_old_entries_expire() {
    let mut proposals = queue(&["a"]);
    let batch = proposals.take_batch(1);
    proposals.proposed(10, 6, Instant(100), batch.tokens);
    proposals.push(Bytes::from_static(b"b"), 7, false);
    let mut refused = Vec::new();
    proposals.expire(Instant(100), |token| refused.push(token));
    assert!(refused.is_empty());
    proposals.expire(Instant(101), |token| refused.push(token));
    assert_eq!((refused, proposals.len()), (vec![0], 1));
    let mut refused = Vec::new();
    proposals.drain_queued(|token| refused.push(token));
    assert_eq!((refused, proposals.queued_bytes()), (vec![7], 0));
}
