//! The knobs of snapshot transfers, with their defaults.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many snapshots a process sends and receives, and how fast. The defaults suit a small
/// machine that serves while it does so: what costs most is the disk, which the log's syncs share
/// with the staged files (`scripts/snapshot-impact.sh` measures it).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotOptions {
    /// Snapshots sent at once; others wait for their turn.
    pub sending: usize,
    /// Snapshots received at once; other senders are told to come again.
    pub receiving: usize,
    /// MiB per second that all transfers from here may take together; 0: no limit.
    pub send_mib_per_sec: u64,
    /// MiB per second that all transfers to here may take together; 0: no limit.
    pub receive_mib_per_sec: u64,
    /// A broken transfer that is not gone on with for so many seconds is given up, and what was
    /// received of it is removed.
    pub resume_secs: u64,
    /// A receiver makes what it has durable after so many MiB: what a crash of it may cost, and the
    /// size of a file of it, which should be small (see `engine/options.rs`).
    pub checkpoint_mib: u64,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self {
            sending: 2,
            receiving: 2,
            send_mib_per_sec: 32,
            receive_mib_per_sec: 32,
            resume_secs: 60,
            checkpoint_mib: 8,
        }
    }
}

impl SnapshotOptions {
    pub(crate) fn resume(&self) -> Duration {
        Duration::from_secs(self.resume_secs)
    }

    pub(crate) fn checkpoint_bytes(&self) -> u64 {
        self.checkpoint_mib << 20
    }

    /// The first bound that makes no sense, in words that say what to write instead.
    ///
    /// # Errors
    /// A number that is zero where zero would mean "never".
    pub fn validate(&self) -> Result<(), String> {
        let positive = [
            ("sending", self.sending as u64),
            ("receiving", self.receiving as u64),
            ("resume_secs", self.resume_secs),
            ("checkpoint_mib", self.checkpoint_mib),
        ];
        match positive.iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(format!("{name} is 0; set it to 1 or more")),
            None => Ok(()),
        }
    }
}
