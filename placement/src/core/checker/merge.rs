//! The merge checker: small neighbouring regions become one.
//!
//! The smaller one of two is taken in by the larger one, where it is small by bytes and by keys,
//! and both together stay well below the size at which regions are split: at most
//! [`RESULT`] times what a source may be, and less where stores say that they split earlier. So what
//! was merged is not split again for its size, and halves of what was split are too large to be
//! merged. Beyond that, neither has changed its range for a while, neither was split on request lately, the source has next to no load and the target
//! is not hot.
//!
//! Of two neighbours, the one whose leader is on the same store, then the smaller one.
//!
//! **Replicas elsewhere.** Where the two are on different stores, the source moves first, one
//! replica at a time, past the same filters as any move, and never from a store with fewer replicas
//! to one with more. The merge then takes one from each store of the target. Should
//! [balance-region](crate::core::schedule::balance_region) move one back meanwhile, that ends: while
//! a region keeps its range, it moves at most as often as it has replicas. Where there is no such
//! move the two are left alone, with that reason.

use quorate_proto::{RegionId, Role, StoreId};

use super::Verdict;
use crate::core::filter::{cannot_get, cannot_give, cannot_hold, closer};
use crate::core::load::Load;
use crate::core::merge::ages::Ages;
use crate::core::merge::neighbours;
use crate::core::merge::rules::{self, CannotMerge};
use crate::core::operators::{Draft, Goal};
use crate::core::policy::{HotSettings, MergeSettings};
use crate::core::rule::RuleRole;
use crate::core::tree::{RegionInfo, RegionTree};
use crate::core::view::{ClusterView, StoreView};

/// As people know it.
pub const NAME: &str = "merge-checker";
/// Both together hold at most so many times what a source may hold: with the defaults 60 MiB and
/// 600,000 keys, where regions are split at 96 MiB and 960,000 keys.
pub const RESULT: u64 = 3;
/// Where stores split earlier, both together hold less than this part of it: 5 of 8.
const NEAR: (u64, u64) = (8, 5);
/// A source has at most this part of the load from which on a region is hot.
const COLD: f64 = 0.125;

/// What the checker looks at beside the region.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The cluster.
    pub view: &'a ClusterView,
    /// All regions, for the neighbours.
    pub tree: &'a RegionTree,
    /// How long regions have been as they are.
    pub ages: &'a Ages,
    /// Whether a replica of a region is on its way.
    pub on_its_way: &'a dyn Fn(RegionId) -> bool,
    /// Placement time.
    pub now_ms: u64,
}

/// Checks a region as the source of a merge.
pub fn check(around: Surroundings<'_>, source: &RegionInfo) -> Verdict {
    let wanted = &around.view.policy.merge;
    if !wanted.enabled
        || source.is_sentinel()
        || source.merging.is_some()
        || !source.led
        || !is_small(wanted, source)
    {
        return Verdict::Fine;
    }
    let (right, left) = neighbours(around.tree, source);
    let others = [right, left].into_iter().flatten().filter(|info| !info.is_sentinel());
    // The larger one of two takes the smaller one in.
    let mut others: Vec<&RegionInfo> =
        others.filter(|target| rank(source) < rank(target)).collect();
    others.sort_by_key(|target| preference(source, target));
    let mut why = None;
    for target in others {
        match judge(around, wanted, source, target) {
            Ok(draft) => return Verdict::Repair(draft),
            Err(words) => why = why.or(Some(words)),
        }
    }
    why.map_or(Verdict::Fine, Verdict::Stuck)
}

/// True for a draft of this checker that moves a replica of the source towards the target.
pub fn moves_closer(draft: &Draft) -> bool {
    draft.by == NAME && draft.goal.changes_members()
}

/// The better neighbour has the smaller one.
pub fn preference(source: &RegionInfo, target: &RegionInfo) -> (bool, u64, RegionId) {
    let leads = |info: &RegionInfo| info.leader.map(|leader| leader.store);
    (leads(source) != leads(target), target.stats.bytes, target.region.id)
}

fn rank(info: &RegionInfo) -> (u64, u64, RegionId) {
    (info.stats.bytes, info.stats.keys, info.region.id)
}

fn is_small(wanted: &MergeSettings, info: &RegionInfo) -> bool {
    info.stats.bytes <= wanted.max_bytes && info.stats.keys <= wanted.max_keys
}

fn judge(
    around: Surroundings<'_>,
    wanted: &MergeSettings,
    source: &RegionInfo,
    target: &RegionInfo,
) -> Result<Draft, String> {
    let Surroundings { view, ages, on_its_way, now_ms, .. } = around;
    let (id, into) = (source.region.id, target.region.id);
    let bytes = source.stats.bytes.saturating_add(target.stats.bytes);
    let keys = source.stats.keys.saturating_add(target.stats.keys);
    if bytes > wanted.max_bytes.saturating_mul(RESULT)
        || keys > wanted.max_keys.saturating_mul(RESULT)
    {
        return Err(format!("with {into} it would be too large"));
    }
    let mut stores = target.region.peers.iter().filter_map(|peer| view.stores.get(&peer.store));
    let is_near = |size: u64, split: u64| split > 0 && size / NEAR.1 >= split / NEAR.0;
    let splits = |store: &StoreView| {
        is_near(bytes, store.stats.split_bytes) || is_near(keys, store.stats.split_keys)
    };
    if stores.any(splits) {
        return Err(format!("with {into} it would come near the size at which stores split"));
    }
    let checked = rules::check(view, source, target);
    let elsewhere = match checked {
        Ok(()) => false,
        Err(CannotMerge::OtherStores { .. }) => true,
        Err(why) => return Err(why.to_string()),
    };
    if let Some(region) = [id, into].into_iter().find(|region| view.busy.contains(region)) {
        return Err(format!("{region} is busy, or rests after what failed"));
    }
    if let Some(region) = [id, into].into_iter().find(|region| on_its_way(*region)) {
        return Err(CannotMerge::OnItsWay(region).to_string());
    }
    let load = |region| view.region(region).map(|region| region.load).unwrap_or_default();
    if is_above(load(id), &view.policy.hot, COLD) {
        return Err("it has load".to_owned());
    }
    if is_above(load(into), &view.policy.hot, 1.0) {
        return Err(format!("{into} is hot"));
    }
    let boundary = rules::boundary(source, target);
    if boundary.is_some_and(|key| ages.is_requested(key, now_ms)) {
        return Err(format!("it was split from {into} on request lately"));
    }
    if let Some(region) =
        [id, into].into_iter().find(|region| ages.of(*region, now_ms) < wanted.min_age_ms)
    {
        return Err(format!(
            "{region} was not seen with the same range and leader for {} s yet",
            wanted.min_age_ms / 1_000
        ));
    }
    if view.merges >= wanted.at_once {
        return Err(format!("{} merges are under way", view.merges));
    }
    let (region, epoch) = (id, source.region.epoch);
    if elsewhere {
        let (from, to) = step_closer(around, source, target)?;
        let reason = format!("{into}, which is to take it in, is on {to} and not on {from}");
        return Ok(Draft { region, epoch, goal: Goal::MoveReplica { from, to }, by: NAME, reason });
    }
    let reason = format!(
        "it has {} KiB and {} keys, {into} has {} KiB",
        source.stats.bytes / 1024,
        source.stats.keys,
        target.stats.bytes / 1024
    );
    let goal = Goal::MergeInto { target: into, start: source.region.range.start.clone() };
    Ok(Draft { region, epoch, goal, by: NAME, reason })
}

fn is_above(load: Load, hot: &HotSettings, part: f64) -> bool {
    load.writes() >= hot.min_writes * part || load.read_keys >= hot.min_reads * part
}

/// A move of one replica of the source to a store of the target that leaves the stores even.
fn step_closer(
    Surroundings { view, ages, .. }: Surroundings<'_>,
    source: &RegionInfo,
    target: &RegionInfo,
) -> Result<(StoreId, StoreId), String> {
    let into = target.region.id;
    let (here, there) = (rules::stores(source), rules::stores(target));
    if ages.moves(source) >= here.len() {
        return Err(format!("{into} is on other stores, and moves towards them did not help"));
    }
    let votes = |info: &RegionInfo, store: &StoreId| {
        info.region.peer_on(*store).is_some_and(|peer| peer.role == Role::Voter)
    };
    let replicas = |store: &StoreId| view.tallies.of(*store).replicas;
    let mut from: Vec<StoreId> =
        here.difference(&there).copied().filter(|store| votes(source, store)).collect();
    from.sort_by_key(|store| (std::cmp::Reverse(replicas(store)), *store));
    let mut to: Vec<StoreId> =
        there.difference(&here).copied().filter(|store| votes(target, store)).collect();
    to.sort_by_key(|store| (replicas(store), *store));
    for from in &from {
        for to in &to {
            let (gives, gets) = (view.tallies.of(*from), view.tallies.of(*to));
            // Well within what balance-region tolerates in bytes.
            let slack = view.policy.balance.bytes_floor / 2;
            let evens = gets.replicas <= gives.replicas && gets.bytes <= gives.bytes + slack;
            let (Some(giver), Some(taker)) = (view.stores.get(from), view.stores.get(to)) else {
                continue;
            };
            let role = RuleRole::Voters;
            let hindered = cannot_hold(view, source, *to, role, Some(*from))
                .or_else(|| closer(view, source, *from, *to, role))
                .or_else(|| cannot_get(view, taker, &gets, source.stats.bytes))
                .or_else(|| cannot_give(view, giver, &gives));
            if evens && hindered.is_none() {
                return Ok((*from, *to));
            }
        }
    }
    Err(format!(
        "{into} is on other stores, and no move towards them would leave the stores even and the \
         replicas as far apart"
    ))
}
