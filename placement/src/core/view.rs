//! An immutable picture of the cluster, for planning.
//!
//! Checkers and schedulers see nothing else. It is linear to build and copies no region: regions
//! are shared with the tree, stores refer to them by their place in the list.
//!
//! [`Tally`] counts a store's leaders, replicas and bytes **as they will be once everything under
//! way is done**, so that a plan made twice does not move twice. Whoever begins an operator adds
//! it to the picture with [`ClusterView::begin`] before planning on.
//!
//! The sentinel region is in no list and no count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_consensus::time::Instant;
use quorate_proto::{RegionId, StoreId};

use super::labels::{Location, Map};
use super::limit::{Burden, LimitRates, Limits, cost};
use super::load::{Load, Loads};
use super::operators::{Draft, Goal};
use super::policy::Policy;
use super::report::StoreStats;
use super::rule::Rule;
use super::rule::fit::Labels;
use super::state::Store;
use super::stores::{StoreState, Stores};
use super::tree::{RegionInfo, RegionTree};

/// A region, as a scheduler sees it.
#[derive(Clone, Debug)]
pub struct RegionView {
    /// What is known of it.
    pub info: Arc<RegionInfo>,
    /// Its work.
    pub load: Load,
}

/// A store, as a scheduler sees it.
#[derive(Clone, Debug)]
pub struct StoreView {
    /// Its address, its labels.
    pub store: Arc<Store>,
    /// How it is doing.
    pub state: StoreState,
    /// True once it has told all it leads: before that its leaders cannot be counted.
    pub complete: bool,
    /// True while it gives its leaders away by itself.
    pub stopping: bool,
    /// Its last numbers; zeros where it has sent none.
    pub stats: StoreStats,
    /// Cores its process keeps busy.
    pub cores: f64,
    /// Where it stands.
    pub location: Location,
    /// Places in [`ClusterView::regions`] of those it leads.
    pub leads: Vec<u32>,
    /// Places in [`ClusterView::regions`] of those it has a replica of.
    pub replicas: Vec<u32>,
}

impl StoreView {
    /// True where leaders and replicas may be moved to and from this store.
    pub fn is_eligible(&self) -> bool {
        self.state == StoreState::Up && self.complete && !self.stopping
    }
}

/// What a store has once everything under way is done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Regions it leads.
    pub leaders: usize,
    /// Regions it has a replica of.
    pub replicas: usize,
    /// Bytes of these.
    pub bytes: u64,
    /// Operators under way that bring it a replica.
    pub incoming: usize,
    /// Tokens for additions.
    pub additions: f64,
    /// Tokens for removals.
    pub removals: f64,
}

/// All stores' tallies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tallies(BTreeMap<StoreId, Tally>);

impl Tallies {
    /// A store's; zeros for one that is not known.
    pub fn of(&self, store: StoreId) -> Tally {
        self.0.get(&store).copied().unwrap_or_default()
    }

    fn change(&mut self, store: StoreId, change: impl FnOnce(&mut Tally)) {
        if let Some(tally) = self.0.get_mut(&store) {
            change(tally);
        }
    }

    /// Adds what an operator will change that it has not changed yet.
    fn promise(&mut self, info: &RegionInfo, goal: &Goal) {
        let leads = |store| info.led && info.leader.is_some_and(|leader| leader.store == store);
        match goal {
            Goal::TransferLeader { from, to } => {
                if leads(*from) {
                    self.change(*from, |tally| tally.leaders = tally.leaders.saturating_sub(1));
                    self.change(*to, |tally| tally.leaders += 1);
                }
            }
            Goal::AddReplica { to, .. } => self.arrives(info, *to),
            Goal::MoveReplica { from, to } => {
                self.departs(info, *from);
                if leads(*from) {
                    // Who will lead instead is not known yet.
                    self.change(*from, |tally| tally.leaders = tally.leaders.saturating_sub(1));
                }
                self.arrives(info, *to);
            }
            Goal::RemoveReplica { from } => self.departs(info, *from),
            // Its replicas go; what they hold stays, with those of the target.
            Goal::MergeInto { .. } => {
                for peer in &info.region.peers {
                    self.change(peer.store, |tally| {
                        tally.replicas = tally.replicas.saturating_sub(1);
                    });
                    if leads(peer.store) {
                        self.change(peer.store, |tally| {
                            tally.leaders = tally.leaders.saturating_sub(1);
                        });
                    }
                }
            }
            Goal::Split { .. }
            | Goal::Promote { .. }
            | Goal::Demote { .. }
            | Goal::LeaveJoint
            | Goal::RollBackMerge { .. } => {}
        }
    }

    fn arrives(&mut self, info: &RegionInfo, to: StoreId) {
        let is_new = info.region.peer_on(to).is_none();
        self.change(to, |tally| {
            tally.incoming += 1;
            if is_new {
                tally.replicas += 1;
                tally.bytes += info.stats.bytes;
            }
        });
    }

    fn departs(&mut self, info: &RegionInfo, from: StoreId) {
        if info.region.peer_on(from).is_some() {
            self.change(from, |tally| {
                tally.replicas = tally.replicas.saturating_sub(1);
                tally.bytes = tally.bytes.saturating_sub(info.stats.bytes);
            });
        }
    }

    /// Takes what a new operator costs.
    fn spend(&mut self, info: &RegionInfo, goal: &Goal) {
        let cost = cost(info.stats.bytes);
        let (from, to) = match goal {
            Goal::AddReplica { to, .. } => (None, Some(*to)),
            Goal::MoveReplica { from, to } => (Some(*from), Some(*to)),
            Goal::RemoveReplica { from } => (Some(*from), None),
            Goal::TransferLeader { .. }
            | Goal::Split { .. }
            | Goal::Promote { .. }
            | Goal::Demote { .. }
            | Goal::LeaveJoint
            | Goal::MergeInto { .. }
            | Goal::RollBackMerge { .. } => (None, None),
        };
        if let Some(from) = from {
            self.change(from, |tally| tally.removals -= cost);
        }
        if let Some(to) = to {
            self.change(to, |tally| tally.additions -= cost);
        }
    }

    /// Adds an operator that is about to begin.
    pub fn begin(&mut self, info: &RegionInfo, goal: &Goal) {
        self.promise(info, goal);
        self.spend(info, goal);
    }
}

/// The picture.
#[derive(Clone, Debug)]
pub struct ClusterView {
    /// All stores.
    pub stores: BTreeMap<StoreId, StoreView>,
    /// What each of them will have.
    pub tallies: Tallies,
    /// All regions but the sentinel, in order of their ids.
    pub regions: Vec<RegionView>,
    /// Regions that must be left alone: an operator is under way, or one has just failed.
    pub busy: BTreeSet<RegionId>,
    /// Stores that could not take a replica of a region and are not tried again yet: how often in
    /// a row, and for how many milliseconds more.
    pub failed: BTreeMap<(RegionId, StoreId), (u32, u64)>,
    /// Transfers of leadership under way.
    pub transfers: usize,
    /// Moves of replicas under way.
    pub moves: usize,
    /// Merges under way.
    pub merges: usize,
    /// False before the cluster's version in which replicas move at all.
    pub may_move: bool,
    /// What is wanted.
    pub policy: Arc<Policy>,
    /// How much a store may be burdened with.
    pub rates: LimitRates,
}

/// What a store has now.
#[derive(Clone, Debug, Default)]
struct Has {
    leads: Vec<u32>,
    replicas: Vec<u32>,
    bytes: u64,
}

/// What a picture is taken of.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The regions.
    pub tree: &'a RegionTree,
    /// The stores.
    pub known: &'a BTreeMap<StoreId, Arc<Store>>,
    /// Which of them are alive.
    pub alive: &'a Stores,
    /// What work the regions make.
    pub loads: &'a Loads,
    /// How fast replicas may be added and removed.
    pub limits: &'a Limits,
    /// What is wanted.
    pub policy: &'a Arc<Policy>,
}

impl ClusterView {
    /// Takes the picture. `under_way` is what was begun and has not ended, `busy` which regions
    /// must be left alone.
    pub fn of<'a>(
        sources: Sources<'_>,
        under_way: impl Iterator<Item = (RegionId, &'a Goal)>,
        busy: BTreeSet<RegionId>,
        now: Instant,
    ) -> Self {
        let mut view = ClusterView {
            stores: BTreeMap::new(),
            tallies: Tallies::default(),
            regions: Vec::with_capacity(sources.tree.len()),
            busy,
            failed: BTreeMap::new(),
            transfers: 0,
            moves: 0,
            merges: 0,
            may_move: true,
            policy: Arc::clone(sources.policy),
            rates: sources.limits.rates(),
        };
        view.add_stores(&sources, now);
        view.add_regions(&sources, now);
        for (region, goal) in under_way {
            match goal {
                Goal::TransferLeader { .. } => view.transfers += 1,
                Goal::AddReplica { .. } | Goal::MoveReplica { .. } | Goal::RemoveReplica { .. } => {
                    view.moves += 1;
                }
                Goal::MergeInto { .. } => view.merges += 1,
                Goal::Split { .. }
                | Goal::Promote { .. }
                | Goal::Demote { .. }
                | Goal::LeaveJoint
                | Goal::RollBackMerge { .. } => {}
            }
            if let Some(region) = view.region(region) {
                let info = Arc::clone(&region.info);
                view.tallies.promise(&info, goal);
            }
        }
        view
    }

    fn add_stores(&mut self, sources: &Sources<'_>, now: Instant) {
        let mut map = Map::new(&sources.policy.levels);
        for store in sources.known.values() {
            let heard = sources.alive.last(store.id);
            let stats = heard.map(|heard| heard.stats).unwrap_or_default();
            let tally = Tally {
                additions: sources.limits.tokens(store.id, Burden::Addition, now),
                removals: sources.limits.tokens(store.id, Burden::Removal, now),
                ..Tally::default()
            };
            self.tallies.0.insert(store.id, tally);
            self.stores.insert(
                store.id,
                StoreView {
                    store: Arc::clone(store),
                    state: sources.alive.state(store, now),
                    complete: heard.is_some_and(|heard| heard.complete),
                    stopping: stats.stopping,
                    stats,
                    cores: sources.loads.cores(store.id),
                    location: map.locate(&store.labels),
                    leads: Vec::new(),
                    replicas: Vec::new(),
                },
            );
        }
    }

    fn add_regions(&mut self, sources: &Sources<'_>, now: Instant) {
        let ids: Vec<StoreId> = self.stores.keys().copied().collect();
        let place = |store: StoreId| ids.binary_search(&store).ok();
        let mut has: Vec<Has> = vec![Has::default(); ids.len()];
        let mut loads = sources.loads.iter(now).peekable();
        for info in sources.tree.iter().filter(|info| !info.is_sentinel()) {
            let id = info.region.id;
            while loads.next_if(|(region, _)| *region < id).is_some() {}
            let load = loads.next_if(|(region, _)| *region == id).map(|(_, load)| load);
            let at = u32::try_from(self.regions.len()).expect("fewer regions than a u32 counts");
            for store in info.region.peers.iter().filter_map(|peer| place(peer.store)) {
                has[store].replicas.push(at);
                has[store].bytes += info.stats.bytes;
            }
            let leader = info.leader.filter(|_| info.led);
            if let Some(store) = leader.and_then(|leader| place(leader.store)) {
                has[store].leads.push(at);
            }
            let load = load.unwrap_or_default();
            self.regions.push(RegionView { info: Arc::clone(info), load });
        }
        for ((id, store), has) in self.stores.iter_mut().zip(has) {
            self.tallies.change(*id, |tally| {
                tally.leaders = has.leads.len();
                tally.replicas = has.replicas.len();
                tally.bytes = has.bytes;
            });
            store.leads = has.leads;
            store.replicas = has.replicas;
        }
    }

    /// The region with that id.
    pub fn region(&self, id: RegionId) -> Option<&RegionView> {
        let at = self.regions.binary_search_by_key(&id, |region| region.info.region.id);
        at.ok().map(|at| &self.regions[at])
    }

    /// The regions a store leads.
    pub fn led_by(&self, store: StoreId) -> impl Iterator<Item = &RegionView> {
        let leads = self.stores.get(&store).map_or(&[][..], |store| &store.leads);
        leads.iter().map(|at| &self.regions[*at as usize])
    }

    /// The regions a store has a replica of.
    pub fn on(&self, store: StoreId) -> impl Iterator<Item = &RegionView> {
        let replicas = self.stores.get(&store).map_or(&[][..], |store| &store.replicas);
        replicas.iter().map(|at| &self.regions[*at as usize])
    }

    /// The rules that govern a region.
    pub fn rules_of(&self, info: &RegionInfo) -> &[Rule] {
        self.policy.rules.at(&info.region.range.start)
    }

    /// Where a store stands; nowhere in particular if it is not known.
    pub fn location(&self, store: StoreId) -> Location {
        self.stores.get(&store).map(|store| store.location).unwrap_or_default()
    }

    /// Adds an operator that has just begun, so that what is planned next counts with it.
    pub fn begin(&mut self, draft: &Draft) {
        if let Some(region) = self.region(draft.region) {
            let info = Arc::clone(&region.info);
            self.tallies.begin(&info, &draft.goal);
        }
        if let Goal::MergeInto { target, .. } = &draft.goal {
            self.busy.insert(*target);
            self.merges += 1;
        }
        self.busy.insert(draft.region);
    }
}

impl Labels for ClusterView {
    fn labels_of(&self, store: StoreId) -> Option<&BTreeMap<String, String>> {
        self.stores.get(&store).map(|view| &view.store.labels)
    }
}
