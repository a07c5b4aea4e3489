//! `cluster.toml`: what a local cluster consists of.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::pid::Identity;
use crate::exit::{Failure, Outcome};

/// The file in the data folder.
pub(crate) const FILE: &str = "cluster.toml";
/// The format that this program writes and the greatest that it reads.
const FORMAT: u32 = 1;

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// A placement member.
    Placement,
    /// A store.
    Store,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Placement => "placement",
            Self::Store => "store",
        })
    }
}

/// One process of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Member {
    /// What it is.
    pub(crate) role: Role,
    /// Counted from 1 in each role.
    pub(crate) number: u16,
    /// HOST:PORT for clients and for the other processes.
    pub(crate) address: String,
    /// HOST:PORT of `/health`, `/ready` and `/metrics`.
    pub(crate) status_address: String,
    /// The process that was started last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) process: Option<Identity>,
}

impl Member {
    /// `store-1`.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.role, self.number)
    }
    /// The process, while it runs.
    pub(crate) fn running(&self) -> Option<&Identity> {
        self.process.as_ref().filter(|process| process.is_alive())
    }
}

/// A local cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cluster {
    format: u32,
    /// `down` removes the data.
    pub(crate) ephemeral: bool,
    /// Placement members first.
    #[serde(rename = "member")]
    pub(crate) members: Vec<Member>,
}

impl Cluster {
    /// A cluster that was not started yet.
    pub(crate) fn new(ephemeral: bool, members: Vec<Member>) -> Self {
        Self { format: FORMAT, ephemeral, members }
    }

    /// The description in a data folder; `None` where there is none.
    ///
    /// # Errors
    /// It cannot be read, or is of a newer format.
    pub(crate) fn load(folder: &Path) -> Outcome<Option<Self>> {
        let path = folder.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(Failure::error(format!("cannot read {}: {error}", path.display())));
            }
        };
        let damaged = |error: toml::de::Error| {
            Failure::error(format!(
                "{} is damaged ({}); restore it, or choose another folder with --data",
                path.display(),
                error.message()
            ))
        };
        // The format first: a newer one may have keys that this program does not know.
        let table: toml::Table = toml::from_str(&text).map_err(damaged)?;
        let format = table.get("format").and_then(toml::Value::as_integer);
        if format.is_some_and(|format| format > i64::from(FORMAT)) {
            return Err(Failure::error(format!(
                "{} was written by a newer quorate; use that one, or choose another folder with \
                 --data",
                path.display()
            )));
        }
        toml::from_str(&text).map(Some).map_err(damaged)
    }

    /// Writes the description so that a crash leaves the old one or the new one.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn save(&self, folder: &Path) -> Outcome {
        let path = folder.join(FILE);
        let text = toml::to_string(self)
            .map_err(|error| Failure::error(format!("the cluster cannot be described: {error}")))?;
        let fresh = folder.join(format!("{FILE}.new"));
        let write = || {
            let mut file = fs::File::create(&fresh)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            fs::File::open(folder)?.sync_all()
        };
        write().map_err(|error: std::io::Error| {
            Failure::error(format!(
                "cannot write {}: {error}; check the disk's space and the folder's permissions",
                path.display()
            ))
        })
    }

    /// The members of a role.
    pub(crate) fn of(&self, role: Role) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| member.role == role)
    }

    /// The addresses of the placement members.
    pub(crate) fn placement(&self) -> Vec<String> {
        self.of(Role::Placement).map(|member| member.address.clone()).collect()
    }

    /// Where a member keeps its data.
    pub(crate) fn folder_of(folder: &Path, member: &Member) -> PathBuf {
        folder.join(member.name())
    }

    /// Where a member logs.
    pub(crate) fn log_of(folder: &Path, member: &Member) -> PathBuf {
        folder.join("logs").join(format!("{}.log", member.name()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn cluster() -> Cluster {
        let member = |role, number, process| Member {
            role,
            number,
            address: format!("127.0.0.1:{number}"),
            status_address: "127.0.0.1:9".to_owned(),
            process,
        };
        let process = Identity { pid: 7, started: "8@b".to_owned() };
        Cluster::new(
            false,
            vec![member(Role::Placement, 1, Some(process)), member(Role::Store, 1, None)],
        )
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Cluster::load(folder.path()).unwrap(), None);
        cluster().save(folder.path()).unwrap();
        assert_eq!(Cluster::load(folder.path()).unwrap(), Some(cluster()));
        assert_eq!(cluster().placement(), ["127.0.0.1:1"]);
    }

    #[test]
    fn a_newer_format_and_a_damaged_file_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "format = 2\nsurprise = 1\n").unwrap();
        assert!(Cluster::load(folder.path()).unwrap_err().words.contains("newer quorate"));
        fs::write(folder.path().join(FILE), "format = \n").unwrap();
        assert!(Cluster::load(folder.path()).unwrap_err().words.contains("damaged"));
    }
}
