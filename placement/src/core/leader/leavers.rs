//! When a store that leaves has left: nothing is on it, and nothing may come to it any more.

use std::time::Duration;

use quorate_consensus::time::Instant;
use quorate_proto::{RegionId, StoreId};

use super::{Leader, OWN};
use crate::core::command::Command;
use crate::core::lifecycle::{Aim, Record, State as Life};
use crate::core::state::{State, Store, StoreLife};

impl Leader {
    /// Stores that leave and have nothing left to give.
    pub(super) fn leavers(&mut self, state: &State, now: Instant) -> Vec<Command> {
        let stores = state.stores();
        let leaves = |store: &Store| matches!(store.life, StoreLife::Leaving { .. });
        self.listed.retain(|id, _| stores.get(id).is_some_and(|store| leaves(store)));
        let mut left = Vec::new();
        for store in stores.values().filter(|store| leaves(store)) {
            if self.has_or_gets(state, store.id, now).is_some() {
                self.listed.insert(store.id, now);
            } else if self.not_known_empty(store, now).is_none() {
                left.push(Command::ChangeStore { store: store.id, life: StoreLife::Left });
            }
        }
        left
    }

    /// Why a store that leaves has not left yet; `None` for others, and where it is about to have.
    pub fn not_left_because(&self, state: &State, store: &Store, now: Instant) -> Option<String> {
        match store.life {
            StoreLife::Leaving { .. } => {
                self.has_or_gets(state, store.id, now).or_else(|| self.not_known_empty(store, now))
            }
            StoreLife::Joining | StoreLife::Active | StoreLife::Left => None,
        }
    }

    /// What a store has, or may get, as placement knows; in words.
    fn has_or_gets(&self, state: &State, store: StoreId, now: Instant) -> Option<String> {
        if let Some(info) = self.tree.iter().find(|it| it.region.peer_on(store).is_some()) {
            return Some(format!("regions have replicas there, such as {}", info.region.id));
        }
        if let Some(operator) = self.operators.iter().find(|it| it.goal.concerns(store)) {
            return Some(format!("operator {} of {} is under way", operator.id, operator.region));
        }
        // Somebody was told to add a replica there, and it is in no configuration that is reported yet.
        let mut records = self.members.iter();
        records.find_map(|(region, record)| {
            if region == OWN || StoreId::from(record.node) != store {
                return None;
            }
            match (record.state, record.aim) {
                (Life::Removed, _) => self.may_yet_appear(state, region, record, now).then(|| {
                    format!(
                        "{region} was told to add a replica there, which was rolled back; its leader \
                         may have begun all the same, which shows within a minute, or once it has a \
                         quorum"
                    )
                }),
                (_, Aim::Vote { .. } | Aim::Learn) => {
                    Some(format!("a replica of {region} is on its way there"))
                }
                (_, Aim::Leave { .. }) => None,
            }
        })
    }

    /// Why a store that nothing is known of any more may not be empty all the same.
    fn not_known_empty(&self, store: &Store, now: Instant) -> Option<String> {
        if self.tree.is_empty() {
            return Some("no region is known yet".to_owned());
        }
        let dead = matches!(store.life, StoreLife::Leaving { dead: true, .. });
        if dead || self.stores.is_lost(store, now) {
            return None;
        }
        // One that is alive says itself that it is empty, after the last one was taken from it: what
        // it said before, it said before that one came.
        let since = self.listed.get(&store.id);
        let heard = self.stores.last(store.id).filter(|heard| heard.complete);
        match heard.filter(|heard| since.is_none_or(|since| heard.at > *since)) {
            Some(heard) if heard.stats.regions == 0 => None,
            Some(heard) => Some(format!(
                "it still has {} of what others removed, or of regions that are gone",
                heard.stats.regions
            )),
            None => Some("it has not told yet that it has nothing left".to_owned()),
        }
    }

    /// A join that was rolled back, and whose order may have been followed all the same: until the
    /// region has had a leader and a quorum for as long again as a join may take, and its leader was
    /// heard of after that. Without them the change may lie in the region's log for any time. A new
    /// leader of placement counts its own time only: placement time leaps ahead with it.
    fn may_yet_appear(
        &self,
        state: &State,
        region: RegionId,
        record: &Record,
        now: Instant,
    ) -> bool {
        if record.seen != 0 || record.peer.0 == 0 {
            return false;
        }
        let Some(info) = self.tree.get(region) else { return true };
        let leader = info.leader.filter(|_| info.led);
        let Some(heard) = leader.and_then(|leader| self.stores.last(leader.store)) else {
            return true;
        };
        let unsteady_ms = self.watch.unsteady_ms(region).unwrap_or_default();
        let from_ms = record.since_ms.max(self.began.1).max(unsteady_ms);
        let steady = Duration::from_millis(self.time_ms(now).saturating_sub(from_ms));
        let join = Duration::from_millis(state.settings().limits().join_ms);
        steady.saturating_sub(join) <= now.since(heard.at)
    }
}
