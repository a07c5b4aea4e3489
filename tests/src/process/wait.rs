//! Waiting for conditions, each with an end and words for it.

use std::time::{Duration, Instant};

/// Between two looks.
const POLL: Duration = Duration::from_millis(20);

/// Looks again and again until `look` succeeds; its last complaint is in the panic.
///
/// # Panics
/// When it did not within `patience`.
#[track_caller]
pub fn until<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) if Instant::now() >= deadline => {
                panic!("{what}: not within {patience:?}; last seen: {last}")
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// [`until`] for what has to be awaited.
///
/// # Panics
/// When it did not succeed within `patience`, or one look took 20 s longer than that.
pub async fn eventually<T, F>(what: &str, patience: Duration, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_secs(20);
        let seen = match tokio::time::timeout(left, look()).await {
            Ok(seen) => seen,
            Err(_) => panic!("{what}: a look at it did not end"),
        };
        match seen {
            Ok(found) => return found,
            Err(last) if Instant::now() >= deadline => {
                panic!("{what}: not within {patience:?}; last seen: {last}")
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}
