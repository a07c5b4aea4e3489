//! No panic reaches a user: one sentence, then the process aborts.
//!
//! A panic means that a promise of our own was broken. Going on could harm
//! data, so the process stops; the log on disk brings it back.

use std::io::Write as _;

/// Replaces the default hook, which would print a stack trace.
pub(crate) fn install() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let what = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no description");
        let place = info
            .location()
            .map_or_else(String::new, |place| format!(" at {}:{}", place.file(), place.line()));
        // One write, so that lines of other threads cannot come between; nobody is left to
        // tell where stderr is closed.
        let _ = std::io::stderr().write_all(
            format!(
                "quorate: stopped on a broken promise of its own ({}{place}); no acknowledged \
                 data is lost: start it again, and report this line as a bug\n",
                what.replace('\n', " ")
            )
            .as_bytes(),
        );
        std::process::abort();
    }));
}
