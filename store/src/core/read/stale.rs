//! Reads from any replica that is fresh enough, without asking anybody.
//!
//! A replica is as fresh as the newest claim of its leader that it has caught up with
//! ([`GroupView::fresh`]); where its group slept, as fresh as the beats then said ([`Vigil`]). How old
//! that is, two clocks tell, and the greater age counts: placement's, which may be ahead of what
//! this store believes by as much as an answer takes, so its latest possible reading is taken; and
//! the local one, since it was heard. So a clock that jumps at placement makes nothing younger.
//!
//! [`GroupView::fresh`]: quorate_consensus::view::GroupView::fresh
//! [`Vigil`]: quorate_consensus::vigil::Vigil

use std::time::Duration;

use quorate_consensus::time::Instant;
use quorate_consensus::view::{Fresh, Slept};
use quorate_consensus::vigil::{Vouched, agreed};
use quorate_proto::wire::kvrpcpb::Context;
use quorate_proto::{NodeId, Role};

use super::{Admitted, Grant, Pass, ReadPath, RegionError};

/// What the age of a replica is told by.
pub struct StaleClock<'a> {
    /// The local clock.
    pub now: Instant,
    /// Placement's clock (ms), never behind it; 0 where it is not known.
    pub latest_ms: u64,
    /// What beats say of a group that slept here then.
    pub vouched: &'a dyn Fn(Slept) -> Option<Vouched>,
}

impl ReadPath {
    /// Admits a read from this replica if it is not older than `bound`.
    ///
    /// # Errors
    /// [`RegionError::DataIsNotReady`] where it is, or cannot tell; otherwise what the client must
    /// look up again.
    pub fn admit_stale(
        &self,
        context: &Context,
        bound: Duration,
        clock: &StaleClock<'_>,
    ) -> Result<Pass, RegionError> {
        let admitted = self.directory.admit(context)?;
        let fresh = freshness(&admitted, clock);
        if fresh.time_ms == 0 || clock.latest_ms == 0 {
            return Err(too_old(&admitted, 0));
        }
        let by_placement = Duration::from_millis(clock.latest_ms.saturating_sub(fresh.time_ms));
        let age = by_placement.max(clock.now.since(fresh.heard));
        match bound.checked_sub(age) {
            Some(left) => Ok(Pass { admitted, grant: Grant::Fresh(clock.now + left) }),
            None => Err(too_old(&admitted, fresh.time_ms)),
        }
    }
}

fn freshness(admitted: &Admitted, clock: &StaleClock<'_>) -> Fresh {
    let (fresh, slept) = admitted.local.view().age();
    if slept.until == 0 {
        return fresh;
    }
    let Some(vouched) = (clock.vouched)(slept) else { return fresh };
    let voters = admitted.region.peers.iter().filter(|peer| peer.role == Role::Voter);
    let voters: Vec<NodeId> = voters.map(|peer| peer.store.into()).collect();
    let time_ms = agreed(&vouched.times, &voters);
    if time_ms > fresh.time_ms { Fresh { time_ms, heard: vouched.heard } } else { fresh }
}

pub(super) fn too_old(admitted: &Admitted, fresh_ms: u64) -> RegionError {
    let (region, peer) = (admitted.region.id, admitted.local.peer());
    RegionError::DataIsNotReady { region, peer, fresh_ms }
}
