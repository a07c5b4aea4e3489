//! Placement's clock as this store knows it: the last answer, plus the monotonic time since.
//!
//! An answer was read from that clock between the sending of the question and its own arrival. So
//! there are two readings: one that is never ahead of placement's clock, and one that is never
//! behind it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use quorate_consensus::time::Instant;

/// Questions whose answers may still come.
const ASKED: usize = 64;

/// Milliseconds since the Unix epoch by placement's clock.
#[derive(Debug, Default)]
pub(crate) struct PlacementTime {
    /// Placement's milliseconds at the origin of this process's monotonic clock, or less.
    origin_ms: AtomicU64,
    /// The same, or more.
    latest_origin_ms: AtomicU64,
    /// Numbers of questions, and when they were sent.
    asked: Mutex<VecDeque<(u64, Instant)>>,
}

impl PlacementTime {
    /// A question leaves.
    pub(crate) fn ask(&self, number: u64, now: Instant) {
        let mut asked = self.asked.lock();
        if asked.len() == ASKED {
            asked.pop_front();
        }
        asked.push_back((number, now));
    }

    /// Placement said `time_ms` in answer to that question; the answer came at `now`.
    pub(crate) fn learn(&self, number: u64, time_ms: u64, now: Instant) {
        let earliest = time_ms.saturating_sub(now.0 / 1_000_000);
        self.origin_ms.fetch_max(earliest, Ordering::Relaxed);
        // An older question of the same number only makes it later.
        let asked = self.asked.lock();
        let sent = asked.iter().rev().find(|(known, _)| *known == number).map(|(_, sent)| *sent);
        if let Some(sent) = sent {
            // The newest answer counts: placement's clock may have jumped ahead.
            let latest = (time_ms + 1).saturating_sub(sent.0 / 1_000_000);
            self.latest_origin_ms.store(latest, Ordering::Relaxed);
        }
    }

    /// The time at `now`, never ahead of placement's clock, and never going backwards; zero before
    /// the first answer (the state machine takes the greater of this and what the log had before).
    pub(crate) fn at(&self, now: Instant) -> u64 {
        match self.origin_ms.load(Ordering::Relaxed) {
            0 => 0,
            origin => origin + now.0 / 1_000_000,
        }
    }

    /// The time at `now`, never behind placement's clock as of the last answer; zero before the
    /// first one.
    pub(crate) fn latest(&self, now: Instant) -> u64 {
        match self.latest_origin_ms.load(Ordering::Relaxed) {
            0 => 0,
            origin => (origin + now.0 / 1_000_000).max(self.at(now)),
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
        time.learn(1, 1_000_000, Instant::from_millis(100));
        assert_eq!(time.at(Instant::from_millis(350)), 1_000_250);
        time.learn(2, 1_000_100, Instant::from_millis(400));
        assert_eq!(time.at(Instant::from_millis(400)), 1_000_300, "a slow answer changes nothing");
        time.learn(3, 2_000_000, Instant::from_millis(500));
        assert_eq!(time.at(Instant::from_millis(500)), 2_000_000);
    }

    #[test]
    fn placement_s_clock_lies_between_two_readings() {
        let time = PlacementTime::default();
        assert_eq!(time.latest(Instant::from_millis(50)), 0, "unknown yet");
        time.ask(1, Instant::from_millis(100));
        // Read somewhere between 100 and 180.
        time.learn(1, 1_000_000, Instant::from_millis(180));
        let now = Instant::from_millis(200);
        assert_eq!((time.at(now), time.latest(now)), (1_000_020, 1_000_101));
        // The clock jumped ahead: so do both.
        time.ask(2, Instant::from_millis(300));
        time.learn(2, 5_000_000, Instant::from_millis(310));
        let now = Instant::from_millis(310);
        assert_eq!((time.at(now), time.latest(now)), (5_000_000, 5_000_011));
        // An answer to no question of ours tells the earlier reading only.
        time.learn(9, 5_000_500, Instant::from_millis(320));
        let now = Instant::from_millis(320);
        assert_eq!((time.at(now), time.latest(now)), (5_000_500, 5_000_500));
    }
}
