//! Settings of a process in layers: defaults, then a TOML file, then the
//! environment (`QUORATE_…`), then flags. The last one that speaks wins, and
//! every value remembers where it came from.
//!
//! The one list of knobs is the `Default` of a node's configuration, beside the
//! `log` section that every process has; its key paths (`raft.tick_ms`) give the
//! flag (`--raft-tick-ms`) and the variable (`QUORATE_RAFT_TICK_MS`). What the file
//! says and nobody knows is refused with its line and the nearest key that exists.

mod file;
pub(crate) mod show;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use clap::{Arg, ArgMatches};
use quorate_placement::PlacementConfig;
use quorate_store::StoreConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::exit::{Failure, Outcome};

/// A set of knobs with defaults.
pub(crate) trait Settings: Default + Serialize + DeserializeOwned {
    /// What each key means, with units and bounds. Covers every key (a test checks it).
    const HELP: &'static [(&'static str, &'static str)];
}

impl Settings for StoreConfig {
    const HELP: &'static [(&'static str, &'static str)] = quorate_store::config::HELP;
}

impl Settings for PlacementConfig {
    const HELP: &'static [(&'static str, &'static str)] = quorate_placement::config::HELP;
}

/// How a process logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogSettings {
    /// A level, or a filter such as `info,quorate_store=debug`.
    pub(crate) level: String,
    /// Appended to; empty: stderr.
    pub(crate) file: String,
    /// `text` or `json`.
    pub(crate) format: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), file: String::new(), format: "text".to_owned() }
    }
}

const LOG_HELP: &[(&str, &str)] = &[
    ("log.level", "error, warn, info, debug, trace, or a filter such as info,quorate_store=debug"),
    ("log.file", "file that logs are appended to (empty: stderr)"),
    ("log.format", "text or json"),
];

/// Every knob of that kind of process with what it means.
fn help<S: Settings>() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    S::HELP.iter().chain(LOG_HELP)
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// That variable of the environment.
    Environment(String),
    /// That flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One knob as it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Setting {
    /// Its path in the file: `raft.tick_ms`.
    pub(crate) key: String,
    /// Its value.
    pub(crate) value: Value,
    /// Who set it.
    pub(crate) origin: Origin,
}

/// Settings with everything applied, and who said what.
#[derive(Debug)]
pub(crate) struct Layered<S> {
    /// The node's own configuration.
    pub(crate) node: S,
    /// How it logs.
    pub(crate) log: LogSettings,
    /// Every knob, by key.
    pub(crate) settings: Vec<Setting>,
}

/// The layers above the defaults.
#[derive(Default)]
pub(crate) struct Layers {
    /// Path and text of the configuration file, where there is one.
    pub(crate) file: Option<(PathBuf, String)>,
    /// The environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// Flags that were given: key path and text.
    pub(crate) flags: BTreeMap<String, String>,
}

impl Layers {
    /// The layers of this process: `--config`, its environment, its flags.
    ///
    /// # Errors
    /// The configuration file cannot be read.
    pub(crate) fn of_process<S: Settings>(matches: &ArgMatches) -> Outcome<Self> {
        let file = match matches.get_one::<PathBuf>("config") {
            Some(path) => Some((path.clone(), file::read(path)?)),
            None => None,
        };
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let flags = help::<S>().filter_map(|(key, _)| {
            matches.get_one::<String>(key).map(|text| ((*key).to_owned(), text.clone()))
        });
        Ok(Self { file, environment: environment.collect(), flags: flags.collect() })
    }

    /// Applies the layers to the defaults.
    ///
    /// # Errors
    /// An unknown key in the file, or a value of the wrong type, with where and what to write.
    pub(crate) fn apply<S: Settings>(self) -> Outcome<Layered<S>> {
        let mut table = defaults::<S>()?;
        let mut origins = BTreeMap::new();
        if let Some((path, text)) = self.file {
            for (key, value) in file::parse(&path, &text, &table)? {
                set(&mut table, &key, value);
                origins.insert(key, Origin::File(path.clone()));
            }
        }
        let keys: Vec<String> = flatten(&table).into_iter().map(|(key, _)| key).collect();
        for key in &keys {
            let name = variable(key);
            if let Some(text) = self.environment.get(&name) {
                assign(&mut table, key, text, &name)?;
                origins.insert(key.clone(), Origin::Environment(name));
            }
        }
        for (key, text) in &self.flags {
            let name = format!("--{}", flag(key));
            assign(&mut table, key, text, &name)?;
            origins.insert(key.clone(), Origin::Flag(name));
        }
        let settings = flatten(&table)
            .into_iter()
            .map(|(key, value)| {
                let origin = origins.remove(&key).unwrap_or(Origin::Default);
                Setting { key, value, origin }
            })
            .collect();
        let invalid = |error: toml::de::Error| {
            let words = error.to_string().trim().replace('\n', " ");
            Failure::error(format!("the settings are not valid: {words}; see --help for bounds"))
        };
        let log = table.remove("log").unwrap_or_else(|| Value::Table(Table::new()));
        let log = LogSettings::deserialize(log).map_err(invalid)?;
        let node = S::deserialize(table).map_err(invalid)?;
        Ok(Layered { node, log, settings })
    }
}

/// The flags of a set of knobs, for a `clap` command.
pub(crate) fn flags<S: Settings>() -> Vec<Arg> {
    let config = Arg::new("config")
        .long("config")
        .short('c')
        .value_name("FILE")
        .env("QUORATE_CONFIG")
        .value_parser(clap::value_parser!(PathBuf))
        .help("TOML file with any of the settings below (raft.tick_ms = --raft-tick-ms)");
    let knobs = help::<S>().map(|(key, help)| {
        // Lives as long as the process: a few dozen short strings, made once.
        let long: &'static str = Box::leak(flag(key).into_boxed_str());
        let help = format!("{help} [{}]", variable(key));
        let arg = Arg::new(*key).long(long).value_name("VALUE").help(help);
        // What a store is told to say that it joins a cluster which runs.
        if *key == "placement" { arg.visible_alias("join") } else { arg }
    });
    std::iter::once(config).chain(knobs).collect()
}

/// `raft.tick_ms` → `raft-tick-ms`.
fn flag(key: &str) -> String {
    key.replace(['.', '_'], "-")
}

/// `raft.tick_ms` → `QUORATE_RAFT_TICK_MS`.
fn variable(key: &str) -> String {
    format!("QUORATE_{}", key.replace('.', "_").to_uppercase())
}

/// The defaults as a table: also the list of keys that exist.
pub(crate) fn defaults<S: Settings>() -> Outcome<Table> {
    let broken = |error| Failure::error(format!("the default settings are no table: {error}"));
    let mut table = Table::try_from(S::default()).map_err(broken)?;
    let log = Table::try_from(LogSettings::default()).map_err(broken)?;
    table.insert("log".to_owned(), Value::Table(log));
    Ok(table)
}

/// Every leaf of a table with its path, sorted: plain keys before sections.
fn flatten(table: &Table) -> Vec<(String, Value)> {
    let mut leaves = Vec::new();
    let mut sections = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(section) => {
                let inner = flatten(section).into_iter();
                sections.extend(inner.map(|(path, value)| (format!("{key}.{path}"), value)));
            }
            leaf => leaves.push((key.clone(), leaf.clone())),
        }
    }
    leaves.extend(sections);
    leaves
}

/// The value at a path.
fn get<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        Some((section, rest)) => get(table.get(section)?.as_table()?, rest),
        None => table.get(key),
    }
}

/// Replaces the value at a path that exists.
fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        Some((section, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(section) {
                set(inner, rest, value);
            }
        }
        None => {
            table.insert(key.to_owned(), value);
        }
    }
}

/// Sets a value from text, read as the type that the default has.
fn assign(table: &mut Table, key: &str, text: &str, whence: &str) -> Outcome {
    let Some(default) = get(table, key) else { return Ok(()) };
    let wanted = |what: &str| {
        Failure::error(format!("{whence}={text:?} is not {what}: give {key} as {what}"))
    };
    let value = match default {
        Value::String(_) => Value::String(text.to_owned()),
        Value::Integer(_) => Value::Integer(text.parse().map_err(|_| wanted("a whole number"))?),
        Value::Float(_) => Value::Float(text.parse().map_err(|_| wanted("a number"))?),
        Value::Boolean(_) => Value::Boolean(text.parse().map_err(|_| wanted("true or false"))?),
        Value::Array(_) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            Value::Array(parts.map(|part| Value::String(part.to_owned())).collect())
        }
        Value::Datetime(_) | Value::Table(_) => return Err(wanted("settable from text")),
    };
    set(table, key, value);
    Ok(())
}
