//! What must hold at every moment, whatever goes wrong.

mod lives;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use quorate_consensus::engine::{Cf, Direction, EngineError, MemoryEngine, Reader};
use quorate_consensus::shard::{ApplyTask, LeaderChange};
use quorate_proto::{Epoch, KeyRange, NodeId, Peer, PeerId, Region, RegionId, Role, Term};
use quorate_store::core::{Directory, State, keys};

use self::lives::Lives;
use super::trace::fnv;

/// An entry as a replica applied it.
type Entry = (Term, u64);

/// Everything that replicas have agreed on so far.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// The first broken promise.
    pub(crate) broken: Option<String>,
    leaders: BTreeMap<(RegionId, Term), PeerId>,
    entries: BTreeMap<(RegionId, u64), Entry>,
    states: BTreeMap<(RegionId, u64), (u64, NodeId)>,
    /// By region, version and version of the configuration.
    regions: BTreeMap<(RegionId, u64, u64), (KeyRange, Vec<Peer>)>,
    /// Replicas that a configuration was the first to be without: never used again.
    removed: BTreeMap<(RegionId, PeerId), u64>,
    /// Replicas that were destroyed.
    destroyed: BTreeSet<(RegionId, PeerId)>,
    /// Regions that were taken in, and the version at which they ended.
    gone: BTreeMap<RegionId, u64>,
    /// Newest description of each region that any replica has applied.
    newest: BTreeMap<RegionId, Arc<Region>>,
    /// What snapshots are of, by name.
    pictures: BTreeMap<String, Picture>,
    timestamps: BTreeMap<u64, u64>,
    highest_returned: u64,
    /// Entries applied over all replicas.
    pub(crate) applied: u64,
    /// Regions split off.
    pub(crate) splits: u64,
    /// Regions taken in.
    pub(crate) merges: u64,
    /// Snapshots installed.
    pub(crate) installs: u64,
    /// What became of snapshots on their way.
    pub(crate) transfers: Transfers,
    /// Changes of leadership.
    pub(crate) elections: u64,
    /// Configurations of regions.
    pub(crate) configurations: u64,
    pub(crate) lives: Lives,
}

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) group: RegionId,
    pub(crate) index: u64,
    pub(crate) range: KeyRange,
    /// Of all data in the range.
    pub(crate) hash: u64,
}

/// Counts what became of snapshots on their way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transfers {
    /// Chunks that were staged.
    pub chunks: u64,
    /// Calls that went on behind chunks of an earlier one.
    pub resumed: u64,
    /// Those of them whose receiver had been started again in between.
    pub restored: u64,
    /// Chunks that were damaged on their way.
    pub damaged: u64,
    /// Senders that were told to come again.
    pub postponed: u64,
    /// Calls that were stopped because nobody wanted their snapshot any more.
    pub stopped: u64,
    /// What was staged and gone on with by nobody.
    pub abandoned: u64,
}

impl Checks {
    /// Notes a broken promise; the first one counts.
    pub(crate) fn fail(&mut self, words: impl FnOnce() -> String) {
        if self.broken.is_none() {
            self.broken = Some(words());
        }
    }

    /// One leader for each group and term.
    pub(crate) fn leader(&mut self, change: &LeaderChange) {
        let (group, term) = (change.group, change.term);
        let Some(leader) = change.leader else { return };
        if change.is_local {
            self.elections += 1;
        }
        let known = *self.leaders.entry((group, term)).or_insert(leader);
        if self.destroyed.contains(&(group, leader)) && change.is_local {
            self.fail(|| format!("{leader} leads {group} in {term}, though it was destroyed"));
        }
        if known != leader {
            self.fail(|| format!("{group} has two leaders in {term}: {known} and {leader}"));
        }
    }

    /// The same entry at the same index on every replica, also when it is applied again.
    pub(crate) fn entries<T>(&mut self, node: NodeId, task: &ApplyTask<T>) {
        let mut before = None;
        for entry in &task.entries {
            let (group, index) = (task.group, entry.index);
            if before.is_some_and(|before: u64| before + 1 != index.0) {
                self.fail(|| format!("{node} was handed entries of {group} with a gap at {index}"));
            }
            before = Some(index.0);
            self.applied += 1;
            let mine = (entry.term, fnv(&[&entry.data]));
            let known = *self.entries.entry((group, index.0)).or_insert(mine);
            if known != mine {
                self.fail(|| {
                    format!(
                        "{node} applied another entry of {group} at {index}: {mine:?}, not {known:?}"
                    )
                });
            }
        }
    }

    /// Equal state at equal applied index.
    pub(crate) fn state(&mut self, node: NodeId, group: RegionId, index: u64, hash: u64) {
        let (known, first) = *self.states.entry((group, index)).or_insert((hash, node));
        if known != hash {
            self.fail(|| format!("{group} differs on {first} and {node} at applied index {index}"));
        }
    }

    /// One description for each region and epoch; disjoint on a store; epochs only grow; what was
    /// destroyed is not here again.
    pub(crate) fn directory(
        &mut self,
        node: NodeId,
        directory: &Directory,
        seen: &mut BTreeMap<RegionId, Epoch>,
    ) {
        for local in directory.hosted() {
            let (id, peer) = (local.id(), local.peer());
            if self.destroyed.contains(&(id, peer)) {
                self.fail(|| format!("{peer} of {id} is on {node} again"));
            }
        }
        let mut end = Some(bytes::Bytes::new());
        for local in directory.all() {
            let state = local.state();
            let Some(region) = state.region() else { continue };
            let start = &region.range.start;
            if end.as_ref().is_none_or(|end| start < end) {
                self.fail(|| format!("{node} has two regions at {start:?}"));
            }
            end = (!region.range.end.is_empty()).then(|| region.range.end.clone());
            let ended = self.gone.get(&region.id).copied();
            if ended.is_some_and(|version| region.epoch.version >= version)
                && matches!(&*state, State::Serving(_))
            {
                self.fail(|| format!("{} was taken in, and serves on {node}", region.id));
            }
            let epoch = region.epoch;
            let last = seen.insert(region.id, epoch).unwrap_or_default();
            if epoch.is_stale_against(last) {
                self.fail(|| format!("{} went back to {epoch:?} on {node}", region.id));
            }
            self.region(node, region);
        }
    }

    /// Data was read for a snapshot of that name.
    pub(crate) fn pictured(&mut self, id: &str, picture: Picture) {
        self.pictures.insert(id.to_owned(), picture);
    }

    /// What a snapshot is of.
    pub(crate) fn picture(&self, id: &str) -> Option<&Picture> {
        self.pictures.get(id)
    }

    /// What is installed is what was read, of the same moment.
    pub(crate) fn installed(&mut self, node: NodeId, id: &str, found: &Picture) {
        self.installs += 1;
        let known = self.pictures.get(id);
        if known != Some(found) {
            let known = known.cloned();
            self.fail(|| format!("{node} installed {found:?} from {id}, which is of {known:?}"));
        }
    }

    /// A region was taken in by its neighbour.
    pub(crate) fn gone(&mut self, region: &Region) {
        self.newest.remove(&region.id);
        if self.gone.insert(region.id, region.epoch.version).is_none() {
            self.merges += 1;
        }
    }

    /// True once some replica of a neighbour has taken the region in.
    pub(crate) fn is_gone(&self, region: RegionId) -> bool {
        self.gone.contains_key(&region)
    }

    /// The replica's data is gone for good.
    pub(crate) fn destroyed(&mut self, node: NodeId, group: RegionId, peer: PeerId) {
        if let Some(region) = self.newest.get(&group).filter(|region| region.peer(peer).is_some()) {
            let epoch = region.epoch;
            self.fail(|| format!("{node} destroyed {peer}, a replica of {group} at {epoch:?}"));
        }
        self.destroyed.insert((group, peer));
    }

    fn region(&mut self, node: NodeId, region: &Arc<Region>) {
        let (id, epoch) = (region.id, region.epoch);
        let mine = (region.range.clone(), region.peers.clone());
        let key = (id, epoch.version, epoch.conf_ver);
        match self.regions.get(&key) {
            Some(known) if *known == mine => return,
            Some(known) => {
                let known = known.clone();
                self.fail(|| format!("{node} has {id} at {epoch:?} as {mine:?}, not {known:?}"));
            }
            None => {
                self.regions.insert(key, mine);
                self.configuration(region);
            }
        }
        if self.gone.contains_key(&id) {
            // A store that has not heard of it yet.
            return;
        }
        let Some(newest) = self.newest.get(&id) else {
            self.splits += 1;
            self.newest.insert(id, Arc::clone(region));
            return;
        };
        if newest.epoch.is_stale_against(epoch) {
            let gone = newest.peers.iter().filter(|peer| region.peer(peer.id).is_none());
            self.removed.extend(gone.map(|peer| ((id, peer.id), epoch.conf_ver)));
            self.newest.insert(id, Arc::clone(region));
        }
    }

    /// Voters are odd on both sides, a majority of each is there, and nobody is used again.
    fn configuration(&mut self, region: &Region) {
        self.configurations += 1;
        let (id, epoch) = (region.id, region.epoch);
        let count = |roles: [Role; 2]| {
            region.peers.iter().filter(|peer| roles.contains(&peer.role)).count()
        };
        let incoming = count([Role::Voter, Role::IncomingVoter]);
        let outgoing = count([Role::Voter, Role::DemotingVoter]);
        if incoming % 2 == 0 || outgoing % 2 == 0 {
            self.fail(|| format!("{id} at {epoch:?} has {incoming} and {outgoing} voters"));
        }
        self.living(region);
        for peer in &region.peers {
            let removed = self.removed.get(&(id, peer.id));
            if removed.is_some_and(|removed| *removed <= epoch.conf_ver) {
                self.fail(|| format!("{} of {id} is used again at {epoch:?}", peer.id));
            }
        }
    }

    /// The newest region known to hold a key.
    pub(crate) fn region_of(&self, key: &[u8]) -> Option<Arc<Region>> {
        let holding = self.newest.values().filter(|region| region.range.contains(key));
        holding.max_by_key(|region| (region.epoch.version, region.epoch.conf_ver)).cloned()
    }

    /// All regions, newest descriptions.
    pub(crate) fn regions(&self) -> impl Iterator<Item = &Arc<Region>> {
        self.newest.values()
    }

    /// What a request for a timestamp must be above.
    pub(crate) fn timestamp_floor(&self) -> u64 {
        self.highest_returned
    }

    /// A timestamp returned to a request that was sent when `floor` was the highest returned one.
    pub(crate) fn timestamp(&mut self, member: NodeId, floor: u64, timestamp: u64) {
        if timestamp <= floor {
            self.fail(|| {
                format!("{member} gave the timestamp {timestamp} after {floor} had been seen")
            });
        }
        if let Some(other) = self.timestamps.insert(timestamp, member.0) {
            self.fail(|| format!("n{other} and {member} both gave the timestamp {timestamp}"));
        }
        self.highest_returned = self.highest_returned.max(timestamp);
    }
}

/// A hash of all data in a range.
pub(crate) fn data_hash(reader: &dyn Reader, range: &KeyRange) -> Result<u64, EngineError> {
    add_data(0, reader, range)
}

fn add_data(before: u64, reader: &dyn Reader, range: &KeyRange) -> Result<u64, EngineError> {
    let mut hash = before;
    reader.scan(Cf::Data, &range.start, &range.end, Direction::Forward, &mut |key, value| {
        hash = fnv(&[&hash.to_le_bytes(), key, value]);
        ControlFlow::Continue(())
    })?;
    Ok(hash)
}

/// A hash of all a replica of a region holds: description, data, what is applied.
pub(crate) fn region_hash(engine: &MemoryEngine, region: &Region) -> Result<u64, EngineError> {
    let applied = engine.get(Cf::Meta, &keys::apply_state(region.id))?.unwrap_or_default();
    let head = format!("{region:?}");
    add_data(fnv(&[&applied, head.as_bytes()]), engine, &region.range)
}
