//! Rounds of read index: a context of their own, in order, none lost.

use super::*;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn served(queue: &mut ReadQueue<u32>, applied: u64) -> Vec<u32> {
    let mut tokens = Vec::new();
    queue.ready(applied, |token| tokens.push(token));
    tokens
}

#[test]
fn readers_of_a_round_wait_for_its_index() {
    let mut queue = ReadQueue::new(3);
    queue.push(1, at(1_000));
    queue.push(2, at(1_000));
    let context = queue.begin(6, at(1_000)).unwrap();
    assert!(queue.begin(6, at(1_000)).is_none(), "nobody waits any more");
    assert_eq!(queue.confirm(&context, 9), Some(at(1_000)));
    assert!(served(&mut queue, 8).is_empty());
    assert_eq!(served(&mut queue, 9), [1, 2]);
    assert!(queue.is_idle() && queue.len() == 0);
    assert_eq!(queue.confirm(&context, 9), None, "a context counts once");
}

#[test]
fn contexts_never_repeat() {
    let mut seen = std::collections::BTreeSet::new();
    for incarnation in [3, 4] {
        let mut queue = ReadQueue::new(incarnation);
        for attempt in 0..20u32 {
            queue.push(attempt, at(1_000));
            let now = at(1_000 + 200 * u64::from(attempt));
            assert!(seen.insert(queue.begin(6, now).unwrap()));
        }
    }
}

#[test]
fn two_rounds_at_once_and_the_rest_waits() {
    let mut queue = ReadQueue::new(3);
    let contexts: Vec<_> = (0..3)
        .map(|token| {
            queue.push(token, at(1_000));
            queue.begin(6, at(1_000))
        })
        .collect();
    assert!(contexts[0].is_some() && contexts[1].is_some() && contexts[2].is_none());
    // The later answer also confirms the earlier round.
    queue.confirm(contexts[1].as_ref().unwrap(), 9);
    assert_eq!(served(&mut queue, 9), [0, 1]);
    assert_eq!(queue.len(), 1);
}

#[test]
fn a_lost_round_is_followed_by_another_and_both_count() {
    let mut queue = ReadQueue::new(3);
    queue.push(1, at(1_000));
    let first = queue.begin(6, at(1_000)).unwrap();
    assert!(queue.begin(6, at(1_199)).is_none());
    let second = queue.begin(6, at(1_200)).unwrap();
    assert_ne!(first, second);
    assert_eq!(queue.confirm(&first, 9), Some(at(1_000)), "late, but true");
    assert_eq!(served(&mut queue, 9), [1]);
}

#[test]
fn readers_of_forgotten_rounds_are_not_forgotten() {
    let mut queue = ReadQueue::new(3);
    queue.push(1, at(1_000));
    let mut last = Vec::new();
    for attempt in 0..=2 * KEEP_ROUNDS as u64 {
        last = queue.begin(6, at(1_000 + 200 * attempt)).unwrap();
    }
    queue.confirm(&last, 9);
    assert_eq!(served(&mut queue, 9), [1]);
}

#[test]
fn a_renewal_that_is_lost_is_not_repeated() {
    let mut queue: ReadQueue<u32> = ReadQueue::new(3);
    queue.renew();
    assert!(queue.begin(6, at(1_000)).is_some());
    assert!(!queue.is_idle());
    assert!(queue.begin(6, at(1_300)).is_none());
    assert!(queue.is_idle());
}

#[test]
fn those_who_wait_too_long_are_taken_out_wherever_they_are() {
    let mut queue = ReadQueue::new(3);
    queue.push(1, at(1_000));
    let context = queue.begin(6, at(1_000)).unwrap();
    queue.confirm(&context, 99);
    queue.push(2, at(1_001));
    queue.begin(6, at(1_001)).unwrap();
    queue.push(3, at(1_002));
    queue.push(4, at(2_000));
    let mut refused = Vec::new();
    queue.expire(at(2_000), |token| refused.push(token));
    refused.sort_unstable();
    assert_eq!((refused, queue.len()), (vec![1, 2, 3], 1));
    let mut rest = Vec::new();
    queue.drain(|token| rest.push(token));
    assert_eq!((rest, queue.len()), (vec![4], 0));
}

#[test]
fn garbage_confirms_nobody() {
    let mut queue = ReadQueue::new(3);
    queue.push(1, at(1_000));
    let context = queue.begin(6, at(1_000)).unwrap();
    for length in 0..context.len() {
        assert_eq!(queue.confirm(&context[..length], 9), None);
    }
    let mut other = context.clone();
    other[15] ^= 1;
    assert_eq!(queue.confirm(&other, 9), None, "of another incarnation");
    assert!(served(&mut queue, 100).is_empty());
}
