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

<<<<<<< HEAD
=======
/// All settings, in the order people see them.
pub const KNOWN: &[Known] = &[
    known(REPLICAS, "3", Kind::Odd, "voters of each region: 1, 3, 5 or 7"),
    known(
        CLUSTER_VERSION_NAME,
        "3",
        Kind::Number(1, 3),
        "form of what placement replicates; raise it once every member runs the newer program",
    ),
    known(
        "lifecycle.join_ms",
        "30000",
        MILLIS,
        "milliseconds for a new replica to be seen in the applied configuration",
    ),
    known(
        "lifecycle.pairing_ms",
        "120000",
        MILLIS,
        "milliseconds that a ready learner waits for a partner before it stands by",
    ),
    known(
        "lifecycle.promotion_ms",
        "300000",
        MILLIS,
        "milliseconds that a learner may be ready without being promoted before it stands by",
    ),
    known(
        "lifecycle.stall_ms",
        "60000",
        MILLIS,
        "milliseconds without progress after which a learner that is behind is stale",
    ),
    known(
        "lifecycle.zombie_ms",
        "600000",
        MILLIS,
        "milliseconds without contact after which a learner is removed",
    ),
    known(
        "lifecycle.catch_up_ms",
        "600",
        MILLIS,
        "a ready learner catches up within so many milliseconds at its measured rate",
    ),
    known(
        "lifecycle.max_lag",
        "1024",
        Kind::Number(0, 10_000_000),
        "log entries that a ready learner may lack; more count as 1024, beyond which stores promote none",
    ),
    known(
        "lifecycle.contact_ms",
        "5000",
        MILLIS,
        "a ready learner was heard of within so many milliseconds",
    ),
    known(
        "lifecycle.stable_ms",
        "2000",
        Kind::Number(0, DAY),
        "milliseconds for which all that must hold before a learner counts as ready",
    ),
    known(
        "store.suspect_ms",
        "20000",
        MILLIS,
        "milliseconds of silence after which a store is suspected",
    ),
    known(
        "store.down_ms",
        "1800000",
        MILLIS,
        "milliseconds of silence after which a store is given up and its replicas are replaced",
    ),
    known(
        RULES,
        "",
        Kind::Text(16 * 1024),
        "placement rules, as `1 learner where tier=analytics; 3 voters from \"a\" to \"b\"`",
    ),
    known(
        LEVELS,
        "zone,rack,host",
        Kind::Text(256),
        "labels that tell failure domains, from the widest to the narrowest",
    ),
    known(
        "balance.leaders_percent",
        "4",
        PERCENT,
        "percent of the mean by which stores may differ in leaders",
    ),
    known(
        "balance.replicas_percent",
        "4",
        PERCENT,
        "percent of the mean by which stores may differ in replicas",
    ),
    known(
        "balance.bytes_percent",
        "10",
        PERCENT,
        "percent of the mean by which stores may differ in bytes",
    ),
    known(
        "hot.share_percent",
        "10",
        PERCENT,
        "percent of a store's mean load from which on a region is hot",
    ),
    known(
        "store_limit.additions",
        "15",
        Kind::Number(0, 100_000),
        "full regions a minute that may be added to a store",
    ),
    known(
        "store_limit.removals",
        "15",
        Kind::Number(0, 100_000),
        "full regions a minute that may be removed from a store",
    ),
    known(
        "store_limit.snapshots",
        "8",
        Kind::Number(1, 10_000),
        "snapshots on their way to a store, from which on it gets no more replicas",
    ),
    known(
        "store_limit.arriving",
        "16",
        Kind::Number(1, 10_000),
        "replicas on their way to a store, from which on no more are begun",
    ),
    known(
        "store_limit.free_percent",
        "5",
        PERCENT,
        "percent of a store's disk that stay free: beyond, it gets no more replicas",
    ),
    known(PAUSED, "", Kind::Text(256), "schedulers that are paused, by name, with commas between"),
];

>>>>>>> life
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
