//! What goes to stdout: data, in three shapes.
//!
//! `table` for people, `json` for programs, `plain` (one record a line, fields
//! separated by tabs, no header) for pipes; plain where stdout is no terminal.
//! Everything that is not data goes to stderr.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::exit::{Code, Failure, Outcome};

/// The shape of the data on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns with a header.
    Table,
    /// One JSON document.
    Json,
    /// Tab-separated fields, no header.
    Plain,
}

impl Format {
    /// What was asked for; else a table on a terminal and plain text elsewhere.
    pub(crate) fn choose(asked: Option<Self>) -> Self {
        match asked {
            Some(format) => format,
            None if io::stdout().is_terminal() => Self::Table,
            None => Self::Plain,
        }
    }
}

/// The flag that asks for a shape.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Shape {
    /// Shape of the data on stdout [default: table on a terminal, else plain]
    #[arg(short, long, value_name = "SHAPE", value_enum)]
    output: Option<Format>,
}

impl Shape {
    /// The shape to write.
    pub(crate) fn format(self) -> Format {
        Format::choose(self.output)
    }
}

/// Rows under named columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }
    /// True without a row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
    /// Adds a row; a missing cell is shown as `-`.
    pub(crate) fn push(&mut self, row: Vec<Value>) {
        self.rows.push(row);
    }
    /// The rows as JSON objects.
    pub(crate) fn to_json(&self) -> Value {
        let object = |row: &Vec<Value>| {
            let fields = self.columns.iter().zip(row);
            Value::Object(
                fields
                    .map(|(name, cell)| (name.replace(' ', "_"), cell.clone()))
                    .collect::<Map<_, _>>(),
            )
        };
        Value::Array(self.rows.iter().map(object).collect())
    }
    /// The rows in that shape, every line ended.
    pub(crate) fn render(&self, format: Format) -> String {
        match format {
            Format::Json => format!("{}\n", self.to_json()),
            Format::Plain => {
                let line = |row: &Vec<Value>| row.iter().map(shown).collect::<Vec<_>>().join("\t");
                self.rows.iter().map(|row| line(row) + "\n").collect()
            }
            Format::Table => self.aligned(),
        }
    }

    fn aligned(&self) -> String {
        let header: Vec<String> = self.columns.iter().map(|name| name.to_uppercase()).collect();
        let body = self.rows.iter().map(|row| row.iter().map(shown).collect());
        let lines: Vec<Vec<String>> = std::iter::once(header).chain(body).collect();
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let numeric: Vec<bool> = (0..self.columns.len())
            .map(|column| {
                let mut cells = self.rows.iter().filter_map(|row| row.get(column)).peekable();
                cells.peek().is_some() && cells.all(|cell| cell.is_number() || cell.is_null())
            })
            .collect();
        let mut text = String::new();
        for line in &lines {
            let mut shown = String::new();
            for (column, cell) in line.iter().enumerate() {
                let padding = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
                let (before, after) =
                    if numeric[column] { (padding.as_str(), "") } else { ("", padding.as_str()) };
                shown.push_str(before);
                shown.push_str(cell);
                shown.push_str(after);
                shown.push_str("  ");
            }
            text.push_str(shown.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A cell as text.
fn shown(cell: &Value) -> String {
    match cell {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(cells) if cells.is_empty() => "-".to_owned(),
        Value::Array(cells) => cells.iter().map(shown).collect::<Vec<_>>().join(","),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => cell.to_string(),
    }
}

/// Writes to stdout. A reader that went away (`| head`) ends the command quietly.
///
/// # Errors
/// Stdout cannot be written, with why.
pub(crate) fn emit(text: &str) -> Outcome {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(write_failure)
}

/// What a failed write to stdout means.
pub(crate) fn write_failure(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::quiet(Code::Done);
    }
    Failure::error(format!("cannot write to stdout: {error}; is the disk full?"))
}

/// A line on stderr: progress and remarks, never data.
pub(crate) fn note(text: &str) {
    // Nobody is left to tell where stderr is closed.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Bytes in the unit a person reads: `1.4 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut size = count as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// A time in the unit a person reads: `1.25 s`, `850 ms`, `40 µs`.
pub(crate) fn time(time: Duration) -> String {
    match time {
        long if long >= Duration::from_secs(120) => {
            format!("{} min {} s", long.as_secs() / 60, long.as_secs() % 60)
        }
        long if long >= Duration::from_secs(10) => format!("{:.0} s", long.as_secs_f64()),
        long if long >= Duration::from_secs(1) => format!("{:.2} s", long.as_secs_f64()),
        short if short >= Duration::from_millis(10) => format!("{} ms", short.as_millis()),
        short if short >= Duration::from_millis(1) => {
            format!("{:.1} ms", short.as_secs_f64() * 1e3)
        }
        short => format!("{} µs", short.as_micros()),
    }
}

/// A moment, from milliseconds since the Unix epoch, in UTC: `2026-01-31T09:30:05Z`; `-` for 0.
pub(crate) fn moment(unix_ms: u64) -> String {
    if unix_ms == 0 {
        return "-".to_owned();
    }
    let seconds = unix_ms / 1000;
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days, with years that begin in March: H. Hinnant, chrono-compatible
    // low-level date algorithms.
    let shifted = day + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let date = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// How long ago a moment was, from milliseconds since the Unix epoch.
pub(crate) fn ago(unix_ms: u64, now: SystemTime) -> Duration {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(unix_ms))
}

/// `1 region`, `2 regions`.
pub(crate) fn plural(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// A count in the unit a person reads: `8.1k`.
pub(crate) fn count(number: f64) -> String {
    if number < 1_000.0 {
        format!("{number:.0}")
    } else if number < 1_000_000.0 {
        format!("{:.1}k", number / 1e3)
    } else {
        format!("{:.1}M", number / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stores() -> Table {
        let mut table = Table::new(&["store", "state", "leader count", "labels"]);
        table.push(vec![json!("s1"), json!("Up"), json!(7), json!(["a", "b"])]);
        table.push(vec![json!("s12"), json!(""), json!(12), Value::Null]);
        table
    }

    #[test]
    fn tables_are_aligned_with_numbers_to_the_right() {
        let shown = "STORE  STATE  LEADER COUNT  LABELS\n\
                     s1     Up                7  a,b\n\
                     s12    -                12  -\n";
        assert_eq!(stores().render(Format::Table), shown);
    }

    #[test]
    fn plain_has_tabs_and_no_header() {
        assert_eq!(stores().render(Format::Plain), "s1\tUp\t7\ta,b\ns12\t-\t12\t-\n");
    }

    #[test]
    fn json_keeps_types_and_names_fields() {
        let shown: Value = serde_json::from_str(&stores().render(Format::Json)).expect("is JSON");
        assert_eq!(
            shown,
            json!([
                {"store": "s1", "state": "Up", "leader_count": 7, "labels": ["a", "b"]},
                {"store": "s12", "state": "", "leader_count": 12, "labels": null},
            ])
        );
    }

    #[test]
    fn moments_are_dates_in_utc() {
        assert_eq!(moment(0), "-");
        assert_eq!(moment(1_000), "1970-01-01T00:00:01Z");
        assert_eq!(moment(951_782_399_999), "2000-02-28T23:59:59Z");
        assert_eq!(moment(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(moment(1_709_251_199_000), "2024-02-29T23:59:59Z");
        assert_eq!(moment(1_767_225_600_000), "2026-01-01T00:00:00Z");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10);
        assert_eq!(ago(4_000, now), Duration::from_secs(6));
        assert_eq!(ago(14_000, now), Duration::ZERO, "another machine's clock may be ahead");
    }

    #[test]
    fn units_are_for_people() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(96 * 1024 * 1024), "96.0 MiB");
        assert_eq!(count(999.0), "999");
        assert_eq!(count(8_100.0), "8.1k");
        assert_eq!(time(Duration::from_micros(40)), "40 µs");
        assert_eq!(time(Duration::from_micros(1_940)), "1.9 ms");
        assert_eq!(time(Duration::from_millis(850)), "850 ms");
        assert_eq!(time(Duration::from_millis(1_250)), "1.25 s");
        assert_eq!(time(Duration::from_secs(42)), "42 s");
        assert_eq!(time(Duration::from_secs(125)), "2 min 5 s");
        assert_eq!(
            (plural(1, "region"), plural(2, "region")),
            ("1 region".into(), "2 regions".into())
        );
    }
}
