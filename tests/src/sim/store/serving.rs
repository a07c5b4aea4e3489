//! Requests of clients on their way through a store: the real directory and read path.
//!
//! The counterpart of `store/src/serve`. Each step of a read is an event of its own, so that a
//! pause, a split, a snapshot or a change of leadership can fall between any two of them.

use quorate_consensus::engine::{Cf, Reader};
use quorate_consensus::shard::{self, Refusal, Reply};
use quorate_proto::{NodeId, RegionId};
use quorate_store::core::{
    Effort, Pass, ReadAdmission, ReadError, RegionError, Scan, Unconfirmed, command, keys,
};

use super::StoreRole;
use crate::sim::agenda::MS;
use crate::sim::chance::{Concern, Lane, Span};
use crate::sim::messages::{Body, Failure, Operation, Output, Request, Token};
use crate::sim::mutant::Mutant;
use crate::sim::process::role::Host;

/// Between two steps of a request, mostly.
const STEP: u64 = MS / 20;
/// Where its thread has to wait for a processor.
const SLOW_STEP: u64 = 20 * MS;
/// Where its process stands still in the middle: long enough for another leader to be elected.
const PAUSE: Span = (700 * MS, 2_500 * MS);

/// Who asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    client: NodeId,
    call: u64,
}

/// Whoever waits for a token.
pub(crate) enum Waiting {
    Write {
        caller: Caller,
        region: RegionId,
    },
    Read(Box<Read>),
    Split(RegionId),
    /// A change of who replicates a region; what became of it is seen in the region.
    Peers,
}

/// A read under way.
pub(crate) struct Read {
    caller: Caller,
    request: Request,
}

/// The next step of something.
pub(super) enum Job {
    Begin(Box<Read>),
    AtIndex(Box<Read>),
    Look(Box<Read>, Pass),
    Confirm(Box<Read>, Pass, Result<Output, RegionError>),
}

impl StoreRole {
    fn go_on(&mut self, job: Job, host: &mut Host<'_>) {
        let number = self.number();
        self.jobs.insert(number, job);
        let services = Concern::Services(host.node);
        if host.cx.net.bad && host.cx.chance(services, host.cx.knobs.pause_in_read) {
            host.pause = host.cx.within(services, PAUSE);
        }
        let slow = host.cx.chance(services, 0.05);
        let after = host.cx.within(services, (0, if slow { SLOW_STEP } else { STEP }));
        host.job(after, number);
    }

    pub(super) fn respond(
        &self,
        caller: Caller,
        result: Result<Output, Failure>,
        host: &mut Host<'_>,
    ) {
        let body = Body::Response { call: caller.call, result };
        host.cx.send(host.node, caller.client, Lane::Services, body);
    }

    /// A client asks.
    pub(crate) fn request(&mut self, client: NodeId, request: Request, host: &mut Host<'_>) {
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
    pub(crate) fn job(&mut self, job: u64, host: &mut Host<'_>) {
        let Some(job) = self.jobs.remove(&job) else { return };
        match job {
            Job::Begin(read) => match self.admit(&read, host) {
                Ok(ReadAdmission::Lease(pass)) => {
                    if pass.renew() {
                        host.mail.push(shard::Event::RenewLease { group: pass.region() });
                    }
                    self.go_on(Job::Look(read, pass), host);
                }
                Ok(ReadAdmission::NeedsIndex(group)) => self.ask_index(read, group, host),
                Err(RegionError::Merging(_)) if host.cx.is(Mutant::ServedWhileStopped) => {
                    self.read_stopped(&read, host);
                }
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

    /// A mutant: a region that is stopped is read all the same.
    fn read_stopped(&self, read: &Read, host: &mut Host<'_>) {
        let Operation::Get { key } = &read.request.operation else { return };
        let stored = host.disk.get(Cf::Data, key);
        if let Ok(stored) = stored
            && let Ok(value) = stored.map(keys::user_value).transpose()
        {
            self.respond(read.caller, Ok(Output::Value(value)), host);
        }
    }

    fn admit(&self, read: &Read, host: &Host<'_>) -> Result<ReadAdmission, RegionError> {
        let context = &read.request.context;
        let local = self.directory.get(RegionId(context.region_id));
        let Some(local) = local.filter(|_| host.cx.is(Mutant::LeaseBeforeApplied)) else {
            return self.reads.admit(context, host.now);
        };
        let (view, committed) = (local.view(), local.view().committed());
        view.set_committed(view.applied());
        let admitted = self.reads.admit(context, host.now);
        view.set_committed(committed);
        admitted
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
            Operation::Get { key } => {
                Ok(Output::Value(self.reads.get(pass, key, Effort::Whole)?))
            }
            Operation::Scan { start } => {
                let scan = Scan {
                    start: start.clone(),
                    end: bytes::Bytes::new(),
                    limit: 1_000,
                    key_only: false,
                    reverse: false,
                };
                let pairs = self.reads.scan(pass, &scan, Effort::Whole)?;
                let pairs = pairs.into_iter().map(|pair| (pair.key, pair.value)).collect();
                let region = self.directory.get(pass.region()).and_then(|local| local.region());
                let end = region.map(|region| region.range.end.clone()).unwrap_or_default();
                Ok(Output::Pairs(quorate_proto::KeyRange::new(start.clone(), end), pairs))
            }
            Operation::Put { .. } | Operation::Delete { .. } => Ok(Output::Done),
        }
    }

    /// The end of something that was asked of a group.
    pub(crate) fn reply(&mut self, token: Token, reply: Reply, host: &mut Host<'_>) {
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
            (Waiting::Peers, Reply::Refused(refusal)) => {
                host.cx.note(format_args!("{} cannot change replicas: {refusal}", host.node));
            }
            (Waiting::Write { .. } | Waiting::Split(_) | Waiting::Peers, Reply::ReadAt(_)) => {
                let node = host.node;
                host.cx.checks.fail(|| format!("{node} got a read index for a write"));
            }
        }
    }

    fn refused(&self, region: RegionId, refusal: Refusal) -> Failure {
        Failure::Region(match refusal {
            Refusal::NotLeader { leader } => {
                let local = self.directory.get(region).and_then(|local| local.replicated());
                let leader = leader.and_then(|leader| local.as_ref()?.peer(leader).copied());
                RegionError::NotLeader { region, leader }
            }
            Refusal::NoGroup => RegionError::RegionNotFound(region),
            Refusal::NoQuorum(lost) => RegionError::no_quorum(region, &lost),
            Refusal::Busy { reason } => RegionError::Busy(reason),
            Refusal::TooLarge { bytes } => RegionError::EntryTooLarge { region, bytes },
            Refusal::Members(_) => RegionError::Busy("the replicas of the region are changing"),
            Refusal::ReadTimedOut => RegionError::ReadNotReady(region),
            Refusal::Undetermined => return Failure::Undetermined,
        })
    }
}
