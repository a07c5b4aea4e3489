//! The scheduler *hot-region*: spreads the regions that make most of the work.
//!
//! Abstract problem: a load is a vector (writes, reads, processor time), each part divided by what a
//! store has of it on average, so that 1 is a fair share. A hot region *r* with load *v(r)* puts it
//! on the store that leads it, and 1/n of it, for n voters, on each store that could lead it next.
//! With *H(s)* and *P(s)* the sums over the hot regions of a store, wanted is a small
//! Φ = Σ |H(s)|² + Σ |P(s)|².
//!
//! Moving the leadership of *v* from A to B changes Φ by 2·(|v|² − v·(H(A) − H(B))) and leaves P
//! alone; moving a follower changes the second sum alike and leaves H alone. A move is made only
//! where `(1 − margin)·v·(H(A) − H(B)) ≥ |v|²`, so Φ falls by more than the rates can be wrong, and
//! where the two stores differ by `gap` along *v*. Leaders are moved first, the one that gains most;
//! followers only when no leader can be. A region that was moved rests for [`REST`].
//!
//! **Hot** is a region with a tenth of a store's mean load in some part. Work that is spread over
//! many regions is evened out by their counts. The other schedulers leave hot regions alone, so
//! they do not undo this one's moves; it leaves cold ones alone, whose load is in neither sum.
//!
//! Where a hot region is under way or was just changed, its load is not where the sums have it: no
//! move is made until that has ended, nor before the same regions have been hot for [`SETTLED`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_consensus::time::Instant;
use quorate_proto::{RegionId, Role, StoreId};

use super::sheet::{MAX_TRANSFERS, Sheet};
use crate::core::filter::{cannot_get, cannot_hold, closer};
use crate::core::load::Load;
use crate::core::operators::Goal;
use crate::core::rule::RuleRole;
use crate::core::tree::RegionInfo;
use crate::core::view::ClusterView;

/// The scheduler's name.
pub const NAME: &str = "hot-region";
/// How long a region is left alone after this scheduler moved it: three times the memory of a rate.
pub const REST: Duration = Duration::from_secs(180);
/// How long the same regions must have been hot: load that rises everywhere does not pass the bound
/// everywhere at once.
pub const SETTLED: Duration = Duration::from_secs(30);
/// Moves drafted at a time: see what they did first.
const MOVES: usize = 4;
/// Kinds of load: writes, reads, processor time.
const KINDS: usize = 3;
const WORDS: [&str; KINDS] = ["writes", "reads", "processor time"];

/// A load, in fair shares of a store.
type Vector = [f64; KINDS];

fn dot(a: &Vector, b: &Vector) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn minus(a: &Vector, b: &Vector) -> Vector {
    std::array::from_fn(|kind| a[kind] - b[kind])
}

fn scaled(a: &Vector, by: f64) -> Vector {
    a.map(|part| part * by)
}

/// What the scheduler remembers between plans.
#[derive(Debug, Default)]
pub(super) struct HotRegion {
    hot: BTreeMap<RegionId, Vector>,
    /// Since when these are the hot ones.
    since: Instant,
    moved: BTreeMap<RegionId, Instant>,
}

impl HotRegion {
    /// Looks for hot regions in the picture. Those of the time before stay hot down to half of
    /// what makes one.
    pub(super) fn look(&mut self, view: &ClusterView, now: Instant) {
        self.moved.retain(|_, at| now.since(*at) < REST);
        let before = std::mem::take(&mut self.hot);
        let stores = view.stores.values().filter(|store| store.is_eligible()).count();
        if stores == 0 {
            return;
        }
        let settings = view.policy.hot;
        let least = [settings.min_writes, settings.min_reads, settings.min_cores];
        let cores = cores_per_work(view);
        let loads = |load: &Load| [load.writes(), load.read_keys, load.work() * cores];
        let mut mean = [0.0; KINDS];
        for region in &view.regions {
            let load = loads(&region.load);
            mean = std::array::from_fn(|kind| mean[kind] + load[kind] / stores as f64);
        }
        let bound: Vector =
            std::array::from_fn(|kind| least[kind].max(mean[kind] * settings.share));
        let mut active = [false; KINDS];
        let mut found = Vec::new();
        for region in &view.regions {
            let load = loads(&region.load);
            let id = region.info.region.id;
            let factor = if before.contains_key(&id) { 0.5 } else { 1.0 };
            let by: [bool; KINDS] = std::array::from_fn(|kind| load[kind] >= bound[kind] * factor);
            if by.contains(&true) {
                active = std::array::from_fn(|kind| active[kind] || by[kind]);
                found.push((id, load));
            }
        }
        // A kind by which no region is hot says nothing about where they should be.
        let shares = |load: Vector| -> Vector {
            std::array::from_fn(|kind| if active[kind] { load[kind] / mean[kind] } else { 0.0 })
        };
        self.hot = found.into_iter().map(|(id, load)| (id, shares(load))).collect();
        if !self.hot.keys().eq(before.keys()) {
            self.since = now;
        }
    }

    /// The hot regions.
    pub(super) fn regions(&self) -> BTreeSet<RegionId> {
        self.hot.keys().copied().collect()
    }

    /// Drafts moves; what it did, or why it did nothing.
    pub(super) fn plan(&mut self, sheet: &mut Sheet<'_>, now: Instant) -> String {
        if self.hot.is_empty() {
            return "no region is hot".to_owned();
        }
        let count = self.hot.len();
        if let Some(busy) = self.hot.keys().find(|id| sheet.view.busy.contains(id)) {
            return format!("{count} regions are hot; waits for {busy}, which is being changed");
        }
        if now.since(self.since) < SETTLED {
            return format!("{count} regions are hot; waits until it is clear which ones are");
        }
        let mut scale = Scale::of(sheet.view, &self.hot);
        let mut moved = 0;
        while moved < MOVES {
            let leader = if sheet.transfers_left(MAX_TRANSFERS) > 0 {
                self.best_transfer(sheet, &scale)
            } else {
                None
            };
            let follower = || {
                let room = moved == 0 && sheet.moves_left() > 0;
                if room { self.best_move(sheet, &scale) } else { None }
            };
            let Some(best) = leader.or_else(follower) else { break };
            let reason = best.in_words();
            let Move { info, from, to, load, lead, .. } = best;
            let goal = if lead {
                scale.lead.shift(from, to, &load);
                Goal::TransferLeader { from, to }
            } else {
                scale.replica.shift(from, to, &load);
                Goal::MoveReplica { from, to }
            };
            sheet.draft(NAME, info, goal, reason);
            self.moved.insert(info.region.id, now);
            moved += 1;
        }
        match moved {
            0 => format!("{count} regions are hot; no move would even them out noticeably"),
            moved => format!("{count} regions are hot; moves {moved}"),
        }
    }

    fn candidates<'a>(&self, sheet: &Sheet<'a>) -> impl Iterator<Item = (&'a RegionInfo, Vector)> {
        self.hot.iter().filter_map(|(id, load)| {
            let info = sheet.view.region(*id)?.info.as_ref();
            (sheet.is_free(info) && !self.moved.contains_key(id)).then_some((info, *load))
        })
    }

    /// The transfer of leadership that lowers Φ most.
    fn best_transfer<'a>(&self, sheet: &Sheet<'a>, scale: &Scale) -> Option<Move<'a>> {
        let mut best = None;
        for (info, load) in self.candidates(sheet) {
            let Some(from) = leader_of(info) else { continue };
            for to in sheet.leading_stores().filter(|to| *to != from && info.can_lead_on(*to)) {
                let gain = scale.lead.gain(sheet.view, from, to, &load);
                consider(&mut best, Move { info, from, to, load, gain, lead: true });
            }
        }
        best
    }

    /// The move of a follower that lowers Φ most.
    fn best_move<'a>(&self, sheet: &Sheet<'a>, scale: &Scale) -> Option<Move<'a>> {
        let (view, role) = (sheet.view, RuleRole::Voters);
        let mut best = None;
        for (info, load) in self.candidates(sheet) {
            let voters = info.region.peers.iter().filter(|peer| peer.role == Role::Voter);
            let load = scaled(&load, 1.0 / voters.clone().count().max(1) as f64);
            let followers = voters.map(|peer| peer.store).filter(|id| Some(*id) != leader_of(info));
            for from in followers.filter(|from| sheet.may_leave(info, *from)) {
                for (to, store) in &view.stores {
                    let tally = sheet.tallies.of(*to);
                    let gain = scale.replica.gain(view, from, *to, &load);
                    // The cheap question first: most moves gain nothing.
                    if gain.is_some()
                        && cannot_get(view, store, &tally, info.stats.bytes).is_none()
                        && cannot_hold(view, info, *to, role, Some(from)).is_none()
                        && closer(view, info, from, *to, role).is_none()
                    {
                        consider(&mut best, Move { info, from, to: *to, load, gain, lead: false });
                    }
                }
            }
        }
        best
    }
}

fn leader_of(info: &RegionInfo) -> Option<StoreId> {
    info.leader.filter(|_| info.led).map(|leader| leader.store)
}

/// Cores that one unit of work takes: one number for all stores, as after a move the processor time
/// of the two that it concerns is not yet where the work is.
fn cores_per_work(view: &ClusterView) -> f64 {
    let cores: f64 = view.stores.values().map(|store| store.cores).sum();
    let work: f64 = view.regions.iter().map(|region| region.load.work()).sum();
    if work > 0.0 { cores / work } else { 0.0 }
}

/// A move that could be made.
struct Move<'a> {
    info: &'a RegionInfo,
    from: StoreId,
    to: StoreId,
    load: Vector,
    /// By how much Φ falls; `None` where the move is not worth it.
    gain: Option<f64>,
    lead: bool,
}

impl Move<'_> {
    fn in_words(&self) -> String {
        let kind = (0..KINDS).max_by(|a, b| self.load[*a].total_cmp(&self.load[*b])).unwrap_or(0);
        let (share, what) = (self.load[kind] * 100.0, WORDS[kind]);
        let (from, to) = (self.from, self.to);
        format!("{share:.0} % of a store's mean {what}; {from} has more hot load than {to}")
    }
}

fn consider<'a>(best: &mut Option<Move<'a>>, candidate: Move<'a>) {
    let better = candidate.gain.is_some()
        && best.as_ref().is_none_or(|best| {
            candidate.gain.partial_cmp(&best.gain).is_some_and(|order| order.is_gt())
        });
    if better {
        *best = Some(candidate);
    }
}

/// The hot load of each store.
#[derive(Debug, Default)]
struct Sums(BTreeMap<StoreId, Vector>);

impl Sums {
    fn of(&self, store: StoreId) -> Vector {
        self.0.get(&store).copied().unwrap_or_default()
    }

    fn add(&mut self, store: StoreId, load: &Vector, sign: f64) {
        let sum = self.0.entry(store).or_default();
        *sum = std::array::from_fn(|kind| sum[kind] + sign * load[kind]);
    }

    fn shift(&mut self, from: StoreId, to: StoreId, load: &Vector) {
        self.add(from, load, -1.0);
        self.add(to, load, 1.0);
    }

    /// By how much Φ falls; `None` where that is not worth a move.
    fn gain(&self, view: &ClusterView, from: StoreId, to: StoreId, load: &Vector) -> Option<f64> {
        let settings = view.policy.hot;
        let apart = dot(load, &minus(&self.of(from), &self.of(to)));
        let own = dot(load, load);
        let improves = apart * (1.0 - settings.margin) >= own;
        (own > 0.0 && improves && apart / own.sqrt() >= settings.gap).then_some(2.0 * (apart - own))
    }
}

/// The two sums of the module's Φ.
#[derive(Debug, Default)]
struct Scale {
    lead: Sums,
    replica: Sums,
}

impl Scale {
    fn of(view: &ClusterView, hot: &BTreeMap<RegionId, Vector>) -> Self {
        let mut scale = Self::default();
        for (id, load) in hot {
            let Some(region) = view.region(*id) else { continue };
            let info = &region.info;
            if let Some(leader) = leader_of(info) {
                scale.lead.add(leader, load, 1.0);
            }
            let voters = info.region.peers.iter().filter(|peer| peer.role == Role::Voter);
            let part = scaled(load, 1.0 / voters.clone().count().max(1) as f64);
            for peer in voters {
                scale.replica.add(peer.store, &part, 1.0);
            }
        }
        scale
    }
}
