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
/// The format that this program writes and the greatest that it reads. The first one had no
/// `replicas`.
const FORMAT: u32 = 2;
/// Replicas of a region where there are stores enough.
const REPLICAS: u32 = 3;

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
    /// A member that was not started yet, at a port of this machine and the next one.
    pub(crate) fn at(role: Role, number: u16, port: u16) -> Self {
        Self {
            role,
            number,
            address: format!("127.0.0.1:{port}"),
            status_address: format!("127.0.0.1:{}", port + 1),
            process: None,
        }
    }
    /// Where it listens.
    pub(crate) fn ports(&self) -> impl Iterator<Item = u16> + use<> {
        let port = |address: &str| address.rsplit_once(':')?.1.parse().ok();
        [port(&self.address), port(&self.status_address)].into_iter().flatten()
    }
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
    /// Replicas that a region was set up with, and so the stores that the cluster waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replicas: Option<u32>,
    /// Placement members first.
    #[serde(rename = "member")]
    pub(crate) members: Vec<Member>,
}

impl Cluster {
    /// A cluster that was not started yet.
    pub(crate) fn new(ephemeral: bool, members: Vec<Member>) -> Self {
        let mut cluster = Self { format: FORMAT, ephemeral, replicas: None, members };
        cluster.replicas = Some(cluster.replicas());
        cluster
    }

    /// Replicas that a region of this cluster is set up with, and the stores that it waits for
    /// when it is new: with fewer stores than three there is one of each.
    pub(crate) fn replicas(&self) -> u32 {
        let by_stores =
            || if self.of(Role::Store).count() < REPLICAS as usize { 1 } else { REPLICAS };
        self.replicas.unwrap_or_else(by_stores)
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
        let mut cluster: Self = toml::from_str(&text).map_err(damaged)?;
        cluster.replicas = Some(cluster.replicas());
        cluster.format = FORMAT;
        Ok(Some(cluster))
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

    /// The number of a further member: above all that are there, and one that has no folder. Whoever was
    /// taken out of the cluster is forgotten, but its folder stays, and nobody may start from it.
    pub(super) fn next_number(&self, folder: &Path, role: Role) -> u16 {
        let first = self.of(role).map(|member| member.number).max().unwrap_or(0) + 1;
        let is_free =
            |number: &u16| !Self::folder_of(folder, &Member::at(role, *number, 0)).exists();
        (first..u16::MAX).find(is_free).unwrap_or(u16::MAX)
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
    fn nobody_gets_the_folder_of_one_that_left() {
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = cluster();
        assert_eq!(cluster.next_number(folder.path(), Role::Store), 2);
        for left in ["store-2", "store-3", "placement-2"] {
            fs::create_dir(folder.path().join(left)).unwrap();
        }
        assert_eq!(cluster.next_number(folder.path(), Role::Store), 4);
        assert_eq!(cluster.next_number(folder.path(), Role::Placement), 3);
        cluster.members.push(Member::at(Role::Store, 7, 70));
        assert_eq!(cluster.next_number(folder.path(), Role::Store), 8);
    }

    #[test]
    fn a_cluster_of_the_first_format_keeps_its_replicas_when_it_grows() {
        let folder = tempfile::tempdir().unwrap();
        let text = "format = 1\nephemeral = false\n\n[[member]]\nrole = \"store\"\nnumber = 1\n\
                    address = \"127.0.0.1:7\"\nstatus_address = \"127.0.0.1:8\"\n";
        fs::write(folder.path().join(FILE), text).unwrap();
        let mut cluster = Cluster::load(folder.path()).unwrap().unwrap();
        assert_eq!(cluster.replicas(), 1);
        cluster.members.extend((2..5).map(|number| Member::at(Role::Store, number, 10 * number)));
        cluster.save(folder.path()).unwrap();
        let again = Cluster::load(folder.path()).unwrap().unwrap();
        assert_eq!(again.replicas(), 1, "what it was set up with, not what it could have");
        assert_eq!(again.members[0].ports().collect::<Vec<_>>(), [7, 8]);
    }

    #[test]
    fn a_newer_format_and_a_damaged_file_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "format = 3\nsurprise = 1\n").unwrap();
        assert!(Cluster::load(folder.path()).unwrap_err().words.contains("newer quorate"));
        fs::write(folder.path().join(FILE), "format = \n").unwrap();
        assert!(Cluster::load(folder.path()).unwrap_err().words.contains("damaged"));
    }
}
