//! What only the leader of placement knows and decides, for one term of its leadership.
//!
//! Made anew from the replicated [`State`] whenever leadership is won: the saved region tree lets
//! it route at once, and the reports of the stores complete it within seconds. Nothing of it needs
//! to survive. It proposes nothing itself; the shell asks [`Leader::to_save`] what to write
//! behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::time::Instant;
use quorate_proto::{RegionId, StoreId, Term};
use thiserror::Error;

use super::command::{JoinRefusal, Joining, SavedRegion};
use super::limit::{LimitRates, Limits};
use super::load::Loads;
use super::operators::{
    Draft, Goal, Operator, Operators, Refused, SPLIT_DEADLINE, TRANSFER_DEADLINE,
};
use super::policy::Policy;
use super::report::Report;
use super::schedule::Schedulers;
use super::state::{State, Store, StoreLife};
use super::stores::{StoreState, Stores};
use super::tree::RegionTree;
use super::view::{ClusterView, Sources};

/// Time between two plans of a scheduler.
pub const PLAN_EVERY: Duration = Duration::from_millis(250);
/// How long a move of a replica may take.
pub const MOVE_DEADLINE: Duration = Duration::from_secs(10 * 60);

/// What a report led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// True where a route changed.
    pub routes: bool,
    /// Regions that were not believed.
    pub stale: usize,
    /// True where the store is to be activated through the log.
    pub activate: bool,
}

/// Why leadership of a region cannot be moved.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransferRefusal {
    /// Not in the tree.
    #[error("{0} is not known; `quorate region list` shows those that are")]
    UnknownRegion(RegionId),
    /// Nobody to send the order to.
    #[error("{0} has no known leader now; try again in a few seconds")]
    NoLeader(RegionId),
    /// No voter there, or one that is behind.
    #[error("{region} has no up-to-date voter on {to}; its voters are on {voters}")]
    NotAble {
        /// The region.
        region: RegionId,
        /// Where it should go.
        to: StoreId,
        /// Where it could.
        voters: String,
    },
    /// It has one already.
    #[error(transparent)]
    Operator(#[from] Refused),
}

/// Numbers for the status page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Regions known.
    pub regions: u64,
    /// Those with fewer healthy voters than wanted.
    pub under_replicated: u64,
    /// Those that nobody known to be alive leads.
    pub leaderless: u64,
    /// Operations a second of all stores.
    pub operations_per_second: u64,
}

/// The leader's own state. See the module.
#[derive(Debug)]
pub struct Leader {
    term: Term,
    tree: RegionTree,
    stores: Stores,
    operators: Operators,
    schedulers: Schedulers,
    loads: Loads,
    limits: Limits,
    policy: Arc<Policy>,
    unsaved: BTreeSet<RegionId>,
    next_plan: Instant,
}

impl Leader {
    /// For the leader of `term`, from what is replicated.
    pub fn new(term: Term, state: &State, now: Instant) -> Self {
        Self {
            term,
            tree: state.saved_regions().clone(),
            stores: Stores::new(now),
            operators: Operators::new(term),
            schedulers: Schedulers::default(),
            loads: Loads::default(),
            limits: Limits::new(LimitRates::default()),
            policy: policy_of(state),
            unsaved: BTreeSet::new(),
            next_plan: now,
        }
    }

    /// The term it leads in.
    pub fn term(&self) -> Term {
        self.term
    }
    /// The region tree.
    pub fn tree(&self) -> &RegionTree {
        &self.tree
    }
    /// Which stores are alive.
    pub fn stores(&self) -> &Stores {
        &self.stores
    }
    /// What is under way.
    pub fn operators(&self) -> &Operators {
        &self.operators
    }

    /// Takes in the regions that were made or saved through the log since this leader began:
    /// those of the bootstrap.
    pub fn adopt(&mut self, state: &State) {
        for info in state.saved_regions().iter() {
            // What it knows already is newer.
            let _ = self.tree.offer(info.as_ref().clone());
        }
    }

    /// Takes in a store's report.
    pub fn report(&mut self, store: &Store, report: Report, now: Instant) -> Reported {
        self.loads.report(&report, now);
        let Report { incarnation, stats, regions, full, .. } = report;
        let mut reported =
            Reported { activate: store.life == StoreLife::Joining, ..Reported::default() };
        self.stores.heard(store.id, incarnation, stats, full, now);
        if full {
            self.operators.resend(store.id);
            let named: BTreeSet<RegionId> = regions.iter().map(|info| info.region.id).collect();
            let led = |leader: Option<quorate_proto::Peer>| {
                leader.is_some_and(|leader| leader.store == store.id)
            };
            let gone: Vec<RegionId> = self
                .tree
                .iter()
                .filter(|info| info.led && led(info.leader) && !named.contains(&info.region.id))
                .map(|info| info.region.id)
                .collect();
            for region in gone {
                self.tree.not_led_by(region, store.id);
            }
        }
        for info in regions {
            let id = info.region.id;
            match self.tree.offer(info) {
                Ok(offered) => {
                    if offered.routes {
                        reported.routes = true;
                        self.unsaved.insert(id);
                    }
                    if let Some(info) = self.tree.get(id) {
                        self.operators.observe(info, now);
                    }
                }
                Err(_) => reported.stale += 1,
            }
        }
        reported
    }

    /// A store's stream ended.
    pub fn disconnected(&mut self, store: StoreId) {
        self.stores.disconnected(store);
    }

    /// Lets time pass: ends overdue operators and plans new ones. Returns the stores that have
    /// orders waiting.
    pub fn tick(
        &mut self,
        known: &BTreeMap<StoreId, Arc<Store>>,
        now: Instant,
    ) -> BTreeSet<StoreId> {
        self.operators.expire(&self.tree, now);
        if now >= self.next_plan {
            self.next_plan = now + PLAN_EVERY;
            self.loads.prune(&self.tree);
            let room = self.operators.room();
            if room > 0 {
                let view = self.view(known, now);
                for draft in self.schedulers.plan(&view, room, now) {
                    self.begin(draft, now);
                }
            }
        }
        self.operators.due(&self.tree, now)
    }

    /// The picture that is planned from.
    pub fn view(&self, known: &BTreeMap<StoreId, Arc<Store>>, now: Instant) -> ClusterView {
        let sources = Sources {
            tree: &self.tree,
            known,
            alive: &self.stores,
            loads: &self.loads,
            limits: &self.limits,
            policy: &self.policy,
        };
        let under_way = self.operators.iter().map(|operator| (operator.region, &operator.goal));
        ClusterView::of(sources, under_way, self.operators.busy(now), now)
    }

    /// Begins what a scheduler drafted. Plans leave busy regions alone and keep to the room there
    /// is, so it is not refused.
    fn begin(&mut self, draft: Draft, now: Instant) {
        let (region, goal) = (draft.region, draft.goal.clone());
        let within = match goal {
            Goal::TransferLeader { .. } => TRANSFER_DEADLINE,
            Goal::Split { .. } => SPLIT_DEADLINE,
            Goal::AddReplica { .. }
            | Goal::MoveReplica { .. }
            | Goal::RemoveReplica { .. }
            | Goal::Promote { .. }
            | Goal::Demote { .. }
            | Goal::LeaveJoint => MOVE_DEADLINE,
        };
        if self.operators.begin(draft, now + within).is_ok() {
            let bytes = self.tree.get(region).map_or(0, |info| info.stats.bytes);
            self.limits.began(&goal, bytes, now);
        }
    }

    /// Orders for a store, at most `limit`; they count as sent.
    pub fn orders_for(&mut self, store: StoreId, limit: usize, now: Instant) -> Vec<Operator> {
        self.operators.send(store, &self.tree, limit, now)
    }

    /// Begins a split.
    ///
    /// # Errors
    /// The region is busy, or too much is under way.
    pub fn split(&mut self, draft: Draft, now: Instant) -> Result<u64, Refused> {
        self.operators.begin(draft, now + SPLIT_DEADLINE)
    }

    /// Begins a transfer of leadership on request; `None` where it is there already. A transfer
    /// that balancing began makes way.
    ///
    /// # Errors
    /// The rule that stands in the way.
    pub fn transfer(
        &mut self,
        region: RegionId,
        to: StoreId,
        now: Instant,
    ) -> Result<Option<u64>, TransferRefusal> {
        let info = self.tree.get(region).ok_or(TransferRefusal::UnknownRegion(region))?;
        let from = info.leader.ok_or(TransferRefusal::NoLeader(region))?.store;
        if from == to && info.led {
            return Ok(None);
        }
        if !info.can_lead_on(to) {
            let able = info.region.peers.iter().filter(|peer| info.can_lead_on(peer.store));
            let voters = able.map(|peer| peer.store.to_string()).collect::<Vec<_>>().join(", ");
            return Err(TransferRefusal::NotAble { region, to, voters });
        }
        let draft = Draft {
            region,
            epoch: info.region.epoch,
            goal: Goal::TransferLeader { from, to },
            by: "request",
            reason: format!("transfer to {to} on request"),
        };
        let busy = self.operators.of(region).map(|operator| &operator.goal);
        if matches!(busy, Some(Goal::TransferLeader { .. })) {
            self.operators.cancel(region, now);
        }
        Ok(Some(self.operators.begin(draft, now + TRANSFER_DEADLINE)?))
    }

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

    /// Regions whose routes changed since they were last saved, at most `limit`; they count as
    /// saved. Give them back with [`Leader::not_saved`] where that fails.
    pub fn to_save(&mut self, limit: usize) -> Vec<SavedRegion> {
        let mut saved = Vec::new();
        while saved.len() < limit {
            let Some(id) = self.unsaved.pop_first() else { break };
            if let Some(info) = self.tree.get(id) {
                saved.push(info.to_saved());
            }
        }
        saved
    }

    /// They were not saved after all.
    pub fn not_saved(&mut self, regions: &[SavedRegion]) {
        self.unsaved.extend(regions.iter().map(|saved| saved.region.id));
    }

    /// Numbers for the status page: linear in the number of regions.
    pub fn counts(&self, state: &State, now: Instant) -> Counts {
        let up: BTreeSet<StoreId> = state
            .stores()
            .values()
            .filter(|store| matches!(self.stores.state(store, now), StoreState::Up))
            .map(|store| store.id)
            .collect();
        let wanted = state.cluster().map_or(0, |cluster| cluster.replicas as usize);
        let mut counts = Counts { regions: self.tree.len() as u64, ..Counts::default() };
        for info in self.tree.iter() {
            let healthy = info.region.peers.iter().filter(|peer| {
                up.contains(&peer.store)
                    && !info.down.contains(&peer.id)
                    && peer.role == quorate_proto::Role::Voter
            });
            counts.under_replicated += u64::from(healthy.count() < wanted);
            let led = info.led && info.leader.is_some_and(|leader| up.contains(&leader.store));
            counts.leaderless += u64::from(!led);
        }
        counts.operations_per_second = up
            .iter()
            .filter_map(|store| self.stores.last(*store))
            .map(|heard| heard.operations_per_second)
            .sum();
        counts
    }
}

/// What the cluster wants. A number of replicas that cannot be counts as the odd one below.
fn policy_of(state: &State) -> Arc<Policy> {
    let replicas = state.cluster().map_or(1, |cluster| cluster.replicas).clamp(1, 7);
    let odd = if replicas.is_multiple_of(2) { replicas - 1 } else { replicas };
    Arc::new(Policy::of_replicas(odd).expect("an odd number up to seven"))
}
