//! One process: a shard, its engine, and a state machine that remembers commands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::engine::{Cf, Direction, Engine, MemoryEngine, Reader, WriteBatch};
use quorate_consensus::shard::{
    ApplyTask, Committed, Install, Member, NewGroup, Persist, RaftOptions, Shard,
};
use quorate_consensus::time::Instant;
use quorate_consensus::view::{GroupView, Lease};
use quorate_proto::{LogIndex, NodeId, PeerId, RegionId, Role, Term};

/// What the state machine holds of one group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Applied {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) commands: Vec<String>,
}

/// Entries with the commands in them.
pub(crate) type Seen = Vec<(Committed<u64>, Vec<String>)>;

pub(crate) struct Host {
    pub(crate) node: u64,
    pub(crate) shard: Shard<u64>,
    pub(crate) engine: MemoryEngine,
    pub(crate) groups: BTreeMap<u64, Hosted>,
    /// Writes do not finish on their own.
    pub(crate) stalls: bool,
    pub(crate) writing: Option<Persist>,
    /// Snapshots are installed only on command.
    pub(crate) installs_slowly: bool,
    pub(crate) installs: Vec<Install>,
    pub(crate) runs: bool,
    pub(crate) starts: u64,
}

pub(crate) struct Hosted {
    pub(crate) members: BTreeSet<u64>,
    pub(crate) view: Arc<GroupView>,
    pub(crate) lease: Option<Lease>,
    pub(crate) applied: Applied,
}

fn logger() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

/// Peer k of every group lives on process k.
pub(crate) fn members(nodes: &BTreeSet<u64>) -> Vec<Member> {
    let member =
        |node: &u64| Member { peer: PeerId(*node), node: NodeId(*node), role: Role::Voter };
    nodes.iter().map(member).collect()
}

/// A command as the log carries it: its length in front.
pub(crate) fn framed(text: &str) -> Bytes {
    let mut data = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    data.extend_from_slice(text.as_bytes());
    data.into()
}

/// The commands in an entry.
pub(crate) fn commands(mut data: &[u8]) -> Vec<String> {
    let mut commands = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk() {
        let (text, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        commands.push(String::from_utf8(text.to_vec()).unwrap());
        data = rest;
    }
    commands
}

impl Host {
    pub(crate) fn start(
        node: u64,
        options: &RaftOptions,
        engine: MemoryEngine,
        starts: u64,
        now: Instant,
    ) -> Self {
        let incarnation = node * 100 + starts;
        let shard =
            Shard::new(options.clone(), Arc::new(engine.clone()), incarnation, logger(), now);
        Self {
            node,
            shard,
            engine,
            groups: BTreeMap::new(),
            stalls: false,
            writing: None,
            installs_slowly: false,
            installs: Vec::new(),
            runs: true,
            starts,
        }
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.node * 100 + self.starts
    }

    /// A group to host: as stored, or fresh.
    pub(crate) fn open(&mut self, group: u64, nodes: BTreeSet<u64>, campaign: bool) -> NewGroup {
        let key = group.to_be_bytes();
        let applied = match self.engine.get(Cf::Meta, &key).unwrap() {
            Some(stored) => parse(&stored),
            None => Applied { index: 5, term: 5, commands: Vec::new() },
        };
        let view = GroupView::new(RegionId(group), PeerId(self.node));
        let new = NewGroup {
            group: RegionId(group),
            peer: PeerId(self.node),
            members: members(&nodes),
            applied: (LogIndex(applied.index), Term(applied.term)),
            view: view.clone(),
            campaign,
        };
        self.groups.insert(group, Hosted { members: nodes, view, lease: None, applied });
        new
    }

    /// Applies a task and stores the result, unsynced. Returns the tokens with what they proposed.
    pub(crate) fn apply(&mut self, task: ApplyTask<u64>) -> (LogIndex, Term, Seen) {
        let hosted = self.groups.get_mut(&task.group.0).unwrap();
        let mut seen = Vec::new();
        for entry in task.entries {
            assert_eq!(entry.index.0, hosted.applied.index + 1, "entries come without a gap");
            hosted.applied.index = entry.index.0;
            hosted.applied.term = entry.term.0;
            let commands = commands(&entry.data);
            if !entry.tokens.is_empty() {
                assert_eq!(entry.tokens.len(), commands.len(), "a token for each command");
            }
            hosted.applied.commands.extend(commands.iter().cloned());
            seen.push((entry, commands));
        }
        let (index, term) = (hosted.applied.index, hosted.applied.term);
        let mut batch = WriteBatch::new();
        batch.put(Cf::Meta, task.group.0.to_be_bytes().to_vec(), stored(&hosted.applied));
        self.engine.write(batch).unwrap();
        (LogIndex(index), Term(term), seen)
    }

    /// Installs a snapshot, durable when it returns.
    pub(crate) fn install(&mut self, install: Install) -> Vec<Member> {
        let hosted = self.groups.get_mut(&install.group.0).unwrap();
        hosted.applied = parse(&install.state);
        assert_eq!(hosted.applied.index, install.index.0);
        assert_eq!(hosted.applied.term, install.term.0);
        let mut batch = install.batch;
        batch.put(Cf::Meta, install.group.0.to_be_bytes().to_vec(), install.state);
        self.engine.write_synced(batch).unwrap();
        members(&hosted.members)
    }

    /// What a snapshot of a group says, as the state machine describes it.
    pub(crate) fn describe(&self, group: u64) -> Option<(Applied, Bytes)> {
        let applied = &self.groups.get(&group)?.applied;
        Some((applied.clone(), stored(applied)))
    }

    /// First and last index of the log in the engine, and how many entries it has.
    pub(crate) fn log(&self, group: u64) -> (u64, u64, usize) {
        let (mut first, mut last, mut count) = (0, 0, 0);
        let start = group.to_be_bytes();
        let end = (group + 1).to_be_bytes();
        self.engine
            .scan(Cf::Raft, &start, &end, Direction::Forward, &mut |key, _| {
                if key.len() == 17 {
                    last = u64::from_be_bytes(key[9..].try_into().unwrap());
                    first = if count == 0 { last } else { first };
                    count += 1;
                }
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        (first, last, count)
    }
}

fn stored(applied: &Applied) -> Bytes {
    format!("{} {} {}", applied.index, applied.term, applied.commands.join(",")).into()
}

fn parse(stored: &[u8]) -> Applied {
    let text = std::str::from_utf8(stored).unwrap();
    let mut words = text.splitn(3, ' ');
    let index = words.next().unwrap().parse().unwrap();
    let term = words.next().unwrap().parse().unwrap();
    let commands = words.next().unwrap().split(',').filter(|c| !c.is_empty()).map(str::to_owned);
    Applied { index, term, commands: commands.collect() }
}
