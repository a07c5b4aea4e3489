//! The language of the scripts.
//!
//! A line is a command, a line that begins with `=` is what happened until everything came to
//! rest, `#` begins a comment. Peer k of every group lives on the process of its last digit; tokens
//! count up from #1.
//!
//! ```text
//! option NAME=VALUE          before the first create
//! create rG 1,2,3 [on 1,2]   a fresh group with these voters
//! split rG 1,2,3 on N        the same on one process, which campaigns at once
//! destroy N rG
//! host N rG pK                        a peer that waits for its first snapshot
//! change N rG LIST [at VERSION]       these members from now on: 1,2l,3i,4d (voter, learner,
//!                                     incoming, demoting); VERSION as applied there by default
//! members rG                          who they are, as each process has applied it
//! progress N rG                       what a peer publishes of those that are not settled
//! unapplied N rG                      how many entries they have and have not applied
//! tick [COUNT] [on 1,2]      100 ms pass each time; these processes tick and send beats
//! advance MS                 time passes and nobody notices
//! clock MS · fresh rG        placement's clock, which ticks move on · how fresh the replicas are
//! propose N rG TEXT…         each word is a command; `!word` suspends the lease,
//!                            `@N` has N bytes
//! fill N rG COUNT            so many commands, each in an entry of its own
//! read N rG · renew N rG · transfer N rG to M · unreachable N M
//! cut 1->2 … · cut 1-2 … · heal
//! stall N · persist N · flow N        writes on N finish only at `persist`
//! stop N [keep COUNT] · restart N     unsynced writes beyond COUNT are lost (default: none)
//! hold snapshots · take snapshots · send snapshots · lose snapshots · slow installs N · install N
//! slow applying N · apply N [COUNT]   entries wait · so many tasks of them are applied, or all,
//!                                     and those that come
//! older N                             it does not say how far it has applied
//! manual · auto              nothing moves by itself · everything comes to rest after each command
//! work N · deliver [1->2 …] · deliver-one 1->2 · drop 1->2 … · repeat 1->2
//! status rG · lease N rG · hold-lease N rG · holds N rG · log N rG · data N rG · trace on|off
//! ```

use std::collections::BTreeSet;
use std::fmt::Write as _;

use quorate_consensus::shard::{Event, RaftOptions};
use quorate_proto::{NodeId, PeerId, RegionId};

use crate::cluster::{Cluster, Wire};

pub(crate) fn run(name: &str) {
    let path = format!("{}/tests/raft/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let script = std::fs::read_to_string(&path).unwrap();
    let mut written = String::new();
    let mut runner = Runner { cluster: Cluster::new(RaftOptions::default()), manual: false };
    for line in script.lines() {
        if line.starts_with('=') {
            continue;
        }
        writeln!(written, "{line}").unwrap();
        let command = line.trim();
        if command.is_empty() || command.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = command.split_whitespace().collect();
        runner.execute(&words);
        if !runner.manual {
            runner.cluster.settle();
        }
        for said in std::mem::take(&mut runner.cluster.said) {
            writeln!(written, "= {said}").unwrap();
        }
    }
    if std::env::var_os("QUORATE_REWRITE").is_some() {
        std::fs::write(&path, written).unwrap();
        return;
    }
    for (at, (is, should)) in written.lines().zip(script.lines()).enumerate() {
        assert_eq!(is, should, "{name}.txt:{}: what happens, and what is written there", at + 1);
    }
    assert_eq!(written.lines().count(), script.lines().count(), "{name}.txt ends differently");
}

struct Runner {
    cluster: Cluster,
    manual: bool,
}

fn group(word: &str) -> u64 {
    word.strip_prefix('r').unwrap().parse().unwrap()
}

fn number(word: &str) -> u64 {
    word.parse().unwrap()
}

fn nodes(list: &str) -> BTreeSet<u64> {
    list.split(',').map(number).collect()
}

/// `1->2` is one direction, `1-2` both.
fn links(words: &[&str]) -> BTreeSet<(u64, u64)> {
    let mut links = BTreeSet::new();
    for word in words {
        if let Some((from, to)) = word.split_once("->") {
            links.insert((number(from), number(to)));
        } else {
            let (one, two) = word.split_once('-').unwrap();
            links.extend([(number(one), number(two)), (number(two), number(one))]);
        }
    }
    links
}

impl Runner {
    fn execute(&mut self, words: &[&str]) {
        let cluster = &mut self.cluster;
        match words {
            ["option", setting] => set(&mut cluster.options, setting),
            ["create", id, all, rest @ ..] => {
                let all = nodes(all);
                let on = if let ["on", on] = rest { nodes(on) } else { all.clone() };
                for node in on {
                    cluster.create(node, group(id), all.clone(), false);
                }
            }
            ["split", id, all, "on", node] => {
                cluster.create(number(node), group(id), nodes(all), true);
            }
            ["destroy", node, id] => {
                let (node, group) = (number(node), group(id));
                let hosted = cluster.host(node).groups.get(&group).map(|hosted| hosted.peer);
                let (group, peer) = (RegionId(group), PeerId(hosted.unwrap_or_default()));
                cluster.step(node, Event::Destroy { group, peer });
            }
            ["host", node, id, peer] => {
                let peer = number(peer.strip_prefix('p').unwrap());
                cluster.host_empty(number(node), group(id), peer);
            }
            ["change", node, id, list, rest @ ..] => {
                let version = if let ["at", version] = rest { Some(number(version)) } else { None };
                cluster.change(number(node), group(id), list, version);
            }
            ["members", id] => cluster.members(group(id)),
            ["progress", node, id] => cluster.progress(number(node), group(id)),
            ["unapplied", node, id] => cluster.unapplied(number(node), group(id)),
            ["everywhere", node, id] => cluster.everywhere(number(node), group(id)),
            ["keep", id, "awake"] => cluster.keep_awake(group(id), true),
            ["let", id, "sleep"] => cluster.keep_awake(group(id), false),
            ["tick", rest @ ..] => {
                let (count, rest) = match rest {
                    [count, rest @ ..] if *count != "on" => (number(count), rest),
                    rest => (1, rest),
                };
                let all: BTreeSet<u64> = cluster.hosts.keys().copied().collect();
                let on = if let ["on", on] = rest { nodes(on) } else { all };
                let on: Vec<u64> = on.into_iter().collect();
                for _ in 0..count {
                    cluster.tick(&on);
                    if !self.manual {
                        cluster.settle();
                    }
                }
            }
            ["advance", millis] => {
                cluster.now = cluster.now + std::time::Duration::from_millis(number(millis));
            }
            ["propose", node, id, texts @ ..] => {
                for text in texts {
                    let suspends = text.starts_with('!');
                    let long = text.strip_prefix('@').map(|size| "x".repeat(number(size) as usize));
                    let text = long.as_deref().unwrap_or(text);
                    cluster.propose(number(node), group(id), text, suspends);
                }
            }
            ["fill", node, id, count] => self.fill(number(node), group(id), number(count)),
            ["read", node, id] => {
                cluster.tokens += 1;
                let token = cluster.tokens;
                cluster.step(number(node), Event::Read { group: RegionId(group(id)), token });
            }
            ["renew", node, id] => {
                cluster.step(number(node), Event::RenewLease { group: RegionId(group(id)) });
            }
            ["transfer", node, id, "to", to] => {
                let (group, to) = (RegionId(group(id)), NodeId(number(to)));
                cluster.step(number(node), Event::TransferLeader { group, to });
            }
            ["unreachable", node, other] => {
                cluster.step(number(node), Event::Unreachable { node: NodeId(number(other)) });
            }
            ["cut", which @ ..] => cluster.cuts.extend(links(which)),
            ["heal"] => cluster.cuts.clear(),
            ["stall", node] => cluster.host(number(node)).stalls = true,
            ["persist", node] => cluster.persist(number(node)),
            ["flow", node] => {
                cluster.host(number(node)).stalls = false;
                cluster.persist(number(node));
            }
            ["stop", node] => cluster.stop(number(node), 0),
            ["stop", node, "keep", count] => cluster.stop(number(node), number(count) as usize),
            ["restart", node] => cluster.restart(number(node)),
            ["hold", "snapshots"] => cluster.holds_snapshots = true,
            ["take", "snapshots"] => cluster.take_snapshots(),
            ["send", "snapshots"] => cluster.send_snapshots(true),
            ["lose", "snapshots"] => cluster.send_snapshots(false),
            ["slow", "installs", node] => cluster.host(number(node)).installs_slowly = true,
            ["slow", "applying", node] => cluster.host(number(node)).applies_slowly = true,
            ["older", node] => cluster.host(number(node)).is_older = true,
            ["apply", node] => {
                cluster.host(number(node)).applies_slowly = false;
                cluster.apply_some(number(node), usize::MAX);
            }
            ["apply", node, count] => cluster.apply_some(number(node), number(count) as usize),
            ["install", node] => cluster.install(number(node)),
            ["trace", switch] => cluster.traces = *switch == "on",
            ["clock", millis] => cluster.time_ms = number(millis),
            ["fresh", id] => cluster.fresh(group(id)),
            ["status", id] => cluster.status(group(id)),
            ["log", node, id] => {
                let words = match cluster.host(number(node)).log(group(id)) {
                    (_, _, 0) => "empty".to_owned(),
                    (first, last, 1) if first == last => format!("i{first} alone"),
                    (first, last, count) => {
                        assert_eq!(last - first + 1, count as u64, "the log has no gaps");
                        format!("i{first} to i{last}")
                    }
                };
                cluster.say(words);
            }
            ["data", node, id] => {
                let commands =
                    cluster.host(number(node)).groups[&group(id)].applied.commands.join(" ");
                cluster.say(commands);
            }
            [command @ ("lease" | "hold-lease" | "holds"), node, id] => {
                self.lease(command, number(node), group(id));
            }
            other => self.by_hand(other),
        }
    }

    /// What becomes of the commands is not said.
    fn fill(&mut self, node: u64, group: u64, count: u64) {
        for number in 0..count {
            self.cluster.propose(node, group, &number.to_string(), false);
            self.cluster.settle();
        }
        self.cluster.said.retain(|words| !words.contains(" applied "));
    }

    fn lease(&mut self, command: &str, node: u64, id: u64) {
        let now = self.cluster.now;
        let hosted = self.cluster.host(node).groups.get_mut(&id).unwrap();
        let words = match command {
            "holds" => {
                let held = hosted.lease.is_some_and(|lease| hosted.view.still_holds(lease, now));
                if held { "still holds" } else { "does not hold any more" }
            }
            _ => {
                let lease = hosted.view.lease(now);
                if command == "hold-lease" {
                    hosted.lease = lease;
                }
                match lease {
                    Some(lease) if lease.renew => "valid, to be renewed",
                    Some(_) => "valid",
                    None => "no lease",
                }
            }
        };
        self.cluster.say(words.to_owned());
    }

    fn by_hand(&mut self, words: &[&str]) {
        let cluster = &mut self.cluster;
        match words {
            ["manual"] => self.manual = true,
            ["auto"] => self.manual = false,
            ["work", node] => {
                cluster.work(number(node));
            }
            ["deliver"] => {
                cluster.deliver(|_, _| true);
            }
            ["deliver", which @ ..] => {
                let which = links(which);
                cluster.deliver(|from, to| which.contains(&(from, to)));
            }
            ["deliver-one", link] => {
                let link = links(&[link]).pop_first().unwrap();
                cluster.deliver_one(link);
            }
            ["drop", which @ ..] => {
                let which = links(which);
                cluster.wires.retain(|(from, to, _)| !which.contains(&(*from, *to)));
            }
            ["repeat", which @ ..] => {
                let which = links(which);
                let again: Vec<_> = cluster
                    .wires
                    .iter()
                    .filter(|(from, to, _)| which.contains(&(*from, *to)))
                    .map(|(from, to, wire)| match wire {
                        Wire::Message(envelope) => (*from, *to, Wire::Message(envelope.clone())),
                        Wire::Beat(incarnation) => (*from, *to, Wire::Beat(*incarnation)),
                    })
                    .collect();
                cluster.wires.extend(again);
            }
            other => panic!("unknown command {other:?}"),
        }
    }
}

fn set(options: &mut RaftOptions, setting: &str) {
    let (name, value) = setting.split_once('=').unwrap();
    let value = number(value);
    match name {
        "sleep_after_ticks" => options.sleep_after_ticks = value as u32,
        "max_pending" => options.max_pending = value as usize,
        "max_uncommitted_bytes" => options.max_uncommitted_bytes = value,
        "max_append_bytes" => options.max_append_bytes = value,
        "entry_bytes" => options.entry_bytes = value as usize,
        "truncate_entries" => options.truncate_entries = value,
        "truncate_bytes" => options.truncate_bytes = value,
        "max_log_entries" => options.max_log_entries = value,
        "max_log_bytes" => options.max_log_bytes = value,
        "request_timeout_ms" => options.request_timeout_ms = value,
        "wakes_per_tick" => options.wakes_per_tick = value as usize,
        other => panic!("unknown option {other}"),
    }
}
