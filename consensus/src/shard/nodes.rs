//! Who of the other processes is alive, by their beats.
//!
//! A beat says "the process behind this incarnation is alive and its raft workers move". It
//! vouches for the sleeping groups which that process leads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_proto::NodeId;

use crate::time::Instant;

#[derive(Debug)]
struct Node {
    incarnation: u64,
    last: Instant,
    /// A group here has a member there, as far as this shard knows: it gets beats.
    met: bool,
}

/// What a beat, or its absence, tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// No beat for too long; the last one came then.
    Silent { node: NodeId, last: Instant },
    /// It was silent and is back, the same process.
    Returned { node: NodeId },
    /// Another process answers under its name: what the old one vouched for is void.
    Restarted { node: NodeId, last: Instant },
}

#[derive(Debug)]
pub(crate) struct Nodes {
    silence: Duration,
    nodes: BTreeMap<NodeId, Node>,
    silent: BTreeSet<NodeId>,
}

impl Nodes {
    pub(super) fn new(silence: Duration) -> Self {
        Self { silence, nodes: BTreeMap::new(), silent: BTreeSet::new() }
    }

    pub(super) fn neighbours(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.iter().filter(|(_, node)| node.met).map(|(id, _)| *id)
    }

    /// True where it has not been heard of for a while.
    pub(crate) fn is_silent(&self, node: NodeId) -> bool {
        self.silent.contains(&node)
    }

    /// True where each process can be heard.
    pub(crate) fn are_all_heard(&self) -> bool {
        self.silent.is_empty()
    }

    /// When its last beat came.
    pub(crate) fn last_beat(&self, node: NodeId) -> Option<Instant> {
        self.nodes.get(&node).map(|known| known.last)
    }

    /// A group with a member on that process is hosted here. It counts as alive until it has had
    /// the time to send a beat.
    pub(super) fn meet(&mut self, node: NodeId, now: Instant) {
        let fresh = Node { incarnation: 0, last: now, met: true };
        self.nodes.entry(node).or_insert(fresh).met = true;
    }

    pub(super) fn beat(&mut self, node: NodeId, incarnation: u64, now: Instant) -> Option<Change> {
        let known = self.nodes.entry(node).or_insert(Node { incarnation, last: now, met: false });
        let (before, last) = (known.incarnation, known.last);
        known.incarnation = incarnation;
        known.last = now;
        let was_silent = self.silent.remove(&node);
        if before != 0 && before != incarnation {
            Some(Change::Restarted { node, last })
        } else {
            was_silent.then_some(Change::Returned { node })
        }
    }

    /// Forgets processes that share no group with this shard any more.
    pub(super) fn retain(&mut self, shared: &BTreeSet<NodeId>) {
        self.nodes.retain(|node, _| shared.contains(node));
        self.silent.retain(|node| shared.contains(node));
    }

    /// Processes that have become silent by `now`.
    pub(super) fn silent_since(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        for (node, known) in &self.nodes {
            if now.since(known.last) >= self.silence && self.silent.insert(*node) {
                changes.push(Change::Silent { node: *node, last: known.last });
            }
        }
        changes
    }
}

#[cfg(test)]
#[path = "nodes_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
