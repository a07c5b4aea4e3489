//! A store without a Raft node, for the tests of the shell: what is proposed is applied at once,
//! or held back until the test lets go of it.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_consensus::engine::{Engine, MemoryEngine};
use quorate_consensus::node::{Machine, SnapshotProgress, clock};
use quorate_consensus::shard::{ApplyTask, Committed, Member, Refusal, Reply};
use quorate_consensus::view::Slept;
use quorate_consensus::vigil::Vouched;
use quorate_proto::limits::INITIAL_INDEX;
use quorate_proto::wire::command::Command;
use quorate_proto::wire::{kvrpcpb, metapb};
use quorate_proto::{
    Epoch, KeyRange, LogIndex, NodeId, Peer, PeerId, Region, RegionId, Role, StoreId, Term,
};

use crate::config::LimitsConfig;
use crate::core::command::Commands;
use crate::core::{Applier, Directory, StoreMachine};
use crate::fatal::Fatal;
use crate::metrics::Metrics;
use crate::placement_time::PlacementTime;
use crate::raft::Raft;
use crate::serve::{Applied, Parts, Serving, Token};

/// The store under test.
pub(crate) const HERE: StoreId = StoreId(1);
/// The region below `m`.
pub(crate) const LEFT: RegionId = RegionId(1);
/// The region from `m` on.
pub(crate) const RIGHT: RegionId = RegionId(2);
const TERM: Term = Term(6);

/// A request that waits in the fake Raft.
pub(crate) enum Held {
    Write(RegionId, Bytes, Token),
    Read(RegionId, Token),
}

/// Stands in for the Raft node.
pub(crate) struct FakeRaft {
    machine: Mutex<StoreMachine<Token, Applied>>,
    last: Mutex<BTreeMap<RegionId, u64>>,
    holding: Mutex<Option<Vec<Held>>>,
    pub(crate) refusal: Mutex<Option<Refusal>>,
    pub(crate) transfers: Mutex<Vec<(RegionId, NodeId)>>,
    pub(crate) destroyed: Mutex<Vec<RegionId>>,
    pub(crate) renewals: AtomicUsize,
}

impl FakeRaft {
    /// Holds requests back from now on.
    pub(crate) fn hold(&self) {
        *self.holding.lock() = Some(Vec::new());
    }

    /// What is held back; later requests are held, too.
    pub(crate) fn held(&self) -> Vec<Held> {
        self.holding.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// How many requests are held back.
    pub(crate) fn count(&self) -> usize {
        self.holding.lock().as_ref().map_or(0, Vec::len)
    }

    /// Applies a write, or says that a read may go on.
    pub(crate) fn finish(&self, held: Held) {
        match held {
            Held::Write(region, data, token) => {
                let index = {
                    let mut last = self.last.lock();
                    let index = last.entry(region).or_insert(INITIAL_INDEX);
                    *index += 1;
                    LogIndex(*index)
                };
                let change = |command: Command| command.change_peers.is_some();
                let changes_members =
                    Commands::new(data.clone()).any(|command| command.is_ok_and(change));
                let tokens = vec![token];
                let entry = Committed { index, term: TERM, data, changes_members, tokens };
                let task = ApplyTask { group: region, entries: vec![entry] };
                self.machine.lock().apply(vec![task]).unwrap();
            }
            Held::Read(_, token) => token.reply(Reply::ReadAt(LogIndex(INITIAL_INDEX))),
        }
    }

    fn take(&self, held: Held) {
        if let Some(refusal) = self.refusal.lock().clone() {
            match held {
                Held::Write(_, _, token) | Held::Read(_, token) => {
                    token.reply(Reply::Refused(refusal));
                }
            }
            return;
        }
        if let Some(holding) = self.holding.lock().as_mut() {
            return holding.push(held);
        }
        self.finish(held);
    }
}

impl Raft for FakeRaft {
    fn propose(&self, region: RegionId, command: Bytes, token: Token, _suspends_lease: bool) {
        self.take(Held::Write(region, command, token));
    }
    fn read(&self, region: RegionId, token: Token) {
        self.take(Held::Read(region, token));
    }
    fn renew_lease(&self, _region: RegionId) {
        self.renewals.fetch_add(1, Ordering::Relaxed);
    }
    fn transfer_leader(&self, region: RegionId, to: NodeId) {
        self.transfers.lock().push((region, to));
    }
    fn snapshots(&self) -> Vec<SnapshotProgress> {
        Vec::new()
    }
    fn vouched(&self, _slept: Slept) -> Option<Vouched> {
        None
    }
    fn unheard(&self) -> BTreeSet<NodeId> {
        BTreeSet::new()
    }
    fn truncated(&self) -> (u64, u64) {
        (0, 0)
    }
    fn change_members(
        &self,
        region: RegionId,
        _members: Vec<Member>,
        command: Bytes,
        token: Token,
    ) {
        self.take(Held::Write(region, command, token));
    }
    fn destroy(&self, region: RegionId, _peer: PeerId) {
        self.destroyed.lock().push(region);
    }
}

/// A store with two regions, both led from here under a lease of an hour.
pub(crate) struct TestStore {
    pub(crate) directory: Arc<Directory>,
    pub(crate) raft: Arc<FakeRaft>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) serving: Arc<Serving>,
}

impl TestStore {
    /// Needs a runtime.
    pub(crate) fn new(limits: LimitsConfig) -> Self {
        Self::on(Arc::new(MemoryEngine::new()), limits)
    }

    /// On an empty engine. Needs a runtime.
    pub(crate) fn on(engine: Arc<dyn Engine>, limits: LimitsConfig) -> Self {
        let (mut applier, _) = Applier::recover(Arc::clone(&engine), HERE).unwrap();
        applier.bootstrap(vec![region(LEFT, "", "m"), region(RIGHT, "m", "")]).unwrap();
        let directory = Arc::clone(applier.directory());
        let raft = Arc::new(FakeRaft {
            machine: Mutex::new(StoreMachine::new(applier, Applied::default())),
            last: Mutex::default(),
            holding: Mutex::default(),
            refusal: Mutex::default(),
            transfers: Mutex::default(),
            destroyed: Mutex::default(),
            renewals: AtomicUsize::new(0),
        });
        let metrics = Arc::new(Metrics::default());
        let serving = Serving::new(Parts {
            directory: Arc::clone(&directory),
            engine,
            raft: Arc::clone(&raft) as Arc<dyn Raft>,
            metrics: Arc::clone(&metrics),
            time: Arc::new(PlacementTime::default()),
            fatal: Fatal::default(),
            limits,
            blocking: tokio::runtime::Handle::current(),
        });
        let store = Self { directory, raft, metrics, serving };
        store.lead(LEFT);
        store.lead(RIGHT);
        store
    }

    /// This store leads the region, with a lease.
    pub(crate) fn lead(&self, region: RegionId) {
        let local = self.directory.get(region).unwrap();
        local.view().set_leader(TERM, Some(local.peer()));
        let end = clock::now() + Duration::from_secs(3_600);
        local.view().grant(end, end);
    }

    /// Another store leads the region.
    pub(crate) fn follow(&self, region: RegionId, leader: StoreId) {
        let local = self.directory.get(region).unwrap();
        local.view().revoke();
        let leader = local.region().unwrap().peer_on(leader).unwrap().id;
        local.view().set_leader(TERM, Some(leader));
    }

    /// This store leads the region, but has no lease.
    pub(crate) fn revoke(&self, region: RegionId) {
        self.directory.get(region).unwrap().view().revoke();
    }
}

/// A region with replicas on stores 1, 2 and 3.
pub(crate) fn region(id: RegionId, start: &'static str, end: &'static str) -> Region {
    let peer = |store: u64| Peer {
        id: PeerId(id.0 * 10 + store),
        store: StoreId(store),
        role: Role::Voter,
    };
    Region {
        id,
        range: KeyRange::new(start, end),
        epoch: Epoch { conf_ver: 1, version: 1 },
        peers: (1..=3).map(peer).collect(),
    }
}

/// The context of a request that knows the region as it is at first.
pub(crate) fn context(region: RegionId) -> Option<kvrpcpb::Context> {
    Some(kvrpcpb::Context {
        region_id: region.0,
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
        peer: Some(metapb::Peer { id: region.0 * 10 + 1, store_id: 1, role: 0 }),
        ..Default::default()
    })
}
