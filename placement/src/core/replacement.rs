//! Where the voters of a store go for which people have named another one.
//!
//! They go there, and wait while it is only busy. They go to the store that is best otherwise where the
//! one that was named cannot take them: it has a replica already, the rules want none there, its disk
//! is full, it is not up, or the replicas would stand closer together than they need to.

use quorate_proto::StoreId;

use super::filter::{Filtered, hindrance, isolation_on, select_target, worse};
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
    match judge(view, info, from, named, best.as_ref().ok()) {
        Err(_) => best,
        Ok(Some(why)) => Err(vec![(named, why)]),
        // Where a store that would isolate them more is busy, this waits for it as everybody does.
        Ok(None) => best.map(|_| named),
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
    let best = select_target(view, info, Some(from)).ok();
    judge(view, info, from, named, best.as_ref()).err()
}

/// What the voter waits for on its way to `named`, if anything; as an error, why it goes elsewhere.
fn judge(
    view: &ClusterView,
    info: &RegionInfo,
    from: StoreId,
    named: StoreId,
    best: Option<&StoreId>,
) -> Result<Option<Filtered>, Filtered> {
    let there = view.stores.get(&named).ok_or(Filtered::Unwanted)?;
    let why = hindrance(view, info, there, ROLE, Some(from));
    if let Some(lasts) = why.clone().filter(|why| !why.passes() && *why != Filtered::Unheard) {
        return Err(lasts);
    }
    let on = |store| isolation_on(view, info, store, ROLE, Some(from));
    match best.and_then(|best| worse(view, &on(named), &on(*best))) {
        Some(worse) => Err(worse),
        None => Ok(why),
    }
}

/// The store that people have named for what is on this one.
fn named(view: &ClusterView, store: StoreId) -> Option<StoreId> {
    match view.stores.get(&store)?.store.life {
        StoreLife::Leaving { to, .. } => to,
        StoreLife::Joining | StoreLife::Active | StoreLife::Left => None,
    }
}
