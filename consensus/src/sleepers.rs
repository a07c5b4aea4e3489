//! Which groups sleep between two processes, told by one number for each direction.
//!
//! The groups that sleep, are led here and have a member on another process are the same as those
//! that sleep there and follow this process, each in the same term and with the same end of its
//! log, exactly if two numbers are equal: each side combines (xor) a hash of every such group.
//! A beat carries the leader's number; the receiver compares. So one small message says of any
//! number of groups that nothing has happened in them (see [`Vigil`](crate::vigil::Vigil)).
//!
//! Written by the raft workers inside a step, before anything that the step causes leaves the
//! process; read by network threads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use quorate_proto::{NodeId, RegionId};

/// See the module. One for each process, shared by its shards.
#[derive(Debug, Default)]
pub struct Sleepers {
    /// Counts the comparisons, so that a group can tell those that saw it asleep.
    rounds: AtomicU64,
    nodes: RwLock<BTreeMap<NodeId, Arc<Sums>>>,
}

#[derive(Debug, Default)]
struct Sums {
    led: AtomicU64,
    followed: AtomicU64,
}

/// A group that sleeps, as it was counted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    hash: u64,
    /// The process of its leader; `None`: it is led here, and these have members.
    leader: Result<NodeId, Vec<NodeId>>,
}

impl Mark {
    /// A group that is led here.
    pub(crate) fn led(group: RegionId, term: u64, last: u64, others: Vec<NodeId>) -> Self {
        Self { hash: hash(group, term, last), leader: Err(others) }
    }

    /// A group that is led by another process.
    pub(crate) fn followed(group: RegionId, term: u64, last: u64, leader: NodeId) -> Self {
        Self { hash: hash(group, term, last), leader: Ok(leader) }
    }
}

impl Sleepers {
    /// The group falls asleep. Returns the first comparison that will have seen it.
    pub(crate) fn enter(&self, mark: &Mark) -> u64 {
        self.toggle(mark);
        self.rounds.load(Ordering::SeqCst) + 1
    }

    /// The group wakes up. Returns the first comparison that may not have seen it any more.
    pub(crate) fn leave(&self, mark: &Mark) -> u64 {
        let first = self.round();
        self.toggle(mark);
        first
    }

    fn toggle(&self, mark: &Mark) {
        match &mark.leader {
            Ok(leader) => {
                self.of(*leader).followed.fetch_xor(mark.hash, Ordering::SeqCst);
            }
            Err(others) => {
                for node in others {
                    self.of(*node).led.fetch_xor(mark.hash, Ordering::SeqCst);
                }
            }
        }
    }

    /// Begins a comparison: what is read afterwards counts for groups that fell asleep before.
    pub fn round(&self) -> u64 {
        self.rounds.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// True where no group has woken up since that comparison began.
    pub fn is_undisturbed(&self, round: u64) -> bool {
        self.rounds.load(Ordering::SeqCst) == round
    }

    /// Of the groups that sleep, are led here and have a member on `node`.
    pub fn led(&self, node: NodeId) -> u64 {
        self.read(node, |sums| &sums.led)
    }

    /// Of the groups that sleep here and are led by `node`.
    pub fn followed(&self, node: NodeId) -> u64 {
        self.read(node, |sums| &sums.followed)
    }

    fn read(&self, node: NodeId, which: impl Fn(&Sums) -> &AtomicU64) -> u64 {
        let nodes = self.nodes.read();
        nodes.get(&node).map_or(0, |sums| which(sums).load(Ordering::SeqCst))
    }

    fn of(&self, node: NodeId) -> Arc<Sums> {
        if let Some(sums) = self.nodes.read().get(&node) {
            return Arc::clone(sums);
        }
        Arc::clone(self.nodes.write().entry(node).or_default())
    }
}

/// Mixes three numbers into one (the finaliser of SplitMix64 after each), so that the combination
/// of many is equal by chance once in 2^64.
fn hash(group: RegionId, term: u64, last: u64) -> u64 {
    [group.0, term, last].iter().fold(0x9e37_79b9_7f4a_7c15, |hash: u64, word| {
        let mut mixed = hash.wrapping_add(*word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_count_the_same_groups() {
        let (leader, follower) = (Sleepers::default(), Sleepers::default());
        let (here, there, third) = (NodeId(1), NodeId(2), NodeId(3));
        let led = |group, last| Mark::led(RegionId(group), 6, last, vec![there, third]);
        let followed = |group, last| Mark::followed(RegionId(group), 6, last, here);
        let equal = || leader.led(there) == follower.followed(here);
        assert!(equal(), "none sleeps");
        let marks = [led(1, 10), led(2, 20), led(3, 30)];
        for mark in &marks {
            leader.enter(mark);
        }
        assert!(!equal());
        for (group, last) in [(3, 30), (1, 10), (2, 20)] {
            follower.enter(&followed(group, last));
        }
        assert!(equal(), "in any order");
        assert_eq!(leader.led(there), leader.led(third));
        leader.leave(&marks[1]);
        assert!(!equal(), "one has woken up");
        // With another end of the log it is another one.
        leader.enter(&led(2, 21));
        assert!(!equal());
        follower.leave(&followed(2, 20));
        follower.enter(&followed(2, 21));
        assert!(equal());
    }

    #[test]
    fn a_comparison_counts_for_those_that_slept_before() {
        let sleepers = Sleepers::default();
        let mark = Mark::led(RegionId(1), 6, 10, vec![NodeId(2)]);
        let before = sleepers.round();
        let first = sleepers.enter(&mark);
        let after = sleepers.round();
        assert!(before < first && first <= after);
        let woken = sleepers.leave(&mark);
        assert!(after < woken);
        assert!(!sleepers.is_undisturbed(after));
        assert!(sleepers.is_undisturbed(sleepers.round()));
    }
}
