//! What the scripts say about processes and messages.

use quorate_consensus::time::Instant;
use quorate_proto::PeerId;
use quorate_proto::wire::peer::Envelope;

use crate::cluster::Cluster;
use crate::host::{Host, list};

impl Cluster {
    /// Who the members are, as each process has applied it.
    pub(crate) fn members(&mut self, group: u64) {
        let hosts = self.hosts.iter().filter(|(_, host)| host.runs);
        let line = |(node, host): (&u64, &Host)| {
            let hosted = host.groups.get(&group)?;
            let (version, members) = (hosted.applied.conf_ver, list(&hosted.applied.members));
            Some(match hosted.applied.members.is_empty() {
                true => format!("n{node} p{} waits", hosted.peer),
                false => format!("n{node} p{} version {version}: {members}", hosted.peer),
            })
        };
        let lines: Vec<String> = hosts.filter_map(line).collect();
        self.said.extend(lines);
    }

    /// How far the others are, and since when the leader is silent.
    pub(crate) fn progress(&mut self, node: u64, group: u64) {
        let now = self.now;
        let ago = |since: Instant| format!("silent for {} ms", now.since(since).as_millis());
        let view = self.hosts[&node].groups[&group].view.clone();
        let mut lines = Vec::new();
        match view.replication() {
            Some(replication) => {
                lines.push(format!("up to {}", replication.last));
                lines.extend(replication.peers.iter().map(|peer| {
                    let snapshot = if peer.snapshot { ", gets a snapshot" } else { "" };
                    let silent = peer.silent_since.map(ago).map(|ago| format!(", {ago}"));
                    let (id, matched) = (peer.peer, peer.matched);
                    format!("{id} has {matched}{snapshot}{}", silent.unwrap_or_default())
                }));
            }
            None => lines.push("settled".to_owned()),
        }
        lines.extend(view.silent_since().map(|since| format!("its leader is {}", ago(since))));
        lines.extend(view.lost_quorum().map(|lost| {
            let silent: Vec<String> = lost.silent.iter().map(ToString::to_string).collect();
            format!("no quorum of {}: {} are silent", lost.voters, silent.join(", "))
        }));
        self.said.extend(lines);
    }

    /// How many committed entries the others have not applied, as a leader publishes it.
    pub(crate) fn unapplied(&mut self, node: u64, group: u64) {
        let Some(replication) = self.hosts[&node].groups[&group].view.replication() else {
            return self.say("settled".to_owned());
        };
        let lines = replication.peers.iter().map(|peer| match peer.applied {
            None => format!("{} does not say what it has applied", peer.peer),
            Some(_) => format!("{} has {} not applied", peer.peer, replication.unapplied(peer)),
        });
        self.said.extend(lines);
    }

    /// Up to where all members have the log, as a peer knows.
    pub(crate) fn everywhere(&mut self, node: u64, group: u64) {
        let index = self.hosts[&node].groups[&group].view.everywhere();
        self.said.push(format!("all have {index}"));
    }

    /// The state machines want the group kept awake, or do not any more.
    pub(crate) fn keep_awake(&mut self, group: u64, awake: bool) {
        for host in self.hosts.values() {
            host.groups[&group].view.keep_awake(awake);
        }
    }

    /// Up to when each replica has everything.
    pub(crate) fn fresh(&mut self, group: u64) {
        let running = self.hosts.iter().filter(|(_, host)| host.runs);
        let hosted = running.filter_map(|(node, host)| Some((node, host.groups.get(&group)?)));
        let lines: Vec<String> = hosted
            .map(|(node, hosted)| match hosted.view.fresh().time_ms {
                0 => format!("n{node} cannot tell"),
                time => format!("n{node} is fresh as of {time}"),
            })
            .collect();
        self.said.extend(lines);
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

pub(crate) fn short(command: &str) -> &str {
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
