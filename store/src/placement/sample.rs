//! How full a store is: asked of the disk and of the engine now and then, on a blocking thread.
//!
//! Both look into files; reports are made in the network thread and only take the last sample.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::engine::{Engine, Space, space};
use tokio::sync::watch;

/// Between two samples.
const EVERY: Duration = Duration::from_secs(1);

/// Bytes on the disk.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sample {
    /// All that the disk holds, and what is free there.
    pub(super) disk: Space,
    /// Taken by the engine.
    pub(super) used: u64,
}

/// Takes samples.
pub(super) struct Sampler {
    engine: Arc<dyn Engine>,
    folder: PathBuf,
    last: watch::Sender<Sample>,
}

impl Sampler {
    /// Of the engine in this folder. Nothing is known yet.
    pub(super) fn new(engine: Arc<dyn Engine>, folder: PathBuf) -> Self {
        Self { engine, folder, last: watch::Sender::new(Sample::default()) }
    }

    /// The last sample, kept up to date.
    pub(super) fn last(&self) -> watch::Receiver<Sample> {
        self.last.subscribe()
    }

    /// Takes one, for others to see.
    pub(super) async fn take(&self) {
        let (engine, folder) = (Arc::clone(&self.engine), self.folder.clone());
        let taken = tokio::task::spawn_blocking(move || {
            let stats = engine.stats();
            let disk = space(&folder).unwrap_or_default();
            Sample { disk, used: stats.sst_bytes + stats.wal_bytes }
        });
        // It only fails where the process ends.
        if let Ok(sample) = taken.await {
            self.last.send_replace(sample);
        }
    }

    /// Goes on taking them.
    pub(super) async fn run(&self) {
        loop {
            tokio::time::sleep(EVERY).await;
            self.take().await;
        }
    }
}
