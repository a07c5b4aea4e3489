//! A store's services: the real directory, applier and read path behind simulated requests.
//!
//! The counterpart of `store/src/serve`. Each step of a read is an event of its own, so that a
//! pause, a split, a snapshot or a change of leadership can fall between any two of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_consensus::engine::{EngineError, MemoryEngine};
use quorate_consensus::node::Outcome;
use quorate_consensus::shard::{
    self, ApplyTask, Install, LeaderChange, Member, NewGroup, Plane, Refusal, Reply,
};
use quorate_consensus::time::Instant;
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{NodeId, RegionId, StoreId};
use quorate_store::core::{
    Answer, Applier, Directory, Pass, ReadAdmission, ReadError, ReadPath, RegionError, Reporter,
    Scan, Unconfirmed, command, keys, snapshot,
};

use super::agenda::MS;
use super::checks::region_hash;
use super::cx::Cx;
use super::messages::{Body, Failure, Operation, Output, Request, Token};
use super::mutant::Mutant;
use super::role::Host;
use super::upkeep::Purpose;

/// Between two steps of a request, mostly.
const STEP: u64 = MS / 20;
/// Where its thread has to wait for a processor.
const SLOW_STEP: u64 = 20 * MS;

/// See the module.
pub(super) struct StoreRole {
    pub(super) id: StoreId,
    pub(super) applier: Applier,
    pub(super) directory: Arc<Directory>,
    reads: ReadPath,
    waiting: BTreeMap<u64, Waiting>,
    jobs: BTreeMap<u64, Job>,
    next: u64,
    /// Versions of regions as last seen in this life.
    versions: BTreeMap<RegionId, u64>,
    /// Regions that are being split, since when.
    pub(super) splitting: BTreeMap<RegionId, Instant>,
    /// Placement time as last told, in milliseconds, and when that was.
    pub(super) time: (u64, Instant),
    /// It has its id on disk.
    pub(super) known: bool,
    /// Placement knows of this start.
    pub(super) joined: bool,
    /// It has its first regions.
    pub(super) hosting: bool,
    pub(super) incarnation: u64,
    pub(super) reporter: Reporter,
    /// Placement should hear something at once.
    pub(super) nudged: bool,
    pub(super) sequence: u64,
    pub(super) duties: u64,
    /// The member of placement that is asked, by number.
    pub(super) placement: u64,
    pub(super) asked: BTreeMap<u64, (Purpose, Instant)>,
}

/// Who asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    client: NodeId,
    call: u64,
}

/// Whoever waits for a token.
pub(super) enum Waiting {
    Write { caller: Caller, region: RegionId },
    Read(Box<Read>),
    Split(RegionId),
}

/// A read under way.
pub(super) struct Read {
    caller: Caller,
    request: Request,
}

/// The next step of something.
enum Job {
    Begin(Box<Read>),
    AtIndex(Box<Read>),
    Look(Box<Read>, Pass),
    Confirm(Box<Read>, Pass, Result<Output, RegionError>),
}

impl StoreRole {
    pub(super) fn start(
        node: NodeId,
        incarnation: u64,
        disk: &MemoryEngine,
        cx: &mut Cx,
    ) -> Result<(Self, Vec<NewGroup>), EngineError> {
        let id = StoreId::from(node);
        let engine = Arc::new(disk.clone());
        let (applier, groups) = Applier::recover(engine.clone(), id)?;
        let known = keys::read_ident(disk)?.is_some();
        let directory = Arc::clone(applier.directory());
        let mut versions = BTreeMap::new();
        cx.checks.directory(node, &directory, &mut versions);
        let role = Self {
            id,
            reads: ReadPath::new(Arc::clone(&directory), engine),
            applier,
            directory,
            waiting: BTreeMap::new(),
            jobs: BTreeMap::new(),
            // No number of an earlier life comes again.
            next: incarnation << 32,
            versions,
            splitting: BTreeMap::new(),
            time: (0, Instant::default()),
            known,
            joined: false,
            hosting: !groups.is_empty(),
            incarnation,
            reporter: Reporter::new(),
            nudged: false,
            sequence: 0,
            duties: 0,
            placement: 1,
            asked: BTreeMap::new(),
        };
        Ok((role, groups))
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn token(&mut self, waiting: Waiting) -> Token {
        let number = self.number();
        self.waiting.insert(number, waiting);
        Token(number)
    }

    fn go_on(&mut self, job: Job, host: &mut Host<'_>) {
        let number = self.number();
        self.jobs.insert(number, job);
        let slow = host.cx.chance(0.05);
        let after = host.cx.within((0, if slow { SLOW_STEP } else { STEP }));
        host.job(after, number);
    }

    fn respond(&self, caller: Caller, result: Result<Output, Failure>, host: &mut Host<'_>) {
        let body = Body::Response { call: caller.call, result };
        host.cx.send(host.node, caller.client, Plane::Control, body);
    }

    /// A client asks.
    pub(super) fn request(&mut self, client: NodeId, request: Request, host: &mut Host<'_>) {
        let caller = Caller { client, call: request.call };
        if !request.operation.is_write() {
            let read = Box::new(Read { caller, request });
            self.go_on(Job::Begin(read), host);
            return;
        }
        if let Err(refused) = self.write(caller, request, host) {
            self.respond(caller, Err(Failure::Region(refused)), host);
        }
    }

    fn write(
        &mut self,
        caller: Caller,
        request: Request,
        host: &mut Host<'_>,
    ) -> Result<(), RegionError> {
        let admitted = self.directory.admit(&request.context)?;
        admitted.check_leader()?;
        admitted.check_key(request.operation.key())?;
        let stamp = admitted.stamp(self.time_ms(host.now));
        let encoded = match &request.operation {
            Operation::Put { key, value } => command::put(stamp, key, value),
            Operation::Delete { key } => command::delete(stamp, key),
            Operation::Get { .. } | Operation::Scan { .. } => return Ok(()),
        };
        let command = encoded.expect("simulated clients stay within the limits");
        let group = admitted.region.id;
        let token = self.token(Waiting::Write { caller, region: group });
        host.mail.push(shard::Event::Propose { group, command, token, suspends_lease: false });
        if host.cx.is(Mutant::AnsweredBeforeApplied) {
            self.respond(caller, Ok(Output::Done), host);
        }
        Ok(())
    }

    /// The next step of a request.
    pub(super) fn job(&mut self, job: u64, host: &mut Host<'_>) {
        let Some(job) = self.jobs.remove(&job) else { return };
        match job {
            Job::Begin(read) => match self.reads.admit(&read.request.context, host.now) {
                Ok(ReadAdmission::Lease(pass)) => {
                    if pass.renew() {
                        host.mail.push(shard::Event::RenewLease { group: pass.region() });
                    }
                    self.go_on(Job::Look(read, pass), host);
                }
                Ok(ReadAdmission::NeedsIndex(group)) => self.ask_index(read, group, host),
                Err(refused) => self.respond(read.caller, Err(Failure::Region(refused)), host),
            },
            Job::AtIndex(read) => match self.reads.admit_at_index(&read.request.context) {
                Ok(pass) => self.go_on(Job::Look(read, pass), host),
                Err(refused) => self.respond(read.caller, Err(Failure::Region(refused)), host),
            },
            Job::Look(read, pass) => {
                let looked = self.look(&read, &pass);
                match looked {
                    Ok(output) => self.go_on(Job::Confirm(read, pass, Ok(output)), host),
                    Err(ReadError::Region(refused)) => {
                        self.go_on(Job::Confirm(read, pass, Err(refused)), host);
                    }
                    Err(ReadError::Engine(error)) => {
                        let node = host.node;
                        host.cx.checks.fail(|| format!("{node} cannot read: {error}"));
                    }
                }
            }
            Job::Confirm(read, pass, looked) => {
                let confirmed = match host.cx.is(Mutant::UnconfirmedRead) {
                    true => Ok(()),
                    false => self.reads.confirm(&pass, host.now),
                };
                match confirmed {
                    Ok(()) => self.respond(read.caller, looked.map_err(Failure::Region), host),
                    Err(Unconfirmed::NeedsIndex(group)) => self.ask_index(read, group, host),
                    Err(Unconfirmed::Region(refused)) => {
                        self.respond(read.caller, Err(Failure::Region(refused)), host);
                    }
                }
            }
        }
    }

    fn ask_index(&mut self, read: Box<Read>, group: RegionId, host: &mut Host<'_>) {
        if host.cx.is(Mutant::FollowerWithoutIndex) && read.request.context.replica_read {
            self.go_on(Job::AtIndex(read), host);
            return;
        }
        let token = self.token(Waiting::Read(read));
        host.mail.push(shard::Event::Read { group, token });
    }

    fn look(&self, read: &Read, pass: &Pass) -> Result<Output, ReadError> {
        match &read.request.operation {
            Operation::Get { key } => Ok(Output::Value(self.reads.get(pass, key)?)),
            Operation::Scan { start } => {
                let scan = Scan {
                    start: start.clone(),
                    end: bytes::Bytes::new(),
                    limit: 1_000,
                    key_only: false,
                    reverse: false,
                };
                let pairs = self.reads.scan(pass, &scan)?;
                let pairs = pairs.into_iter().map(|pair| (pair.key, pair.value)).collect();
                let region = self.directory.get(pass.region()).and_then(|local| local.region());
                let end = region.map(|region| region.range.end.clone()).unwrap_or_default();
                Ok(Output::Pairs(quorate_proto::KeyRange::new(start.clone(), end), pairs))
            }
            Operation::Put { .. } | Operation::Delete { .. } => Ok(Output::Done),
        }
    }

    /// The end of something that was asked of a group.
    pub(super) fn reply(&mut self, token: Token, reply: Reply, host: &mut Host<'_>) {
        let Some(waiting) = self.waiting.remove(&token.0) else {
            let node = host.node;
            host.cx.checks.fail(|| format!("{node} answered {token:?} twice"));
            return;
        };
        match (waiting, reply) {
            (Waiting::Read(read), Reply::ReadAt(_)) => self.go_on(Job::AtIndex(read), host),
            (Waiting::Read(read), Reply::Refused(refusal)) => {
                let group = RegionId(read.request.context.region_id);
                let failure = self.refused(group, refusal);
                self.respond(read.caller, Err(failure), host);
            }
            (Waiting::Write { caller, region }, Reply::Refused(refusal)) => {
                let failure = self.refused(region, refusal);
                self.respond(caller, Err(failure), host);
            }
            (Waiting::Split(region), Reply::Refused(_)) => {
                self.splitting.remove(&region);
            }
            (Waiting::Write { .. } | Waiting::Split(_), Reply::ReadAt(_)) => {
                let node = host.node;
                host.cx.checks.fail(|| format!("{node} got a read index for a write"));
            }
        }
    }

    fn refused(&self, region: RegionId, refusal: Refusal) -> Failure {
        Failure::Region(match refusal {
            Refusal::NotLeader { leader } => {
                let local = self.directory.get(region).and_then(|local| local.region());
                let leader = leader.and_then(|leader| local.as_ref()?.peer(leader).copied());
                RegionError::NotLeader { region, leader }
            }
            Refusal::NoGroup => RegionError::RegionNotFound(region),
            Refusal::Busy { reason } => RegionError::Busy(reason),
            Refusal::TooLarge { bytes } => RegionError::EntryTooLarge { region, bytes },
            Refusal::Members(_) => RegionError::Busy("the replicas of the region are changing"),
            Refusal::ReadTimedOut => RegionError::ReadNotReady(region),
            Refusal::Undetermined => return Failure::Undetermined,
        })
    }

    pub(super) fn apply(
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
        self.nudged |= !outcome.created.is_empty();
        self.look_around(host);
        Ok(outcome)
    }

    fn check(
        &self,
        (group, index, is_new): (RegionId, u64, bool),
        host: &mut Host<'_>,
    ) -> Result<(), EngineError> {
        if let Some(region) = self.directory.get(group).and_then(|local| local.region()) {
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

    pub(super) fn install(
        &mut self,
        install: Install,
        host: &mut Host<'_>,
    ) -> Result<Vec<Member>, EngineError> {
        let (group, index) = (install.group, install.index.0);
        let members = self.applier.install(install)?;
        self.check((group, index, true), host)?;
        self.look_around(host);
        Ok(members)
    }

    /// Whether a snapshot may come in.
    pub(super) fn admit_snapshot(&mut self, message: &Envelope) -> bool {
        let Some(meta) = &message.snapshot else { return false };
        let Ok((region, _)) = snapshot::parse_state(meta.state.clone()) else { return false };
        let to = quorate_proto::PeerId(message.to_peer);
        self.directory.admit_snapshot(Arc::new(region), to).is_ok()
    }

    /// Placement should hear of it at once.
    pub(super) fn leader_changed(&mut self, change: LeaderChange) {
        self.nudged |= change.is_local;
    }

    /// Looks at what this store has.
    pub(super) fn look_around(&mut self, host: &mut Host<'_>) {
        host.cx.checks.directory(host.node, &self.directory, &mut self.versions);
    }

    /// Placement time, in milliseconds.
    pub(super) fn time_ms(&self, now: Instant) -> u64 {
        let (told, at) = self.time;
        told + now.0.saturating_sub(at.0) / MS
    }
}
