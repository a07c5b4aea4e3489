//! Somebody who looks at all regions all the time and remembers what must never be seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate_client::PlacementClient;
use quorate_proto::{Region, Role};
use tokio::task::JoinHandle;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// Regions with an even number of voters that are kept in words.
const KEPT: usize = 10;

/// What a [`Witness`] saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Looks that placement answered.
    pub looks: u64,
    /// Configurations in which one side had an even number of voters, the first few.
    pub even: Vec<String>,
}

/// Looks until it is asked what it saw. Dropped without that, it ends by itself.
#[derive(Debug)]
pub struct Witness {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Seen>,
}

impl Witness {
    /// Begins. While placement has no leader, nothing is seen.
    pub fn start(placement: PlacementClient) -> Witness {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(watch(placement, Arc::clone(&stop)));
        Witness { stop, task }
    }

    /// Ends it; what it saw.
    ///
    /// # Panics
    /// When it broke.
    pub async fn stop(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.task).await.unwrap_or_else(|error| panic!("the witness: {error}"))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn watch(placement: PlacementClient, stop: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        if let Ok(regions) = placement.scan_regions(Bytes::new(), Bytes::new(), 0).await {
            seen.looks += 1;
            for info in &regions {
                let (before, after) = voters(&info.region);
                if (before % 2 == 0 || after % 2 == 0) && seen.even.len() < KEPT {
                    seen.even.push(format!("{before}→{after} voters: {:?}", info.region));
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    seen
}

/// Voters of a region before and after the joint change that it is in; both are the same where it
/// is in none.
pub fn voters(region: &Region) -> (usize, usize) {
    let count =
        |wanted: &[Role]| region.peers.iter().filter(|peer| wanted.contains(&peer.role)).count();
    (count(&[Role::Voter, Role::DemotingVoter]), count(&[Role::Voter, Role::IncomingVoter]))
}
