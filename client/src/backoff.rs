//! How long to wait between two attempts of one operation.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::SmallRng};

/// Why one waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// A region has no leader: elections take well under a second, and asking is cheap, so that
    /// no more than some 20 ms are added to the gap. 2 → 20 ms.
    Election,
    /// Anything else. 2 → 200 ms.
    Ordinary,
}

/// Exponential, with jitter: each wait is drawn from the upper half of its step, so that
/// operations that failed together do not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    step: u32,
    random: SmallRng,
}

const FIRST_MS: u64 = 2;

impl Backoff {
    /// From the start, with the chance of this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self { step: 0, random: SmallRng::seed_from_u64(seed) }
    }

    /// The next wait; at least `floor`, where a store asked for that.
    pub(crate) fn next(&mut self, pace: Pace, floor: Duration) -> Duration {
        let most_ms = match pace {
            Pace::Election => 20,
            Pace::Ordinary => 200,
        };
        let full = (FIRST_MS << self.step.min(10)).min(most_ms) * 1_000;
        self.step += 1;
        Duration::from_micros(self.random.random_range(full / 2..=full)).max(floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_spread() {
        for (pace, most) in [(Pace::Election, 20), (Pace::Ordinary, 200)] {
            let mut backoff = Backoff::new(7);
            let waits: Vec<_> = (0..12).map(|_| backoff.next(pace, Duration::ZERO)).collect();
            assert!(waits[0] >= Duration::from_millis(1) && waits[0] <= Duration::from_millis(2));
            assert!(waits[11] >= Duration::from_millis(most / 2));
            assert!(waits.iter().all(|wait| *wait <= Duration::from_millis(most)));
            let mut other = Backoff::new(8);
            let others: Vec<_> = (0..12).map(|_| other.next(pace, Duration::ZERO)).collect();
            assert_ne!(waits, others);
        }
    }

    #[test]
    fn a_store_that_asks_for_more_gets_it() {
        let wait = Backoff::new(1).next(Pace::Ordinary, Duration::from_millis(500));
        assert_eq!(wait, Duration::from_millis(500));
    }
}
