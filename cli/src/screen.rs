//! What a person sees while something takes its time: lines that stay, and below them rows that change.
//!
//! On a terminal the rows are redrawn in place. Elsewhere they are written as one line, every few
//! seconds and only where they changed. All of it goes to stderr: only the outcome is data.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

/// Between two lines where stderr is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Characters of a whole bar.
const BAR: usize = 24;

/// See the module.
pub(crate) struct Screen {
    begun: Instant,
    drawn: Option<Drawn>,
    last_line: Instant,
    last_rows: Vec<String>,
}

/// The rows on a terminal.
struct Drawn {
    all: MultiProgress,
    rows: Vec<ProgressBar>,
}

impl Screen {
    /// Nothing shown yet.
    pub(crate) fn new() -> Self {
        let drawn = io::stderr().is_terminal().then(|| Drawn {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8)),
            rows: Vec::new(),
        });
        let now = Instant::now();
        Self { begun: now, drawn, last_line: now, last_rows: Vec::new() }
    }

    /// Since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A line that stays, with the seconds since the start.
    pub(crate) fn say(&self, text: &str) {
        let line = format!("{:>5.1} s  {text}", self.begun.elapsed().as_secs_f64());
        match &self.drawn {
            // A terminal that cannot be written is no reason to stop.
            Some(drawn) => drop(drawn.all.println(line)),
            None => output::note(&line),
        }
    }

    /// The rows as they are now; `brief` stands for them where there is no terminal.
    pub(crate) fn rows_or(&mut self, rows: Vec<String>, brief: impl FnOnce() -> String) {
        if self.drawn.is_some() { self.rows(rows) } else { self.rows(vec![brief()]) }
    }

    /// The rows as they are now.
    pub(crate) fn rows(&mut self, rows: Vec<String>) {
        if let Some(drawn) = &mut self.drawn {
            drawn.show(&rows);
        } else if rows != self.last_rows && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            self.say(&rows.join(" · "));
        }
        self.last_rows = rows;
    }

    /// Takes the rows away.
    pub(crate) fn clear(&mut self) {
        if let Some(drawn) = &mut self.drawn {
            drawn.show(&[]);
        }
        self.last_rows.clear();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Drawn {
    fn show(&mut self, rows: &[String]) {
        while self.rows.len() > rows.len() {
            if let Some(row) = self.rows.pop() {
                row.finish_and_clear();
                self.all.remove(&row);
            }
        }
        while self.rows.len() < rows.len() {
            let row = self.all.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("         {msg}") {
                row.set_style(style);
            }
            self.rows.push(row);
        }
        for (row, text) in self.rows.iter().zip(rows) {
            row.set_message(text.clone());
            row.tick();
        }
    }
}

/// A bar for a share of a whole: `██████······`.
pub(crate) fn bar(part: u64, whole: u64) -> String {
    let full = if whole == 0 { 0 } else { (part.min(whole) * BAR as u64).div_ceil(whole) };
    let full = usize::try_from(full).unwrap_or(BAR).min(BAR);
    format!("{}{}", "█".repeat(full), "·".repeat(BAR - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_a_share() {
        assert_eq!(bar(0, 10), "·".repeat(BAR));
        assert_eq!(bar(10, 10), "█".repeat(BAR));
        assert_eq!(bar(5, 10), format!("{}{}", "█".repeat(BAR / 2), "·".repeat(BAR / 2)));
        assert_eq!(bar(20, 10), "█".repeat(BAR), "more than the whole is the whole");
        assert_eq!(bar(1, 0), "·".repeat(BAR));
        assert!(bar(1, 1_000).starts_with('█'), "something is seen");
    }
}
