//! Stores that join, and stores that are to leave.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_consensus::time::Instant;
use quorate_proto::{NodeId, Peer, RegionId, Role, StoreId};
use thiserror::Error;

use super::Leader;
use crate::core::command::{Command, JoinRefusal, Joining, NOTES_SINCE};
use crate::core::filter::{Filtered, hindrance, in_words};
use crate::core::lifecycle::Aim;
use crate::core::operators::Refused;
use crate::core::replacement;
use crate::core::rule::RuleRole;
use crate::core::state::{State, StoreLife};
use crate::core::stores::StoreState;
use crate::core::tree::RegionInfo;
use crate::core::view::ClusterView;

/// A store that was let go counts as leaving for so long, whatever the log says: what it was let go
/// for may not be replicated yet.
const LET_GO: Duration = Duration::from_secs(10);

/// Why a store cannot be taken out, or back in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RemoveRefusal {
    /// Never heard of.
    #[error("{0} is not known to this cluster; `quorate store list` shows those that are")]
    Unknown(StoreId),
    /// It is out.
    #[error("{0} has left already")]
    Left(StoreId),
    /// It is not leaving.
    #[error("{0} is not leaving: there is nothing to cancel")]
    NotLeaving(StoreId),
    /// It could never end.
    #[error(
        "{store} cannot leave: {region} has {voters} voters, and no other store is up that could \
         take the one on {store}; add a store first, or lower `replicas`"
    )]
    NoRoom {
        /// The store.
        store: StoreId,
        /// A region that would be stuck.
        region: RegionId,
        /// How many voters it has.
        voters: usize,
    },
    /// It could never end.
    #[error(
        "{store} cannot leave: no other store may take its voter of {region}, where the rules are \
         `{rules}`: {why}; add a store that fits, or change the rules"
    )]
    NoPlace {
        /// The store.
        store: StoreId,
        /// A region that would be stuck.
        region: RegionId,
        /// The rules that govern it.
        rules: String,
        /// Why each other store may not.
        why: String,
    },
    /// Then another one could never end.
    #[error(
        "{store} cannot leave: the voter of {region} on {other}, which is leaving or down, would have \
         no other place to go; add a store first"
    )]
    Needed {
        /// The store.
        store: StoreId,
        /// One whose replicas have to go elsewhere already.
        other: StoreId,
        /// A region that would be stuck.
        region: RegionId,
    },
    /// It is not dead.
    #[error("{0} is alive: stop it first, or remove it without `dead` so that it serves meanwhile")]
    Alive(StoreId),
    /// Nothing can go there.
    #[error("{0} is not up, or is the one that goes: name a store that is up")]
    NotUp(StoreId),
    /// An older form of the cluster.
    #[error(
        "a store is named for the replicas of another one from cluster_version {NOTES_SINCE} on: run \
         the newer program on all members of placement and on all stores, then `quorate settings set \
         cluster_version={NOTES_SINCE}`; until then `quorate store remove --dead` leaves the choice \
         to placement"
    )]
    OldReplace,
    /// An older form of the cluster.
    #[error(transparent)]
    Operator(#[from] Refused),
}

/// What becomes of a store that is replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct Replacement {
    /// To be replicated.
    pub command: Command,
    /// Replicas that have to go.
    pub replicas: u64,
    /// Regions whose voter does not go to the store that was named, and why not.
    pub elsewhere: Vec<(RegionId, Filtered)>,
}

impl Leader {
    /// Whether a store may have the address it asks for.
    ///
    /// # Errors
    /// A living store has it, or the joining store itself lives elsewhere: its folder was copied,
    /// and two processes would vote as one.
    pub fn may_use_address(
        &self,
        state: &State,
        joining: &Joining,
        now: Instant,
    ) -> Result<(), JoinRefusal> {
        let own = state.store_of(joining);
        if let Some(store) = own
            && store.incarnation != joining.incarnation
            && store.address != joining.address
            && self.stores.is_alive(store.id, now)
        {
            let (store, address) = (store.id, store.address.clone());
            return Err(JoinRefusal::IdInUse { store, address });
        }
        let own = own.map(|store| store.id);
        let holder = state.stores().values().find(|store| {
            store.address == joining.address
                && Some(store.id) != own
                && self.stores.is_alive(store.id, now)
        });
        match holder {
            Some(store) => {
                Err(JoinRefusal::AddressInUse { store: store.id, address: joining.address.clone() })
            }
            None => Ok(()),
        }
    }

    /// Takes a store out of the cluster, or back in before it has left: the command to replicate,
    /// and how many replicas have to go elsewhere. One that is let go counts as leaving from then on.
    ///
    /// # Errors
    /// The rule that stands in the way: it could never end, or it is not dead.
    pub fn remove_store(
        &mut self,
        state: &State,
        id: StoreId,
        cancel: bool,
        dead: bool,
        now: Instant,
    ) -> Result<(Command, u64), RemoveRefusal> {
        if !Self::may_plan(state) {
            return Err(Refused::OldVersion.into());
        }
        let store = state.stores().get(&id).ok_or(RemoveRefusal::Unknown(id))?;
        let life = |life| Command::ChangeStore { store: id, life };
        let hosted = self.tree.iter().filter(|info| info.region.peer_on(id).is_some());
        let replicas = hosted.count() as u64;
        match (store.life, cancel) {
            (StoreLife::Left, _) => return Err(RemoveRefusal::Left(id)),
            (StoreLife::Leaving { .. }, true) => {
                self.let_go.remove(&id);
                return Ok((life(StoreLife::Active), replicas));
            }
            (StoreLife::Joining | StoreLife::Active, true) => {
                return Err(RemoveRefusal::NotLeaving(id));
            }
            (StoreLife::Joining | StoreLife::Active | StoreLife::Leaving { .. }, false) => {}
        }
        // Who is asked to leave once more still goes to whom was named.
        let to = match store.life {
            StoreLife::Leaving { to, .. } => to,
            StoreLife::Joining | StoreLife::Active | StoreLife::Left => None,
        };
        if dead && self.stores.is_alive(id, now) {
            return Err(RemoveRefusal::Alive(id));
        }
        self.let_go.retain(|_, at| now.since(*at) < LET_GO);
        let (mut others, mut going) = (BTreeSet::new(), BTreeSet::new());
        for other in state.stores().values().filter(|other| other.id != id) {
            let doing = match self.let_go.contains_key(&other.id) {
                true => StoreState::Leaving,
                false => self.stores.state(other, now),
            };
            match doing {
                StoreState::Up | StoreState::Joining | StoreState::Suspect => {
                    others.insert(other.id)
                }
                StoreState::Down | StoreState::Leaving => going.insert(other.id),
                StoreState::Left => false,
            };
        }
        let view = self.view(state, now);
        self.find_places(&view, id, &others)?;
        // What has to go elsewhere already needs a place as well, and may have none but this store;
        // one that is dead is no place.
        if !dead {
            let with_it: BTreeSet<StoreId> = others.iter().copied().chain([id]).collect();
            for other in going {
                let Err(
                    RemoveRefusal::NoRoom { region, .. } | RemoveRefusal::NoPlace { region, .. },
                ) = self.find_places(&view, other, &others)
                else {
                    continue;
                };
                if self.find_places(&view, other, &with_it).is_ok() {
                    return Err(RemoveRefusal::Needed { store: id, other, region });
                }
            }
        }
        self.let_go.insert(id, now);
        Ok((life(StoreLife::Leaving { dead, to }), replicas))
    }

    /// Whether all voters on a store could ever go to `others`.
    fn find_places(
        &self,
        view: &ClusterView,
        from: StoreId,
        others: &BTreeSet<StoreId>,
    ) -> Result<(), RemoveRefusal> {
        for info in self.tree.iter() {
            // As it will be once a joint change under way is completed.
            let shall_vote = |peer: &Peer| match peer.role {
                Role::Voter | Role::IncomingVoter => true,
                Role::Learner | Role::DemotingVoter => false,
            };
            let votes_on = |store| info.region.peer_on(store).is_some_and(shall_vote);
            let voters = info.region.peers.iter().filter(|peer| shall_vote(peer)).count();
            let is_needed = voters <= self.target(info);
            if !votes_on(from) || !is_needed {
                continue;
            }
            let has_room = others.iter().any(|other| !votes_on(*other));
            if !has_room || others.len() < voters {
                let region = info.region.id;
                return Err(RemoveRefusal::NoRoom { store: from, region, voters });
            }
            self.find_place(view, info, from, others)?;
        }
        Ok(())
    }

    /// Replaces a store that is dead: as [`Leader::remove_store`], and its voters go to `with`. Says for
    /// which regions they do not, as far as can be told now, and why.
    ///
    /// # Errors
    /// The rule that stands in the way: it could never end, it is not dead, or the other is not up.
    pub fn replace_store(
        &mut self,
        state: &State,
        id: StoreId,
        with: StoreId,
        now: Instant,
    ) -> Result<Replacement, RemoveRefusal> {
        let other = state.stores().get(&with).ok_or(RemoveRefusal::Unknown(with))?;
        if with == id || self.stores.state(other, now) != StoreState::Up {
            return Err(RemoveRefusal::NotUp(with));
        }
        if !state.takes_notes() {
            return Err(RemoveRefusal::OldReplace);
        }
        let (_, replicas) = self.remove_store(state, id, false, true, now)?;
        let life = StoreLife::Leaving { dead: true, to: Some(with) };
        let command = Command::ChangeStore { store: id, life };
        let mut view = self.view(state, now);
        let mut elsewhere = Vec::new();
        for info in self.tree.iter() {
            let votes = |peer: &Peer| peer.store == id && peer.role == Role::Voter;
            if !info.region.peers.iter().any(votes) {
                continue;
            }
            match replacement::why_not(&view, info, id, with) {
                Some(why) => elsewhere.push((info.region.id, why)),
                // The next one finds as much less room there.
                None => {
                    if let Some(there) = view.stores.get_mut(&with) {
                        let left = there.stats.available_bytes.saturating_sub(info.stats.bytes);
                        there.stats.available_bytes = left;
                    }
                }
            }
        }
        Ok(Replacement { command, replicas, elsewhere })
    }

    /// Whether the voter on a store could ever go to one of `others`, once what is under way is
    /// done. What passes by itself does not count.
    fn find_place(
        &self,
        view: &ClusterView,
        info: &RegionInfo,
        from: StoreId,
        others: &BTreeSet<StoreId>,
    ) -> Result<(), RemoveRefusal> {
        let records = self.members.of(info.region.id);
        let learns = |peer: &Peer| {
            let node = NodeId::from(peer.store);
            records.iter().any(|record| record.node == node && record.aim == Aim::Learn)
        };
        // A learner that shall vote, or go, is in nobody's way.
        let mut then = info.clone();
        then.region.peers.retain(|peer| match peer.role {
            Role::Voter | Role::IncomingVoter => true,
            Role::Learner => learns(peer),
            Role::DemotingVoter => false,
        });
        let role = RuleRole::Voters;
        let mut filtered = Vec::new();
        for store in others {
            let Some(there) = view.stores.get(store) else { continue };
            match hindrance(view, &then, there, role, Some(from)).filter(Filtered::lasts) {
                None => return Ok(()),
                Some(why) => filtered.push((*store, why)),
            }
        }
        let rules = view.rules_of(info).iter().map(ToString::to_string).collect::<Vec<_>>();
        let (rules, why) = (rules.join("; "), in_words(&filtered));
        Err(RemoveRefusal::NoPlace { store: from, region: info.region.id, rules, why })
    }
}
