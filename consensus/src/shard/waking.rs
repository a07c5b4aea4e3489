//! Sleeping groups wake when the process that led them falls silent, or one they slept without
//! comes back.

use quorate_proto::NodeId;

use super::nodes::Change;
use super::{Shard, context, touch};
use crate::time::Instant;

/// Why a sleeping group is to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// The process that led it has fallen silent, last heard of then.
    Orphaned(Instant),
    /// A process it slept without is back.
    Returned,
}

impl<T> Shard<T> {
    pub(super) fn beat(&mut self, from: NodeId, incarnation: u64, now: Instant) {
        if let Some(change) = self.nodes.beat(from, incarnation, now) {
            self.node_changed(change);
            self.wake_some(now);
        }
    }

    /// A process fell silent, came back, or was restarted: find the sleeping groups it concerns.
    pub(super) fn node_changed(&mut self, change: Change) {
        let (node, orphaned, returned, restarted) = match change {
            Change::Silent { node, last } => (node, Some(last), false, false),
            Change::Restarted { node, last } => (node, Some(last), true, true),
            Change::Returned { node } => (node, None, true, false),
        };
        for group in self.groups.values().filter(|group| group.is_asleep()) {
            if let Some(last) = orphaned
                && group.leader_node() == Some(node)
            {
                self.to_wake.insert(group.id(), Wake::Orphaned(last));
            } else if returned
                // A restarted process has forgotten that its peers slept: they would campaign.
                && (restarted || group.missed_someone())
                && group.nodes().any(|member| member == node)
            {
                // It may still wait to be woken as an orphan, which says more.
                self.to_wake.entry(group.id()).or_insert(Wake::Returned);
            }
        }
    }

    pub(super) fn wake_some(&mut self, now: Instant) {
        for _ in 0..self.options.wakes_per_tick {
            let Some((id, why)) = self.to_wake.pop_first() else { return };
            let context = context(&self.options, &self.nodes, &self.around, now);
            let Some(group) = self.groups.get_mut(&id) else { continue };
            match why {
                Wake::Orphaned(last) => group.wake_orphaned(last, &context),
                Wake::Returned => group.wake_for_return(),
            }
            if !group.is_asleep() {
                self.awake.insert(id);
                touch(&mut self.touched, group);
            }
        }
    }
}
