//! What one plan has taken so far: the working copy that schedulers share.
//!
//! A plan starts from the picture and adds each draft to it at once, so that the next one, of
//! whichever scheduler, counts with it: the tallies change, the region is taken, the room shrinks.

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::time::Instant;
use quorate_proto::{RegionId, Role, StoreId};

use crate::core::filter::cannot_give;
use crate::core::operators::{Draft, Goal};
use crate::core::tree::RegionInfo;
use crate::core::view::{ClusterView, Tallies};

/// Transfers of leadership under way for balance at most: each costs its region some milliseconds.
pub const MAX_TRANSFERS: usize = 16;
/// Transfers of leadership under way at most while a store gives its leaders away: it waits for
/// them.
pub const MAX_EVICTIONS: usize = 64;
/// Moves of replicas under way for balance at most.
pub const MAX_MOVES: usize = 32;

/// See the module.
#[derive(Debug)]
pub(super) struct Sheet<'a> {
    pub(super) view: &'a ClusterView,
    pub(super) tallies: Tallies,
    /// Stores that shall lead nothing.
    pub(super) no_leaders: &'a BTreeSet<StoreId>,
    /// Regions that only hot-region moves.
    pub(super) hot: &'a BTreeSet<RegionId>,
    /// Regions that balance moved lately: they stay where they are while others will do.
    pub(super) lately: &'a BTreeMap<RegionId, Instant>,
    taken: BTreeSet<RegionId>,
    drafts: Vec<Draft>,
    room: usize,
    transfers: usize,
    moves: usize,
}

impl<'a> Sheet<'a> {
    /// Nothing taken yet, and room for so many operators.
    pub(super) fn new(
        view: &'a ClusterView,
        no_leaders: &'a BTreeSet<StoreId>,
        hot: &'a BTreeSet<RegionId>,
        lately: &'a BTreeMap<RegionId, Instant>,
        room: usize,
    ) -> Self {
        Self {
            view,
            tallies: view.tallies.clone(),
            no_leaders,
            hot,
            lately,
            taken: BTreeSet::new(),
            drafts: Vec::new(),
            room,
            transfers: view.transfers,
            moves: view.moves,
        }
    }

    /// How many transfers may still be drafted where so many may be under way.
    pub(super) fn transfers_left(&self, most: usize) -> usize {
        most.saturating_sub(self.transfers).min(self.room)
    }

    /// How many moves of replicas may still be drafted.
    pub(super) fn moves_left(&self) -> usize {
        match self.view.may_move {
            true => MAX_MOVES.saturating_sub(self.moves).min(self.room),
            false => 0,
        }
    }

    /// True while replicas are on the move, in this plan or since an earlier one.
    pub(super) fn moves_anything(&self) -> bool {
        self.moves > 0
    }

    /// True for a region that nobody is busy with.
    pub(super) fn is_free(&self, info: &RegionInfo) -> bool {
        !self.view.busy.contains(&info.region.id) && !self.taken.contains(&info.region.id)
    }

    /// True for a region that balance may move: free, and not hot.
    pub(super) fn is_movable(&self, info: &RegionInfo) -> bool {
        self.is_free(info) && !self.hot.contains(&info.region.id)
    }

    /// Stores that leaders may be moved to and from.
    pub(super) fn leading_stores(&self) -> impl Iterator<Item = StoreId> + '_ {
        let stores = self.view.stores.iter();
        stores
            .filter(|(id, store)| store.is_eligible() && !self.no_leaders.contains(id))
            .map(|(id, _)| *id)
    }

    /// True where a replica may leave the store, and its region's leader may send it elsewhere.
    pub(super) fn may_leave(&self, info: &RegionInfo, from: StoreId) -> bool {
        let view = self.view;
        let gives = view
            .stores
            .get(&from)
            .is_some_and(|store| cannot_give(view, store, &self.tallies.of(from)).is_none());
        gives && is_settled(info) && {
            let sender = info.leader.and_then(|leader| view.stores.get(&leader.store));
            sender.is_some_and(|store| store.stats.snapshots_sending < view.rates.snapshots)
        }
    }

    /// Adds a draft.
    pub(super) fn draft(
        &mut self,
        by: &'static str,
        info: &RegionInfo,
        goal: Goal,
        reason: String,
    ) {
        match &goal {
            Goal::TransferLeader { .. } => self.transfers += 1,
            Goal::AddReplica { .. } | Goal::MoveReplica { .. } | Goal::RemoveReplica { .. } => {
                self.moves += 1;
            }
            Goal::Split { .. }
            | Goal::Promote { .. }
            | Goal::Demote { .. }
            | Goal::LeaveJoint
            | Goal::MergeInto { .. }
            | Goal::RollBackMerge { .. } => {}
        }
        self.room = self.room.saturating_sub(1);
        self.tallies.begin(info, &goal);
        self.taken.insert(info.region.id);
        let (region, epoch) = (info.region.id, info.region.epoch);
        self.drafts.push(Draft { region, epoch, goal, by, reason });
    }

    /// How many drafts there are.
    pub(super) fn drafted(&self) -> usize {
        self.drafts.len()
    }

    /// The plan.
    pub(super) fn into_drafts(self) -> Vec<Draft> {
        self.drafts
    }
}

/// True for a region whose replicas may be moved for balance: it is led, all of them are well, and
/// no joint configuration is in force.
pub(super) fn is_settled(info: &RegionInfo) -> bool {
    let plain = |role| match role {
        Role::Voter | Role::Learner => true,
        Role::IncomingVoter | Role::DemotingVoter => false,
    };
    info.led
        && info.down.is_empty()
        && info.pending.is_empty()
        && info.region.peers.iter().all(|peer| plain(peer.role))
}

/// The places `0..len`, each once, far from each other: neighbours in a list of regions are often
/// neighbours in the key space, and their load shall not move to one store together.
pub(super) fn spread(len: usize) -> impl Iterator<Item = usize> {
    // The golden section leaves the largest gaps; a step without a common factor visits all.
    let mut step = (len as f64 * 0.618_034) as usize | 1;
    while common_factor(step, len) > 1 {
        step += 1;
    }
    (0..len).map(move |index| index * step % len)
}

fn common_factor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_factor(b, a % b) }
}
