//! Structured logs: to a file or to stderr, as text or as JSON lines.

use std::fs::OpenOptions;
use std::io;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::exit::{Failure, Outcome};
use crate::settings::LogSettings;

/// Starts logging for the rest of the process's life.
///
/// # Errors
/// An unknown level or format, or a log file that cannot be opened.
pub(crate) fn start(settings: &LogSettings) -> Outcome {
    let filter = EnvFilter::try_new(&settings.level).map_err(|error| {
        Failure::error(format!(
            "log.level = {:?} is no level: {error}; write error, warn, info, debug, trace, or a \
             filter such as info,quorate_store=debug",
            settings.level
        ))
    })?;
    let to_terminal = settings.file.is_empty();
    let writer = if to_terminal {
        BoxMakeWriter::new(io::stderr)
    } else {
        let file =
            OpenOptions::new().create(true).append(true).open(&settings.file).map_err(|error| {
                Failure::error(format!(
                    "cannot open the log file {}: {error}; set log.file to a path that can be \
                     written, or leave it empty for stderr",
                    settings.file
                ))
            })?;
        BoxMakeWriter::new(Mutex::new(file))
    };
    // A line that cannot be written (the disk is full, nobody reads stderr) is lost. To complain
    // about it on stderr would end the process: that is what a failed `eprintln!` does.
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .log_internal_errors(false);
    let logs = logs.with_ansi(to_terminal && io::IsTerminal::is_terminal(&io::stderr()));
    let started = match settings.format.as_str() {
        "text" => logs.try_init(),
        "json" => logs.json().try_init(),
        other => {
            return Err(Failure::error(format!(
                "log.format = {other:?} is unknown: write text or json"
            )));
        }
    };
    started.map_err(|error| Failure::error(format!("logging cannot start: {error}")))
}
