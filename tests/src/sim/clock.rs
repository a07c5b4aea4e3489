//! The clock of one process: its own rate, its own origin.

use quorate_consensus::time::Instant;

const REAL: u128 = 1_000_000;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// Millionths of real time.
    pub(crate) rate: u64,
    /// What it shows at the beginning of the world, in nanoseconds; above zero.
    pub(crate) origin: u64,
}

impl Clock {
    /// What it shows at `now` of the world.
    pub(crate) fn read(&self, now: u64) -> Instant {
        Instant(self.origin + (u128::from(now) * u128::from(self.rate) / REAL) as u64)
    }

    /// How long `local` nanoseconds of this clock take in the world.
    pub(crate) fn takes(&self, local: u64) -> u64 {
        (u128::from(local) * REAL / u128::from(self.rate)) as u64
    }
}
