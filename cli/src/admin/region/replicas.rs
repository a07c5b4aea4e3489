//! Replicas of one region, and snapshots on their way to them.

use std::time::Duration;

use quorate_proto::Role;
use quorate_proto::wire::metapb::PeerRole;
use quorate_proto::wire::placement::{ExplainRegionResponse, ReplicaStatus};
use serde_json::{Value, json};

use super::role_name;
use crate::output::{self, Table};

/// Each replica: who it is, how far it is.
pub(super) fn peers(told: &ExplainRegionResponse) -> Table {
    let mut table = Table::new(&[
        "replica",
        "store",
        "role",
        "leads",
        "store state",
        "match",
        "behind",
        "unapplied",
        "silent",
    ]);
    for replica in &told.replicas {
        let peer = replica.peer.unwrap_or_default();
        table.push(vec![
            json!(format!("p{}", peer.id)),
            json!(format!("s{}", peer.store_id)),
            json!(role(replica)),
            json!(if replica.leader { "leader" } else { "" }),
            json!(replica.store_state.to_lowercase()),
            known(replica.match_index),
            match replica.match_index {
                0 => Value::Null,
                index => json!(told.last_index.saturating_sub(index)),
            },
            known(replica.unapplied),
            json!(output::time(Duration::from_millis(replica.silent_ms))),
        ]);
    }
    table
}

/// Snapshots under way.
pub(super) fn snapshots(told: &ExplainRegionResponse) -> Table {
    let mut table = Table::new(&["replica", "store", "sent", "of", "share"]);
    for replica in told.replicas.iter().filter(|replica| replica.snapshot_total_bytes > 0) {
        let peer = replica.peer.unwrap_or_default();
        let (sent, all) = (replica.snapshot_sent_bytes, replica.snapshot_total_bytes);
        table.push(vec![
            json!(format!("p{}", peer.id)),
            json!(format!("s{}", peer.store_id)),
            json!(output::bytes(sent)),
            json!(output::bytes(all)),
            json!(format!("{} %", sent.min(all).saturating_mul(100) / all)),
        ]);
    }
    table
}

fn role(replica: &ReplicaStatus) -> &'static str {
    let role = replica.peer.and_then(|peer| PeerRole::try_from(peer.role).ok());
    role_name(match role {
        Some(PeerRole::Voter) | None => Role::Voter,
        Some(PeerRole::Learner) => Role::Learner,
        Some(PeerRole::IncomingVoter) => Role::IncomingVoter,
        Some(PeerRole::DemotingVoter) => Role::DemotingVoter,
    })
}

fn known(index: u64) -> Value {
    if index == 0 { Value::Null } else { json!(index) }
}

#[cfg(test)]
mod tests {
    use quorate_proto::wire::metapb::Peer;

    use super::*;
    use crate::output::Format;

    #[test]
    fn a_learner_that_gets_a_snapshot_is_seen_in_both() {
        let replica = |id, store, role| ReplicaStatus {
            peer: Some(Peer { id, store_id: store, role }),
            store_state: "Up".to_owned(),
            ..ReplicaStatus::default()
        };
        let leader = ReplicaStatus { leader: true, match_index: 50, ..replica(7, 1, 0) };
        let learner = ReplicaStatus {
            snapshot_sent_bytes: 512,
            snapshot_total_bytes: 2048,
            unapplied: 1_200,
            silent_ms: 40,
            ..replica(9, 4, 1)
        };
        let told = ExplainRegionResponse {
            replicas: vec![leader, learner],
            last_index: 52,
            ..ExplainRegionResponse::default()
        };
        assert_eq!(
            peers(&told).render(Format::Plain),
            "p7\ts1\tvoter\tleader\tup\t50\t2\t-\t0 µs\np9\ts4\tlearner\t-\tup\t-\t-\t1200\t40 ms\n"
        );
        assert_eq!(snapshots(&told).render(Format::Plain), "p9\ts4\t512 B\t2.0 KiB\t25 %\n");
    }
}
