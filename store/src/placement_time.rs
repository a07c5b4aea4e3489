//! Placement's clock as this store knows it: the last answer, plus the monotonic time since.

use std::sync::atomic::{AtomicU64, Ordering};

use quorate_consensus::time::Instant;

/// Milliseconds since the Unix epoch by placement's clock. Never goes backwards; zero before the
/// first answer (the state machine takes the greater of this and what the log had before).
#[derive(Debug, Default)]
pub(crate) struct PlacementTime {
    /// Placement's milliseconds at the origin of this process's monotonic clock.
    origin_ms: AtomicU64,
}

impl PlacementTime {
    /// Placement said `time_ms`; the answer came at `now`.
    pub(crate) fn learn(&self, time_ms: u64, now: Instant) {
        let origin = time_ms.saturating_sub(now.0 / 1_000_000);
        self.origin_ms.fetch_max(origin, Ordering::Relaxed);
    }

    /// The time at `now`.
    pub(crate) fn at(&self, now: Instant) -> u64 {
        match self.origin_ms.load(Ordering::Relaxed) {
            0 => 0,
            origin => origin + now.0 / 1_000_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_runs_on_between_answers_and_never_back() {
        let time = PlacementTime::default();
        assert_eq!(time.at(Instant::from_millis(50)), 0, "unknown yet");
        time.learn(1_000_000, Instant::from_millis(100));
        assert_eq!(time.at(Instant::from_millis(350)), 1_000_250);
        time.learn(1_000_100, Instant::from_millis(400));
        assert_eq!(time.at(Instant::from_millis(400)), 1_000_300, "a slow answer changes nothing");
        time.learn(2_000_000, Instant::from_millis(500));
        assert_eq!(time.at(Instant::from_millis(500)), 2_000_000);
    }
}
