//! A store: the real directory, applier and read path behind simulated requests.
//!
//! Here is what it is and what it applies; [`serving`] has its requests, [`upkeep`] what it and
//! placement have to say to each other, [`orders`] what placement wants of it.

mod orders;
mod serving;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_consensus::engine::{Cf, Engine, EngineError, MemoryEngine, WriteBatch};
use quorate_consensus::node::{Installed, Outcome};
use quorate_consensus::shard::{ApplyTask, Install, LeaderChange, NewGroup};
use quorate_consensus::time::Instant;
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{Epoch, NodeId, PeerId, RegionId, StoreId};
use quorate_store::core::{Answer, Applier, Directory, ReadPath, Reporter, keys, snapshot};

use self::serving::{Job, Waiting};
use self::upkeep::Purpose;
pub(crate) use self::upkeep::joining;
use crate::sim::agenda::MS;
use crate::sim::checks::region_hash;
use crate::sim::cx::Cx;
use crate::sim::messages::{Failure, Output, Token};
use crate::sim::mutant::Mutant;
use crate::sim::placement::MEMBERS;
use crate::sim::process::role::Host;

/// See the module.
pub(crate) struct StoreRole {
    pub(crate) id: StoreId,
    pub(crate) applier: Applier,
    pub(crate) directory: Arc<Directory>,
    reads: ReadPath,
    waiting: BTreeMap<u64, Waiting>,
    jobs: BTreeMap<u64, Job>,
    next: u64,
    /// Epochs of regions as last seen in this life.
    epochs: BTreeMap<RegionId, Epoch>,
    /// A mutant: regions whose joint configurations were entered by this store.
    entered: BTreeSet<RegionId>,
    /// Regions that are being split, since when.
    pub(crate) splitting: BTreeMap<RegionId, Instant>,
    /// Placement time as last told, in milliseconds, and when that was.
    pub(crate) time: (u64, Instant),
    /// Drawn once for its disk.
    data_id: u64,
    /// It has its id on disk.
    pub(crate) known: bool,
    /// Placement knows of this start.
    pub(crate) joined: bool,
    /// It has its first regions.
    pub(crate) hosting: bool,
    pub(crate) incarnation: u64,
    pub(crate) reporter: Reporter,
    /// Placement should hear something at once.
    pub(crate) nudged: bool,
    /// Regions without leader that placement said it does not know.
    pub(crate) unknown: BTreeSet<RegionId>,
    pub(crate) sequence: u64,
    pub(crate) duties: u64,
    /// The member of placement that is asked.
    pub(crate) placement: NodeId,
    pub(crate) asked: BTreeMap<u64, (Purpose, Instant)>,
}

impl StoreRole {
    pub(crate) fn start(
        node: NodeId,
        incarnation: u64,
        disk: &MemoryEngine,
        cx: &mut Cx,
    ) -> Result<(Self, Vec<NewGroup>), EngineError> {
        let id = StoreId::from(node);
        let engine = Arc::new(disk.clone());
        let (applier, groups) = Applier::recover(engine.clone(), id)?;
        let ident = keys::read_ident(disk)?;
        let known = ident.is_some();
        let data_id = ident.map_or(id.0, |ident| ident.data_id);
        let directory = Arc::clone(applier.directory());
        let mut epochs = BTreeMap::new();
        cx.checks.directory(node, &directory, &mut epochs);
        let role = Self {
            id,
            reads: ReadPath::new(Arc::clone(&directory), engine),
            applier,
            directory,
            waiting: BTreeMap::new(),
            jobs: BTreeMap::new(),
            // No number of an earlier life comes again.
            next: incarnation << 32,
            epochs,
            entered: BTreeSet::new(),
            splitting: BTreeMap::new(),
            time: (0, Instant::default()),
            known,
            data_id,
            joined: false,
            hosting: !groups.is_empty(),
            incarnation,
            reporter: Reporter::new(),
            nudged: false,
            unknown: BTreeSet::new(),
            sequence: 0,
            duties: 0,
            placement: NodeId(MEMBERS + 1),
            asked: BTreeMap::new(),
        };
        Ok((role, groups))
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn token(&mut self, waiting: Waiting) -> Token {
        let number = self.number();
        self.waiting.insert(number, waiting);
        Token(number)
    }

    pub(crate) fn apply(
        &mut self,
        tasks: Vec<ApplyTask<Token>>,
        host: &mut Host<'_>,
    ) -> Result<Outcome, EngineError> {
        let mut answers = Vec::new();
        let outcome = self.applier.apply(tasks, &mut answers);
        for answered in answers {
            let Some(waiting) = self.waiting.remove(&answered.token.0) else {
                let node = host.node;
                host.cx.checks.fail(|| format!("{node} answered {:?} twice", answered.token));
                continue;
            };
            let result = match answered.answer {
                Answer::Done => Ok(Output::Done),
                Answer::Refused(refused) => Err(Failure::Region(refused)),
                Answer::Undetermined => Err(Failure::Undetermined),
            };
            match waiting {
                Waiting::Write { caller, .. } => {
                    if !host.cx.is(Mutant::AnsweredBeforeApplied) {
                        self.respond(caller, result, host);
                    }
                }
                Waiting::Split(region) => {
                    self.splitting.remove(&region);
                }
                Waiting::Peers => self.nudged = true,
                Waiting::Read(_) => {
                    let node = host.node;
                    host.cx.checks.fail(|| format!("{node} applied a read"));
                }
            }
        }
        let outcome = outcome?;
        for progress in &outcome.progress {
            self.check((progress.group, progress.index.0, false), host)?;
        }
        for new in &outcome.created {
            self.check((new.group, new.applied.0.0, true), host)?;
        }
        self.nudged |= !outcome.created.is_empty() || !outcome.reconfigured.is_empty();
        self.nudged |= !outcome.changed.is_empty();
        for (group, _) in &outcome.merged {
            if let Some(gone) = self.directory.taken_in(*group) {
                host.cx.checks.gone(&gone.region);
            }
        }
        self.look_around(host);
        Ok(outcome)
    }

    fn check(
        &self,
        (group, index, is_new): (RegionId, u64, bool),
        host: &mut Host<'_>,
    ) -> Result<(), EngineError> {
        if let Some(region) = self.directory.get(group).and_then(|local| local.replicated()) {
            let hash = region_hash(host.disk, &region)?;
            host.cx.checks.state(host.node, group, index, hash);
        }
        let committed = self.directory.get(group).map(|local| local.view().committed());
        if let Some(committed) = committed.filter(|_| !is_new).filter(|it| it.0 < index) {
            let node = host.node;
            host.cx.checks.fail(|| {
                format!("{node} applied {group} up to {index}, with {committed} committed")
            });
        }
        Ok(())
    }

    pub(crate) fn install(
        &mut self,
        install: Install,
        host: &mut Host<'_>,
    ) -> Result<Installed, EngineError> {
        let (group, index) = (install.group, install.index.0);
        let installed = self.applier.install(install)?;
        self.check((group, index, true), host)?;
        self.look_around(host);
        Ok(installed)
    }

    /// A group is gone from here: so is its data.
    pub(crate) fn destroy(
        &mut self,
        group: RegionId,
        peer: PeerId,
        host: &mut Host<'_>,
    ) -> Result<(), EngineError> {
        let here = self.directory.get(group).filter(|here| here.peer() == peer);
        if here.is_none() {
            return self.applier.forget_merged(group);
        }
        if host.cx.is(Mutant::RemovedStays) {
            return Ok(());
        }
        self.applier.destroy(group)?;
        host.cx.checks.destroyed(host.node, group, peer);
        if host.cx.is(Mutant::DestroyedWithoutTombstone) {
            let mut batch = WriteBatch::new();
            batch.delete(Cf::Meta, keys::region_state(group));
            host.disk.write_synced(batch)?;
        }
        self.look_around(host);
        Ok(())
    }

    /// Whether a snapshot may come in.
    pub(crate) fn admit_snapshot(&mut self, message: &Envelope) -> bool {
        let Some(meta) = &message.snapshot else { return false };
        let Ok(described) = snapshot::parse_state(meta.state.clone()) else { return false };
        let to = PeerId(message.to_peer);
        let (region, taken_in) = (Arc::new(described.region), described.taken_in);
        self.directory.admit_snapshot(region, &taken_in, to).is_ok()
    }

    /// Placement should hear of it at once.
    pub(crate) fn leader_changed(&mut self, change: LeaderChange) {
        self.nudged |= change.is_local;
    }

    /// Looks at what this store has.
    pub(crate) fn look_around(&mut self, host: &mut Host<'_>) {
        host.cx.checks.directory(host.node, &self.directory, &mut self.epochs);
    }

    /// Placement time, in milliseconds.
    pub(crate) fn time_ms(&self, now: Instant) -> u64 {
        let (told, at) = self.time;
        told + now.0.saturating_sub(at.0) / MS
    }
}
