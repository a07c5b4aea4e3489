//! Why a store is not eligible, and which of the eligible ones is best.
//!
//! Filters come in two kinds. Those of the **store** alone: its state, its disk, its limits. And
//! those of the **region** on it: it has a replica already, the rules do not want one there, the
//! replicas would stand closer together. Each says why in words, so that a checker which finds no
//! store can tell what to change.
//!
//! Where a replica is repaired, isolation only orders the stores that are left: three replicas in
//! two zones are better than two in two. Where one is moved for balance, it may never get worse.

use std::cmp::Reverse;
use std::fmt;

use quorate_proto::{Peer, StoreId};

use super::labels::{Isolation, Location};
use super::rule::RuleRole;
use super::rule::fit::{fit, role_of, wants};
use super::stores::StoreState;
use super::tree::RegionInfo;
use super::view::{ClusterView, StoreView, Tally};

/// Why a store gets no replica, or gives none.
#[derive(Clone, Debug, PartialEq)]
pub enum Filtered {
    /// It is not up.
    State(StoreState),
    /// It has not told yet what it leads.
    Unheard,
    /// It stops.
    Stopping,
    /// Too little of its disk is free.
    NearlyFull {
        /// Bytes free.
        available: u64,
        /// Bytes in all.
        capacity: u64,
    },
    /// Its tokens for additions are spent.
    Additions {
        /// Full regions a minute.
        per_minute: f64,
    },
    /// Its tokens for removals are spent.
    Removals {
        /// Full regions a minute.
        per_minute: f64,
    },
    /// Too many snapshots are on their way to or from it.
    Snapshots(u32),
    /// Too many replicas are on their way to it.
    Arriving(usize),
    /// A replica of the region has failed to join there.
    Failed {
        /// So often in a row.
        times: u32,
        /// It is not tried again for so many milliseconds.
        rests_ms: u64,
    },
    /// It has a replica of the region.
    HasReplica,
    /// The placement rules want no such replica there.
    Unwanted,
    /// The replicas would stand closer together.
    Isolation {
        /// On this level.
        level: String,
    },
}

impl Filtered {
    /// True for what stays so until somebody changes it.
    pub(crate) fn lasts(&self) -> bool {
        match self {
            Filtered::NearlyFull { .. }
            | Filtered::HasReplica
            | Filtered::Unwanted
            | Filtered::Isolation { .. } => true,
            Filtered::State(_)
            | Filtered::Unheard
            | Filtered::Stopping
            | Filtered::Failed { .. }
            | Filtered::Additions { .. }
            | Filtered::Removals { .. }
            | Filtered::Snapshots(_)
            | Filtered::Arriving(_) => false,
        }
    }

    /// True for what passes by itself within minutes, so that waiting is better than a worse place.
    pub(super) fn passes(&self) -> bool {
        match self {
            Filtered::Additions { .. }
            | Filtered::Removals { .. }
            | Filtered::Snapshots(_)
            | Filtered::Arriving(_) => true,
            Filtered::State(_)
            | Filtered::Unheard
            | Filtered::Stopping
            | Filtered::NearlyFull { .. }
            | Filtered::Failed { .. }
            | Filtered::HasReplica
            | Filtered::Unwanted
            | Filtered::Isolation { .. } => false,
        }
    }
}

impl fmt::Display for Filtered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Filtered::State(state) => write!(f, "is {}", state.name()),
            Filtered::Unheard => f.write_str("has not told yet what it leads"),
            Filtered::Stopping => f.write_str("is stopping"),
            Filtered::NearlyFull { available, capacity } => {
                let mib = |bytes: &u64| bytes / (1024 * 1024);
                write!(f, "has {} of {} MiB free", mib(available), mib(capacity))
            }
            Filtered::Additions { per_minute } => {
                write!(f, "has got its {per_minute} full regions a minute")
            }
            Filtered::Removals { per_minute } => {
                write!(f, "has given its {per_minute} full regions a minute")
            }
            Filtered::Snapshots(count) => write!(f, "is busy with {count} snapshots"),
            Filtered::Arriving(count) => write!(f, "has {count} replicas on their way to it"),
            Filtered::Failed { times, rests_ms } => {
                let seconds = rests_ms.div_ceil(1_000);
                write!(f, "could not take a replica of it {times} times, rests for {seconds} s")
            }
            Filtered::HasReplica => f.write_str("has a replica already"),
            Filtered::Unwanted => f.write_str("is not where the placement rules want a replica"),
            Filtered::Isolation { level } => {
                write!(f, "stands closer to the other replicas by {level}")
            }
        }
    }
}

/// Stores and why each is not eligible, as one sentence for people.
pub fn in_words(filtered: &[(StoreId, Filtered)]) -> String {
    if filtered.is_empty() {
        return "there is no other store".to_owned();
    }
    filtered.iter().map(|(store, why)| format!("{store} {why}")).collect::<Vec<_>>().join(", ")
}

/// Why no replica of that size may go to a store.
pub fn cannot_get(
    view: &ClusterView,
    store: &StoreView,
    tally: &Tally,
    bytes: u64,
) -> Option<Filtered> {
    if store.state != StoreState::Up {
        return Some(Filtered::State(store.state));
    }
    if !store.complete {
        return Some(Filtered::Unheard);
    }
    if store.stopping {
        return Some(Filtered::Stopping);
    }
    let (capacity, available) = (store.stats.capacity_bytes, store.stats.available_bytes);
    let reserve = (capacity as f64 * view.policy.min_free) as u64;
    // A store that does not tell its capacity is not full.
    if capacity > 0 && available < reserve.saturating_add(bytes) {
        return Some(Filtered::NearlyFull { available, capacity });
    }
    if store.stats.snapshots_receiving >= view.rates.snapshots {
        return Some(Filtered::Snapshots(store.stats.snapshots_receiving));
    }
    if tally.incoming >= view.rates.arriving {
        return Some(Filtered::Arriving(tally.incoming));
    }
    if tally.additions <= 0.0 {
        return Some(Filtered::Additions { per_minute: view.rates.additions });
    }
    None
}

/// Why no replica may leave a store for balance.
pub fn cannot_give(view: &ClusterView, store: &StoreView, tally: &Tally) -> Option<Filtered> {
    if store.state != StoreState::Up {
        Some(Filtered::State(store.state))
    } else if !store.complete {
        Some(Filtered::Unheard)
    } else if store.stopping {
        Some(Filtered::Stopping)
    } else if tally.removals <= 0.0 {
        Some(Filtered::Removals { per_minute: view.rates.removals })
    } else {
        None
    }
}

/// Why a store may not hold a replica in that role, whatever state it is in, or could not take one
/// lately. `replacing` goes.
pub fn cannot_hold(
    view: &ClusterView,
    info: &RegionInfo,
    store: StoreId,
    role: RuleRole,
    replacing: Option<StoreId>,
) -> Option<Filtered> {
    if info.region.peer_on(store).is_some() {
        return Some(Filtered::HasReplica);
    }
    if let Some((times, rests_ms)) = view.failed.get(&(info.region.id, store)).copied() {
        return Some(Filtered::Failed { times, rests_ms });
    }
    let others = info.region.peers.iter().filter(|peer| Some(peer.store) != replacing);
    (!wants(view.rules_of(info), role, others, store, view)).then_some(Filtered::Unwanted)
}

/// What a replica on `store` adds to the isolation of the others of its role, without `replacing`.
pub fn isolation_on(
    view: &ClusterView,
    info: &RegionInfo,
    store: StoreId,
    role: RuleRole,
    replacing: Option<StoreId>,
) -> Isolation {
    let others = info.region.peers.iter().filter(|peer| {
        role_of(peer) == role && peer.store != store && Some(peer.store) != replacing
    });
    let places = others.map(|peer| view.location(peer.store));
    Isolation::of(&view.location(store), places)
}

/// Why a replica may not go from one store to another for balance: its group would stand closer
/// together.
pub fn closer(
    view: &ClusterView,
    info: &RegionInfo,
    from: StoreId,
    to: StoreId,
    role: RuleRole,
) -> Option<Filtered> {
    let now = isolation_on(view, info, from, role, None);
    let then = isolation_on(view, info, to, role, Some(from));
    worse(view, &then, &now)
}

/// Why a replica may not stand as in `then`: that is worse than as in `now`.
pub(super) fn worse(view: &ClusterView, then: &Isolation, now: &Isolation) -> Option<Filtered> {
    let level = then.worse_at(now)?;
    let level = view.policy.levels.names().get(level).cloned().unwrap_or_default();
    Some(Filtered::Isolation { level })
}

/// Why a store does not take a replica in that role now. What can never be comes first, so that people
/// are told that.
pub(super) fn hindrance(
    view: &ClusterView,
    info: &RegionInfo,
    there: &StoreView,
    role: RuleRole,
    replacing: Option<StoreId>,
) -> Option<Filtered> {
    let id = there.store.id;
    cannot_hold(view, info, id, role, replacing)
        .or_else(|| cannot_get(view, there, &view.tallies.of(id), info.stats.bytes))
}

/// The best store for another voter of a region, or for one instead of the voter on `replacing`:
/// the one that isolates the replicas most, then the one with the fewest replicas, then the one
/// with the fewest bytes. Where a store that would isolate them more is only busy for the moment,
/// none is eligible: the replica waits for it.
///
/// # Errors
/// Why each other store is not eligible.
pub fn select_target(
    view: &ClusterView,
    info: &RegionInfo,
    replacing: Option<StoreId>,
) -> Result<StoreId, Vec<(StoreId, Filtered)>> {
    select_target_for(view, info, RuleRole::Voters, replacing)
}

/// As [`select_target`], in either role.
///
/// # Errors
/// Why each other store is not eligible.
pub fn select_target_for(
    view: &ClusterView,
    info: &RegionInfo,
    role: RuleRole,
    replacing: Option<StoreId>,
) -> Result<StoreId, Vec<(StoreId, Filtered)>> {
    let mut filtered = Vec::new();
    let mut best = None;
    let mut awaited = Isolation::default();
    for (id, store) in &view.stores {
        let tally = view.tallies.of(*id);
        let isolation = isolation_on(view, info, *id, role, replacing);
        match hindrance(view, info, store, role, replacing) {
            None => {
                let rank = (Reverse(isolation), tally.replicas, tally.bytes, *id);
                if best.is_none_or(|best| rank < best) {
                    best = Some(rank);
                }
            }
            Some(why) => {
                if why.passes() {
                    awaited = awaited.max(isolation);
                }
                filtered.push((*id, why));
            }
        }
    }
    let best = best.filter(|(Reverse(isolation), ..)| *isolation >= awaited);
    best.map(|(.., store)| store).ok_or(filtered)
}

/// A voter that stands worse than it could, and where it would stand better. The sum over the
/// group grows with each such move, so they end. `None` where nothing is better, or the better
/// store is only busy for the moment.
///
/// Cheap for groups that stand as well as they can: checkers ask it of every region.
pub fn better_isolated(view: &ClusterView, info: &RegionInfo) -> Option<(StoreId, StoreId)> {
    let role = RuleRole::Voters;
    let mut best: Option<(Isolation, StoreId, StoreId)> = None;
    for peer in info.region.peers.iter().filter(|peer| role_of(peer) == role) {
        let from = peer.store;
        let now = isolation_on(view, info, from, role, None);
        let on = |to: StoreId| isolation_on(view, info, to, role, Some(from));
        let could = |to: &StoreId| info.region.peer_on(*to).is_none() && on(*to) > now;
        if !view.stores.keys().any(could) {
            continue;
        }
        let Ok(to) = select_target(view, info, Some(from)) else { continue };
        let then = on(to);
        if then > now && best.is_none_or(|(most, ..)| then > most) {
            best = Some((then, from, to));
        }
    }
    best.map(|(_, from, to)| (from, to))
}

/// The voter to give up where there are more than the rules want: one that no rule needs, on a
/// store that is not up rather than on one that is, then the least isolated, then a follower, then
/// the one on the store with the most replicas. `None` where none is too many.
pub fn select_surplus(view: &ClusterView, info: &RegionInfo) -> Option<StoreId> {
    let rules = view.rules_of(info);
    if fit(rules, &info.region.peers, view).surplus.is_empty() {
        return None;
    }
    let voters = info.region.peers.iter().filter(|peer| role_of(peer) == RuleRole::Voters);
    let spare = voters.filter(|peer| {
        let without: Vec<Peer> =
            info.region.peers.iter().filter(|other| other.id != peer.id).copied().collect();
        fit(rules, &without, view).lacking_voters() == 0
    });
    let worth = |peer: &&Peer| {
        let up = view.stores.get(&peer.store).is_some_and(StoreView::is_eligible);
        let down = info.down.contains(&peer.id);
        let isolation = isolation_on(view, info, peer.store, RuleRole::Voters, None);
        let leads = info.leader.is_some_and(|leader| leader.id == peer.id);
        let replicas = view.tallies.of(peer.store).replicas;
        (up && !down, isolation, leads, Reverse(replicas), peer.store)
    };
    spare.min_by_key(worth).map(|peer| peer.store)
}

/// The isolation of all voters of a region, for people and for tests.
pub fn isolation(view: &ClusterView, info: &RegionInfo) -> Isolation {
    let voters = info.region.peers.iter().filter(|peer| role_of(peer) == RuleRole::Voters);
    let places: Vec<Location> = voters.map(|peer| view.location(peer.store)).collect();
    Isolation::among(&places)
}
