//! Reads a configuration file: bytes of a person, so everything is checked and
//! every refusal names the line.

use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::flatten;
use crate::exit::{Failure, Outcome};

/// The text of the file.
///
/// # Errors
/// It cannot be read.
pub(super) fn read(path: &Path) -> Outcome<String> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::error(format!(
            "cannot read the configuration {}: {error}; check the path given with --config",
            path.display()
        ))
    })
}

/// The settings a file names, by key path.
///
/// # Errors
/// No TOML, an unknown key, or a value of the wrong type; each with its line.
pub(super) fn parse(path: &Path, text: &str, known: &Table) -> Outcome<Vec<(String, Value)>> {
    let document = DeTable::parse(text).map_err(|error| syntax(path, text, &error))?;
    let names: Vec<String> = flatten(known).into_iter().map(|(key, _)| key).collect();
    check(path, text, document.get_ref(), known, "", &names)?;
    let table: Table = toml::from_str(text).map_err(|error| syntax(path, text, &error))?;
    Ok(flatten(&table))
}

fn check(
    path: &Path,
    text: &str,
    table: &DeTable<'_>,
    known: &Table,
    prefix: &str,
    names: &[String],
) -> Outcome {
    // In the order of the file, so that the first mistake is the one reported.
    let mut entries: Vec<(&Spanned<_>, &Spanned<DeValue<'_>>)> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let name = format!("{prefix}{}", key.get_ref());
        match (known.get(key.get_ref().as_ref()), value.get_ref()) {
            (None, _) => {
                let near = nearest(&name, names)
                    .map_or_else(String::new, |near| format!(", did you mean `{near}`?"));
                return Err(Failure::error(format!(
                    "{} line {}: unknown key `{name}`{near} (`quorate config show` lists all keys)",
                    path.display(),
                    line(text, key.span().start),
                )));
            }
            (Some(Value::Table(section)), DeValue::Table(inner)) => {
                check(path, text, inner, section, &format!("{name}."), names)?;
            }
            (Some(default), found) => {
                let wanted = kind(default);
                if !fits(default, found) {
                    return Err(Failure::error(format!(
                        "{} line {}: `{name}` must be {wanted}",
                        path.display(),
                        line(text, value.span().start),
                    )));
                }
            }
        }
    }
    Ok(())
}

/// What the default's type is called.
fn kind(default: &Value) -> &'static str {
    match default {
        Value::String(_) => "a text in quotes",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list of texts in quotes",
        Value::Datetime(_) => "a date",
        Value::Table(_) => "a section",
    }
}

fn fits(default: &Value, found: &DeValue<'_>) -> bool {
    match default {
        Value::String(_) => matches!(found, DeValue::String(_)),
        Value::Integer(_) => matches!(found, DeValue::Integer(_)),
        Value::Float(_) => matches!(found, DeValue::Float(_) | DeValue::Integer(_)),
        Value::Boolean(_) => matches!(found, DeValue::Boolean(_)),
        Value::Array(_) => match found {
            DeValue::Array(items) => {
                items.iter().all(|item| matches!(item.get_ref(), DeValue::String(_)))
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_) => false,
        },
        Value::Datetime(_) => matches!(found, DeValue::Datetime(_)),
        Value::Table(_) => matches!(found, DeValue::Table(_)),
    }
}

fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> Failure {
    let place =
        error.span().map_or_else(String::new, |span| format!(" line {}", line(text, span.start)));
    Failure::error(format!(
        "{}{place}: {}; correct it, or start without --config",
        path.display(),
        error.message().replace('\n', ", ")
    ))
}

fn line(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
}

/// The known name closest to `name`, if it is near enough to be a slip.
pub(super) fn nearest<'a>(name: &str, names: &'a [String]) -> Option<&'a str> {
    let last = name.rsplit('.').next().unwrap_or(name);
    let distance_to = |candidate: &str| {
        let tail = candidate.rsplit('.').next().unwrap_or(candidate);
        // A right name in the wrong section is one step away.
        distance(name, candidate).min(distance(last, tail) + 1)
    };
    let (steps, best) = names
        .iter()
        .map(|candidate| (distance_to(candidate), candidate))
        .min_by_key(|(d, _)| *d)?;
    (steps <= 1 + last.chars().count() / 3).then_some(best.as_str())
}

/// Levenshtein distance, in characters.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
