//! Looks after an engine whose writers may wait in vain.
//!
//! A raft worker that is inside such a write cannot tell anybody. So somebody else looks.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;

use crate::engine::{Engine, EngineError};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Looks in a row after which nobody waits any longer: a failure may still be made good, and writers
/// wait for a moment for other reasons, too.
const PATIENCE: u32 = 5;

/// Reports an engine that is stuck, until the engine or everybody who reports is gone.
pub(super) async fn watch_engine(
    engine: Weak<dyn Engine>,
    report: Weak<watch::Sender<Option<Arc<EngineError>>>>,
) {
    let mut looks = Looks::default();
    loop {
        tokio::time::sleep(LOOK).await;
        let (Some(engine), Some(report)) = (engine.upgrade(), report.upgrade()) else { return };
        // It may wait for a lock of the engine.
        let seen = tokio::task::spawn_blocking(move || engine.stuck()).await;
        if let Some(error) = looks.saw(seen.ok().flatten()) {
            report.send_replace(Some(Arc::new(error)));
            return;
        }
    }
}

/// How often in a row the engine was stuck.
#[derive(Default)]
struct Looks {
    stuck: u32,
}

impl Looks {
    /// What one look has seen; returns what to report.
    fn saw(&mut self, stuck: Option<EngineError>) -> Option<EngineError> {
        self.stuck = if stuck.is_some() { self.stuck + 1 } else { 0 };
        stuck.filter(|_| self.stuck >= PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lasts_is_reported() {
        let full = || Some(EngineError::Full { during: "flushing".to_owned() });
        let mut looks = Looks::default();
        for _ in 1..PATIENCE {
            assert_eq!(looks.saw(full()), None);
        }
        assert_eq!(looks.saw(None), None);
        for _ in 1..PATIENCE {
            assert_eq!(looks.saw(full()), None);
        }
        assert_eq!(looks.saw(full()), full());
    }
}
