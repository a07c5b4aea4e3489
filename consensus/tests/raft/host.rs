//! One process: a shard, its engine, and a state machine that remembers commands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::engine::{Cf, Direction, Engine, MemoryEngine, Reader, WriteBatch};
use quorate_consensus::shard::{
    ApplyTask, Committed, Install, Member, NewGroup, Persist, RaftOptions, Reconfigured, Shard,
    check_members, forget_group,
};
use quorate_consensus::time::Instant;
use quorate_consensus::view::{GroupView, Lease};
use quorate_proto::{LogIndex, NodeId, PeerId, RegionId, Role, Term};

/// What the state machine holds of one group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Applied {
    pub(crate) index: u64,
    pub(crate) term: u64,
    /// Counts the changes of members.
    pub(crate) conf_ver: u64,
    /// Empty until the first snapshot.
    pub(crate) members: Vec<Member>,
    pub(crate) commands: Vec<String>,
}

/// Entries with the commands in them.
pub(crate) type Seen = Vec<(Committed<u64>, Vec<String>)>;

/// What a task did.
pub(crate) struct Done {
    pub(crate) at: (LogIndex, Term),
    pub(crate) seen: Seen,
    pub(crate) reconfigured: Vec<Reconfigured>,
}

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
    /// Entries are applied only on command.
    pub(crate) applies_slowly: bool,
    pub(crate) to_apply: Vec<ApplyTask<u64>>,
    /// It does not say how far it has applied.
    pub(crate) is_older: bool,
    pub(crate) runs: bool,
    pub(crate) starts: u64,
}

pub(crate) struct Hosted {
    pub(crate) peer: u64,
    /// Its members when it was created.
    pub(crate) first: Vec<Member>,
    pub(crate) view: Arc<GroupView>,
    pub(crate) lease: Option<Lease>,
    pub(crate) applied: Applied,
}

fn logger() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

/// Voters, one on each process.
pub(crate) fn members(nodes: &BTreeSet<u64>) -> Vec<Member> {
    let list: Vec<String> = nodes.iter().map(u64::to_string).collect();
    parse_members(&list.join(","))
}

/// `1,2l,3i,14d`: voter, learner, incoming, demoting. Peer k lives on the process of its last digit.
pub(crate) fn parse_members(list: &str) -> Vec<Member> {
    let member = |word: &str| {
        let digits = word.trim_end_matches(['l', 'i', 'd']);
        let peer: u64 = digits.parse().unwrap();
        let role = match &word[digits.len()..] {
            "" => Role::Voter,
            "l" => Role::Learner,
            "i" => Role::IncomingVoter,
            "d" => Role::DemotingVoter,
            other => panic!("no role {other}"),
        };
        Member { peer: PeerId(peer), node: NodeId(peer % 10), role }
    };
    list.split(',').filter(|word| !word.is_empty()).map(member).collect()
}

pub(crate) fn list(members: &[Member]) -> String {
    let word = |member: &Member| {
        let role = match member.role {
            Role::Voter => "",
            Role::Learner => "l",
            Role::IncomingVoter => "i",
            Role::DemotingVoter => "d",
        };
        format!("{}{role}", member.peer.0)
    };
    members.iter().map(word).collect::<Vec<_>>().join(",")
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
            applies_slowly: false,
            to_apply: Vec::new(),
            is_older: false,
            runs: true,
            starts,
        }
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.node * 100 + self.starts
    }

    /// A group to host: as stored, or fresh. `None` where the local peer was removed.
    pub(crate) fn open(
        &mut self,
        group: u64,
        peer: u64,
        members: Vec<Member>,
        campaign: bool,
    ) -> Option<NewGroup> {
        let key = group.to_be_bytes();
        let first = members.clone();
        let applied = match self.engine.get(Cf::Meta, &key).unwrap() {
            Some(stored) => parse(&stored),
            None if members.is_empty() => Applied::default(),
            None => Applied { index: 5, term: 5, conf_ver: 1, members, commands: Vec::new() },
        };
        let is_member = applied.members.iter().any(|member| member.peer.0 == peer);
        if !applied.members.is_empty() && !is_member {
            self.destroy(group);
            return None;
        }
        let view = GroupView::new(RegionId(group), PeerId(peer));
        let new = NewGroup {
            group: RegionId(group),
            peer: PeerId(peer),
            members: applied.members.clone(),
            applied: (LogIndex(applied.index), Term(applied.term)),
            view: view.clone(),
            campaign,
        };
        self.groups.insert(group, Hosted { peer, first, view, lease: None, applied });
        Some(new)
    }

    /// Removes what is stored of a group.
    pub(crate) fn destroy(&mut self, group: u64) {
        self.groups.remove(&group);
        let mut batch = WriteBatch::new();
        batch.delete(Cf::Meta, group.to_be_bytes().to_vec());
        forget_group(RegionId(group), &mut batch);
        self.engine.write_synced(batch).unwrap();
    }

    /// Applies a task and stores the result, unsynced. `=V:LIST` changes the members if V of such
    /// changes came before it. What follows the removal of the local peer is left out.
    pub(crate) fn apply(&mut self, task: ApplyTask<u64>) -> Done {
        let hosted = self.groups.get_mut(&task.group.0).unwrap();
        let (mut seen, mut reconfigured) = (Vec::new(), Vec::new());
        let applied = &mut hosted.applied;
        for entry in task.entries {
            assert_eq!(entry.index.0, applied.index + 1, "entries come without a gap");
            applied.index = entry.index.0;
            applied.term = entry.term.0;
            let mut commands = commands(&entry.data);
            if !entry.tokens.is_empty() {
                assert_eq!(entry.tokens.len(), commands.len(), "a token for each command");
            }
            let change = commands.first_mut().filter(|command| command.starts_with('='));
            if let Some(command) = change {
                let (version, list) = command[1..].split_once(':').unwrap();
                let wanted = parse_members(list);
                if version == applied.conf_ver.to_string()
                    && check_members(&applied.members, &wanted).is_ok()
                {
                    applied.conf_ver += 1;
                    applied.members.clone_from(&wanted);
                    reconfigured.push(Reconfigured { group: task.group, members: wanted });
                } else {
                    command.push_str(" (refused)");
                }
            } else {
                applied.commands.extend(commands.iter().cloned());
            }
            seen.push((entry, commands));
            if !applied.members.iter().any(|member| member.peer.0 == hosted.peer) {
                break;
            }
        }
        let mut batch = WriteBatch::new();
        batch.put(Cf::Meta, task.group.0.to_be_bytes().to_vec(), stored(applied));
        self.engine.write(batch).unwrap();
        Done { at: (LogIndex(applied.index), Term(applied.term)), seen, reconfigured }
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
        hosted.applied.members.clone()
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
    let Applied { index, term, conf_ver, members, commands } = applied;
    format!("{index} {term} {conf_ver} {} {}", list(members), commands.join(",")).into()
}

fn parse(stored: &[u8]) -> Applied {
    let text = std::str::from_utf8(stored).unwrap();
    let mut words = text.splitn(5, ' ');
    let mut number = || words.next().unwrap().parse().unwrap();
    let (index, term, conf_ver) = (number(), number(), number());
    let members = parse_members(words.next().unwrap());
    let commands = words.next().unwrap().split(',').filter(|c| !c.is_empty()).map(str::to_owned);
    Applied { index, term, conf_ver, members, commands: commands.collect() }
}
