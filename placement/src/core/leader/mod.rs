//! What only the leader of placement knows and decides, for one term of its leadership.
//!
//! Made anew from the replicated [`State`] whenever leadership is won: the saved region tree lets
//! it route at once, the reports of the stores complete it within seconds, and the replicated
//! operators and lifecycles go on from where they were. It proposes nothing itself; the shell asks
//! [`Leader::to_save`] and [`Leader::to_propose`] what to write.
//!
//! Its modules: [`advance`](self) takes a region one step on its way, `patrol` plans, `requests`
//! does what people ask for, `store` judges stores that come and go, `leavers` says when one has
//! left, `own` changes placement's own group, from what `standing` knows of it, `merge` has regions
//! taken in by others, `reports` takes in what stores say, `found` what nobody here had heard of,
//! `look` describes, `around` tells what changed.
//!
//! Time: stores are heard and plans are paced by the monotonic clock; deadlines and lifecycles,
//! which outlive a leader, are in placement time. A leader counts it from a moment that no former
//! leader has reached ([`Leader::time_ms`]).

mod advance;
mod around;
mod found;
mod leavers;
mod look;
mod merge;
mod outcome;
mod own;
mod own_group;
mod patrol;
mod reports;
mod requests;
mod standing;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::time::Instant;
use quorate_proto::{Epoch, PeerId, RegionId, StoreId, Term};

use super::checker::Checkers;
use super::command::{Command, SavedRegion};
use super::events::{News, Severity};
use super::history::History;
use super::journal::Journal;
use super::limit::{LimitRates, Limits};
use super::load::Loads;
use super::members::Members;
use super::merge::ages::Ages;
use super::operators::{Operators, Order};
use super::oracle::CEILING_AHEAD_MS;
use super::partition::Partitions;
use super::policy::Policy;
use super::schedule::Schedulers;
use super::settings::Settings;
use super::state::State;
use super::stores::Stores;
use super::tree::RegionTree;
use super::watch::Watch;
pub use look::Counts;
pub use own::{MAX_VOTERS, OWN, OwnStep};
pub use reports::Reported;
pub use requests::{MemberAction, TransferRefusal};
pub use standing::{Other, Standing};
pub use store::{RemoveRefusal, Replacement};

/// Time between two plans of a scheduler.
pub const PLAN_EVERY: Duration = Duration::from_millis(250);
/// Time between two looks at everything that is worth an event.
pub const WATCH_EVERY: Duration = Duration::from_secs(1);

/// The leader's own state. See the module.
#[derive(Debug)]
pub struct Leader {
    term: Term,
    /// A moment, by both clocks.
    began: (Instant, u64),
    tree: RegionTree,
    stores: Stores,
    operators: Operators,
    members: Members,
    journal: Journal,
    history: History,
    watch: Watch,
    partitions: Partitions,
    schedulers: Schedulers,
    checkers: Checkers,
    loads: Loads,
    ages: Ages,
    limits: Limits,
    policy: Arc<Policy>,
    /// What policy and limits were made from.
    settled: Option<(Settings, u32)>,
    unsaved: BTreeSet<RegionId>,
    /// Regions that others have taken the place of, until the next tick.
    evicted: BTreeSet<RegionId>,
    /// Regions to be looked at with the next tick.
    touched: BTreeSet<RegionId>,
    /// Replicas whose stores were told to destroy what is left, and the epoch without them.
    destroyed: BTreeMap<(RegionId, PeerId), Epoch>,
    /// Stores that were let go, and when: the log does not show it yet.
    let_go: BTreeMap<StoreId, Instant>,
    /// Stores that leave: when each was last seen to have a replica, or to be about to get one.
    listed: BTreeMap<StoreId, Instant>,
    /// What the placement group itself waits for, in words.
    own_waits: String,
    /// Where the checkers go on.
    patrolled: RegionId,
    next_plan: Instant,
    next_watch: Instant,
}

impl Leader {
    /// For the leader of `term`, from what is replicated.
    pub fn new(term: Term, state: &State, now: Instant) -> Self {
        let mut leader = Self::bare(term, state, now);
        leader.settle(state);
        leader
    }

    fn bare(term: Term, state: &State, now: Instant) -> Self {
        // No former leader's time has reached the ceiling it found.
        let now_ms = state.counters().time_ceiling_ms.saturating_sub(CEILING_AHEAD_MS);
        Self {
            term,
            began: (now, now_ms),
            tree: state.saved_regions().clone(),
            stores: Stores::new(now),
            operators: Operators::new(
                term,
                state.operators().values(),
                state.ended().iter(),
                now_ms,
            ),
            members: Members::new(state, now_ms),
            journal: Journal::new(term),
            history: History::of_former(state),
            watch: Watch::new(state),
            partitions: Partitions::default(),
            schedulers: Schedulers::default(),
            checkers: Checkers::default(),
            loads: Loads::default(),
            ages: Ages::default(),
            limits: Limits::new(LimitRates::default()),
            policy: Arc::new(Policy::of_replicas(3).expect("three is odd")),
            settled: None,
            unsaved: BTreeSet::new(),
            evicted: BTreeSet::new(),
            touched: BTreeSet::new(),
            destroyed: BTreeMap::new(),
            let_go: BTreeMap::new(),
            listed: BTreeMap::new(),
            own_waits: String::new(),
            patrolled: RegionId(0),
            next_plan: now,
            next_watch: now,
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
    /// Members on their way.
    pub fn members(&self) -> &Members {
        &self.members
    }
    /// What was decided lately.
    pub fn history(&self) -> &History {
        &self.history
    }
    /// The schedulers, and what they do.
    pub fn schedulers(&self) -> &Schedulers {
        &self.schedulers
    }
    /// The checkers, and what they found.
    pub fn checkers(&self) -> &Checkers {
        &self.checkers
    }
    /// What work the regions make.
    pub fn loads(&self) -> &Loads {
        &self.loads
    }
    /// How many regions have no live majority, as of the last look.
    pub fn without_quorum(&self) -> usize {
        self.watch.without_quorum().len()
    }
    /// Placement time, for deadlines: milliseconds that never go backwards, not across leaders
    /// either.
    pub fn time_ms(&self, now: Instant) -> u64 {
        let (at, at_ms) = self.began;
        at_ms + u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes in the regions that were made or saved through the log since this leader began:
    /// those of the bootstrap.
    pub fn adopt(&mut self, state: &State) {
        for info in state.saved_regions().iter() {
            // What it knows already is newer.
            let _ = self.tree.offer(info.as_ref().clone());
        }
    }

    /// Lets time pass: takes regions on their way a step further, ends what is overdue and plans.
    /// Returns the stores that have orders waiting.
    pub fn tick(&mut self, state: &State, now: Instant) -> BTreeSet<StoreId> {
        let now_ms = self.time_ms(now);
        let regions = self.operators.iter().map(|operator| operator.region);
        let gone: BTreeSet<RegionId> =
            regions.filter(|region| self.is_gone(state, *region, now)).collect();
        self.operators.expire(|region| gone.contains(&region), now_ms);
        let mut due = std::mem::take(&mut self.touched);
        let plans = now >= self.next_plan;
        if plans {
            // Those that wait for good are looked at with the rest of the cluster.
            let all = now >= self.next_watch;
            let groups = self.members.groups(|record| all || record.is_on_its_way());
            due.extend(groups.filter(|group| *group != OWN));
            due.extend(self.operators.iter().map(|operator| operator.region));
        }
        for region in due {
            self.advance(state, region, now);
        }
        if plans {
            self.next_plan = now + PLAN_EVERY;
            self.settle(state);
            self.loads.prune(&self.tree);
            self.plan(state, now);
        }
        if now >= self.next_watch {
            self.next_watch = now + WATCH_EVERY;
            self.look_around(state, now);
        }
        self.operators.due(&self.tree, now_ms)
    }

    /// Takes over settings that have changed.
    pub(super) fn settle(&mut self, state: &State) {
        let replicas = state.cluster().map_or(3, |cluster| cluster.replicas);
        let settings = state.settings();
        let is_known = self
            .settled
            .as_ref()
            .is_some_and(|(known, number)| known == settings && *number == replicas);
        if is_known {
            return;
        }
        let millis = |name| Duration::from_millis(settings.number(name));
        self.stores.set_limits(millis("store.suspect_ms"), millis("store.down_ms"));
        self.limits.set_rates(settings.limit_rates());
        // Settings are checked when they are made. A cluster founded with an even number of
        // replicas has the odd one below.
        let odd =
            if replicas.is_multiple_of(2) { replicas.saturating_sub(1).max(1) } else { replicas };
        if let Ok(policy) = settings.policy(odd.min(7)) {
            self.policy = Arc::new(policy);
        }
        let paused = settings.paused_schedulers();
        let names: Vec<&'static str> =
            self.schedulers.list().iter().map(|status| status.name).collect();
        for name in names {
            // The name is its own.
            let _ = self.schedulers.set_paused(name, paused.contains(name));
        }
        self.checkers.set_paused(|name| paused.contains(name));
        self.settled = Some((settings.clone(), replicas));
    }

    fn tell(&mut self, severity: Severity, kind: &str, text: String, region: RegionId, at_ms: u64) {
        let (kind, node) = (kind.to_owned(), quorate_proto::NodeId(0));
        self.journal.tell(News { at_ms, severity, kind, text, region, node });
    }

    /// Orders for a store, at most `limit`; they count as sent.
    pub fn orders_for(&mut self, store: StoreId, limit: usize, now: Instant) -> Vec<Order> {
        let now_ms = self.time_ms(now);
        self.operators.send(store, &self.tree, limit, now_ms)
    }

    /// What is to be replicated now: plans, and stores that have left. Ask again soon; whatever
    /// got lost is returned again.
    pub fn to_propose(&mut self, state: &State, now: Instant) -> Vec<Command> {
        if !Self::may_plan(state) {
            return Vec::new();
        }
        let now_ms = self.time_ms(now);
        let plan = self.journal.to_save(state, &self.operators, &mut self.members, now_ms);
        let mut commands: Vec<Command> = plan.map(Command::SavePlan).into_iter().collect();
        commands.extend(self.leavers(state, now));
        commands
    }

    /// A proposal of the leader's own failed: it may be made again at once.
    pub fn not_proposed(&mut self) {
        self.journal.failed();
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
}
