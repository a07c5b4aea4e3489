//! Threads for what can wait: reading and writing snapshots.
//!
//! Such work is done on a thread of its own, below the priority of those that serve. On a machine
//! whose cores are all busy it gets what is left over.

use tokio::sync::oneshot;

/// How much a background thread yields to others (`nice`): about a tenth of an equal share.
const NICENESS: libc::c_int = 10;

/// Runs `work` on a thread of its own; its result comes through the channel, which is closed where
/// the thread cannot be started or panics.
pub(super) fn spawn<R: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> R + Send + 'static,
) -> oneshot::Receiver<R> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        yield_to_others();
        // Nobody listens any more where the node is going down.
        let _ = done.send(work());
    });
    if let Err(error) = thread {
        tracing::warn!(%error, thread = name, "could not start a background thread");
    }
    result
}

/// On Linux a priority belongs to a thread; elsewhere it would be the whole process's.
fn yield_to_others() {
    #[cfg(target_os = "linux")]
    // SAFETY: no memory is involved; 0 means the calling thread.
    let failed = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
    #[cfg(not(target_os = "linux"))]
    let failed = NICENESS * 0;
    if failed != 0 {
        tracing::debug!("a background thread runs at normal priority");
    }
}
