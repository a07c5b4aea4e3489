//! A limit on bytes per second.

use std::time::Duration;

use crate::time::Instant;

/// What was not used for so long may be made up for in one go.
const BURST: Duration = Duration::from_millis(100);

/// See the module. One bucket is shared by all transfers of a process in one direction.
#[derive(Debug)]
pub struct TokenBucket {
    /// Bytes per second; 0: no limit.
    rate: u64,
    /// When everything taken so far will have been paid for.
    paid: Instant,
}

impl TokenBucket {
    /// Bytes per second; 0: no limit.
    pub fn new(rate: u64) -> Self {
        Self { rate, paid: Instant::default() }
    }

    /// Takes `bytes`; returns how long to wait before they may go. Who comes later waits longer.
    pub fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        let earliest = Instant(now.0.saturating_sub(BURST.as_nanos() as u64));
        let start = self.paid.max(earliest);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        self.paid = start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        start.since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Takes `count` chunks one behind the other; returns when the last may go, in milliseconds.
    fn run(bucket: &mut TokenBucket, from: u64, count: u64, bytes: u64) -> u64 {
        let mut now = Instant::from_millis(from);
        for _ in 0..count {
            now = now + bucket.take(bytes, now);
        }
        now.0 / 1_000_000
    }

    #[test]
    fn the_rate_holds_over_time() {
        let mut bucket = TokenBucket::new(8 * MIB);
        // A tenth of a second is there at the start; of the last chunk nobody waits for the end.
        let end = run(&mut bucket, 10_000, 64, MIB / 4);
        assert_eq!(end, 10_000 - 100 + 63 * 1000 / 32);
    }

    #[test]
    fn all_transfers_share_it() {
        let mut bucket = TokenBucket::new(MIB);
        let now = Instant::from_millis(10_000);
        let waits: Vec<u128> = (0..4).map(|_| bucket.take(MIB / 2, now).as_millis()).collect();
        assert_eq!(waits, [0, 400, 900, 1400]);
    }

    #[test]
    fn what_was_not_used_is_made_up_for_a_little() {
        let mut bucket = TokenBucket::new(MIB);
        run(&mut bucket, 10_000, 10, MIB);
        // An hour later no more than a tenth of a second is saved.
        let later = Instant::from_millis(3_600_000);
        assert_eq!(bucket.take(MIB, later), Duration::ZERO);
        assert_eq!(bucket.take(MIB, later).as_millis(), 900);
    }

    #[test]
    fn nothing_waits_without_a_limit() {
        let mut bucket = TokenBucket::new(0);
        assert_eq!(run(&mut bucket, 5, 1_000, 1 << 30), 5);
    }
}
