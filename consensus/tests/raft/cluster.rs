//! Processes, the messages between them, and the clock: what the shards want done is done here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_consensus::engine::{Engine, MemoryEngine};
use quorate_consensus::shard::{
    ApplyTask, Effects, Event, MakeSnapshot, Outgoing, Plane, RaftOptions, Refusal, Reply, conf_of,
};
use quorate_consensus::time::Instant;
use quorate_proto::wire::peer::{Envelope, SnapshotMeta};
use quorate_proto::{LogIndex, NodeId, RegionId};

use crate::host::{Host, framed, members, parse_members};
use crate::show::{describe, short};

/// On its way between two processes.
pub(crate) enum Wire {
    Message(Box<Envelope>),
    Beat(u64),
}

pub(crate) struct Cluster {
    pub(crate) options: RaftOptions,
    pub(crate) now: Instant,
    /// Placement's clock; 0: nobody knows it.
    pub(crate) time_ms: u64,
    pub(crate) hosts: BTreeMap<u64, Host>,
    pub(crate) wires: Vec<(u64, u64, Wire)>,
    pub(crate) cuts: BTreeSet<(u64, u64)>,
    /// Snapshots are not delivered on their own.
    pub(crate) holds_snapshots: bool,
    pub(crate) snapshots: Vec<(u64, MakeSnapshot, Option<Envelope>)>,
    pub(crate) traces: bool,
    pub(crate) tokens: u64,
    /// Who led in which term, and which processes were asked for which peers.
    pub(crate) leaders: Vec<(u64, u64)>,
    pub(crate) strangers: Vec<(u64, u64)>,
    /// What happened since the last command.
    pub(crate) said: Vec<String>,
}

impl Cluster {
    pub(crate) fn new(options: RaftOptions) -> Self {
        Self {
            options,
            now: Instant::from_millis(10_000),
            time_ms: 0,
            hosts: BTreeMap::new(),
            wires: Vec::new(),
            cuts: BTreeSet::new(),
            holds_snapshots: false,
            snapshots: Vec::new(),
            traces: false,
            tokens: 0,
            leaders: Vec::new(),
            strangers: Vec::new(),
            said: Vec::new(),
        }
    }

    pub(crate) fn say(&mut self, words: String) {
        self.said.push(words);
    }

    pub(crate) fn host(&mut self, node: u64) -> &mut Host {
        let (options, now) = (&self.options, self.now);
        self.hosts
            .entry(node)
            .or_insert_with(|| Host::start(node, options, MemoryEngine::new(), 1, now))
    }

    pub(crate) fn create(&mut self, node: u64, group: u64, nodes: BTreeSet<u64>, campaign: bool) {
        let now = self.now;
        let host = self.host(node);
        let new = host.open(group, node, members(&nodes), campaign).unwrap();
        host.shard.step(Event::Create(Box::new(new)), now);
    }

    /// Hosts a peer that waits for its first snapshot.
    pub(crate) fn host_empty(&mut self, node: u64, group: u64, peer: u64) {
        let now = self.now;
        let host = self.host(node);
        assert!(!host.groups.contains_key(&group), "r{group} is on n{node} already");
        let new = host.open(group, peer, Vec::new(), false).unwrap();
        host.shard.step(Event::Create(Box::new(new)), now);
    }

    /// Asks for other members; `version` as the state machine is to find it, or as it is now.
    pub(crate) fn change(&mut self, node: u64, group: u64, wanted: &str, version: Option<u64>) {
        self.tokens += 1;
        let token = self.tokens;
        let now = || self.hosts[&node].groups.get(&group).map_or(0, |h| h.applied.conf_ver);
        let version = version.unwrap_or_else(now);
        let members = parse_members(wanted);
        let command = framed(&format!("={version}:{wanted}"));
        self.step(node, Event::ChangeMembers { group: RegionId(group), members, command, token });
    }

    pub(crate) fn propose(&mut self, node: u64, group: u64, text: &str, suspends_lease: bool) {
        self.tokens += 1;
        let token = self.tokens;
        let event =
            Event::Propose { group: RegionId(group), command: framed(text), token, suspends_lease };
        self.step(node, event);
    }

    pub(crate) fn step(&mut self, node: u64, event: Event<u64>) {
        let (now, time_ms) = (self.now, self.time_ms);
        let shard = &mut self.host(node).shard;
        shard.tell_time(time_ms);
        shard.step(event, now);
    }

    /// Ends a process; of its unsynced writes the first `keep` survive.
    pub(crate) fn stop(&mut self, node: u64, keep: usize) {
        let host = self.host(node);
        host.runs = false;
        host.writing = None;
        host.installs.clear();
        host.to_apply.clear();
        host.engine = host.engine.crash(|unsynced| unsynced.min(keep));
        self.wires.retain(|(from, to, _)| *from != node && *to != node);
    }

    pub(crate) fn restart(&mut self, node: u64) {
        let old = self.hosts.remove(&node).unwrap();
        let mut host =
            Host::start(node, &self.options, old.engine.clone(), old.starts + 1, self.now);
        for (group, hosted) in old.groups {
            if let Some(new) = host.open(group, hosted.peer, hosted.first, false) {
                host.shard.step(Event::Create(Box::new(new)), self.now);
            }
        }
        self.hosts.insert(node, host);
    }

    /// 100 ms pass; the processes of `nodes` tick and send their beats. Nothing
    /// is delivered yet.
    pub(crate) fn tick(&mut self, nodes: &[u64]) {
        self.now = self.now + Duration::from_millis(self.options.tick_ms);
        if self.time_ms > 0 {
            self.time_ms += self.options.tick_ms;
        }
        for node in nodes {
            let Some(host) = self.hosts.get_mut(node).filter(|host| host.runs) else { continue };
            let incarnation = host.incarnation();
            let neighbours: Vec<NodeId> = host.shard.neighbours().collect();
            for to in neighbours {
                self.post(*node, to.0, Wire::Beat(incarnation));
            }
            self.step(*node, Event::Tick);
        }
    }

    fn post(&mut self, from: u64, to: u64, wire: Wire) {
        let runs = self.hosts.get(&to).is_some_and(|host| host.runs);
        if runs && !self.cuts.contains(&(from, to)) {
            self.wires.push((from, to, wire));
        }
    }

    /// Everybody works and all messages are delivered until nothing moves any more.
    pub(crate) fn settle(&mut self) {
        for _ in 0..1_000 {
            let mut moved = false;
            let nodes: Vec<u64> = self.hosts.keys().copied().collect();
            for node in nodes {
                moved |= self.work(node);
            }
            moved |= self.deliver(|_, _| true);
            if !moved {
                return;
            }
        }
        panic!("the processes do not come to rest");
    }

    /// Delivers the first message on a link.
    pub(crate) fn deliver_one(&mut self, link: (u64, u64)) {
        let Some(at) = self.wires.iter().position(|(from, to, _)| (*from, *to) == link) else {
            return;
        };
        let later = self.wires.split_off(at + 1);
        self.deliver(|from, to| (from, to) == link);
        self.wires.extend(later);
    }

    /// Delivers messages on the links that `which` names, in order.
    pub(crate) fn deliver(&mut self, which: impl Fn(u64, u64) -> bool) -> bool {
        let wires = std::mem::take(&mut self.wires);
        let mut moved = false;
        for (from, to, wire) in wires {
            if !which(from, to) {
                self.wires.push((from, to, wire));
                continue;
            }
            moved = true;
            let from_node = NodeId(from);
            let event = match wire {
                Wire::Message(envelope) => {
                    if self.traces {
                        self.say(format!("{from}->{to} {}", describe(&envelope)));
                    }
                    Event::Message { from: from_node, envelope }
                }
                Wire::Beat(incarnation) => Event::Beat { from: from_node, incarnation },
            };
            if self.hosts.get(&to).is_some_and(|host| host.runs) {
                self.step(to, event);
            }
        }
        moved
    }

    /// Runs what one process wants done, once. False where it wants nothing.
    pub(crate) fn work(&mut self, node: u64) -> bool {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&node).filter(|host| host.runs) else { return false };
        host.shard.tell_time(self.time_ms);
        if !host.shard.has_work() {
            return false;
        }
        let effects = host.shard.collect(now);
        assert!(host.shard.take_failure().is_none());
        self.run(node, effects);
        true
    }

    fn run(&mut self, node: u64, effects: Effects<u64>) {
        for Outgoing { to, plane, mut envelope } in effects.send {
            if self.hosts[&node].is_older {
                envelope.applied = 0;
            }
            assert_ne!(plane, Plane::Bulk, "snapshots go their own way");
            self.post(node, to.0, Wire::Message(Box::new(envelope)));
        }
        for (token, reply) in effects.replies {
            let words = match reply {
                Reply::ReadAt(index) => format!("may read at {index}"),
                Reply::Refused(Refusal::Members(rule)) => format!("refused: {rule}"),
                Reply::Refused(refusal) => format!("refused: {refusal:?}"),
            };
            self.say(format!("n{node} #{token} {words}"));
        }
        for change in effects.leaders.iter().filter(|change| change.is_local) {
            self.leaders.push((change.term.0, node));
            self.say(format!("n{node} leads {} in term {}", change.group, change.term));
        }
        // As in production: what nobody waits for is applied after the write.
        let (waited_for, rest): (Vec<_>, Vec<_>) = effects
            .apply
            .into_iter()
            .partition(|task| task.entries.iter().any(|entry| !entry.tokens.is_empty()));
        self.apply(node, waited_for);
        if let Some(persist) = effects.persist {
            self.host(node).writing = Some(persist);
            if !self.host(node).stalls {
                self.persist(node);
            }
        }
        self.apply(node, rest);
        for make in effects.snapshots {
            self.say(format!("n{node} {} sends a snapshot to {}", make.group, make.to));
            self.snapshots.push((node, make, None));
        }
        if !self.holds_snapshots {
            self.send_snapshots(true);
        }
        for install in effects.installs {
            self.say(format!("n{node} {} gets a snapshot at {}", install.group, install.index));
            self.host(node).installs.push(install);
        }
        if !self.host(node).installs_slowly {
            self.install(node);
        }
        for (group, peer) in effects.destroyed {
            self.say(format!("n{node} removes {group}"));
            if self.host(node).groups.get(&group.0).is_none_or(|hosted| hosted.peer == peer.0) {
                self.host(node).destroy(group.0);
            }
        }
        for stranger in effects.strangers {
            self.strangers.push((node, stranger.peer.0));
            self.say(format!("n{node} is asked for {} {}", stranger.group, stranger.peer));
        }
        for id in effects.discards {
            self.say(format!("n{node} discards {id}"));
        }
    }

    fn apply(&mut self, node: u64, tasks: Vec<ApplyTask<u64>>) {
        let host = self.host(node);
        host.to_apply.extend(tasks);
        if !host.applies_slowly {
            self.apply_some(node, usize::MAX);
        }
    }

    /// Applies what waits for it on that process: so many tasks at most.
    pub(crate) fn apply_some(&mut self, node: u64, count: usize) {
        let now = self.now;
        let waiting = &mut self.host(node).to_apply;
        let tasks: Vec<_> = waiting.drain(..count.min(waiting.len())).collect();
        for task in tasks {
            let group = task.group;
            let host = self.hosts.get_mut(&node).unwrap();
            let done = host.apply(task);
            for change in done.reconfigured {
                host.shard.step(Event::Reconfigured(change), now);
            }
            let (index, term) = done.at;
            host.shard.step(Event::Applied { group, index, term }, now);
            for (entry, commands) in done.seen.iter().filter(|(entry, _)| !entry.tokens.is_empty())
            {
                let tokens: Vec<String> = entry.tokens.iter().map(|t| format!("#{t}")).collect();
                let what: Vec<&str> = commands.iter().map(|command| short(command)).collect();
                let (at, what, whose) = (entry.index, what.join(","), tokens.join(" "));
                self.say(format!("n{node} {group} applied {at}: {what} for {whose}"));
            }
        }
    }

    /// The write under way on that process becomes durable.
    pub(crate) fn persist(&mut self, node: u64) {
        let host = self.host(node);
        let Some(persist) = host.writing.take() else { return };
        if persist.sync {
            host.engine.write_synced(persist.batch).unwrap();
        } else {
            host.engine.write(persist.batch).unwrap();
        }
        host.shard.persisted(persist.number);
    }

    pub(crate) fn install(&mut self, node: u64) {
        let now = self.now;
        let host = self.host(node);
        for install in std::mem::take(&mut host.installs) {
            let (group, index) = (install.group, install.index);
            let members = host.install(install);
            host.shard.step(Event::Installed { group, index, members }, now);
        }
    }

    /// Reads the data of those that are to be sent.
    pub(crate) fn take_snapshots(&mut self) {
        for mut snapshot in std::mem::take(&mut self.snapshots) {
            let (from, make, taken) = (snapshot.0, &snapshot.1, &mut snapshot.2);
            if taken.is_none() {
                let envelope = self.snapshot(from, make);
                let index = LogIndex(envelope.snapshot.as_ref().unwrap().index);
                let (group, to) = (make.group, make.to);
                *taken = Some(envelope);
                self.step(from, Event::SnapshotTaken { group, to, index });
            }
            self.snapshots.push(snapshot);
        }
    }

    pub(crate) fn send_snapshots(&mut self, arrive: bool) {
        self.take_snapshots();
        for (from, make, envelope) in std::mem::take(&mut self.snapshots) {
            let to = make.node.0;
            let (group, peer) = (make.group, make.to);
            let reaches = arrive
                && !self.cuts.contains(&(from, to))
                && self.hosts.get(&to).is_some_and(|host| host.runs);
            if reaches {
                self.post(from, to, Wire::Message(Box::new(envelope.unwrap())));
            }
            self.step(from, Event::SnapshotSent { group, to: peer, delivered: reaches });
        }
    }

    /// The message that carries a snapshot of what `from` has applied.
    pub(crate) fn snapshot(&self, from: u64, make: &MakeSnapshot) -> Envelope {
        let host = &self.hosts[&from];
        let (applied, state) = host.describe(make.group.0).unwrap();
        assert!(applied.index >= make.at_least.0);
        Envelope {
            group: make.group.0,
            from_peer: make.from.0,
            to_peer: make.to.0,
            kind: 7,
            term: make.term.0,
            snapshot: Some(SnapshotMeta {
                id: format!("{}-{}-{}", make.group, make.to, applied.index),
                index: applied.index,
                term: applied.term,
                conf: Some(conf_of(&applied.members)),
                state,
            }),
            ..Envelope::default()
        }
    }
}
