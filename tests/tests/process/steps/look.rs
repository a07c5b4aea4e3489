//! Where a region stands in a change of its members, as `quorate region explain` shows it.

use quorate_client::PlacementClient;
use quorate_proto::{Region, RegionId, Role, StoreId};
use quorate_tests::process::voters;

/// The steps of a join, a promotion and a swap, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// The learner is a member.
    Added,
    /// Its snapshot is on its way.
    Syncing,
    /// It is ready and waits for a partner.
    Pairing,
    /// The joint configuration is in force.
    Joint,
    /// It is left again. For a promotion that is the end.
    Left,
    /// The old learner of a swap is gone: its end.
    Removed,
}

/// What shall become of a region.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// Five voters instead of three.
    Growth,
    /// A voter on another store.
    Swap {
        /// Where it is.
        from: StoreId,
        /// Where it shall be.
        to: StoreId,
    },
}

/// One answer of placement.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// As reported last.
    pub(super) region: Region,
    /// Who leads it, dead or alive.
    pub(super) leader: Option<StoreId>,
    /// Members on their way, and how far each is.
    pub(super) states: Vec<(StoreId, String)>,
    /// True while a snapshot is on its way to one of them.
    snapshot: bool,
}

impl Look {
    /// Asks placement.
    pub(super) async fn at(placement: &PlacementClient, id: RegionId) -> Result<Look, String> {
        let told = placement.explain_region(id).await.map_err(|error| error.to_string())?;
        let region = told.region.ok_or("no region")?;
        let region = Region::try_from(region).map_err(|error| error.to_string())?;
        let leads = told.replicas.iter().find(|replica| replica.leader);
        let leader = leads.and_then(|replica| replica.peer.as_ref());
        Ok(Look {
            region,
            leader: leader.map(|peer| StoreId(peer.store_id)),
            states: told
                .lifecycles
                .into_iter()
                .map(|one| (StoreId(one.node_id), one.state))
                .collect(),
            snapshot: told.replicas.iter().any(|replica| replica.snapshot_total_bytes > 0),
        })
    }

    /// How far the member on a store is.
    pub(super) fn state(&self, store: StoreId) -> Option<&str> {
        self.states.iter().find(|(on, _)| *on == store).map(|(_, state)| state.as_str())
    }

    /// Stores with a replica in that role.
    pub(super) fn with(&self, role: Role) -> Vec<StoreId> {
        let peers = self.region.peers.iter();
        peers.filter(|peer| peer.role == role).map(|peer| peer.store).collect()
    }

    fn is_joint(&self) -> bool {
        !self.with(Role::IncomingVoter).is_empty() || !self.with(Role::DemotingVoter).is_empty()
    }

    /// True where all learners are on their first way: not one has caught up.
    fn is_catching_up(&self) -> bool {
        let learners = self.with(Role::Learner);
        let early = |store: &StoreId| matches!(self.state(*store), Some("Joining" | "Syncing"));
        !self.is_joint() && !learners.is_empty() && learners.iter().all(early)
    }

    /// True where the region is at that step now.
    pub(super) fn is_at(&self, step: Step, wanted: Wanted) -> bool {
        match step {
            Step::Added => self.is_catching_up(),
            Step::Syncing => self.is_catching_up() && self.snapshot,
            Step::Pairing => self.states.iter().any(|(_, state)| state == "Pairing"),
            Step::Joint => self.is_joint(),
            Step::Left => self.is_over_joint(wanted) && !self.is_past(step, wanted),
            Step::Removed => self.is_removed(wanted),
        }
    }

    /// True where the region is further than that step.
    pub(super) fn is_past(&self, step: Step, wanted: Wanted) -> bool {
        match step {
            Step::Added | Step::Syncing => {
                let ready = |(_, state): &(StoreId, String)| {
                    matches!(state.as_str(), "Ready" | "Pairing" | "Promoting")
                };
                self.states.iter().any(ready) || self.is_past(Step::Pairing, wanted)
            }
            Step::Pairing => self.is_joint() || self.is_over_joint(wanted),
            Step::Joint => self.is_over_joint(wanted),
            Step::Left => match wanted {
                Wanted::Growth => false,
                Wanted::Swap { .. } => self.is_removed(wanted),
            },
            Step::Removed => false,
        }
    }

    fn is_over_joint(&self, wanted: Wanted) -> bool {
        !self.is_joint()
            && match wanted {
                Wanted::Growth => voters(&self.region) == (5, 5),
                Wanted::Swap { to, .. } => self.with(Role::Voter).contains(&to),
            }
    }

    fn is_removed(&self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Growth => false,
            Wanted::Swap { from, .. } => {
                self.is_over_joint(wanted) && self.region.peer_on(from).is_none()
            }
        }
    }
}
