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
        let stores = state.stores().values();
        let leaving = stores.filter(|store| matches!(store.life, StoreLife::Leaving { .. }));
        let leaving: Vec<&Store> = leaving.map(AsRef::as_ref).collect();
        self.listed.retain(|id, _| leaving.iter().any(|store| store.id == *id));
        let has = |store: &&&Store| self.has_or_gets(state, store.id, now).is_some();
        let listed: Vec<StoreId> = leaving.iter().filter(has).map(|store| store.id).collect();
        self.listed.extend(listed.into_iter().map(|store| (store, now)));
        leaving
            .into_iter()
            .filter(|store| self.not_left_because(state, store, now).is_none())
            .map(|store| Command::ChangeStore { store: store.id, life: StoreLife::Left })
            .collect()
    }

    /// Why a store that leaves has not left yet; `None` for others, and where it is about to have.
    pub fn not_left_because(&self, state: &State, store: &Store, now: Instant) -> Option<String> {
        let StoreLife::Leaving { dead, .. } = store.life else { return None };
        if self.tree.is_empty() {
            return Some("no region is known yet".to_owned());
        }
        if let Some(why) = self.has_or_gets(state, store.id, now) {
            return Some(why);
        }
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

    /// What a store has, or may get, as placement knows; in words.
    fn has_or_gets(&self, state: &State, store: StoreId, now: Instant) -> Option<String> {
        if let Some(info) = self.tree.iter().find(|it| it.region.peer_on(store).is_some()) {
            return Some(format!("regions have replicas there, such as {}", info.region.id));
        }
        if let Some(operator) = self.operators.iter().find(|it| it.goal.concerns(store)) {
            return Some(format!("operator {} of {} is under way", operator.id, operator.region));
        }
        self.on_its_way(state, store, now).map(|(region, record)| match record.state {
            Life::Removed => format!(
                "{region} was told to add a replica there, which was rolled back; its leader may \
                     have begun all the same, which shows within a minute, or once it has a quorum"
            ),
            Life::Joining { .. }
            | Life::Syncing
            | Life::Ready { .. }
            | Life::Pairing { .. }
            | Life::Promoting { .. }
            | Life::StandbyLearner
            | Life::KeepAsLearner
            | Life::Active
            | Life::Zombie => format!("a replica of {region} is on its way there"),
        })
    }

    /// A replica that may be on its way to a store: somebody was told to add one there, and it is in
    /// no configuration that is reported yet.
    fn on_its_way(
        &self,
        state: &State,
        store: StoreId,
        now: Instant,
    ) -> Option<(RegionId, &Record)> {
        self.members.iter().find(|(region, record)| {
            *region != OWN
                && StoreId::from(record.node) == store
                && match (record.state, record.aim) {
                    (Life::Removed, _) => self.may_yet_appear(state, *region, record, now),
                    (_, Aim::Vote { .. } | Aim::Learn) => true,
                    (_, Aim::Leave { .. }) => false,
                }
        })
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
