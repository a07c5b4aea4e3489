//! The settings of a cluster: names, defaults, bounds, and what they are for.
//!
//! Only what was changed is replicated; everything else has its default, so that a later version
//! may choose better ones. A value is checked before it is proposed and again when it is applied.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::lifecycle::{Limits, MAX_LAG};

mod build;
mod table;

pub use table::KNOWN;

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 1, 3, 5 or 7.
    Odd,
    /// A whole number between two others.
    Number(u64, u64),
    /// [`ON`] or `off`.
    Switch,
    /// A text of at most so many bytes; those who use it check it further.
    Text(usize),
}

/// A setting that there is.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Such as `lifecycle.pairing_ms`.
    pub name: &'static str,
    /// Where nothing else was set.
    pub default: &'static str,
    /// What a value must be.
    pub kind: Kind,
    /// What it is for.
    pub help: &'static str,
}

/// Wanted voters of a region.
pub const REPLICAS: &str = "replicas";
/// The form of commands and records in use.
pub const CLUSTER_VERSION_NAME: &str = "cluster_version";

/// Placement rules, as people write them.
pub const RULES: &str = "placement.rules";
/// Failure domains.
pub const LEVELS: &str = "placement.levels";
/// What a switch is when it is not off.
pub const ON: &str = "on";
/// Schedulers that are paused, by name.
pub const PAUSED: &str = "schedule.paused";

/// Why a setting cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadSetting {
    /// No such name.
    #[error("there is no setting {0}; `quorate settings list` shows those there are")]
    Unknown(String),
    /// Not what it must be.
    #[error("{name} must be {wanted}, not {value:?}")]
    Value {
        /// Of this setting.
        name: String,
        /// What it must be.
        wanted: String,
        /// What it was to be.
        value: String,
    },
    /// It only grows.
    #[error("cluster_version is {now} and never falls: what was written in that form stays")]
    Falls {
        /// Now.
        now: u32,
    },
    /// Two that do not go together.
    #[error("{0}")]
    Conflict(String),
}

/// The setting of that name.
///
/// # Errors
/// There is none.
pub fn find(name: &str) -> Result<&'static Known, BadSetting> {
    KNOWN
        .iter()
        .find(|known| known.name == name)
        .ok_or_else(|| BadSetting::Unknown(name.to_owned()))
}

impl Known {
    /// Checks a value of this setting.
    ///
    /// # Errors
    /// What it must be.
    pub fn check(&self, value: &str) -> Result<(), BadSetting> {
        let wanted = match self.kind {
            Kind::Odd => match value {
                "1" | "3" | "5" | "7" => return Ok(()),
                _ => "1, 3, 5 or 7".to_owned(),
            },
            Kind::Number(least, most) => match value.parse::<u64>() {
                Ok(number) if (least..=most).contains(&number) => return Ok(()),
                Ok(_) | Err(_) => format!("a whole number from {least} to {most}"),
            },
            Kind::Switch => match value {
                ON | "off" => return Ok(()),
                _ => "on or off".to_owned(),
            },
            Kind::Text(most) => match value.len() <= most {
                true => return Ok(()),
                false => format!("a text of at most {most} bytes"),
            },
        };
        let (name, value) = (self.name.to_owned(), value.to_owned());
        Err(BadSetting::Value { name, wanted, value })
    }
}

/// What was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// From what was stored. Names that this version does not know are kept.
    pub fn new(changed: BTreeMap<String, String>) -> Self {
        Self(changed)
    }

    /// What differs from the defaults.
    pub fn changed(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Checks changes, all of them before any is made.
    ///
    /// # Errors
    /// The first that cannot be.
    pub fn check(&self, changes: &[(String, String)], replicas: u32) -> Result<(), BadSetting> {
        let mut after = self.clone();
        let mut replicas = replicas;
        for (name, value) in changes {
            find(name)?.check(value)?;
            if name == REPLICAS {
                replicas = value.parse().unwrap_or(replicas);
            }
            after.0.insert(name.clone(), value.clone());
        }
        if after.number("store.suspect_ms") >= after.number("store.down_ms") {
            let words = "store.down_ms must exceed store.suspect_ms".to_owned();
            return Err(BadSetting::Conflict(words));
        }
        after.policy(replicas).map(|_| ())
    }

    /// Makes changes that were checked. One back to its default is forgotten.
    pub fn change(&mut self, changes: &[(String, String)]) {
        for (name, value) in changes {
            if find(name).is_ok_and(|known| known.default == value) {
                self.0.remove(name);
            } else {
                self.0.insert(name.clone(), value.clone());
            }
        }
    }

    /// The value of a setting.
    ///
    /// # Panics
    /// There is none of that name: the names are our own.
    pub fn text(&self, name: &str) -> &str {
        match (self.0.get(name), find(name)) {
            (Some(value), _) => value,
            (None, Ok(known)) => known.default,
            (None, Err(error)) => panic!("{error}"),
        }
    }

    /// The value of a setting that is a number.
    ///
    /// # Panics
    /// There is none of that name, or it is no number: names and defaults are our own.
    pub fn number(&self, name: &str) -> u64 {
        match self.text(name).parse() {
            Ok(number) => number,
            Err(_) => panic!("the setting {name} is no number"),
        }
    }

    /// Schedulers that are paused.
    pub fn paused_schedulers(&self) -> BTreeSet<String> {
        let names = self.text(PAUSED).split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(str::to_owned).collect()
    }

    /// The limits of lifecycles.
    pub fn limits(&self) -> Limits {
        Limits {
            join_ms: self.number("lifecycle.join_ms"),
            pairing_ms: self.number("lifecycle.pairing_ms"),
            promotion_ms: self.number("lifecycle.promotion_ms"),
            stall_ms: self.number("lifecycle.stall_ms"),
            zombie_ms: self.number("lifecycle.zombie_ms"),
            catch_up_ms: self.number("lifecycle.catch_up_ms"),
            max_lag: self.number("lifecycle.max_lag").min(MAX_LAG),
            contact_ms: self.number("lifecycle.contact_ms"),
            stable_ms: self.number("lifecycle.stable_ms"),
        }
    }
}
