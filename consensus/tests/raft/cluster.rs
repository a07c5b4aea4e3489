//! Processes, the messages between them, and the clock: what the shards want done is done here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_consensus::engine::{Engine, MemoryEngine};
use quorate_consensus::shard::{
    Effects, Event, MakeSnapshot, Outgoing, Plane, RaftOptions, Reply, conf_of,
};
use quorate_consensus::time::Instant;
use quorate_proto::wire::peer::{Envelope, SnapshotMeta};
use quorate_proto::{LogIndex, NodeId, PeerId, RegionId};

use crate::host::{Host, framed, members};

/// On its way between two processes.
pub(crate) enum Wire {
    Message(Box<Envelope>),
    Beat(u64),
}

pub(crate) struct Cluster {
    pub(crate) options: RaftOptions,
    pub(crate) now: Instant,
    pub(crate) hosts: BTreeMap<u64, Host>,
    pub(crate) wires: Vec<(u64, u64, Wire)>,
    pub(crate) cuts: BTreeSet<(u64, u64)>,
    /// Snapshots are not delivered on their own.
    pub(crate) holds_snapshots: bool,
    pub(crate) snapshots: Vec<(u64, MakeSnapshot, Option<Envelope>)>,
    pub(crate) traces: bool,
    pub(crate) tokens: u64,
    /// What happened since the last command.
    pub(crate) said: Vec<String>,
}

impl Cluster {
    pub(crate) fn new(options: RaftOptions) -> Self {
        Self {
            options,
            now: Instant::from_millis(10_000),
            hosts: BTreeMap::new(),
            wires: Vec::new(),
            cuts: BTreeSet::new(),
            holds_snapshots: false,
            snapshots: Vec::new(),
            traces: false,
            tokens: 0,
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
        let new = host.open(group, nodes, campaign);
        host.shard.step(Event::Create(Box::new(new)), now);
    }

    pub(crate) fn propose(&mut self, node: u64, group: u64, text: &str, suspends_lease: bool) {
        self.tokens += 1;
        let token = self.tokens;
        let event =
            Event::Propose { group: RegionId(group), command: framed(text), token, suspends_lease };
        self.step(node, event);
    }

    pub(crate) fn step(&mut self, node: u64, event: Event<u64>) {
        let now = self.now;
        self.host(node).shard.step(event, now);
    }

    /// Ends a process; of its unsynced writes the first `keep` survive.
    pub(crate) fn stop(&mut self, node: u64, keep: usize) {
        let host = self.host(node);
        host.runs = false;
        host.writing = None;
        host.installs.clear();
        host.engine = host.engine.crash(|unsynced| unsynced.min(keep));
        self.wires.retain(|(from, to, _)| *from != node && *to != node);
    }

    pub(crate) fn restart(&mut self, node: u64) {
        let old = self.hosts.remove(&node).unwrap();
        let mut host =
            Host::start(node, &self.options, old.engine.clone(), old.starts + 1, self.now);
        for (group, hosted) in old.groups {
            let new = host.open(group, hosted.members, false);
            host.shard.step(Event::Create(Box::new(new)), self.now);
        }
        self.hosts.insert(node, host);
    }

    /// 100 ms pass; the processes of `nodes` tick and send their beats. Nothing
    /// is delivered yet.
    pub(crate) fn tick(&mut self, nodes: &[u64]) {
        self.now = self.now + Duration::from_millis(self.options.tick_ms);
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
        if !host.shard.has_work() {
            return false;
        }
        let effects = host.shard.collect(now);
        assert!(host.shard.take_failure().is_none());
        self.run(node, effects);
        true
    }

    fn run(&mut self, node: u64, effects: Effects<u64>) {
        let now = self.now;
        for Outgoing { to, plane, envelope } in effects.send {
            assert_ne!(plane, Plane::Bulk, "snapshots go their own way");
            self.post(node, to.0, Wire::Message(Box::new(envelope)));
        }
        for (token, reply) in effects.replies {
            let words = match reply {
                Reply::ReadAt(index) => format!("may read at {index}"),
                Reply::Refused(refusal) => format!("refused: {refusal:?}"),
            };
            self.say(format!("n{node} #{token} {words}"));
        }
        for change in effects.leaders.iter().filter(|change| change.is_local) {
            self.say(format!("n{node} leads {} in term {}", change.group, change.term));
        }
        for task in effects.apply {
            let group = task.group;
            let host = self.hosts.get_mut(&node).unwrap();
            let (index, term, entries) = host.apply(task);
            host.shard.step(Event::Applied { group, index, term }, now);
            for (entry, commands) in entries.iter().filter(|(entry, _)| !entry.tokens.is_empty()) {
                let tokens: Vec<String> = entry.tokens.iter().map(|t| format!("#{t}")).collect();
                let what: Vec<&str> = commands.iter().map(|command| short(command)).collect();
                let (at, what, whose) = (entry.index, what.join(","), tokens.join(" "));
                self.say(format!("n{node} {group} applied {at}: {what} for {whose}"));
            }
        }
        if let Some(persist) = effects.persist {
            self.host(node).writing = Some(persist);
            if !self.host(node).stalls {
                self.persist(node);
            }
        }
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
        for stranger in effects.strangers {
            self.say(format!("n{node} is asked for {} {}", stranger.group, stranger.peer));
        }
        for id in effects.discards {
            self.say(format!("n{node} discards {id}"));
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
                conf: Some(conf_of(&members(&host.groups[&make.group.0].members))),
                state,
            }),
            ..Envelope::default()
        }
    }

    pub(crate) fn status(&mut self, group: u64) {
        let mut lines = Vec::new();
        for (node, host) in &self.hosts {
            if !host.runs {
                lines.push(format!("n{node} is down"));
                continue;
            }
            let Some(hosted) = host.groups.get(&group) else { continue };
            let view = &hosted.view;
            let leader = view.leader().map_or("nobody".to_owned(), |peer: PeerId| peer.to_string());
            let asleep = if view.is_asleep() { " asleep" } else { "" };
            let (term, committed, applied) = (view.term(), view.committed(), view.applied());
            lines.push(format!(
                "n{node} term {term} leader {leader} committed {committed} applied {applied}{asleep}"
            ));
        }
        self.said.extend(lines);
    }
}

fn short(command: &str) -> &str {
    if command.len() > 30 { "a long one" } else { command }
}

/// A message in one line.
pub(crate) fn describe(envelope: &Envelope) -> String {
    let kinds = [
        (3, "append"),
        (4, "append-answer"),
        (5, "vote?"),
        (6, "vote"),
        (7, "snapshot"),
        (8, "heartbeat"),
        (9, "heartbeat-answer"),
        (14, "timeout-now"),
        (15, "read-index?"),
        (16, "read-index"),
        (17, "pre-vote?"),
        (18, "pre-vote"),
        (100, "hibernate"),
        (101, "hibernate-ack"),
    ];
    let kind = kinds.iter().find(|(number, _)| *number == envelope.kind).unwrap().1;
    let mut words = format!("r{} {kind} t{}", envelope.group, envelope.term);
    if envelope.reject {
        words += " rejected";
    }
    if matches!(envelope.kind, 3 | 4) {
        words += &format!(" after {}/{}", envelope.index, envelope.log_term);
        if !envelope.entries.is_empty() {
            words += &format!(" +{}", envelope.entries.len());
        }
    }
    if !envelope.context.is_empty() {
        words += " with context";
    }
    words
}
