//! `quorate config show`: every knob as it stands, and who set it.

use clap::{Arg, ArgAction, ArgMatches};
use serde_json::{Value as Json, json};
use toml::Value;

use super::{Layers, Setting, Settings};
use crate::exit::Outcome;
use crate::output::{self, Format, Table};

/// The flags of the command itself.
pub(crate) fn own_flags() -> [Arg; 2] {
    [
        Arg::new("origin")
            .long("origin")
            .action(ArgAction::SetTrue)
            .help("Say where each value comes from: default, file, environment or flag"),
        Arg::new("output")
            .short('o')
            .long("output")
            .value_name("SHAPE")
            .value_parser(clap::value_parser!(Format))
            .help("Shape of the data on stdout [default: table on a terminal, else plain]"),
    ]
}

/// Runs the command for one kind of process.
///
/// # Errors
/// The settings are not valid.
pub(crate) fn show<S: Settings>(matches: &ArgMatches) -> Outcome {
    let layered = Layers::of_process::<S>(matches)?.apply::<S>()?;
    let format = Format::choose(matches.get_one::<Format>("output").copied());
    let table = table(layered.settings, matches.get_flag("origin"));
    output::emit(&table.render(format))
}

fn table(settings: Vec<Setting>, with_origin: bool) -> Table {
    let mut table =
        Table::new(if with_origin { &["key", "value", "origin"] } else { &["key", "value"] });
    for Setting { key, value, origin } in settings {
        let mut row = vec![json!(key), plain(&value)];
        if with_origin {
            row.push(json!(origin.to_string()));
        }
        table.push(row);
    }
    table
}

fn plain(value: &Value) -> Json {
    match value {
        Value::String(text) => json!(text),
        Value::Integer(number) => json!(number),
        Value::Float(number) => json!(number),
        Value::Boolean(switch) => json!(switch),
        Value::Array(items) => Json::Array(items.iter().map(plain).collect()),
        Value::Datetime(_) | Value::Table(_) => json!(value.to_string()),
    }
}
