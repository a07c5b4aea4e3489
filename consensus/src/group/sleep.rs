//! Hibernation of one group.
//!
//! A leader that has been idle for a while, whose members on live processes all hold the same
//! log, asks them to sleep. Each agrees only if its own term, last, committed and applied index
//! are what the leader said. Once all have agreed the leader sleeps too: no ticks, no heartbeats.
//! From then on the beats of the leader's process vouch for it. Whatever message or request
//! arrives wakes a peer; a follower that slept while its leader was awake is woken by the next
//! heartbeat.

use std::collections::BTreeSet;

use quorate_proto::PeerId;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sleep {
    /// Ticking. Counts the ticks without work.
    Awake { idle_ticks: u32 },
    /// A leader waits for these to agree to sleep at (term, last).
    Asking { term: u64, last: u64, missing: BTreeSet<PeerId>, ticks: u32 },
    /// Costs nothing.
    Asleep,
}

impl Sleep {
    pub(crate) fn is_asleep(&self) -> bool {
        matches!(self, Sleep::Asleep)
    }

    /// An acknowledgement arrived; true where it was the last one missing.
    pub(crate) fn acknowledged(&mut self, peer: PeerId, at: (u64, u64)) -> bool {
        match self {
            Sleep::Asking { term, last, missing, .. } if (*term, *last) == at => {
                missing.remove(&peer);
                missing.is_empty()
            }
            Sleep::Asking { .. } | Sleep::Awake { .. } | Sleep::Asleep => false,
        }
    }
}
