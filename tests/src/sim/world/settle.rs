//! After the story: is everything as it should be, and does it come to rest?

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use quorate_consensus::engine::{Cf, Direction, MemoryEngine, Reader};
use quorate_proto::{KeyRange, NodeId, RegionId};

use super::World;
use crate::sim::agenda::MS;
use crate::sim::checks::region_hash;
use crate::sim::messages::Operation;

impl World {
    /// Lets the world come to rest and looks at all of it.
    pub(crate) fn settle(&mut self) {
        if !self.until(20_000 * MS, "equal replicas of all regions", |world| {
            world.differences().is_none()
        }) {
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
        let mut hashes: BTreeMap<RegionId, (u64, u64)> = BTreeMap::new();
        let mut hosting = 0;
        for process in self.processes.values() {
            let Some(up) = &process.up else { return Some(format!("{} is down", process.id)) };
            let Some(store) = up.role.store() else { continue };
            let mut end = Some(Bytes::new());
            let mut keys = 0;
            let locals = store.directory.all();
            if locals.is_empty() && count_keys(&process.disk, &KeyRange::default()) == 0 {
                continue;
            }
            hosting += 1;
            for local in locals {
                let region = local.region()?;
                if end.as_ref() != Some(&region.range.start) {
                    return Some(format!("{} has a hole before {}", process.id, region.range));
                }
                end = (!region.range.end.is_empty()).then(|| region.range.end.clone());
                let hash = match region_hash(&process.disk, &region) {
                    Ok(hash) => hash,
                    Err(error) => return Some(format!("{}: {error}", process.id)),
                };
                keys += count_keys(&process.disk, &region.range);
                let (first, count) = hashes.entry(region.id).or_insert((hash, 0));
                *count += 1;
                if *first != hash {
                    return Some(format!("{} differs on {}", region.id, process.id));
                }
            }
            let all = count_keys(&process.disk, &KeyRange::default());
            if keys != all {
                return Some(format!(
                    "{} has {} keys outside of its regions",
                    process.id,
                    all - keys
                ));
            }
            if end.is_some() {
                return Some(format!("{} does not have the last keys", process.id));
            }
        }
        let lonely = hashes.iter().find(|(_, (_, count))| *count != hosting);
        lonely.map(|(id, (_, count))| format!("{id} has {count} replicas, not {hosting}"))
    }
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
