//! The scheduler *balance-region*: spreads replicas over stores, by count and then by size.
//!
//! Abstract problem: stores hold replicas of different sizes; a replica may move to a store that
//! has none of its region, that the rules and the limits allow, and where its group is isolated no
//! worse. Wanted: counts that differ by no more than a tolerance, then bytes that do; in few moves,
//! each of which copies a region.
//!
//! **By count**: from a store that expects more replicas to one that expects fewer, where they
//! differ by more than the tolerance (never less than one). Among the replicas that may go, a
//! follower goes before a leader, and then the one whose size brings the stores' bytes closest.
//! **By size**, once no move by count is possible and none is under way: from the store with more
//! bytes to one with fewer, where they differ by more than the tolerance and more than a floor. The
//! replica is at most four fifths of the difference, and the counts stay within their tolerance;
//! where they cannot be brought there at all, they must not come further apart.
//!
//! Let *U* be 0 while all counts are within the tolerance, else the sum of their squares, and *B*
//! the sum of the squared bytes. A move by count lowers *U*; a move by size keeps *U* or lowers it,
//! and lowers *B*. So (*U*, *B*) falls with every move, none can be undone by the next plan, and
//! planning ends. Where the counts leave no room for a move by size, a large replica is **swapped**
//! for a small one: two drafts that are one step, since both are begun, and count, at once.
//!
//! Hot regions count, but only hot-region moves them; colder ones make up for them.

use quorate_consensus::time::Instant;
use quorate_proto::StoreId;

use super::candidate::{Hindrance, Search};
use super::sheet::Sheet;
use crate::core::operators::{Goal, Refused};
use crate::core::policy::Tolerances;
use crate::core::rule::RuleRole;
use crate::core::tree::RegionInfo;
use crate::core::view::Tally;

/// The scheduler's name.
pub const NAME: &str = "balance-region";
/// Moves by size that are drafted at a time: sizes are told roughly, so see what they did first.
const MOVES_BY_SIZE: usize = 4;
/// Replicas below this size, and less than twice as large as what is swapped for them, are not
/// worth a move.
const LEAST_BYTES: u64 = 8 * MIB;
const MIB: u64 = 1024 * 1024;
/// Largest part of a difference in bytes that one move makes up for: a replica as large as the
/// difference would only turn it round.
const PART_OF_DIFFERENCE: f64 = 0.8;

/// The stores that replicas may be moved between, and when that is done.
struct Scale {
    stores: Vec<StoreId>,
    /// By how many replicas two of them may differ.
    tolerated: usize,
    /// By how many bytes.
    tolerated_bytes: u64,
}

/// Drafts moves; what it did, or why it did nothing.
pub(super) fn plan(sheet: &mut Sheet<'_>, search: &mut Search, now: Instant) -> String {
    search.forget(now);
    let rules = &sheet.view.policy.rules;
    let eligible = sheet.view.stores.iter().filter(|(_, store)| {
        // One that no rule lets vote is never even with the others.
        store.is_eligible() && rules.may_use(RuleRole::Voters, &store.store.labels)
    });
    let stores: Vec<StoreId> = eligible.map(|(id, _)| *id).collect();
    if stores.len() < 2 {
        return "fewer than two stores are up and have told what they lead".to_owned();
    }
    let tallies: Vec<Tally> = stores.iter().map(|id| sheet.tallies.of(*id)).collect();
    let mean = |sum: f64| sum / tallies.len() as f64;
    let replicas = mean(tallies.iter().map(|tally| tally.replicas as f64).sum());
    let bytes = mean(tallies.iter().map(|tally| tally.bytes as f64).sum());
    let balance = sheet.view.policy.balance;
    let scale = Scale {
        stores,
        tolerated: Tolerances::counts(balance.replicas, replicas),
        tolerated_bytes: ((bytes * balance.bytes) as u64).max(balance.bytes_floor),
    };
    let mut hindrance = None;
    let by_count = move_by_count(sheet, &scale, search, &mut hindrance);
    let by_size = if sheet.moves_anything() { 0 } else { move_by_size(sheet, &scale, search) };
    scale.in_words(sheet, by_count, by_size, hindrance)
}

impl Scale {
    /// Ascending by what is asked for.
    fn order<T: Ord>(&self, sheet: &Sheet<'_>, by: impl Fn(&Tally) -> T) -> Vec<(T, StoreId)> {
        let keyed = self.stores.iter().map(|id| (by(&sheet.tallies.of(*id)), *id));
        let mut order: Vec<(T, StoreId)> = keyed.collect();
        order.sort_unstable();
        order
    }

    /// The smallest and the largest count.
    fn counts(&self, sheet: &Sheet<'_>) -> (usize, usize) {
        let counts = self.stores.iter().map(|id| sheet.tallies.of(*id).replicas);
        (counts.clone().min().unwrap_or_default(), counts.max().unwrap_or_default())
    }

    fn in_words(
        &self,
        sheet: &Sheet<'_>,
        by_count: usize,
        by_size: usize,
        hindrance: Hindrance,
    ) -> String {
        let (least, most) = self.counts(sheet);
        let spread =
            format!("stores have {least} to {most} replicas, {} apart is even", self.tolerated);
        let even = most - least <= self.tolerated;
        match hindrance {
            _ if by_count > 0 => format!("moves {by_count} replicas; then {spread}"),
            _ if by_size > 0 => format!("moves {by_size} replicas for their size; {spread}"),
            _ if even => spread,
            _ if !sheet.view.may_move => format!("{spread}; {}", Refused::OldVersion),
            _ if sheet.moves_left() == 0 => format!("{spread}; waits for the moves under way"),
            Some((store, why)) => format!("{spread}; no replica may move: {store} {why}"),
            None => {
                format!("{spread}; no replica may move: their regions are busy, hot or not well")
            }
        }
    }
}

fn move_by_count(
    sheet: &mut Sheet<'_>,
    scale: &Scale,
    search: &mut Search,
    hindrance: &mut Hindrance,
) -> usize {
    let mut moved = 0;
    while sheet.moves_left() > 0 {
        let Some((from, to, info)) = next_by_count(sheet, scale, search, hindrance) else {
            break;
        };
        let (has, gets) = (sheet.tallies.of(from).replicas, sheet.tallies.of(to).replicas);
        let reason = format!("{from} has {has} replicas, {to} has {gets}");
        sheet.draft(NAME, info, Goal::MoveReplica { from, to }, reason);
        moved += 1;
    }
    moved
}

/// A possible move between the two stores that differ most.
fn next_by_count<'a>(
    sheet: &Sheet<'a>,
    scale: &Scale,
    search: &mut Search,
    hindrance: &mut Hindrance,
) -> Option<(StoreId, StoreId, &'a RegionInfo)> {
    let order = scale.order(sheet, |tally| tally.replicas);
    for (has, from) in order.iter().rev() {
        for (gets, to) in &order {
            let apart = has.saturating_sub(*gets);
            if apart <= scale.tolerated {
                break;
            }
            let (a, b) = (sheet.tallies.of(*from), sheet.tallies.of(*to));
            // What each of the moves to come would have to carry.
            let wanted = a.bytes.saturating_sub(b.bytes) / apart as u64;
            match search.any(sheet, *from, *to, wanted) {
                Ok(info) => return Some((*from, *to, info)),
                Err(why) if hindrance.is_none() => *hindrance = why,
                Err(_) => {}
            }
        }
    }
    None
}

/// A step by size: a replica that goes, and perhaps one that comes back for it.
struct Step<'a> {
    from: StoreId,
    to: StoreId,
    large: &'a RegionInfo,
    small: Option<&'a RegionInfo>,
}

fn move_by_size(sheet: &mut Sheet<'_>, scale: &Scale, search: &mut Search) -> usize {
    let mut moved = 0;
    while moved < MOVES_BY_SIZE && sheet.moves_left() > 1 {
        let Some(Step { from, to, large, small }) = next_by_size(sheet, scale, search) else {
            break;
        };
        let mib = |store| sheet.tallies.of(store).bytes / MIB;
        let reason = format!("{from} has {} MiB, {to} has {} MiB", mib(from), mib(to));
        if let Some(small) = small {
            let reason = format!("{reason}; swapped for a replica of {}", large.region.id);
            sheet.draft(NAME, small, Goal::MoveReplica { from: to, to: from }, reason);
        }
        sheet.draft(NAME, large, Goal::MoveReplica { from, to }, reason);
        moved += 1;
    }
    moved
}

fn next_by_size<'a>(sheet: &Sheet<'a>, scale: &Scale, search: &mut Search) -> Option<Step<'a>> {
    let (least, most) = scale.counts(sheet);
    let even = most - least <= scale.tolerated;
    let order = scale.order(sheet, |tally| tally.bytes);
    for (has, from) in order.iter().rev() {
        for (gets, to) in &order {
            let apart = has.saturating_sub(*gets);
            if apart <= scale.tolerated_bytes {
                break;
            }
            let (a, b) = (sheet.tallies.of(*from).replicas, sheet.tallies.of(*to).replicas);
            let alone = if even {
                // The two counts afterwards, against all others.
                let least = least.min(a.saturating_sub(1));
                let most = most.max(b + 1);
                most - least <= scale.tolerated
            } else {
                a > b
            };
            let small = if alone { None } else { search.any(sheet, *to, *from, 0).ok() };
            if !alone && small.is_none() {
                continue;
            }
            let back = small.map_or(0, |small| small.stats.bytes);
            let most_bytes = (apart as f64 * PART_OF_DIFFERENCE) as u64 + back;
            let least_bytes = LEAST_BYTES.max(2 * back);
            let sizes = least_bytes..=most_bytes;
            if let Some(large) = search.sized(sheet, *from, *to, apart / 2 + back, sizes) {
                return Some(Step { from: *from, to: *to, large, small });
            }
        }
    }
    None
}
