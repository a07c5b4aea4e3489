//! `quorate region explain`: everything that placement knows of one region, and its reasons.

use std::fmt::Write as _;
use std::time::SystemTime;

use quorate_proto::key;
use quorate_proto::wire::placement::{Decision, ExplainRegionResponse};
use serde_json::{Value, json};

use super::super::{member, operator};
use super::replicas;
use crate::output::{self, Format, Table};

/// The answer in that shape.
pub(super) fn render(told: &ExplainRegionResponse, format: Format, now: SystemTime) -> String {
    match format {
        Format::Json => format!("{}\n", document(told, now)),
        Format::Table => page(told, now),
        Format::Plain => lines(told, now),
    }
}

/// What it is about, as name and value.
fn facts(told: &ExplainRegionResponse) -> Vec<(&'static str, String)> {
    let region = told.region.clone().unwrap_or_default();
    let epoch = region.region_epoch.unwrap_or_default();
    let leader = told.replicas.iter().find(|replica| replica.leader).and_then(|one| one.peer);
    let voters = region.peers.iter().filter(|peer| peer.role == 0).count();
    let rate =
        |bytes, keys| format!("{}/s, {} keys/s", output::bytes(bytes), output::count(keys as f64));
    vec![
        ("region", format!("r{}", region.id)),
        ("state", told.state.clone()),
        ("leader", leader.map_or("none".to_owned(), |peer| format!("s{}", peer.store_id))),
        ("voters", format!("{voters} of {}", told.target_voters)),
        ("start", key::display(&region.start_key)),
        ("end", key::display(&region.end_key)),
        ("epoch", format!("{}.{}", epoch.conf_ver, epoch.version)),
        (
            "size",
            format!(
                "{}, {} keys",
                output::bytes(told.approximate_bytes),
                output::count(told.approximate_keys as f64)
            ),
        ),
        ("written", rate(told.written_bytes_per_second, told.written_keys_per_second)),
        ("read", format!("{} keys/s", output::count(told.read_keys_per_second as f64))),
        // Told only while something is going on: what was written since is not reported.
        (
            "last entry",
            if told.last_index == 0 { String::new() } else { told.last_index.to_string() },
        ),
    ]
}

fn page(told: &ExplainRegionResponse, now: SystemTime) -> String {
    let mut text = String::new();
    for (name, value) in facts(told) {
        let value = if value.is_empty() { "-" } else { &value };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<11}{value}");
    }
    let _ = write!(text, "\n{}", replicas::peers(told).render(Format::Table));
    let _ = match &told.operator {
        Some(operator) => write!(text, "\n{}", operator::story(operator, now)),
        None => writeln!(text, "\nno operator is under way"),
    };
    if !told.lifecycles.is_empty() {
        let _ = write!(text, "\n{}", member::table(&told.lifecycles, now).render(Format::Table));
    }
    if !told.decisions.is_empty() {
        let _ = write!(text, "\n{}", decisions(&told.decisions).render(Format::Table));
    }
    text
}

/// One fact a line, each with its kind first.
fn lines(told: &ExplainRegionResponse, now: SystemTime) -> String {
    let mut text = String::new();
    for (name, value) in facts(told) {
        let _ = writeln!(text, "{name}\t{}", if value.is_empty() { "-" } else { &value });
    }
    let mut add = |kind: &str, table: &Table| {
        for line in table.render(Format::Plain).lines() {
            let _ = writeln!(text, "{kind}\t{line}");
        }
    };
    add("replica", &replicas::peers(told));
    add("operator", &operator::table(told.operator.as_slice(), now));
    add("member", &member::table(&told.lifecycles, now));
    add("decision", &decisions(&told.decisions));
    text
}

fn document(told: &ExplainRegionResponse, now: SystemTime) -> Value {
    let facts = facts(told).into_iter();
    let mut document: serde_json::Map<String, Value> =
        facts.map(|(name, value)| (name.replace(' ', "_"), json!(value))).collect();
    document.insert("replicas".to_owned(), replicas::peers(told).to_json());
    document.insert("snapshots".to_owned(), replicas::snapshots(told).to_json());
    let operator = told.operator.as_ref().map(operator::object);
    document.insert("operator".to_owned(), operator.unwrap_or(Value::Null));
    document.insert("members".to_owned(), member::table(&told.lifecycles, now).to_json());
    document.insert("decisions".to_owned(), decisions(&told.decisions).to_json());
    Value::Object(document)
}

fn decisions(decisions: &[Decision]) -> Table {
    let mut table = Table::new(&["at", "by", "decision"]);
    for Decision { at_ms, by, what } in decisions {
        table.push(vec![json!(output::moment(*at_ms)), json!(by), json!(what)]);
    }
    table
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use quorate_proto::wire::metapb::{Peer, Region, RegionEpoch};
    use quorate_proto::wire::placement::{OperatorStatus, ReplicaStatus};

    use super::*;

    fn told() -> ExplainRegionResponse {
        let peer = |id, store_id| Peer { id, store_id, ..Peer::default() };
        let peers = vec![peer(1, 1), peer(2, 2), peer(3, 3)];
        let replica = |peer: &Peer| ReplicaStatus {
            peer: Some(*peer),
            leader: peer.id == 2,
            store_state: "Up".to_owned(),
            ..ReplicaStatus::default()
        };
        ExplainRegionResponse {
            replicas: peers.iter().map(replica).collect(),
            region: Some(Region {
                id: 17,
                end_key: "m".into(),
                region_epoch: Some(RegionEpoch { conf_ver: 5, version: 3 }),
                peers,
                ..Region::default()
            }),
            target_voters: 3,
            state: "healthy".to_owned(),
            operator: Some(OperatorStatus {
                id: 12,
                region_id: 17,
                kind: "move-replica".to_owned(),
                reason: "balance-region: s1 has 200, s4 none".to_owned(),
                steps: vec!["add learner on s4".to_owned(), "promote s4, demote s1".to_owned()],
                done: 1,
                waits_for: "s4 to catch up".to_owned(),
                ..OperatorStatus::default()
            }),
            decisions: vec![Decision {
                at_ms: 1_000,
                by: "balance-region".to_owned(),
                what: "s1→s4".to_owned(),
            }],
            ..ExplainRegionResponse::default()
        }
    }

    #[test]
    fn a_person_reads_what_is_under_way_and_why() {
        let text = render(&told(), Format::Table, SystemTime::UNIX_EPOCH);
        for words in [
            "region     r17\nstate      healthy\nleader     s2\nvoters     3 of 3\n",
            "start      -\nend        m\nepoch      5.3\n",
            "last entry -\n",
            "operator 12 move-replica: balance-region: s1 has 200, s4 none",
            "✔ add learner on s4",
            "→ promote s4, demote s1 (waits for s4 to catch up)",
            "1970-01-01T00:00:01Z  balance-region  s1→s4",
        ] {
            assert!(text.contains(words), "{words:?} is not in\n{text}");
        }
    }

    #[test]
    fn programs_get_all_of_it() {
        let text = render(&told(), Format::Json, SystemTime::UNIX_EPOCH);
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["replicas"].as_array().unwrap().len(), 3);
        assert_eq!(document["operator"]["steps"][1], "promote s4, demote s1");
        assert_eq!(document["decisions"][0]["by"], "balance-region");
        let plain = render(&told(), Format::Plain, SystemTime::UNIX_EPOCH);
        assert!(plain.contains("\nreplica\tp2\ts2\tvoter\tleader\t"), "{plain}");
        assert!(plain.lines().all(|line| line.contains('\t')), "{plain}");
    }
}
