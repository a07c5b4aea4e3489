//! How many learners are promoted at once, and which.

use std::collections::BTreeSet;

use super::Record;
use super::group::{Group, Member};

/// How many of `candidates` ready learners join `voters` voters in one joint change: the largest
/// number that makes the sum odd and does not exceed `target`.
///
/// It governs growth; a swap is one for one.
pub fn safe_batch(voters: usize, candidates: usize, target: usize) -> usize {
    let most = candidates.min(target.saturating_sub(voters));
    (1..=most).rev().find(|batch| (voters + batch) % 2 == 1).unwrap_or(0)
}

/// The best `count` of `candidates`: those that bring the most new failure domains first, then
/// those that arrived first.
pub fn choose<'a>(
    group: &'a Group,
    mut candidates: Vec<(&'a Record, &'a Member)>,
    count: usize,
) -> Vec<(&'a Record, &'a Member)> {
    let mut taken: BTreeSet<&str> = group.voters().flat_map(labels).collect();
    let mut chosen = Vec::new();
    candidates.sort_by_key(|(record, _)| (record.joined_ms, record.node));
    while chosen.len() < count && !candidates.is_empty() {
        let new = |member: &Member| labels(member).filter(|label| !taken.contains(label)).count();
        let mut best = 0;
        for (number, (_, member)) in candidates.iter().enumerate() {
            if new(member) > new(candidates[best].1) {
                best = number;
            }
        }
        let (record, member) = candidates.remove(best);
        taken.extend(labels(member));
        chosen.push((record, member));
    }
    chosen
}

fn labels(member: &Member) -> impl Iterator<Item = &str> {
    member.domain.iter().map(String::as_str)
}
