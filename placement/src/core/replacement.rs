//! Where the voters of a store go for which people have named another one.
//!
//! They go there, and wait while it is only busy. They go to the store that is best otherwise where the
//! one that was named cannot take them: it has a replica already, the rules want none there, its disk
//! is full, it is not up, or the replicas would stand closer together than they need to.

use quorate_proto::StoreId;

use super::filter::{Filtered, cannot_get, cannot_hold, isolation_on, select_target};
use super::rule::RuleRole;
use super::state::StoreLife;
use super::tree::RegionInfo;
use super::view::ClusterView;

const ROLE: RuleRole = RuleRole::Voters;

/// The store for the voter on `from`, as [`select_target`] chooses it where nobody named one.
///
/// # Errors
/// Why each other store is not eligible, or what the named one is busy with.
pub fn select(
    view: &ClusterView,
    info: &RegionInfo,
    from: StoreId,
) -> Result<StoreId, Vec<(StoreId, Filtered)>> {
    let best = select_target(view, info, Some(from));
    let Some(named) = named(view, from) else { return best };
    if why_not(view, info, from, named).is_some() {
        return best;
    }
    match hindrance(view, info, from, named) {
        Some(why) => Err(vec![(named, why)]),
        // Where a store that would isolate them more is busy, this waits for it as everybody does.
        None => best.map(|_| named),
    }
}

/// Why the voter on `from` does not go to `named`, as things are; `None` where it does, perhaps after
/// a while.
pub fn why_not(
    view: &ClusterView,
    info: &RegionInfo,
    from: StoreId,
    named: StoreId,
) -> Option<Filtered> {
    let lasts = |why: &Filtered| !why.passes() && *why != Filtered::Unheard;
    if let Some(why) = hindrance(view, info, from, named).filter(lasts) {
        return Some(why);
    }
    let best = select_target(view, info, Some(from)).ok()?;
    let on = |store| isolation_on(view, info, store, ROLE, Some(from));
    let level = on(named).worse_at(&on(best))?;
    let level = view.policy.levels.names().get(level).cloned().unwrap_or_default();
    Some(Filtered::Isolation { level })
}

/// The store that people have named for what is on this one.
fn named(view: &ClusterView, store: StoreId) -> Option<StoreId> {
    match view.stores.get(&store)?.store.life {
        StoreLife::Leaving { to, .. } => to,
        StoreLife::Joining | StoreLife::Active | StoreLife::Left => None,
    }
}

fn hindrance(
    view: &ClusterView,
    info: &RegionInfo,
    from: StoreId,
    named: StoreId,
) -> Option<Filtered> {
    let Some(store) = view.stores.get(&named) else { return Some(Filtered::Unwanted) };
    cannot_hold(view, info, named, ROLE, Some(from))
        .or_else(|| cannot_get(view, store, &view.tallies.of(named), info.stats.bytes))
}
