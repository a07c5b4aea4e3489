//! Reads the register histories that Jepsen recorded of etcd.
//!
//! A line is an event: `INFO  jepsen.util - <process> <kind> <operation> <value>`
//! with any white space between the fields. The kinds:
//! - `:invoke` begins an operation; a process has one at a time.
//! - `:ok` ends it with an answer.
//! - `:fail` ends it without effect. For a compare-and-set that was refused it
//!   is an answer too: the register held something else. For a read that timed
//!   out it says nothing, and the read is dropped.
//! - `:info` ends the process, not the operation, which may take effect at any
//!   later time.
//!
//! The logs carry no clock. Lines are in order, so the number of the line is
//! the time.

use std::collections::BTreeMap;
use std::fmt;

use super::Operation;
use super::register::{RegisterInput, RegisterOutput};

/// An operation on a register in a log.
pub type RegisterOperation = Operation<RegisterInput, RegisterOutput>;

/// A line that is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The name of the file, as the caller gave it.
    pub file: String,
    /// The number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.problem)
    }
}

impl std::error::Error for ParseError {}

/// The history in `text`, in order of invocation; `file` is for errors only.
///
/// Operations that are still open at the end have an unknown outcome.
///
/// # Errors
/// At the first line that is not an event, ends what was not begun, or begins
/// what is not ended.
pub fn parse(file: &str, text: &str) -> Result<Vec<RegisterOperation>, ParseError> {
    let mut log = Log::default();
    for (number, line) in numbered(text) {
        log.event(number, line).map_err(|problem| at(file, number, problem))?;
    }
    Ok(log.slots.into_iter().flatten().collect())
}

/// The verdicts in `text`, a file name and `true` (linearizable) or `false` a
/// line, with a tab between; `file` is for errors only.
///
/// # Errors
/// At the first line of another form.
pub fn parse_verdicts(file: &str, text: &str) -> Result<Vec<(String, bool)>, ParseError> {
    let verdict = |(number, line): (usize, &str)| match line.split_once('\t') {
        Some((name, "true")) => Ok((name.to_owned(), true)),
        Some((name, "false")) => Ok((name.to_owned(), false)),
        Some((_, other)) => {
            Err(at(file, number, format!("a verdict is true or false, not {other:?}")))
        }
        None => Err(at(file, number, "expected a file name, a tab and a verdict".to_owned())),
    };
    numbered(text).map(verdict).collect()
}

/// The history as far as it is read.
#[derive(Default)]
struct Log {
    /// `None` for operations that did not happen.
    slots: Vec<Option<RegisterOperation>>,
    /// By process: the slot of its open operation.
    open: BTreeMap<u64, usize>,
}

impl Log {
    fn event(&mut self, number: usize, line: &str) -> Result<(), String> {
        let event = line
            .strip_prefix("INFO")
            .and_then(|rest| rest.trim_start().strip_prefix("jepsen.util - "))
            .ok_or("expected a line of jepsen.util")?;
        let mut fields = event.split_whitespace();
        let process = fields.next().ok_or("expected a process")?;
        let process: u64 = process.parse().map_err(|_| format!("bad process {process:?}"))?;
        let kind = fields.next().ok_or("expected a kind of event")?;
        let operation = fields.next().ok_or("expected an operation")?;
        let value: Vec<&str> = fields.collect();
        let time = number as u64;

        if kind == ":invoke" {
            let input = input(operation, &value)?;
            if self.open.insert(process, self.slots.len()).is_some() {
                return Err(format!("process {process} has an operation open already"));
            }
            let client = process;
            let open = Operation { client, input, output: None, invoke: time, ret: u64::MAX };
            self.slots.push(Some(open));
            return Ok(());
        }

        let slot = self.open.remove(&process).ok_or("ends an operation that was not begun")?;
        let open = self.slots[slot].as_mut().ok_or("ends an operation that was dropped")?;
        if name(open.input) != operation {
            return Err(format!("ends {} as {operation}", name(open.input)));
        }
        let timed_out = value == [":timed-out"];
        let output = match (kind, open.input) {
            (":info", _) if timed_out => return Ok(()),
            (":ok", RegisterInput::Read) => RegisterOutput::Value(optional(&value)?),
            (":ok" | ":fail", RegisterInput::Write(_) | RegisterInput::Cas { .. })
                if !timed_out && input(operation, &value)? != open.input =>
            {
                return Err("ends an operation with other values than it began with".to_owned());
            }
            (":ok", _) if timed_out => return Err("an answer cannot be a timeout".to_owned()),
            (":ok", RegisterInput::Write(_)) => RegisterOutput::Written,
            (":ok", RegisterInput::Cas { .. }) => RegisterOutput::Swapped(true),
            (":fail", RegisterInput::Cas { .. }) if !timed_out => RegisterOutput::Swapped(false),
            (":fail", _) => {
                self.slots[slot] = None;
                return Ok(());
            }
            (":info", _) => return Err(format!("unknown outcome {:?}", value.join(" "))),
            (other, _) => return Err(format!("unknown kind of event {other:?}")),
        };
        open.output = Some(output);
        open.ret = time;
        Ok(())
    }
}

fn input(operation: &str, value: &[&str]) -> Result<RegisterInput, String> {
    match (operation, value) {
        (":read", ["nil"]) => Ok(RegisterInput::Read),
        (":write", [value]) => Ok(RegisterInput::Write(integer(value)?)),
        (":cas", [from, to]) => {
            let pair = from.strip_prefix('[').zip(to.strip_suffix(']'));
            let (from, to) = pair.ok_or("expected a pair in brackets")?;
            Ok(RegisterInput::Cas { from: integer(from)?, to: integer(to)? })
        }
        _ => Err(format!("cannot read {operation:?} of {:?}", value.join(" "))),
    }
}

fn name(input: RegisterInput) -> &'static str {
    match input {
        RegisterInput::Read => ":read",
        RegisterInput::Write(_) => ":write",
        RegisterInput::Cas { .. } => ":cas",
    }
}

fn optional(value: &[&str]) -> Result<Option<i64>, String> {
    match value {
        ["nil"] => Ok(None),
        [value] => integer(value).map(Some),
        _ => Err(format!("expected one value, not {:?}", value.join(" "))),
    }
}

fn integer(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("bad number {text:?}"))
}

/// The lines that are not blank, with their numbers.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim_end()));
    lines.filter(|(_, line)| !line.is_empty())
}

fn at(file: &str, line: usize, problem: String) -> ParseError {
    ParseError { file: file.to_owned(), line, problem }
}
