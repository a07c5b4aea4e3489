//! How a failure that the process must not survive reaches the one who ends it.

use std::sync::Arc;

use parking_lot::Mutex;
use quorate_consensus::engine::EngineError;
use tokio::sync::Notify;

use crate::error::StoreError;

/// Takes the first fatal error; clones share it. Any thread may report.
#[derive(Clone, Default)]
pub(crate) struct Fatal {
    shared: Arc<(Mutex<Option<StoreError>>, Notify)>,
}

impl Fatal {
    /// The process must stop. Only the first one counts: the rest follow from it.
    pub(crate) fn report(&self, error: StoreError) {
        let mut first = self.shared.0.lock();
        if first.is_none() {
            tracing::error!(%error, "stopping");
            *first = Some(error);
            self.shared.1.notify_one();
        }
    }

    /// Reports an error of the engine where the engine is of no further use after it.
    pub(crate) fn engine(&self, error: &EngineError) {
        if error.is_fatal() {
            self.report(StoreError::Engine(error.clone()));
        }
    }

    /// The first fatal error, once there is one. One caller at a time.
    pub(crate) async fn wait(&self) -> StoreError {
        loop {
            if let Some(error) = self.shared.0.lock().take() {
                return error;
            }
            self.shared.1.notified().await;
        }
    }
}
