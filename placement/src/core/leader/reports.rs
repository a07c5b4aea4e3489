//! What stores report, taken in.

use std::collections::BTreeSet;

use quorate_consensus::time::Instant;
use quorate_proto::{RegionId, StoreId};

use super::Leader;
use crate::core::operators::End;
use crate::core::report::{OrderRefusal, Report};
use crate::core::state::{Store, StoreLife};

/// What a report led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// True where a route changed.
    pub routes: bool,
    /// Regions that were not believed.
    pub stale: usize,
    /// True where the store is to be activated through the log.
    pub activate: bool,
}

impl Leader {
    /// Takes in a store's report.
    pub fn report(&mut self, store: &Store, report: Report, now: Instant) -> Reported {
        let now_ms = self.time_ms(now);
        self.loads.report(&report, now);
        let Report { incarnation, stats, regions, full, refusals, unled, hosted, unheard, .. } =
            report;
        self.partitions.reported(store.id, &unheard, now);
        let mut reported =
            Reported { activate: store.life == StoreLife::Joining, ..Reported::default() };
        self.stores.heard(store.id, incarnation, stats, full, now);
        if full {
            self.operators.resend(store.id);
            let named: BTreeSet<RegionId> = regions.iter().map(|info| info.region.id).collect();
            let led = |leader: Option<quorate_proto::Peer>| {
                leader.is_some_and(|leader| leader.store == store.id)
            };
            let gone: Vec<RegionId> = self
                .tree
                .iter()
                .filter(|info| info.led && led(info.leader) && !named.contains(&info.region.id))
                .map(|info| info.region.id)
                .collect();
            for region in gone {
                self.tree.not_led_by(region, store.id);
            }
        }
        for info in regions {
            let id = info.region.id;
            match self.tree.offer(info) {
                Ok(offered) => {
                    for evicted in offered.evicted {
                        self.watch.forget(evicted);
                        self.history.forget(evicted);
                        self.ages.forget(evicted);
                        self.touched.insert(evicted);
                        self.evicted.insert(evicted);
                    }
                    if offered.routes {
                        reported.routes = true;
                        self.unsaved.insert(id);
                    }
                    if let Some(info) = self.tree.get(id) {
                        self.ages.seen(info, now_ms);
                        self.operators.observe(info, now_ms);
                        if let Some(leader) = info.leader {
                            self.watch.leader(id, leader.store, info.term);
                        }
                    }
                    self.touched.insert(id);
                    self.touched.extend(self.operators.sources_of(id));
                }
                Err(_) => reported.stale += 1,
            }
        }
        reported.routes |= self.found(store.id, unled, now_ms);
        self.weed_out(store.id, &hosted);
        for refusal in refusals {
            self.refused(&refusal, store.id, now_ms);
        }
        reported
    }

    fn refused(&mut self, refusal: &OrderRefusal, store: StoreId, now_ms: u64) {
        let OrderRefusal { operator, region, reason } = refusal;
        let what = format!("{store} did not carry out operator {operator}: {reason}");
        self.history.note(*region, "store", what, now_ms);
        if let Some(region) = self.operators.refused(*operator, reason, &self.tree, now_ms) {
            let merges =
                self.operators.of(region).is_some_and(|it| it.goal.merges_with().is_some());
            if merges {
                return self.give_up_merge(region, End::Refused(reason.clone()), now_ms);
            }
            self.give_up(region, End::Refused(reason.clone()), now_ms);
        }
    }

    /// A store's stream ended.
    pub fn disconnected(&mut self, store: StoreId) {
        self.stores.disconnected(store);
    }
}
