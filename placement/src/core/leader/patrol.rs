//! Plans: schedulers see the whole cluster, checkers one region after another.

use std::collections::BTreeSet;

use quorate_consensus::time::Instant;
use quorate_proto::{RegionId, StoreId};

use super::{Leader, MAX_BALANCING};
use crate::core::checker::{Verdict, replica};
use crate::core::command::Command;
use crate::core::operators::{Draft, Goal, Operator};
use crate::core::state::{State, Store, StoreLife};
use crate::core::view::ClusterView;

/// Regions that the checkers look at in one plan; all of ten thousand within two seconds.
const PATROL: usize = 2_000;

impl Leader {
    pub(super) fn plan(&mut self, state: &State, now: Instant) {
        if self.operators.room() == 0 {
            return;
        }
        let now_ms = self.time_ms(now);
        let busy = self.operators.busy(now_ms);
        let view = ClusterView::of(
            &self.tree,
            state.stores(),
            &self.stores,
            self.operators.iter(),
            busy,
            now,
        );
        self.check_regions(state, &view, now);
        let transfer = |operator: &&Operator| matches!(operator.goal, Goal::TransferLeader { .. });
        let under_way = self.operators.iter().filter(transfer).count();
        let room = MAX_BALANCING.saturating_sub(under_way).min(self.operators.room());
        let paused = state.settings().paused_schedulers();
        if room > 0 && !paused.contains("balance-leader") {
            for draft in self.balance.plan(&view, room) {
                self.take(state, draft, now);
            }
        }
    }

    /// Begins what a checker or a scheduler wants, and remembers why, or why not.
    fn take(&mut self, state: &State, draft: Draft, now: Instant) {
        let (region, by) = (draft.region, draft.by);
        let what = format!("{}: {}", draft.goal, draft.reason);
        let now_ms = self.time_ms(now);
        match self.begin(state, draft, false, now) {
            Ok(_) => {
                *self.begun.entry(by).or_default() += 1;
                self.history.note(region, by, what, now_ms);
            }
            Err(refused) => {
                self.history.note(region, by, format!("{what}; not begun: {refused}"), now_ms);
            }
        }
    }

    fn check_regions(&mut self, state: &State, view: &ClusterView, now: Instant) {
        if !Self::may_plan(state) {
            return;
        }
        let now_ms = self.time_ms(now);
        let of = |is: &dyn Fn(&Store) -> bool| -> BTreeSet<StoreId> {
            state.stores().values().filter(|store| is(store)).map(|store| store.id).collect()
        };
        let lost = of(&|store| self.stores.is_lost(store, now));
        let leaving = of(&|store| {
            matches!(store.life, StoreLife::Leaving { .. }) && !lost.contains(&store.id)
        });
        let leading = self.still_leading(view, &leaving);
        let target = self.target(state);
        let regions = self.tree.after(self.patrolled).take(PATROL).cloned().collect::<Vec<_>>();
        self.patrolled = match regions.len() == PATROL {
            true => regions.last().map_or(RegionId(0), |info| info.region.id),
            false => RegionId(0),
        };
        for info in regions {
            let region = info.region.id;
            if view.busy.contains(&region) {
                continue;
            }
            let around = replica::Surroundings {
                view,
                lost: &lost,
                leaving: &leaving,
                leading: &leading,
                target,
                records: self.members.of(region),
            };
            match replica::check(around, &info) {
                Verdict::Fine => {}
                Verdict::Stuck(why) => self.history.note(region, "replica-checker", why, now_ms),
                Verdict::Repair(draft) => {
                    if self.operators.room() == 0 {
                        return;
                    }
                    self.take(state, draft, now);
                }
            }
        }
    }

    /// Leaving stores that lead a region which another store could lead.
    fn still_leading(&self, view: &ClusterView, leaving: &BTreeSet<StoreId>) -> BTreeSet<StoreId> {
        if leaving.is_empty() {
            return BTreeSet::new();
        }
        let able = |info: &crate::core::tree::RegionInfo, from: StoreId| {
            info.region.peers.iter().any(|peer| {
                peer.store != from
                    && info.can_lead_on(peer.store)
                    && view.stores.get(&peer.store).is_some_and(|store| store.is_eligible())
            })
        };
        self.tree
            .iter()
            .filter(|info| info.led)
            .filter_map(|info| {
                let from = info.leader?.store;
                (leaving.contains(&from) && able(info, from)).then_some(from)
            })
            .collect()
    }

    /// Stores that leave and have nothing left to give.
    pub(super) fn leavers(&self, state: &State, now: Instant) -> Vec<Command> {
        let leaving = state.stores().values().filter_map(|store| match store.life {
            StoreLife::Leaving { dead } => Some((store, dead)),
            StoreLife::Joining | StoreLife::Active | StoreLife::Left => None,
        });
        leaving
            .filter(|(store, dead)| {
                let empty = self.tree.iter().all(|info| info.region.peer_on(store.id).is_none());
                // One that is alive says itself that it is empty.
                let heard = self.stores.last(store.id);
                let clean = *dead
                    || self.stores.is_lost(store, now)
                    || heard.is_some_and(|heard| heard.complete && heard.stats.regions == 0);
                empty && clean && !self.tree.is_empty()
            })
            .map(|(store, _)| Command::ChangeStore { store: store.id, life: StoreLife::Left })
            .collect()
    }
}
