//! raft-rs logs through slog; this hands its warnings to `tracing`.

use slog::{Drain, Level, Logger, Never, OwnedKVList, Record, o};

struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        match record.level() {
            Level::Critical | Level::Error => {
                tracing::error!(target: "raft", "{}", record.msg());
            }
            Level::Warning => tracing::warn!(target: "raft", "{}", record.msg()),
            Level::Info | Level::Debug | Level::Trace => {
                tracing::trace!(target: "raft", "{}", record.msg());
            }
        }
        Ok(())
    }

    fn is_enabled(&self, level: Level) -> bool {
        level.is_at_least(Level::Warning)
            || tracing::enabled!(target: "raft", tracing::Level::TRACE)
    }
}

/// A logger for raft-rs.
pub fn raft_logger() -> Logger {
    Logger::root(ToTracing, o!())
}
