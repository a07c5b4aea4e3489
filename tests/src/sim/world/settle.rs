//! After the story: is everything as it should be, and does it come to rest?

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use quorate_consensus::engine::{Cf, Direction, MemoryEngine, Reader};
use quorate_proto::wire::command::{PeerState, RegionState};
use quorate_proto::{KeyRange, NodeId, PeerId, Region, RegionId, Role, StoreId};

use quorate_store::core::keys;

use super::World;
use crate::sim::agenda::MS;
use crate::sim::checks::region_hash;
use crate::sim::messages::Operation;
use crate::sim::process::Process;
use crate::sim::store::StoreRole;

/// Between two looks at all replicas.
const LOOK: u64 = 50 * MS;

impl World {
    /// Lets the world come to rest and looks at all of it.
    pub(crate) fn settle(&mut self) {
        let patience = match (self.cx.knobs.moving(), self.cx.knobs.down_ms > 0) {
            // An operator that does not get on is given up after ten minutes.
            (_, true) => 900_000 * MS,
            (true, false) => 60_000 * MS,
            (false, false) => 20_000 * MS,
        };
        // It costs much to find out: not at every event.
        let looked = Cell::new(0);
        let is_at_rest = |world: &World| {
            let due = world.cx.now() >= looked.get() + LOOK;
            if due {
                looked.set(world.cx.now());
            }
            due && world.differences().is_none()
        };
        if !self.until(patience, "equal replicas of all regions", is_at_rest) {
            let differences = self.differences().unwrap_or_default();
            self.cx.checks.broken =
                self.cx.checks.broken.take().map(|words| format!("{words}: {differences}"));
            return;
        }
        if self.cx.knobs.raft.sleep_after_ticks == 0 {
            return;
        }
        // What broken links kept may still arrive and wake whom it reaches; a region may still be
        // split, or its leader moved. But then there must be silence.
        let mut sent = 0;
        for _ in 0..6 {
            if !self.until(20_000 * MS, "sleep of all regions", |world| world.awake().is_empty()) {
                let awake = self.awake();
                let broken = self.cx.checks.broken.take();
                self.cx.checks.broken = broken.map(|words| format!("{words}: {awake:?}"));
                return;
            }
            let before = self.cx.envelopes;
            let end = self.cx.now() + 3_000 * MS;
            self.run_to(end);
            sent = self.cx.envelopes - before;
            if sent == 0 {
                break;
            }
        }
        if sent > 0 {
            self.cx.checks.fail(|| format!("{sent} messages were sent while all regions slept"));
        }
        // They wake on demand.
        let starts: Vec<Bytes> =
            self.cx.checks.regions().map(|region| region.range.start.clone()).collect();
        let user = |start: &Bytes| start.is_empty() || start.starts_with(b"k");
        let gets = starts.into_iter().filter(user).map(|key| Operation::Get { key });
        self.run_errands(gets);
    }

    /// Replicas that think they are awake.
    fn awake(&self) -> Vec<(NodeId, RegionId)> {
        let mut awake = Vec::new();
        for process in self.processes.values() {
            let Some(store) = process.up.as_ref().and_then(|up| up.role.store()) else { continue };
            let locals = store.directory.all();
            let not_asleep = locals.iter().filter(|local| !local.view().is_asleep());
            awake.extend(not_asleep.map(|local| (process.id, local.id())));
        }
        awake
    }

    /// Why the replicas of the cluster are not equal, or do not cover the key space.
    fn differences(&self) -> Option<String> {
        let mut hosts: BTreeMap<RegionId, BTreeMap<StoreId, PeerId>> = BTreeMap::new();
        for process in self.processes.values() {
            let Some(up) = &process.up else { return Some(format!("{} is down", process.id)) };
            let Some(store) = up.role.store() else { continue };
            for local in store.directory.hosted() {
                hosts.entry(local.id()).or_default().insert(store.id, local.peer());
            }
            if let Some(why) = leftovers(process, store) {
                return Some(why);
            }
        }
        self.unfinished().or_else(|| self.ungrown()).or_else(|| self.uncovered()).or_else(|| {
            self.cx.checks.regions().find_map(|region| {
                let hosts = hosts.get(&region.id).cloned().unwrap_or_default();
                self.difference(region, &hosts)
            })
        })
    }

    /// A hole or an overlap between the regions.
    fn uncovered(&self) -> Option<String> {
        let mut regions: Vec<_> = self.cx.checks.regions().collect();
        regions.sort_by_key(|region| region.range.start.clone());
        let mut end = Some(Bytes::new());
        for region in regions {
            if end.as_ref() != Some(&region.range.start) {
                return Some(format!("{} does not begin where the one before ends", region.id));
            }
            end = (!region.range.end.is_empty()).then(|| region.range.end.clone());
        }
        end.map(|end| format!("nobody has the keys from {end:?} on"))
    }

    /// Why a region is not at rest: its replicas are elsewhere, or differ.
    fn difference(&self, region: &Region, hosts: &BTreeMap<StoreId, PeerId>) -> Option<String> {
        let id = region.id;
        let wanted: BTreeMap<StoreId, PeerId> =
            region.peers.iter().map(|peer| (peer.store, peer.id)).collect();
        if wanted != *hosts {
            return Some(format!("{id} has {wanted:?}, but is on {hosts:?}"));
        }
        if region.peers.iter().any(|peer| !matches!(peer.role, Role::Voter | Role::Learner)) {
            return Some(format!("{id} is in a joint configuration"));
        }
        if let Some(why) = self.lacks_voters(region) {
            return Some(why);
        }
        let mut first = None;
        for store in wanted.keys() {
            let process = self.processes.get(&NodeId::from(*store))?;
            let here = process.up.as_ref()?.role.store()?.directory.get(id)?;
            let Some(here) = here.region() else { return Some(format!("{id} waits on {store}")) };
            match region_hash(&process.disk, &here) {
                Ok(hash) if *first.get_or_insert(hash) == hash => {}
                Ok(_) => return Some(format!("{id} differs on {store}")),
                Err(error) => return Some(format!("{store}: {error}")),
            }
        }
        None
    }
}

/// What is on a store's disk beyond its regions.
fn leftovers(process: &Process, store: &StoreRole) -> Option<String> {
    let node = process.id;
    let locals = store.directory.all();
    let inside = locals.iter().filter_map(|local| local.region());
    let keys: u64 = inside.map(|region| count_keys(&process.disk, &region.range)).sum();
    let all = count_keys(&process.disk, &KeyRange::default());
    if keys != all {
        return Some(format!("{node} has {} keys outside of its regions", all - keys));
    }
    let states = match keys::region_states(&process.disk) {
        Ok(states) => states,
        Err(error) => return Some(format!("{node}: {error}")),
    };
    let gone = |state: &RegionState| state.state() == PeerState::Tombstone;
    let gone: BTreeSet<u64> =
        states.iter().filter(|(_, state)| gone(state)).map(|(id, _)| id.0).collect();
    let hosted: BTreeSet<u64> = store.directory.hosted().iter().map(|local| local.id().0).collect();
    let mut stray = None;
    let scanned = process.disk.scan(Cf::Raft, b"", b"", Direction::Forward, &mut |key, _| {
        // Records of raft begin with the number of their group. The vote of a replica that never
        // had data stays where nobody has told its store that it was removed.
        let group = key.get(..8).and_then(|group| group.try_into().ok()).map(u64::from_be_bytes);
        let is_entry = key.len() > 9;
        stray = group.filter(|it| is_entry && gone.contains(it) && !hosted.contains(it));
        if stray.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(scanned.is_ok(), "the disk of a running process can be read");
    stray.map(|group| format!("{node} has raft records of r{group}, which it has removed"))
}

fn count_keys(disk: &MemoryEngine, range: &KeyRange) -> u64 {
    let mut count = 0;
    let scanned = disk.scan(Cf::Data, &range.start, &range.end, Direction::Forward, &mut |_, _| {
        count += 1;
        ControlFlow::Continue(())
    });
    assert!(scanned.is_ok(), "the disk of a running process can be read");
    count
}
