//! Bounds how many clusters run at once: more would only make each other slow.

use parking_lot::{Condvar, Mutex};

/// Clusters that run at the same time.
pub const CLUSTERS: usize = 2;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// The right to run one cluster.
#[derive(Debug)]
pub struct Permit(());

impl Permit {
    /// Waits for a turn.
    pub fn take() -> Permit {
        let mut running = RUNNING.lock();
        while *running >= CLUSTERS {
            ENDED.wait(&mut running);
        }
        *running += 1;
        Permit(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *RUNNING.lock() -= 1;
        ENDED.notify_one();
    }
}
