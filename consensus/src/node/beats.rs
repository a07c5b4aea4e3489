//! Beats: "this process is alive, its raft workers move, and this is what sleeps".

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_proto::NodeId;
use quorate_proto::wire::peer::Beat;
use tokio::sync::watch;

use super::clock;
use super::links::{Identity, Links};
use super::worker::Pulse;
use crate::engine::EngineError;
use crate::sleepers::Sleepers;
use crate::view::Slept;
use crate::vigil::{Vigil, Vouched};

/// Beats to the other processes stop when a worker has not moved for this long: it waits for the
/// disk, or hangs, and must not vouch for the groups it leads.
const STALL: Duration = Duration::from_millis(300);
/// Between two beats.
const BEAT: Duration = Duration::from_millis(100);

/// What beats say, and what was heard in them.
pub(super) struct Beats {
    vigil: Mutex<Vigil>,
    sleepers: Arc<Sleepers>,
}

impl Beats {
    pub(super) fn new(identity: Identity, sleepers: Arc<Sleepers>) -> Self {
        let vigil = Mutex::new(Vigil::new(identity.node, identity.incarnation));
        Self { vigil, sleepers }
    }

    /// A beat came.
    pub(super) fn heard(&self, from: NodeId, beat: &Beat) {
        self.vigil.lock().heard(from, beat, clock::now(), &self.sleepers);
    }

    /// See [`Vigil::vouched`].
    pub(super) fn vouched(&self, slept: Slept) -> Option<Vouched> {
        self.vigil.lock().vouched(slept)
    }

    fn make(&self, to: &[NodeId], time_ms: u64) -> Vec<(NodeId, Beat)> {
        self.vigil.lock().beats(to, time_ms, clock::now(), &self.sleepers)
    }
}

/// Sends beats for as long as all workers move. `placement_ms`: placement's clock.
pub(super) async fn send_beats(
    beats: Arc<Beats>,
    links: Arc<Links>,
    pulses: Vec<Arc<Pulse>>,
    placement_ms: impl Fn(crate::time::Instant) -> u64 + Send,
    failed: watch::Receiver<Option<Arc<EngineError>>>,
) {
    let mut interval = tokio::time::interval(BEAT);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while failed.has_changed().is_ok() {
        interval.tick().await;
        let now = clock::now();
        if !pulses.iter().all(|pulse| pulse.beats(now, STALL)) {
            continue;
        }
        let mut to: Vec<NodeId> = Vec::new();
        for pulse in &pulses {
            to.extend(pulse.neighbours.lock().iter());
        }
        to.sort_unstable();
        to.dedup();
        // The clock first: what sleeps afterwards slept then, or nothing had happened since.
        let time_ms = placement_ms(now);
        for (node, beat) in beats.make(&to, time_ms) {
            links.beat(node, beat);
        }
    }
}
