//! What placement is told about replicas that this store does not lead.
//!
//! A replica that sleeps is vouched for by the beats of its leader's process. If it missed its
//! removal, and the order to go as well, those beats go on for as long as both processes share any
//! other group: it would stay for good. So all replicas are told, a few with each report, and
//! placement orders away those that a newer configuration is without.
//!
//! A region that was split off and lost its leader at once is not known to placement. Its replicas
//! tell what they know of it, where placement says that it knows nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::time::Instant;
use quorate_proto::wire::placement::{HostedReplica, RegionReport};

use super::directory::LocalRegion;

/// How long it takes to tell all replicas; on a new stream the first time as fast as reports go.
const ROUND: Duration = Duration::from_secs(45 * 60);
/// Most replicas told with one report.
const MOST: usize = 256;

/// The replicas in turn, in the order of their keys.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Where the one ends that was told last; at the beginning of a round nowhere.
    after: Option<Bytes>,
    /// All were told once.
    told_all: bool,
    last: Option<Instant>,
}

impl Round {
    /// Those whose turn it is. `all` are the regions with data, in the order of their keys.
    pub(super) fn next(&mut self, all: &[Arc<LocalRegion>], now: Instant) -> Vec<HostedReplica> {
        let since = self.last.replace(now).map_or(Duration::ZERO, |last| now.since(last));
        let share = (all.len() as u128 * since.as_millis()).div_ceil(ROUND.as_millis());
        let most = if self.told_all { share.min(MOST as u128) as usize } else { MOST };
        let from = match &self.after {
            Some(after) => all.partition_point(|local| start(local) <= *after),
            None => 0,
        };
        let mut told = Vec::new();
        for local in &all[from..] {
            if told.len() >= most {
                return told;
            }
            told.extend(hosted(local));
            self.after = Some(start(local));
        }
        (self.after, self.told_all) = (None, true);
        told
    }
}

fn start(local: &LocalRegion) -> Bytes {
    local.state().region().map(|region| region.range.start.clone()).unwrap_or_default()
}

fn hosted(local: &LocalRegion) -> Option<HostedReplica> {
    let region = local.region().filter(|_| !local.view().is_leader())?;
    let (region_id, peer_id) = (region.id.0, local.peer().0);
    Some(HostedReplica { region_id, peer_id, conf_ver: region.epoch.conf_ver })
}

/// What to tell of a region that placement does not know. Nothing where its leader is heard or is
/// here, or where the replica has no data.
pub fn unled(local: &LocalRegion) -> Option<RegionReport> {
    local.view().silent_since()?;
    let region = local.region()?;
    let stats = local.stats();
    Some(RegionReport {
        region: Some(region.as_ref().into()),
        approximate_bytes: stats.bytes(),
        approximate_keys: stats.keys(),
        ..RegionReport::default()
    })
}
