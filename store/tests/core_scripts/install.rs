//! Snapshots from one store into another, with a crash at each step of the way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use quorate_consensus::engine::{
    Cf, Direction, Engine, EngineError, EngineStats, MemoryEngine, Reader, Resumed, Stage, Visit,
    WriteBatch,
};
use quorate_consensus::shard::{Install, Member};
use quorate_proto::{LogIndex, NodeId, PeerId, RegionId, Role, Term};
use quorate_store::core::snapshot::{Described, parse_state};
use quorate_store::core::{Answer, Applier, PeerAdmission, State, keys};

use super::world::{STORE, World, child, dump, region, stage};

const NAME: &str = "snapshot-1";

/// What the sender has: `r1` lost its left part and got new data since the receiver saw it.
fn sender() -> World {
    let mut world = World::new(vec![region(1, "b", "m")]);
    world.put(1, "c", "left");
    world.split(1, vec![child(2, "f")]);
    world.put(1, "g", "new");
    world.put(1, "h", "new");
    world
}

/// The sender's picture, staged on the receiver; what its group would hand out.
fn receive(sender: &World, engine: &dyn Engine) -> Install {
    let source = sender.applier.snapshot(RegionId(1)).unwrap().unwrap();
    let mut pairs = dump(source.reader.as_ref(), Cf::Data);
    pairs.retain(|key, _| key[..] >= source.start[..] && key[..] < source.end[..]);
    stage(engine, NAME, &pairs);
    let mut batch = WriteBatch::new();
    batch.put(Cf::Raft, "log of r1", "starts at the snapshot");
    let (group, id, state) = (RegionId(1), NAME.to_owned(), source.state);
    Install { group, id, index: source.index, term: source.term, state, batch }
}

/// A receiver that is far behind: `r1` still has everything from b to m, and its neighbours.
fn receiver() -> World {
    let mut world = World::new(vec![region(8, "a", "b"), region(1, "b", "m"), region(9, "m", "")]);
    for (id, key) in [(8, "a"), (1, "b"), (1, "c"), (1, "g"), (1, "l"), (9, "m")] {
        world.put(id, key, "old");
    }
    world.engine.sync().unwrap();
    world
}

fn installed(world: &World) {
    assert_eq!(world.keys(), ["a", "g", "h", "m"], "neighbours stay, the rest is replaced");
    assert_eq!(world.get("g").unwrap(), "new");
    assert_eq!(world.region(1).range, region(1, "f", "m").range);
    assert_eq!(world.region(1).epoch.version, 2);
    let states = keys::apply_states(&world.engine).unwrap();
    let (_, applied) = states.into_iter().find(|(id, _)| id.0 == 1).unwrap();
    assert_eq!((applied.index, applied.term), (9, 6));
    let log = world.engine.get(Cf::Raft, b"log of r1").unwrap();
    assert!(log.is_some());
    assert!(world.engine.staged().unwrap().is_empty());
    assert!(world.directory().find(b"c").is_none());
}

#[test]
fn a_snapshot_carries_region_time_and_applied_index() {
    let mut sender = sender();
    let stamp = super::world::stamp(&sender.region(1), 77);
    let put = quorate_store::core::command::put(stamp, b"i", b"x").unwrap();
    sender.apply(1, put);
    let source = sender.applier.snapshot(RegionId(1)).unwrap().unwrap();
    let Described { region: described, time_ms, .. } = parse_state(source.state.clone()).unwrap();
    assert_eq!((&described, time_ms), (sender.region(1).as_ref(), 77));
    assert_eq!((source.index, source.term), (LogIndex(10), Term(6)));
    assert_eq!((&source.start[..], &source.end[..]), (&b"f"[..], &b"m"[..]));
    let first = Member { peer: PeerId(11), node: NodeId(1), role: Role::Voter };
    assert_eq!(source.members[0], first);
    // It stays as it was.
    sender.put(1, "j", "later");
    assert_eq!(source.reader.get(Cf::Data, b"j"), Ok(None));
    assert!(sender.applier.snapshot(RegionId(7)).unwrap().is_none());
    assert!(parse_state(Bytes::from_static(b"garbage")).is_err());
}

#[test]
fn a_snapshot_replaces_data_range_and_applied_index() {
    let sender = sender();
    let mut world = receiver();
    let before = world.admitted(1);
    let install = receive(&sender, &world.engine);
    assert!(world.directory().admit_snapshot(sender.region(1), &[], PeerId(11)).is_ok());
    let members = world.applier.install(install).unwrap().members;
    assert_eq!(members.len(), 3);
    installed(&world);
    assert!(!before.unchanged(), "whoever read before notices");
    assert_eq!(world.put(1, "k", "1"), Answer::Done, "the log goes on behind the snapshot");
}

#[test]
fn a_replica_without_data_gets_all_from_its_snapshot() {
    let sender = sender();
    let mut world = World::new(vec![region(8, "a", "b")]);
    let described = sender.region(1);
    let created = world.directory().admit_peer(&described, PeerId(11));
    assert!(matches!(created, PeerAdmission::Create(_)));
    world.directory().admit_snapshot(Arc::clone(&described), &[], PeerId(11)).unwrap();
    let install = receive(&sender, &world.engine);
    world.applier.install(install).unwrap();
    assert_eq!(world.region(1), described);
    assert!(matches!(&*world.local(1).state(), State::Serving(_)));
    let before = dump(&world.engine, Cf::Meta);
    let world = world.crash(0);
    assert_eq!(dump(&world.engine, Cf::Meta), before, "durable when it returned");
    assert_eq!(world.keys(), ["g", "h"]);
}

#[test]
fn a_snapshot_of_a_removed_region_is_dropped() {
    let sender = sender();
    let mut world = receiver();
    let install = receive(&sender, &world.engine);
    world.applier.destroy(RegionId(1)).unwrap();
    assert!(world.applier.install(install).unwrap().members.is_empty());
    assert_eq!(world.keys(), ["a", "m"]);
    assert!(world.engine.get(Cf::Raft, b"log of r1").unwrap().is_none());
}

#[test]
fn a_snapshot_that_was_never_admitted_changes_nothing() {
    let sender = sender();
    let mut world = World::new(vec![region(1, "h", "m"), region(8, "a", "h")]);
    world.put(8, "g", "mine");
    let install = receive(&sender, &world.engine);
    let error = world.applier.install(install).unwrap_err();
    assert!(error.is_fatal() && error.to_string().contains("r1 overlaps r8"), "{error}");
    world.restart();
    assert_eq!(world.get("g").unwrap(), "mine");
    assert_eq!(world.region(1).range, region(1, "h", "m").range);
}

#[test]
fn a_crash_at_any_step_leaves_the_old_region_or_leads_to_the_new_one() {
    let sender = sender();
    let (mut old, mut new) = (0, 0);
    for kept in [0, usize::MAX] {
        for steps in 0.. {
            let mut world = receiver();
            let (meta, data) = (dump(&world.engine, Cf::Meta), world.keys());
            let failing = Arc::new(Failing::new(world.engine.clone()));
            world.applier = Applier::recover(Arc::clone(&failing) as _, STORE).unwrap().0;
            let install = receive(&sender, &world.engine);
            failing.after(steps);
            let result = world.applier.install(install);
            let world = world.crash(kept);
            match &*world.local(1).state() {
                State::Serving(region) if region.epoch.version == 2 => {
                    installed(&world);
                    new += 1;
                }
                _ => {
                    assert!(result.is_err());
                    assert_eq!(dump(&world.engine, Cf::Meta), meta);
                    assert_eq!(world.keys(), data);
                    assert!(world.engine.staged().unwrap().is_empty());
                    old += 1;
                }
            }
            if result.is_ok() {
                assert!(steps >= 6, "write, sync, ingest, write, sync, discard: {steps}");
                break;
            }
        }
    }
    // Steps 0 and 1 can lose the first write; from the first sync on, it goes forward.
    assert!(old >= 3 && new >= 9, "{old} old, {new} new");
}

#[test]
fn a_crash_during_recovery_is_recovered_from() {
    let sender = sender();
    // Ingest, write, sync, discard.
    for steps in 0..4 {
        let mut world = receiver();
        let failing = Arc::new(Failing::new(world.engine.clone()));
        world.applier = Applier::recover(Arc::clone(&failing) as _, STORE).unwrap().0;
        let install = receive(&sender, &world.engine);
        failing.after(2);
        world.applier.install(install).unwrap_err();
        let engine = world.engine.crash(|_| 0);
        let failing = Arc::new(Failing::new(engine.clone()));
        failing.after(steps);
        let again = Applier::recover(failing, STORE).map(|_| ());
        assert!(matches!(again, Err(EngineError::Closed)), "step {steps} fails");
        world.engine = engine;
        installed(&world.crash(0));
    }
}

#[test]
fn a_lost_staged_file_is_told_and_not_passed_over() {
    let sender = sender();
    let mut world = receiver();
    let failing = Arc::new(Failing::new(world.engine.clone()));
    world.applier = Applier::recover(Arc::clone(&failing) as _, STORE).unwrap().0;
    let install = receive(&sender, &world.engine);
    failing.after(2);
    world.applier.install(install).unwrap_err();
    let engine = world.engine.crash(|_| 0);
    engine.discard_staged(NAME).unwrap();
    let error = Applier::recover(Arc::new(engine), STORE).err().unwrap();
    assert!(matches!(error, EngineError::Corrupt { .. }));
    assert!(error.to_string().contains(NAME), "{error}");
}

#[test]
fn staged_files_that_nothing_refers_to_are_discarded_at_the_start() {
    let mut world = receiver();
    stage(&world.engine, "leftover", &BTreeMap::new());
    world.restart();
    assert!(world.engine.staged().unwrap().is_empty());
}

/// An engine that dies before its n-th change.
struct Failing {
    inner: MemoryEngine,
    left: AtomicUsize,
}

impl Failing {
    fn new(inner: MemoryEngine) -> Self {
        Self { inner, left: AtomicUsize::new(usize::MAX) }
    }
    fn after(&self, steps: usize) {
        self.left.store(steps, Ordering::Relaxed);
    }
    fn step(&self) -> Result<(), EngineError> {
        let less = |left: usize| left.checked_sub(1);
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        left.map(|_| ()).map_err(|_| EngineError::Closed)
    }
}

impl Engine for Failing {
    fn snapshot(&self) -> Box<dyn Reader + Send> {
        self.inner.snapshot()
    }
    fn write(&self, batch: WriteBatch) -> Result<(), EngineError> {
        self.step()?;
        self.inner.write(batch)
    }
    fn sync(&self) -> Result<(), EngineError> {
        self.step()?;
        self.inner.sync()
    }
    fn stage(&self, name: &str) -> Result<Box<dyn Stage>, EngineError> {
        self.inner.stage(name)
    }
    fn resume_stage(&self, name: &str) -> Result<Option<Resumed>, EngineError> {
        self.inner.resume_stage(name)
    }
    fn unfinished(&self) -> Result<Vec<(String, Bytes)>, EngineError> {
        self.inner.unfinished()
    }
    fn prepare_ingest(&self, name: &str) -> Result<(), EngineError> {
        self.inner.prepare_ingest(name)
    }
    fn staged(&self) -> Result<Vec<String>, EngineError> {
        self.inner.staged()
    }
    fn discard_staged(&self, name: &str) -> Result<(), EngineError> {
        self.step()?;
        self.inner.discard_staged(name)
    }
    fn ingest(&self, name: &str, start: &[u8], end: &[u8]) -> Result<(), EngineError> {
        self.step()?;
        self.inner.ingest(name, start, end)
    }
    fn approximate_size(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<u64, EngineError> {
        self.inner.approximate_size(cf, start, end)
    }
    fn stats(&self) -> EngineStats {
        self.inner.stats()
    }
}

impl Reader for Failing {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.inner.get(cf, key)
    }
    fn multi_get(&self, cf: Cf, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.inner.multi_get(cf, keys)
    }
    fn scan(
        &self,
        cf: Cf,
        start: &[u8],
        end: &[u8],
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        self.inner.scan(cf, start, end, direction, visit)
    }
}
