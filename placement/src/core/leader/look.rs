//! The cluster as the leader sees it: groups for lifecycles, numbers for people.

use std::collections::BTreeSet;
use std::sync::Arc;

use quorate_consensus::time::Instant;
use quorate_proto::{LogIndex, Peer, RegionId, Role, StoreId};

use super::Leader;
use crate::core::lifecycle::{Group, Member};
use crate::core::operators::UnderWay;
use crate::core::state::{State, Store};
use crate::core::stores::StoreState;
use crate::core::tree::RegionInfo;

/// Numbers for the status page. Those of a leader that has just begun count what is known for sure
/// apart from what stores have yet to tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Regions known.
    pub regions: u64,
    /// Those with fewer healthy voters than wanted.
    pub under_replicated: u64,
    /// Those that nobody known to be alive leads.
    pub leaderless: u64,
    /// Those that a merge has stopped for longer than one takes.
    pub stopped: u64,
    /// Pairs of stores that do not hear each other.
    pub partitions: u64,
    /// Those that may be led by a store which has not told this leader yet; not in `leaderless`.
    pub unreported: u64,
    /// Stores that should report.
    pub reporting_stores: u32,
    /// Those of them that have told this leader all they lead. Where some have not, the other
    /// numbers are partly what was known before.
    pub reported_stores: u32,
    /// Operations a second of all stores.
    pub operations_per_second: u64,
}

impl Leader {
    /// Wanted voters of a region.
    pub fn target(&self, info: &RegionInfo) -> usize {
        self.policy.rules.voters_at(&info.region.range.start) as usize
    }

    /// A region as its lifecycles see it: as reported, with what is known of its stores.
    pub fn group(&self, state: &State, info: &RegionInfo, now: Instant) -> Group {
        let leader = info.leader.filter(|leader| {
            let store = state.stores().get(&leader.store);
            info.led && store.is_some_and(|store| self.stores.serves(store, now))
        });
        let members = info.region.peers.iter().map(|peer| {
            let store = state.stores().get(&peer.store);
            let progress = info.progress.iter().find(|progress| progress.peer == peer.id);
            let leads = leader.is_some_and(|leader| leader.id == peer.id);
            let alive = store.is_some_and(|store| self.stores.serves(store, now))
                && !info.down.contains(&peer.id);
            let millis = |duration: std::time::Duration| {
                u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
            };
            let unheard = millis(self.stores.silence(peer.store, now));
            let silent_ms = progress.map_or(0, |progress| millis(progress.silent)).max(unheard);
            let state = store.map(|store| self.stores.state(store, now));
            let leaves = state == Some(StoreState::Leaving);
            let up = leaves || state == Some(StoreState::Up);
            let stopping = self.stores.last(peer.store).is_none_or(|heard| heard.stats.stopping);
            let label = |(key, value): (&String, &String)| format!("{key}={value}");
            Member {
                node: peer.store.into(),
                peer: peer.id,
                role: peer.role,
                matched: match leads {
                    true => Some(info.last_index),
                    false => progress.map(|progress| progress.matched),
                },
                applied: progress.and_then(|progress| progress.applied),
                snapshot: progress.and_then(|progress| progress.snapshot),
                queue: progress.map_or(0, |progress| progress.queue),
                silent_ms,
                alive,
                can_lead: alive && up && !stopping && !info.pending.contains(&peer.id),
                leaves,
                leaders: self.leaders_of(info.region.id, peer.store),
                domain: store.map_or(Vec::new(), |store| store.labels.iter().map(label).collect()),
            }
        });
        Group {
            id: info.region.id,
            conf_ver: info.region.epoch.conf_ver,
            leader: leader.map(|leader| leader.id),
            last_index: match info.last_index {
                LogIndex(0) => info.stats.commit,
                last => last,
            },
            committed: info.stats.commit,
            target: self.target(info),
            members: members.collect(),
        }
    }

    /// Regions that a store leads or is about to lead. The one that is about to lead `region` has
    /// none, so that it stays the one.
    fn leaders_of(&self, region: RegionId, store: StoreId) -> usize {
        if self.operators.transfers_to(store).any(|other| other == region) {
            return 0;
        }
        let leads = self.stores.last(store).map_or(0, |heard| heard.stats.leaders as usize);
        leads + self.operators.transfers_to(store).count()
    }

    /// How a region is doing, in words.
    pub fn health(&self, state: &State, info: &RegionInfo, now: Instant) -> String {
        let group = self.group(state, info, now);
        let (voters, target) = (group.voters().count(), group.target);
        let alive = group.voters().filter(|member| member.alive).count();
        let mut wrong = Vec::new();
        if alive * 2 <= voters {
            wrong.push(format!("no quorum: {alive} of {voters} voters are alive"));
        } else if alive < voters {
            wrong.push(format!("{alive} of {voters} voters are alive"));
        }
        if group.leader.is_none() {
            let serving = self.serving(state, now);
            wrong.push(match self.may_be_led(info, &self.unheard(&serving)) {
                true => "its leader has not reported to this leader of placement yet".to_owned(),
                false => "no leader that reports".to_owned(),
            });
        }
        if let Some(merging) = info.merging {
            wrong.push(format!("stopped, to be taken in by {}", merging.target));
        }
        if group.is_joint() {
            wrong.push("in a joint configuration".to_owned());
        }
        if voters < target {
            wrong.push(format!("{voters} voters, {target} are wanted"));
        } else if voters > target {
            wrong.push(format!("{voters} voters, only {target} are wanted"));
        }
        match wrong.is_empty() {
            true => "healthy".to_owned(),
            false => wrong.join("; "),
        }
    }

    /// The operator under way with that id.
    pub fn operator(&self, id: u64) -> Option<&UnderWay> {
        self.operators.under_way().find(|under_way| under_way.operator.id == id)
    }

    /// Stores that have reported, are not suspected and not out.
    pub(super) fn serving(&self, state: &State, now: Instant) -> BTreeSet<StoreId> {
        let serves = |store: &&Arc<Store>| match self.stores.state(store, now) {
            StoreState::Up => true,
            StoreState::Leaving => self.stores.serves(store, now),
            StoreState::Joining | StoreState::Suspect | StoreState::Down | StoreState::Left => {
                false
            }
        };
        state.stores().values().filter(serves).map(|store| store.id).collect()
    }

    /// Those of them that have not told this leader yet which regions they lead.
    fn unheard(&self, serving: &BTreeSet<StoreId>) -> BTreeSet<StoreId> {
        let is_unheard =
            |store: &&StoreId| self.stores.last(**store).is_none_or(|heard| !heard.complete);
        serving.iter().filter(is_unheard).copied().collect()
    }

    /// Whether one of the stores that are still to be heard of could lead the region.
    fn may_be_led(&self, info: &RegionInfo, unheard: &BTreeSet<StoreId>) -> bool {
        info.region.peers.iter().any(|peer| match peer.role {
            Role::Voter | Role::IncomingVoter | Role::DemotingVoter => {
                unheard.contains(&peer.store)
            }
            Role::Learner => false,
        })
    }

    /// Numbers for the status page: linear in the number of regions.
    pub fn counts(&self, state: &State, now: Instant) -> Counts {
        let serving = self.serving(state, now);
        let unheard = self.unheard(&serving);
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let mut counts = Counts {
            regions: self.tree.len() as u64,
            reporting_stores: number(serving.len()),
            reported_stores: number(serving.len() - unheard.len()),
            ..Counts::default()
        };
        for info in self.tree.iter() {
            let healthy = info.region.peers.iter().filter(|peer| {
                serving.contains(&peer.store)
                    && !info.down.contains(&peer.id)
                    && peer.role == Role::Voter
            });
            counts.under_replicated += u64::from(healthy.count() < self.target(info));
            let led = info.led && info.leader.is_some_and(|leader| serving.contains(&leader.store));
            match led {
                true => {}
                false if self.may_be_led(info, &unheard) => counts.unreported += 1,
                false => counts.leaderless += 1,
            }
        }
        counts.partitions = self.partitions.told() as u64;
        counts.stopped = self.watch.stopped_for_long(self.time_ms(now)) as u64;
        counts.operations_per_second = serving
            .iter()
            .filter_map(|store| self.stores.last(*store))
            .map(|heard| heard.operations_per_second)
            .sum();
        counts
    }
}

/// How many of a region's voters are alive, and of how many. In a joint configuration both sides
/// decide: the one that has less to spare is told.
pub(super) fn living_votes(info: &RegionInfo, serving: &BTreeSet<StoreId>) -> (usize, usize) {
    let side = |other: Role| {
        let votes = |peer: &&Peer| peer.role == Role::Voter || peer.role == other;
        let voters = info.region.peers.iter().filter(votes);
        let is_alive =
            |peer: &&Peer| serving.contains(&peer.store) && !info.down.contains(&peer.id);
        (voters.clone().filter(is_alive).count(), voters.count())
    };
    let (new, old) = (side(Role::IncomingVoter), side(Role::DemotingVoter));
    let spare = |(alive, voters): (usize, usize)| (2 * alive).checked_sub(voters);
    if spare(old) < spare(new) { old } else { new }
}
