//! Orders on their way to stores, and what stores say to them.

use std::collections::BTreeSet;

use quorate_proto::{RegionId, StoreId};

use super::{End, MAX_REFUSALS, Operators, Order, Step};
use crate::core::tree::RegionTree;

impl Operators {
    /// A store could not carry out a step. Returns the region whose operator is to be given up for
    /// it, if it is.
    pub fn refused(
        &mut self,
        id: u64,
        reason: &str,
        tree: &RegionTree,
        now_ms: u64,
    ) -> Option<RegionId> {
        let under_way =
            self.under_way.values_mut().find(|under_way| under_way.operator.id == id)?;
        let (region, goal) = (under_way.operator.region, under_way.operator.goal.clone());
        // It speaks of a region that has moved on, perhaps by this very operator.
        let current = tree.get(under_way.at).map(|info| info.region.epoch);
        if under_way.step.as_ref().map(|(_, epoch)| *epoch) != current && !goal.is_one_step() {
            return None;
        }
        under_way.refusals += 1;
        under_way.is_refused();
        under_way.waits_for = format!("the store refused: {reason}");
        if goal.merges_with().is_some() {
            // Once a region is stopped, what is refused is asked for again.
            let begins = matches!(under_way.step, Some((Step::PrepareMerge { .. }, _)));
            return begins.then_some(region);
        }
        if goal.is_one_step() {
            self.end(region, End::Refused(reason.to_owned()), now_ms);
            return None;
        }
        // It only goes forward from a joint configuration, and that may be about to begin: then the
        // deadline decides.
        let forward = tree.get(region).is_some_and(|info| info.is_joint());
        let stays = forward || under_way.may_be_entering();
        (under_way.refusals >= MAX_REFUSALS && !stays).then_some(region)
    }

    /// What is left of a removed replica is to be destroyed. Sent once; a store that misses it
    /// finds out by asking, or tells of the replica when its turn comes.
    pub fn destroy(&mut self, store: StoreId, order: Order) {
        let same = |(to, waits): &(StoreId, Order)| {
            *to == store && waits.region == order.region && waits.step == order.step
        };
        if !self.destroys.iter().any(same) {
            self.destroys.push((store, order));
        }
    }

    /// The stores that have orders waiting.
    pub fn due(&self, tree: &RegionTree, now_ms: u64) -> BTreeSet<StoreId> {
        let led = self.under_way.values().filter_map(|under_way| {
            let leader = tree.get(under_way.at)?.leader?.store;
            under_way.is_due(leader, now_ms).then_some(leader)
        });
        led.chain(self.destroys.iter().map(|(store, _)| *store)).collect()
    }

    /// Orders to send to `store` now, at most `limit`; they count as sent.
    pub fn send(
        &mut self,
        store: StoreId,
        tree: &RegionTree,
        limit: usize,
        now_ms: u64,
    ) -> Vec<Order> {
        let leads = |region| {
            tree.get(region).and_then(|info| info.leader).is_some_and(|peer| peer.store == store)
        };
        let mut orders = Vec::new();
        for under_way in self.under_way.values_mut() {
            if orders.len() == limit {
                break;
            }
            if under_way.is_due(store, now_ms) && leads(under_way.at) {
                under_way.sends(store, now_ms);
                orders.extend(under_way.order());
            }
        }
        let mut kept = Vec::new();
        for (to, order) in self.destroys.drain(..) {
            if to == store && orders.len() < limit {
                orders.push(order);
            } else {
                kept.push((to, order));
            }
        }
        self.destroys = kept;
        orders
    }

    /// A store's stream is new: what went to it over the old one may be lost.
    pub fn resend(&mut self, store: StoreId) {
        for under_way in self.under_way.values_mut() {
            if under_way.sent.is_some_and(|(to, _)| to == store) {
                under_way.sent = None;
            }
        }
    }
}
