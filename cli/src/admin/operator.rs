//! `quorate operator list|show|cancel`: what placement is doing, step by step, and why.

use std::fmt::Write as _;
use std::time::SystemTime;

use quorate_proto::wire::placement::OperatorStatus;
use serde_json::{Value, json};

use super::common::Common;
use crate::cluster::find::Connection;
use crate::exit::{Failure, Outcome};
use crate::output::{self, Format, Table};

/// Operators: changes that placement orders, step by step.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum OperatorCommand {
    /// List those under way
    List {
        /// Also those that ended lately, and how
        #[arg(long)]
        ended: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Show the steps of one, and what it waits for
    Show {
        /// Its id
        operator: u64,
        #[command(flatten)]
        common: Common,
    },
    /// Give one up; what it has done stays done, and a joint configuration is always completed
    Cancel {
        /// Its id
        operator: u64,
        #[command(flatten)]
        connection: Connection,
    },
}

/// Runs the command.
///
/// # Errors
/// Nobody answers, or there is no such operator.
pub(crate) async fn operator(command: OperatorCommand) -> Outcome {
    match command {
        OperatorCommand::List { ended, common } => {
            let placement = common.connection.placement_client().await?;
            let operators = placement.operators(0, ended).await?;
            let format = common.shape.format();
            if format == Format::Json {
                let all: Vec<Value> = operators.iter().map(object).collect();
                return output::emit(&format!("{}\n", Value::Array(all)));
            }
            output::emit(&table(&operators, SystemTime::now()).render(format))
        }
        OperatorCommand::Show { operator, common } => {
            let placement = common.connection.placement_client().await?;
            let found = placement.operators(operator, true).await?;
            let Some(found) = found.iter().find(|found| found.id == operator) else {
                return Err(Failure::error(format!(
                    "there is no operator {operator}: see `quorate operator list --ended`"
                )));
            };
            let now = SystemTime::now();
            output::emit(&match common.shape.format() {
                Format::Table => story(found, now),
                Format::Plain => table(std::slice::from_ref(found), now).render(Format::Plain),
                Format::Json => format!("{}\n", object(found)),
            })
        }
        OperatorCommand::Cancel { operator, connection } => {
            connection.placement_client().await?.cancel_operator(operator).await?;
            output::note(&format!("operator {operator} is given up"));
            Ok(())
        }
    }
}

/// Operators as rows.
pub(super) fn table(operators: &[OperatorStatus], now: SystemTime) -> Table {
    let mut table = Table::new(&["operator", "region", "kind", "step", "age", "state", "reason"]);
    for operator in operators {
        table.push(vec![
            json!(operator.id),
            json!(format!("r{}", operator.region_id)),
            json!(operator.kind),
            json!(format!("{} of {}", operator.done, operator.steps.len())),
            json!(output::time(output::ago(operator.began_ms, now))),
            json!(state(operator)),
            json!(operator.reason),
        ]);
    }
    table
}

/// What it waits for, or how it ended.
fn state(operator: &OperatorStatus) -> String {
    if !operator.ended.is_empty() {
        operator.ended.clone()
    } else if operator.waits_for.is_empty() {
        "under way".to_owned()
    } else {
        format!("waits for {}", operator.waits_for)
    }
}

/// One operator with all its steps.
pub(super) fn story(operator: &OperatorStatus, now: SystemTime) -> String {
    let mut text = format!(
        "operator {} {}: {}\n",
        operator.id,
        operator.kind,
        if operator.reason.is_empty() { "no reason given" } else { &operator.reason }
    );
    let done = operator.done as usize;
    for (number, step) in operator.steps.iter().enumerate() {
        let current = number == done && operator.ended.is_empty();
        let mark = if number < done {
            '✔'
        } else if current {
            '→'
        } else {
            '·'
        };
        let _ = write!(text, "  {mark} {step}");
        if current && !operator.waits_for.is_empty() {
            let _ = write!(text, " (waits for {})", operator.waits_for);
        }
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "  began {} ({} ago), deadline {}{}",
        output::moment(operator.began_ms),
        output::time(output::ago(operator.began_ms, now)),
        output::moment(operator.deadline_ms),
        if operator.ended.is_empty() {
            String::new()
        } else {
            format!("; ended: {}", operator.ended)
        }
    );
    text
}

/// One operator for programs.
pub(super) fn object(operator: &OperatorStatus) -> Value {
    json!({
        "operator": operator.id,
        "region": format!("r{}", operator.region_id),
        "kind": operator.kind,
        "reason": operator.reason,
        "steps": operator.steps,
        "done": operator.done,
        "began": output::moment(operator.began_ms),
        "deadline": output::moment(operator.deadline_ms),
        "ended": operator.ended,
        "waits_for": operator.waits_for,
    })
}

/// Says that a request was taken: on stdout for programs, in words for people.
///
/// # Errors
/// Stdout cannot be written.
pub(super) fn accepted(operator: u64, words: &str, format: Format) -> Outcome {
    match (format, operator) {
        (Format::Json, _) => output::emit(&format!("{}\n", json!({ "operator": operator }))),
        (Format::Table | Format::Plain, 0) => {
            output::note(&format!("{words}; nothing had to be ordered"));
            Ok(())
        }
        (Format::Table | Format::Plain, operator) => {
            output::note(&format!("{words}; see `quorate operator show {operator}`"));
            output::emit(&format!("{operator}\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_says_what_it_waits_for_and_how_it_ended() {
        let mut operator = OperatorStatus {
            id: 3,
            region_id: 7,
            kind: "add-replica".to_owned(),
            reason: "request".to_owned(),
            steps: vec!["add learner on s4".to_owned(), "promote".to_owned()],
            done: 1,
            waits_for: "a partner".to_owned(),
            ..OperatorStatus::default()
        };
        let plain = |operator: &OperatorStatus| {
            table(std::slice::from_ref(operator), SystemTime::UNIX_EPOCH).render(Format::Plain)
        };
        assert_eq!(
            plain(&operator),
            "3\tr7\tadd-replica\t1 of 2\t0 µs\twaits for a partner\trequest\n"
        );
        operator.ended = "cancelled".to_owned();
        assert!(plain(&operator).contains("\tcancelled\t"));
        let text = story(&operator, SystemTime::UNIX_EPOCH);
        assert!(text.contains("✔ add learner on s4\n  · promote\n"), "{text}");
        assert!(text.contains("ended: cancelled"), "{text}");
    }
}
