//! One store as tests see it: a memory engine, an applier, and a log for each region.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::engine::{Cf, Direction, Engine, EngineError, MemoryEngine, Reader};
use quorate_consensus::node::Outcome;
use quorate_consensus::shard::{ApplyTask, Committed};
use quorate_proto::wire::command::{Command, SplitTo};
use quorate_proto::wire::kvrpcpb::Context;
use quorate_proto::{
    Epoch, KeyRange, LogIndex, Peer, PeerId, Region, RegionId, Role, StoreId, Term,
};
use quorate_store::core::command::{self, Stamp};
use quorate_store::core::{Admitted, Answer, Answered, Applier, Directory, LocalRegion, keys};

pub(crate) const STORE: StoreId = StoreId(1);

/// A region with a replica on each of the stores 1 to 3: `p71`, `p72`, `p73` for `r7`.
pub(crate) fn region(id: u64, start: &str, end: &str) -> Region {
    Region {
        id: RegionId(id),
        range: KeyRange::new(start.as_bytes().to_vec(), end.as_bytes().to_vec()),
        epoch: Epoch { conf_ver: 1, version: 1 },
        peers: (1..=3).map(|store| peer(id, store)).collect(),
    }
}

pub(crate) fn peer(region: u64, store: u64) -> Peer {
    Peer { id: PeerId(region * 10 + store), store: StoreId(store), role: Role::Voter }
}

/// The ids of a new region whose first key beyond is `key`.
pub(crate) fn child(id: u64, key: &str) -> SplitTo {
    let peer_ids = (1..=3).map(|store| peer(id, store).id.0).collect();
    SplitTo { key: Bytes::copy_from_slice(key.as_bytes()), region_id: id, peer_ids }
}

/// What a client says that knows `region` as it is on store 1.
pub(crate) fn context(region: &Region) -> Context {
    Context {
        region_id: region.id.0,
        region_epoch: Some(region.epoch.into()),
        peer: Some((*region.peer_on(STORE).unwrap()).into()),
        ..Context::default()
    }
}

pub(crate) fn stamp(region: &Region, time_ms: u64) -> Stamp {
    Stamp { version: region.epoch.version, conf_ver: region.epoch.conf_ver, time_ms }
}

/// Everything a column family holds.
pub(crate) fn dump(reader: &dyn Reader, cf: Cf) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut all = BTreeMap::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        all.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    };
    reader.scan(cf, b"", b"", Direction::Forward, visit).unwrap();
    all
}

pub(crate) struct World {
    pub(crate) engine: MemoryEngine,
    pub(crate) applier: Applier,
    next: BTreeMap<RegionId, u64>,
}

impl World {
    /// A store that has these regions, just bootstrapped.
    pub(crate) fn new(regions: Vec<Region>) -> Self {
        let engine = MemoryEngine::new();
        let (mut applier, groups) = Applier::recover(Arc::new(engine.clone()), STORE).unwrap();
        assert!(groups.is_empty());
        applier.bootstrap(regions).unwrap();
        Self { engine, applier, next: BTreeMap::new() }
    }
    /// Starts again from what the engine has.
    pub(crate) fn restart(&mut self) {
        let engine = Arc::new(self.engine.clone());
        self.applier = Applier::recover(engine, STORE).unwrap().0;
    }
    /// Loses power: of the unsynced writes, the first `keep` survive. Starts again.
    pub(crate) fn crash(self, keep: usize) -> Self {
        let engine = self.engine.crash(|_| keep);
        let (applier, _) = Applier::recover(Arc::new(engine.clone()), STORE).unwrap();
        Self { engine, applier, next: self.next }
    }
    pub(crate) fn directory(&self) -> Arc<Directory> {
        Arc::clone(self.applier.directory())
    }
    pub(crate) fn local(&self, id: u64) -> Arc<LocalRegion> {
        self.directory().get(RegionId(id)).unwrap()
    }
    pub(crate) fn region(&self, id: u64) -> Arc<Region> {
        self.local(id).region().unwrap()
    }
    /// Makes store 1 the leader of a region in term 6.
    pub(crate) fn lead(&self, id: u64) {
        let local = self.local(id);
        local.view().set_leader(Term(6), Some(local.peer()));
    }
    pub(crate) fn admitted(&self, id: u64) -> Admitted {
        self.directory().admit(&context(&self.region(id))).unwrap()
    }
    /// A task with one entry for each piece of data, as the leader gets it: with tokens.
    pub(crate) fn task(&mut self, id: u64, entries: &[Bytes]) -> ApplyTask<u64> {
        let next = self.next.entry(RegionId(id)).or_insert(6);
        let entry = |data: &Bytes| {
            let index = *next;
            *next += 1;
            let commands: Vec<_> = command::Commands::new(data.clone()).collect();
            let change = |one: &Result<_, _>| {
                one.as_ref().is_ok_and(|one: &Command| one.change_peers.is_some())
            };
            Committed {
                index: LogIndex(index),
                term: Term(6),
                data: data.clone(),
                changes_members: commands.iter().any(change),
                tokens: (0..commands.len() as u64).map(|number| index * 100 + number).collect(),
            }
        };
        ApplyTask { group: RegionId(id), entries: entries.iter().map(entry).collect() }
    }
    pub(crate) fn try_apply(
        &mut self,
        tasks: Vec<ApplyTask<u64>>,
    ) -> (Result<Outcome, EngineError>, Vec<Answered<u64>>) {
        let mut answers = Vec::new();
        (self.applier.apply(tasks, &mut answers), answers)
    }
    /// Applies one entry of a region, of one command, and returns its answer.
    pub(crate) fn apply(&mut self, id: u64, command: Bytes) -> (Outcome, Answer) {
        let task = self.task(id, &[command]);
        let (outcome, mut answers) = self.try_apply(vec![task]);
        assert_eq!(answers.len(), 1);
        (outcome.unwrap(), answers.remove(0).answer)
    }
    pub(crate) fn put(&mut self, id: u64, key: &str, value: &str) -> Answer {
        let stamp = stamp(&self.region(id), 0);
        self.apply(id, command::put(stamp, key.as_bytes(), value.as_bytes()).unwrap()).1
    }
    pub(crate) fn split(&mut self, id: u64, children: Vec<SplitTo>) -> (Outcome, Answer) {
        let stamp = stamp(&self.region(id), 0);
        self.apply(id, command::split(stamp, children).unwrap())
    }
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        let stored = self.engine.get(Cf::Data, key.as_bytes()).unwrap()?;
        let value = keys::user_value(stored).unwrap();
        Some(String::from_utf8(value.to_vec()).unwrap())
    }
    /// Users' keys, as text.
    pub(crate) fn keys(&self) -> Vec<String> {
        dump(&self.engine, Cf::Data)
            .into_keys()
            .map(|key| String::from_utf8(key).unwrap())
            .collect()
    }
}

/// Writes pairs into a staged file.
pub(crate) fn stage(engine: &dyn Engine, name: &str, pairs: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut stage = engine.stage(name).unwrap();
    for (key, value) in pairs {
        stage.put(key, value).unwrap();
    }
    stage.finish().unwrap();
}
