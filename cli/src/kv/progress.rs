//! How far a long command is: a bar on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::output;

/// Between two lines where stderr is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Remarks that are printed; further ones are only counted by the caller.
const MAX_REMARKS: u32 = 20;

/// Progress through a file of known or unknown size.
pub(super) struct Progress {
    what: &'static str,
    total: Option<u64>,
    begun: Instant,
    last_line: Instant,
    records: u64,
    shown: Shown,
    remarks: u32,
}

/// Where progress is seen.
enum Shown {
    /// On a terminal.
    Bar(ProgressBar),
    /// In a line now and then.
    Lines,
    /// By whoever looks at the count of records.
    Count(Arc<AtomicU64>),
}

impl Progress {
    /// Starts at nothing of `total` bytes.
    pub(super) fn new(what: &'static str, total: Option<u64>) -> Self {
        let now = Instant::now();
        let shown =
            if io::stderr().is_terminal() { Shown::Bar(bar(what, total)) } else { Shown::Lines };
        Self { what, total, begun: now, last_line: now, records: 0, shown, remarks: 0 }
    }

    /// Says nothing: the caller shows the count.
    pub(super) fn counted(count: Arc<AtomicU64>) -> Self {
        let now = Instant::now();
        let shown = Shown::Count(count);
        let (what, total) = ("", None);
        Self { what, total, begun: now, last_line: now, records: 0, shown, remarks: 0 }
    }

    /// So many more records are done, up to that byte of the file.
    pub(super) fn advance(&mut self, records: u64, position: u64) {
        self.records += records;
        match &self.shown {
            Shown::Bar(bar) => {
                bar.set_position(position);
                let rate = output::count(self.rate());
                bar.set_message(format!("{} records, {rate}/s", self.records));
            }
            Shown::Lines => self.line(position),
            Shown::Count(count) => count.store(self.records, Ordering::Relaxed),
        }
    }

    fn line(&mut self, position: u64) {
        if self.last_line.elapsed() < LINE_EVERY {
            return;
        }
        self.last_line = Instant::now();
        let share = self.total.filter(|total| *total > 0).map_or_else(String::new, |total| {
            let done = position as f64 / total as f64;
            let left = self.begun.elapsed().as_secs_f64() * (1.0 - done) / done.max(1e-9);
            format!(", {:.0} %, {left:.0} s left", done * 100.0)
        });
        let rate = output::count(self.rate());
        output::note(&format!("{}: {} records, {rate}/s{share}", self.what, self.records));
    }

    /// A line about one record, above the bar. Beyond twenty, one line says that there are more.
    pub(super) fn remark(&mut self, text: &str) {
        self.remarks += 1;
        let text = match self.remarks {
            ..=MAX_REMARKS => text,
            n if n == MAX_REMARKS + 1 => "further ones are counted, not shown",
            _ => return,
        };
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(|| output::note(text)),
            Shown::Lines | Shown::Count(_) => output::note(text),
        }
    }

    /// Records done.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Seconds since the start.
    pub(super) fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Records a second since the start.
    pub(super) fn rate(&self) -> f64 {
        self.records as f64 / self.seconds().max(1e-9)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &'static str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => {
            (ProgressBar::new(total), "{prefix} [{bar:30}] {percent:>3} %  {msg}  {left}")
        }
        None => (ProgressBar::no_length(), "{prefix} {spinner} {msg}  {bytes} read"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
    let left = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // A bar that cannot be drawn is no reason to stop.
        let _ = write!(out, "{} s left", state.eta().as_secs());
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.with_key("left", left).progress_chars("=> "));
    }
    bar.set_prefix(what);
    bar
}
