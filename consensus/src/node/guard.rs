//! Looks after an engine whose writers may wait in vain.
//!
//! A raft worker that is inside such a write cannot tell anybody. So somebody else looks.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;

use crate::engine::{Engine, EngineError};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Looks in a row after which nobody waits any longer: a failure may have been made good, and writers
/// wait for a moment for other reasons, too.
const PATIENCE: u32 = 5;

/// Reports an engine that is stuck, until the engine or everybody who reports is gone.
pub(super) async fn watch_engine(
    engine: Weak<dyn Engine>,
    report: Weak<watch::Sender<Option<Arc<EngineError>>>>,
) {
    let mut stuck = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        let (Some(engine), Some(report)) = (engine.upgrade(), report.upgrade()) else { return };
        // It may wait for a lock of the engine.
        let looked = tokio::task::spawn_blocking(move || engine.stuck()).await;
        let Ok(Some(error)) = looked else {
            stuck = 0;
            continue;
        };
        stuck += 1;
        if stuck == PATIENCE {
            report.send_replace(Some(Arc::new(error)));
            return;
        }
    }
}
