//! The search for a replica that may move from one store to another.
//!
//! It looks at every replica of a store, so its failures are remembered for [`FORGET`]: where the
//! rules or the failure domains let nothing move between two uneven stores, that is not found out
//! anew with every plan. What can change from one moment to the next, the state of the stores and
//! their limits, is asked each time.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use quorate_consensus::time::Instant;
use quorate_proto::{Role, StoreId};

use super::sheet::{Sheet, spread};
use crate::core::filter::{Filtered, cannot_get, cannot_give, cannot_hold, closer};
use crate::core::rule::RuleRole;
use crate::core::tree::RegionInfo;

/// Replicas that are compared to find the one that fits best.
const COMPARED: usize = 64;
/// How long a search that found nothing is not made again.
pub(super) const FORGET: Duration = Duration::from_secs(3);

/// What stood in the way of a move, where anything did that has a name.
pub(super) type Hindrance = Option<(StoreId, Filtered)>;

/// What is searched for: any replica, or one of the wanted sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum For {
    Any,
    Size,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Search {
    now: Instant,
    in_vain: BTreeMap<(StoreId, StoreId, For), (Instant, Hindrance)>,
}

impl Search {
    /// Lets time pass.
    pub(super) fn forget(&mut self, now: Instant) {
        self.now = now;
        self.in_vain.retain(|_, (at, _)| now.since(*at) < FORGET);
    }

    /// Of the replicas that may move from one store to the other, a follower before a leader, and
    /// the one whose size is nearest to the wanted one.
    ///
    /// # Errors
    /// What stood in the way.
    pub(super) fn any<'a>(
        &mut self,
        sheet: &Sheet<'a>,
        from: StoreId,
        to: StoreId,
        wanted: u64,
    ) -> Result<&'a RegionInfo, Hindrance> {
        self.search(sheet, (from, to, For::Any), wanted, 0..=u64::MAX)
    }

    /// As [`Search::any`], of those with one of these sizes.
    pub(super) fn sized<'a>(
        &mut self,
        sheet: &Sheet<'a>,
        from: StoreId,
        to: StoreId,
        wanted: u64,
        sizes: RangeInclusive<u64>,
    ) -> Option<&'a RegionInfo> {
        // Where none may move at all, none of that size may.
        if self.in_vain.contains_key(&(from, to, For::Any)) {
            return None;
        }
        self.search(sheet, (from, to, For::Size), wanted, sizes).ok()
    }

    fn search<'a>(
        &mut self,
        sheet: &Sheet<'a>,
        what: (StoreId, StoreId, For),
        wanted: u64,
        sizes: RangeInclusive<u64>,
    ) -> Result<&'a RegionInfo, Hindrance> {
        if let Some((_, hindrance)) = self.in_vain.get(&what) {
            return Err(hindrance.clone());
        }
        let (from, to, _) = what;
        let view = sheet.view;
        if let Some(why) = cannot_give(view, &view.stores[&from], &sheet.tallies.of(from)) {
            return Err(Some((from, why)));
        }
        if let Some(why) = cannot_get(view, &view.stores[&to], &sheet.tallies.of(to), 0) {
            return Err(Some((to, why)));
        }
        let found = look(sheet, from, to, wanted, &sizes);
        if let Err(hindrance) = &found {
            self.in_vain.insert(what, (self.now, hindrance.clone()));
        }
        found
    }
}

fn look<'a>(
    sheet: &Sheet<'a>,
    from: StoreId,
    to: StoreId,
    wanted: u64,
    sizes: &RangeInclusive<u64>,
) -> Result<&'a RegionInfo, Hindrance> {
    let view = sheet.view;
    let (source, target, gets) = (&view.stores[&from], &view.stores[&to], sheet.tallies.of(to));
    let mut hindrance = None;
    let mut found = Vec::new();
    for at in spread(source.replicas.len()) {
        let info = view.regions[source.replicas[at] as usize].info.as_ref();
        let votes = info.region.peer_on(from).is_some_and(|peer| peer.role == Role::Voter);
        if !votes
            || !sizes.contains(&info.stats.bytes)
            || !sheet.is_movable(info)
            || !sheet.may_leave(info, from)
        {
            continue;
        }
        let role = RuleRole::Voters;
        let why = cannot_hold(view, info, to, role, Some(from))
            .or_else(|| closer(view, info, from, to, role))
            .or_else(|| cannot_get(view, target, &gets, info.stats.bytes));
        match why {
            None => found.push(info),
            // Nothing that anybody could change.
            Some(Filtered::HasReplica) => {}
            Some(why) => hindrance = Some((to, why)),
        }
        if found.len() == COMPARED {
            break;
        }
    }
    let leads = |info: &RegionInfo| info.leader.is_some_and(|leader| leader.store == from);
    found
        .into_iter()
        .min_by_key(|info| {
            let lately = sheet.lately.contains_key(&info.region.id);
            (lately, leads(info), info.stats.bytes.abs_diff(wanted), info.region.id)
        })
        .ok_or(hindrance)
}
