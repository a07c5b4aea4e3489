//! The lifecycles of all groups, as the leader works on them.
//!
//! The leader works on its own copy and writes what differs into the log; a step is ordered only
//! once the records that call for it are replicated ([`Members::is_durable`]). So the next leader
//! always knows at least as much as was ordered.

use std::collections::{BTreeMap, BTreeSet};

use quorate_proto::{PeerId, RegionId};

use super::lifecycle::{Pace, Record};
use super::state::State;

/// All lifecycles. See the module.
#[derive(Clone, Debug, Default)]
pub struct Members {
    groups: BTreeMap<RegionId, Vec<Record>>,
    dirty: BTreeSet<RegionId>,
}

impl Members {
    /// What is replicated; every pace is measured anew.
    pub fn new(state: &State, now_ms: u64) -> Self {
        let anew = |record: &Record| Record { pace: Pace::new(now_ms), ..record.clone() };
        let groups = state.lifecycles().iter();
        Self {
            groups: groups
                .map(|(region, records)| (*region, records.iter().map(anew).collect()))
                .collect(),
            dirty: BTreeSet::new(),
        }
    }

    /// The records of a group.
    pub fn of(&self, region: RegionId) -> &[Record] {
        self.groups.get(&region).map_or(&[], Vec::as_slice)
    }

    /// All records.
    pub fn iter(&self) -> impl Iterator<Item = (RegionId, &Record)> {
        self.groups
            .iter()
            .flat_map(|(region, records)| records.iter().map(move |record| (*region, record)))
    }

    /// The groups that have such records.
    pub fn groups(&self, such: impl Fn(&Record) -> bool) -> impl Iterator<Item = RegionId> {
        self.groups.iter().filter(move |(_, records)| records.iter().any(&such)).map(|(id, _)| *id)
    }

    /// The records of a group afterwards.
    pub fn put(&mut self, region: RegionId, records: Vec<Record>) {
        if !is_same(self.of(region), &records) {
            self.dirty.insert(region);
        }
        match records.is_empty() {
            true => self.groups.remove(&region),
            false => self.groups.insert(region, records),
        };
    }

    /// Learns the ids that were set aside for new peers when their records were replicated.
    pub fn learn_ids(&mut self, region: RegionId, state: &State) {
        let Some(records) = self.groups.get_mut(&region) else { return };
        let known = state.lifecycles().get(&region).map_or(&[][..], Vec::as_slice);
        for record in records.iter_mut().filter(|record| record.peer == PeerId(0)) {
            let same =
                |known: &&Record| known.node == record.node && known.joined_ms == record.joined_ms;
            if let Some(known) = known.iter().find(same) {
                record.peer = known.peer;
            }
        }
    }

    /// True where the replicated records of a group are those worked on.
    pub fn is_durable(&self, region: RegionId, state: &State) -> bool {
        let stored = state.lifecycles().get(&region).map_or(&[][..], Vec::as_slice);
        is_same(self.of(region), stored)
    }

    /// Groups whose records differ from what is replicated, at most `limit`.
    pub fn to_save(&mut self, state: &State, limit: usize) -> Vec<(RegionId, Vec<Record>)> {
        let dirty: Vec<RegionId> = self.dirty.iter().copied().collect();
        let mut differing = Vec::new();
        for region in dirty {
            self.learn_ids(region, state);
            if self.is_durable(region, state) {
                self.dirty.remove(&region);
            } else if differing.len() < limit {
                let stored = |record: &Record| {
                    let pace = Pace::new(record.since_ms);
                    let was_ready_ms = record.was_ready_ms.filter(|_| state.takes_notes());
                    Record { pace, was_ready_ms, ..record.clone() }
                };
                differing.push((region, self.of(region).iter().map(stored).collect()));
            }
        }
        differing
    }
}

fn is_same(one: &[Record], other: &[Record]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.is_same(other))
}
