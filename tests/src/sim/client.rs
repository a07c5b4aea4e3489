//! Simulated clients: a few keys, unique values, and a cache of regions that may be stale.
//!
//! An operation is tried again only after a refusal that means "certainly not done". A write whose
//! outcome nobody can say stays in the history as unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_proto::wire::kvrpcpb::Context;
use quorate_proto::{NodeId, Peer, Region, RegionId, StoreId};
use quorate_store::core::RegionError;

use super::agenda::MS;
use super::chance::{Concern, Lane};
use super::cx::Cx;
pub(crate) use super::messages::key;
use super::messages::{Ask, Body, Event, Failure, Operation, Output, Request, Told, Wake};
use super::placement::MEMBERS;
use crate::linearize;
use crate::linearize::history::{Pending, Recorder};
use crate::linearize::kv::{self, KeyedInput, KvOperation};
use crate::linearize::register::{KvInput, KvOutput};

/// The history that all clients write.
pub(crate) type History = Recorder<KeyedInput, KvOutput>;

/// First node id of clients.
pub(crate) const CLIENTS: u64 = 200_000;

/// See the module.
pub(crate) struct Client {
    number: u64,
    routes: BTreeMap<RegionId, Route>,
    current: Option<Current>,
    operations: u64,
    calls: u64,
    /// The member of placement that is asked.
    placement: NodeId,
    /// It asks the replicas of this store only, whoever leads: so somebody is there when two take
    /// themselves for the leader.
    sticks_to: Option<StoreId>,
    pub(crate) completed: u64,
    pub(crate) written: u64,
    /// Attempts that reached nobody.
    unreached: u64,
    /// Begins no further operation of its own.
    pub(crate) stopped: bool,
    /// Operations to do before all others.
    pub(crate) errands: Vec<Operation>,
    pub(crate) scans: Vec<KvOperation>,
}

struct Route {
    region: Arc<Region>,
    leader: Option<Peer>,
}

struct Current {
    operation: Operation,
    number: u64,
    begun: u64,
    pending: Option<Pending<KeyedInput, KvOutput>>,
    /// An attempt without an answer yet.
    under_way: Option<Attempt>,
    follower: bool,
    /// Its first attempt goes to some replica, as if the leader were not known.
    wanders: bool,
}

struct Attempt {
    call: u64,
    region: Arc<Region>,
    peer: Peer,
}

impl Client {
    pub(crate) fn new(number: u64, sticks_to: Option<StoreId>) -> Self {
        Self {
            number,
            sticks_to,
            routes: BTreeMap::new(),
            current: None,
            operations: 0,
            calls: 0,
            placement: NodeId(MEMBERS + 1),
            completed: 0,
            written: 0,
            unreached: 0,
            stopped: false,
            errands: Vec::new(),
            scans: Vec::new(),
        }
    }

    pub(crate) fn node(&self) -> NodeId {
        NodeId(CLIENTS + self.number)
    }

    /// False where it asks one store only, and may wait in vain.
    pub(crate) fn roams(&self) -> bool {
        self.sticks_to.is_none()
    }

    fn concern(&self) -> Concern {
        Concern::Client(self.number)
    }

    /// True without anything to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.current.is_none() && self.errands.is_empty()
    }

    pub(crate) fn wake(&mut self, wake: Wake, history: &History, cx: &mut Cx) {
        match wake {
            Wake::Next if self.current.is_none() => self.begin(history, cx),
            Wake::Retry(number) if self.is_at(number) => self.attempt(cx),
            Wake::Deadline(number) if self.is_at(number) => self.give_up(cx),
            Wake::Next | Wake::Retry(_) | Wake::Deadline(_) => {}
        }
    }

    fn is_at(&self, number: u64) -> bool {
        self.current.as_ref().is_some_and(|current| current.number == number)
    }

    fn again(&self, after: u64, cx: &mut Cx) {
        let wake = Wake::Retry(self.operations);
        cx.after(after, Event::Client { client: self.number, wake });
    }

    fn begin(&mut self, history: &History, cx: &mut Cx) {
        let errand = self.errands.pop();
        if errand.is_none() && self.stopped {
            return;
        }
        let begun = cx.now();
        self.operations += 1;
        let me = self.concern();
        let follower = errand.is_none() && cx.chance(me, cx.knobs.followers);
        let wanders = errand.is_none() && cx.chance(me, cx.knobs.wander);
        // What links kept may hold an election up for some seconds after all is healed.
        let patience = if errand.is_some() { 10_000 * MS } else { cx.knobs.deadline };
        let operation = errand.unwrap_or_else(|| self.draw(cx));
        let input = match &operation {
            Operation::Get { key } => Some((key, KvInput::Get)),
            Operation::Put { key, value } => Some((key, KvInput::Put(value.to_vec()))),
            Operation::Delete { key } => Some((key, KvInput::Delete)),
            Operation::Scan { .. } => None,
        };
        let pending = input.map(|(key, input)| {
            history.invoke_at(self.number, KeyedInput::new(key.to_vec(), input), begun)
        });
        let number = self.operations;
        self.current =
            Some(Current { operation, number, begun, pending, under_way: None, follower, wanders });
        let wake = Wake::Deadline(number);
        cx.after(patience, Event::Client { client: self.number, wake });
        self.attempt(cx);
    }

    fn draw(&mut self, cx: &mut Cx) -> Operation {
        let me = self.concern();
        let hot = cx.chance(me, cx.knobs.hot);
        let last = if hot { 0 } else { cx.knobs.keys - 1 };
        let key = key(cx.within(me, (0, last)));
        if cx.chance(me, cx.knobs.writes) {
            if cx.chance(me, 0.1) {
                return Operation::Delete { key };
            }
            let value = format!("{}.{}", self.number, self.operations);
            return Operation::Put { key, value: value.into() };
        }
        if cx.chance(me, 0.1) {
            return Operation::Scan { start: key };
        }
        Operation::Get { key }
    }

    fn attempt(&mut self, cx: &mut Cx) {
        let Some(current) = &mut self.current else { return };
        if current.under_way.is_some() {
            return;
        }
        let key = current.operation.key();
        let route = self.routes.values().find(|route| route.region.range.contains(key));
        let Some(route) = route else {
            let ask = Box::new(Ask::Region(key.clone()));
            self.calls += 1;
            let body = Body::Ask { call: self.calls, ask };
            cx.send(self.node(), self.placement, Lane::Services, body);
            // Where no answer comes.
            self.again(200 * MS, cx);
            return;
        };
        let region = Arc::clone(&route.region);
        let random = region.peers[cx.one_of(Concern::Client(self.number), region.peers.len())];
        let reads_follower = current.follower && !current.operation.is_write();
        let here = self.sticks_to.and_then(|store| region.peer_on(store).copied());
        let peer = match here.or(route.leader) {
            Some(here) if self.sticks_to.is_some() => here,
            Some(leader) if !reads_follower && !std::mem::take(&mut current.wanders) => leader,
            Some(_) | None => random,
        };
        self.calls += 1;
        let call = self.calls;
        let context = Context {
            region_id: region.id.0,
            region_epoch: Some(region.epoch.into()),
            peer: Some(peer.into()),
            replica_read: current.follower,
            ..Context::default()
        };
        let operation = current.operation.clone();
        current.under_way = Some(Attempt { call, region, peer });
        let request = Box::new(Request { call, context, operation });
        cx.send(self.node(), peer.store.into(), Lane::Services, Body::Request(request));
    }

    /// Placement answers.
    pub(crate) fn told(&mut self, call: u64, told: Told, cx: &mut Cx) {
        if call != self.calls {
            return;
        }
        match told {
            Told::Region(Some((region, leader))) => {
                let id = region.id;
                self.learn(Arc::new(region));
                if let Some(route) = self.routes.get_mut(&id)
                    && route.leader.is_none()
                {
                    route.leader = leader;
                }
            }
            Told::NotLeader(Some(leader)) => self.placement = leader,
            Told::NotLeader(None) | Told::Undetermined | Told::Refused(_) | Told::NoMember(_) => {
                self.placement = cx.next_member(self.placement);
            }
            Told::Region(None)
            | Told::Joined { .. }
            | Told::Orders(_)
            | Told::Ids(_)
            | Told::Timestamp(_)
            | Told::MemberJoined { .. }
            | Told::Done => {}
        }
        self.again(10 * MS, cx);
    }

    fn learn(&mut self, region: Arc<Region>) {
        let newer = |route: &Route| {
            route.region.range.overlaps(&region.range)
                && route.region.epoch.version > region.epoch.version
        };
        if self.routes.values().any(newer) {
            return;
        }
        let leader = self.routes.get(&region.id).and_then(|route| route.leader);
        self.routes.retain(|_, route| !route.region.range.overlaps(&region.range));
        self.routes.insert(region.id, Route { region, leader });
    }

    /// An answer has come.
    pub(crate) fn answer(&mut self, call: u64, result: Result<Output, Failure>, cx: &mut Cx) {
        let Some(current) = &mut self.current else { return };
        let Some(attempt) = current.under_way.take_if(|attempt| attempt.call == call) else {
            return;
        };
        if let Err(failure) = &result {
            cx.note(format_args!("client {} is refused: {failure:?}", self.number));
        }
        let refused = match result {
            Ok(output) => {
                if !current.follower
                    && let Some(route) = self.routes.get_mut(&attempt.region.id)
                {
                    route.leader = Some(attempt.peer);
                }
                return self.complete(output, cx);
            }
            Err(Failure::Undetermined) => return self.end(cx),
            Err(Failure::Unreachable) => {
                self.unreached += 1;
                if self.unreached.is_multiple_of(10) {
                    // All of them may have left.
                    self.routes.remove(&attempt.region.id);
                } else if let Some(route) = self.routes.get_mut(&attempt.region.id) {
                    route.leader = None;
                }
                return self.again(20 * MS, cx);
            }
            Err(Failure::Region(refused)) => refused,
        };
        let id = attempt.region.id;
        match refused {
            // Another store may hear more, and lead.
            RegionError::NoQuorum { .. } => {
                if let Some(route) = self.routes.get_mut(&id) {
                    route.leader = None;
                }
                self.again(25 * MS, cx);
            }
            RegionError::NotLeader { leader, .. } => {
                if let Some(route) = self.routes.get_mut(&id) {
                    route.leader = leader.filter(|leader| leader.id != attempt.peer.id);
                }
                let pause = if self.roams() { 10 * MS } else { 25 * MS };
                self.again(pause, cx);
            }
            RegionError::EpochNotMatch { current } => {
                for region in current {
                    self.learn(region);
                }
                self.again(5 * MS, cx);
            }
            RegionError::StoreNotMatch { .. }
            | RegionError::RegionNotFound(_)
            | RegionError::MismatchPeer { .. }
            | RegionError::KeyNotInRegion { .. } => {
                self.routes.remove(&id);
                self.again(20 * MS, cx);
            }
            RegionError::NotInitialized(_)
            | RegionError::StaleCommand
            | RegionError::Busy(_)
            | RegionError::Merging(_)
            | RegionError::DataIsNotReady { .. }
            | RegionError::ReadNotReady(_) => self.again(20 * MS, cx),
            error @ (RegionError::EntryTooLarge { .. }
            | RegionError::AnswerTooLarge { .. }
            | RegionError::TooManyItems { .. }
            | RegionError::BadSplit { .. }
            | RegionError::BadMerge { .. }
            | RegionError::BadPeers { .. }) => {
                let client = self.number;
                cx.checks.fail(|| format!("client {client} was told: {error}"));
            }
        }
    }

    fn complete(&mut self, output: Output, cx: &mut Cx) {
        let Some(current) = &mut self.current else { return };
        let pending = current.pending.take();
        let now = cx.now();
        self.completed += 1;
        self.written += u64::from(current.operation.is_write());
        let answer = match output {
            Output::Done => KvOutput::Done,
            Output::Value(value) => KvOutput::Value(value.map(|value| value.to_vec())),
            Output::Pairs(range, pairs) => {
                let covered: BTreeSet<Vec<u8>> = (0..cx.knobs.keys)
                    .map(|number| key(number).to_vec())
                    .filter(|key| range.contains(key))
                    .collect();
                let pairs: Vec<(Vec<u8>, Vec<u8>)> =
                    pairs.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
                let (input, output) = kv::scanned(&covered, &pairs);
                let (client, invoke) = (self.number, current.begun);
                let output = Some(output);
                let scan = linearize::Operation { client, input, output, invoke, ret: now };
                self.scans.extend(kv::parts(scan));
                return self.end(cx);
            }
        };
        if let Some(pending) = pending {
            pending.ok_at(answer, now);
        }
        self.end(cx);
    }

    fn give_up(&mut self, cx: &mut Cx) {
        let Some(current) = &mut self.current else { return };
        match &current.under_way {
            // Whoever was asked does not answer: somebody else may lead by now.
            Some(attempt) => {
                if let Some(route) = self.routes.get_mut(&attempt.region.id) {
                    route.leader = None;
                }
            }
            None => {
                // Every attempt was refused for good.
                if let Some(pending) = current.pending.take() {
                    pending.fail();
                }
            }
        }
        self.end(cx);
    }

    /// What has no answer by now stays unknown.
    fn end(&mut self, cx: &mut Cx) {
        if let Some(current) = self.current.take() {
            let operation = &current.operation;
            cx.note(format_args!("client {} ended {operation:?}", self.number));
        }
        let think = cx.within(self.concern(), cx.knobs.think);
        cx.after(think, Event::Client { client: self.number, wake: Wake::Next });
    }
}
