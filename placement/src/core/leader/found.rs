//! What stores tell beyond the regions they lead: regions that nobody here has heard of, and
//! replicas that missed their removal.
//!
//! A region whose leader was lost right after it was split off is known to its replicas alone. One
//! that hears no leader asks for it, is told that it is unknown, and tells what it knows. That fills
//! a hole and never replaces anything: the replica may be long out of date.
//!
//! A replica that sleeps asks nobody. So every store tells all those that it does not lead, a few
//! with each report.

use quorate_proto::StoreId;

use super::Leader;
use crate::core::events::Severity;
use crate::core::operators::{Order, Step};
use crate::core::report::HostedReplica;
use crate::core::tree::RegionInfo;

impl Leader {
    /// Takes in regions that nobody leads, where nothing is known of them. True where one was.
    pub(super) fn found(&mut self, store: StoreId, unled: Vec<RegionInfo>, now_ms: u64) -> bool {
        let mut routes = false;
        for info in unled {
            let id = info.region.id;
            if !self.tree.learn(info) {
                continue;
            }
            routes = true;
            self.unsaved.insert(id);
            self.touched.insert(id);
            let text = format!("{id} was unknown here: {store} has a replica and hears no leader");
            self.history.note(id, "report", text.clone(), now_ms);
            self.tell(Severity::Warning, "region-found", text, id, now_ms);
        }
        routes
    }

    /// Orders the store to destroy those of its replicas that a newer configuration of their region
    /// is without.
    pub(super) fn weed_out(&mut self, store: StoreId, hosted: &[HostedReplica]) {
        for HostedReplica { region, peer, conf_ver } in hosted {
            let Some(info) = self.tree.get(*region) else { continue };
            let epoch = info.region.epoch;
            if info.region.peer(*peer).is_some() || epoch.conf_ver <= *conf_ver {
                continue;
            }
            let order = Order {
                // Of no operator: a refusal is nobody's concern.
                operator: 0,
                region: *region,
                epoch,
                reason: format!("{region} goes on without {peer}, which missed its removal"),
                step: Step::Destroy { peer: *peer },
            };
            self.operators.destroy(store, order);
        }
    }
}
