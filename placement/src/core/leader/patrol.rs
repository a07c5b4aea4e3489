//! Plans: schedulers see the whole cluster, checkers one region after another.

use std::collections::BTreeSet;

use quorate_consensus::time::Instant;
use quorate_proto::{RegionId, Role, StoreId};

use super::Leader;
use crate::core::checker::{Checker, Verdict, merge, replica};
use crate::core::lifecycle::Aim;
use crate::core::operators::{Draft, End, Goal};
use crate::core::schedule::{SchedulerStatus, evict_leader};
use crate::core::state::{State, Store, StoreLife};
use crate::core::tree::RegionInfo;
use crate::core::view::{ClusterView, Sources};

/// Regions that the checkers look at in one plan; all of ten thousand within two seconds.
const PATROL: usize = 2_000;

impl Leader {
    pub(super) fn plan(&mut self, state: &State, now: Instant) {
        if self.operators.room() == 0 {
            return;
        }
        let mut view = self.view(state, now);
        self.check_regions(state, &mut view, now);
        let room = self.operators.room();
        if room > 0 {
            for draft in self.schedulers.plan(&view, room, now) {
                self.take(state, draft, now);
            }
        }
    }

    /// The picture that is planned from.
    pub fn view(&self, state: &State, now: Instant) -> ClusterView {
        let sources = Sources {
            tree: &self.tree,
            known: state.stores(),
            alive: &self.stores,
            loads: &self.loads,
            limits: &self.limits,
            policy: &self.policy,
        };
        let under_way = self.operators.iter().map(|operator| (operator.region, &operator.goal));
        let now_ms = self.time_ms(now);
        let view = ClusterView::of(sources, under_way, self.operators.busy(now_ms), now);
        let failed = self.operators.failed(now_ms);
        ClusterView { failed, may_move: Self::may_plan(state), ..view }
    }

    /// Begins what a checker or a scheduler wants, and remembers why, or why not. True where it
    /// has begun.
    fn take(&mut self, state: &State, draft: Draft, now: Instant) -> bool {
        let (region, by, goal) = (draft.region, draft.by, draft.goal.clone());
        let what = format!("{goal}: {}", draft.reason);
        let now_ms = self.time_ms(now);
        match self.begin(state, draft, false, now) {
            Ok(_) => {
                self.history.note(region, by, what, now_ms);
                true
            }
            Err(refused) => {
                self.history.note(region, by, format!("{what}; not begun: {refused}"), now_ms);
                false
            }
        }
    }

    fn check_regions(&mut self, state: &State, view: &mut ClusterView, now: Instant) {
        if !Self::may_plan(state) {
            return;
        }
        let now_ms = self.time_ms(now);
        let merges = self.may_merge(state);
        let of = |is: &dyn Fn(&Store) -> bool| -> BTreeSet<StoreId> {
            state.stores().values().filter(|store| is(store)).map(|store| store.id).collect()
        };
        let lost = of(&|store| self.stores.is_lost(store, now));
        let leaving = of(&|store| {
            matches!(store.life, StoreLife::Leaving { .. }) && !lost.contains(&store.id)
        });
        let leading = self.still_leading(view, &leaving);
        let regions = self.tree.after(self.patrolled).take(PATROL).cloned().collect::<Vec<_>>();
        self.patrolled = match regions.len() == PATROL {
            true => regions.last().map_or(RegionId(0), |info| info.region.id),
            false => RegionId(0),
        };
        for info in regions {
            let region = info.region.id;
            let busy = view.busy.contains(&region);
            if busy && !self.may_make_way(&info, &lost) {
                continue;
            }
            let around = replica::Surroundings {
                view,
                lost: &lost,
                leaving: &leaving,
                leading: &leading,
                records: self.members.of(region),
            };
            let on_its_way = |region| self.is_on_its_way(region);
            let merging = merge::Surroundings {
                view,
                tree: &self.tree,
                ages: &self.ages,
                on_its_way: &on_its_way,
                now_ms,
            };
            let may_merge = merges && !busy && view.merges < view.policy.merge.at_once;
            let found = self.checkers.check(around, may_merge.then_some(merging), &info);
            let Some((checker, verdict)) = found else { continue };
            if busy && checker != Checker::Replica {
                continue;
            }
            match verdict {
                Verdict::Fine => {}
                // Then what is under way may as well go on.
                Verdict::Stuck(_) if busy => {}
                Verdict::Stuck(why) => {
                    self.checkers.did(checker, format!("{region}: {why}"), false);
                    self.history.note(region, checker.name(), why, now_ms);
                }
                Verdict::Repair(draft) => {
                    if busy {
                        let why = "a voter on a lost store goes first".to_owned();
                        self.history.note(region, draft.by, why, now_ms);
                        self.give_up(region, End::Overtaken, now_ms);
                    }
                    if self.operators.room() == 0 {
                        return;
                    }
                    let what = format!("{region} {}: {}", draft.goal, draft.reason);
                    let begun = self.take(state, draft.clone(), now);
                    self.checkers.did(checker, what, begun);
                    if begun {
                        if merge::moves_closer(&draft) {
                            self.ages.moves_closer(&info);
                        }
                        view.begin(&draft);
                    }
                }
            }
        }
    }

    /// A lost voter does not wait for what only makes a region better: that is given up for it. What
    /// people asked for stays, and what replaces a lost voter already, or has come to its joint
    /// change.
    fn may_make_way(&self, info: &RegionInfo, lost: &BTreeSet<StoreId>) -> bool {
        let region = info.region.id;
        let Some(operator) = self.operators.of(region) else { return false };
        let makes_better = operator.by != "request"
            && match operator.goal {
                Goal::MoveReplica { .. } | Goal::RemoveReplica { .. } => true,
                Goal::TransferLeader { .. }
                | Goal::Split { .. }
                | Goal::AddReplica { .. }
                | Goal::Promote { .. }
                | Goal::Demote { .. }
                | Goal::LeaveJoint
                | Goal::MergeInto { .. }
                | Goal::RollBackMerge { .. } => false,
            };
        let leaves = |store: StoreId| {
            let records = self.members.of(region).iter();
            let mut of = records.filter(|record| StoreId::from(record.node) == store);
            of.any(|record| matches!(record.aim, Aim::Leave { .. }))
        };
        let mut voters = info.region.peers.iter().filter(|peer| peer.role == Role::Voter);
        makes_better
            && !info.is_joint()
            && !self.operators.may_be_entering(region)
            && voters.any(|peer| lost.contains(&peer.store) && !leaves(peer.store))
    }

    /// Leaving stores that lead a region which evict-leader will move.
    fn still_leading(&self, view: &ClusterView, leaving: &BTreeSet<StoreId>) -> BTreeSet<StoreId> {
        let evicts = |status: &SchedulerStatus| status.name == evict_leader::NAME && !status.paused;
        if leaving.is_empty() || !self.schedulers.list().iter().any(evicts) {
            return BTreeSet::new();
        }
        let able = |info: &RegionInfo, from: StoreId| {
            info.region.peers.iter().any(|peer| {
                peer.store != from
                    && info.can_lead_on(peer.store)
                    && view.stores.get(&peer.store).is_some_and(|store| store.is_eligible())
            })
        };
        self.tree
            .iter()
            .filter(|info| info.led && !info.is_sentinel())
            .filter_map(|info| {
                let from = info.leader?.store;
                (leaving.contains(&from) && able(info, from)).then_some(from)
            })
            .collect()
    }
}
