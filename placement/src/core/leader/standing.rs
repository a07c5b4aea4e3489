//! What the leader of the placement group knows of the other members, as Raft does.

use quorate_consensus::time::Instant;
use quorate_consensus::view::{GroupView, PeerProgress};
use quorate_proto::{LogIndex, NodeId, PeerId};

/// What this leader knows of the other members, as Raft does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// This leader.
    pub me: NodeId,
    /// Last entry of its log.
    pub last: LogIndex,
    /// Up to where it is committed.
    pub committed: LogIndex,
    /// Of the others; those who are missing are up to date.
    pub others: Vec<Other>,
}

/// How far another member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other {
    /// Which one.
    pub member: NodeId,
    /// Last entry known to be durable there.
    pub matched: LogIndex,
    /// Last entry applied there, as it said last; `None` where it does not say (an older version).
    pub applied: Option<LogIndex>,
    /// Of a snapshot on its way there, in bytes: sent, and all of it.
    pub snapshot: Option<(u64, u64)>,
    /// Since it was last heard of.
    pub silent_ms: u64,
}

impl Standing {
    /// From what the leader's own peer publishes. `sent` says of a snapshot on its way to a peer how
    /// many bytes were sent, and of how many; `None` where that is not known.
    pub fn of(
        me: NodeId,
        view: &GroupView,
        sent: impl Fn(PeerId) -> Option<(u64, u64)>,
        now: Instant,
    ) -> Self {
        let replication = view.replication();
        let committed = view.committed();
        let (last, committed) = replication
            .as_ref()
            .map_or((committed, committed), |known| (known.last, known.committed));
        let other = |peer: &PeerProgress| {
            let silence = |since| u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
            Other {
                member: NodeId(peer.peer.0),
                matched: peer.matched,
                applied: peer.applied,
                snapshot: peer.snapshot.then(|| sent(peer.peer).unwrap_or_default()),
                silent_ms: peer.silent_since.map_or(0, silence),
            }
        };
        let others = replication.iter().flat_map(|known| &known.peers).map(other).collect();
        Self { me, last, committed, others }
    }
}
