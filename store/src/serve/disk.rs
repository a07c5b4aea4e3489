//! Whether reads of keys have to wait for the disk at the moment.
//!
//! A block that is not in the engine's cache may well be in the system's. Reading it takes some
//! microseconds then, and handing that over to another thread takes several times as long; where a
//! disk is asked, it takes from a hundred microseconds to many milliseconds, and everybody on the
//! network thread would wait. Nobody can tell before; but the last ones tell about the next one.
//!
//! So what is not in memory is read in the network thread as long as such reads take no longer, on
//! average, than handing them over. Each is counted by its time, so that a few slow ones weigh as
//! much as they hold others up. The first slow ones still do hold them up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// About what it takes to hand a read over and its answer back.
const HANDED_OVER: Duration = Duration::from_micros(50);
/// One read is this part of the average.
const SHARE: u64 = 256;
/// Longest time that counts: a standstill is forgotten after a thousand reads or so.
const LONGEST: Duration = Duration::from_secs(1);

/// What reads of keys that were not in memory took lately, on average.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// In nanoseconds. Threads may overwrite each other's counts: an average does not mind.
    mean: AtomicU64,
}

impl Disk {
    /// True where another thread would be no help.
    pub(super) fn is_quick(&self) -> bool {
        self.mean.load(Ordering::Relaxed) <= HANDED_OVER.as_nanos() as u64
    }

    /// A read of so many keys took that long.
    pub(super) fn took(&self, all: Duration, keys: u64) {
        let one = (all.min(LONGEST).as_nanos() as u64) / keys.max(1);
        let mean = self.mean.load(Ordering::Relaxed);
        self.mean.store(mean - mean / SHARE + one / SHARE, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of such reads it takes until another thread is a help, or is none any more.
    fn until(disk: &Disk, quick: bool, took: Duration) -> usize {
        let reads = (0..10_000).take_while(|_| disk.is_quick() != quick);
        reads.inspect(|_| disk.took(took, 1)).count()
    }

    #[test]
    fn reads_are_handed_over_while_they_are_slow() {
        let (memory, disk_read) = (Duration::from_micros(6), Duration::from_millis(8));
        let disk = Disk::default();
        assert_eq!(until(&disk, false, disk_read), 2, "the first ones tell");
        assert!((30..300).contains(&until(&disk, true, memory)));
        assert_eq!(until(&disk, false, memory), 10_000, "and stays so");
        assert_eq!(until(&disk, false, Duration::from_secs(3_600)), 1);
        assert!(until(&disk, true, memory) < 2_000, "a long standstill is forgotten, too");
        // One in a hundred holds the others up by more than all of them take.
        for _ in 0..10 {
            disk.took(disk_read, 1);
            (0..99).for_each(|_| disk.took(memory, 1));
        }
        assert!(!disk.is_quick());
        // A pause of the thread now and then is no slow disk.
        for _ in 0..10 {
            (0..1_000).for_each(|_| disk.took(memory, 1));
            assert!(disk.is_quick());
            disk.took(Duration::from_millis(3), 1);
        }
    }

    #[test]
    fn a_batch_counts_by_its_keys() {
        let disk = Disk::default();
        (0..1_000).for_each(|_| disk.took(Duration::from_micros(600), 100));
        assert!(disk.is_quick());
    }
}
