//! Where the cluster is, without flags: `--placement`, then `QUORATE_PLACEMENT`,
//! then the data folder that `QUORATE_CLUSTER` names, then the nearest
//! `data/dev/cluster.toml` from the current folder up, then the one that
//! `quorate up` started last.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_client::{Client, ClientOptions, PlacementClient, PlacementOptions};

use super::description::{Cluster, FILE};
use crate::exit::{Failure, Outcome};

/// The data folder of `quorate up`, unless `--data` names another.
pub(crate) const DEFAULT_DATA: &str = "data/dev";

/// The variable that names another one, for all commands.
pub(super) const DATA_VARIABLE: &str = "QUORATE_CLUSTER";

/// How a command reaches the cluster.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Connection {
    /// Placement members; one that answers is enough. Default: the cluster `quorate up` started.
    #[arg(long, env = "QUORATE_PLACEMENT", value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub(crate) placement: Vec<String>,
    /// Seconds that one operation may take with all its retries.
    #[arg(long, value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
}

impl Connection {
    /// The placement members' addresses.
    ///
    /// # Errors
    /// None are known.
    pub(crate) fn addresses(&self) -> Outcome<Vec<String>> {
        if !self.placement.is_empty() {
            return Ok(self.placement.clone());
        }
        Ok(local()?.1.placement())
    }

    /// A client of the whole cluster.
    ///
    /// # Errors
    /// No cluster is known, or none answers.
    pub(crate) async fn client(&self) -> Outcome<Client> {
        self.client_with(ClientOptions::default()).await
    }

    /// A client of the whole cluster with those options; the deadline is ours.
    ///
    /// # Errors
    /// No cluster is known, or none answers.
    pub(crate) async fn client_with(&self, options: ClientOptions) -> Outcome<Client> {
        let options = ClientOptions { deadline: Duration::from_secs(self.timeout), ..options };
        Ok(Client::connect(&self.addresses()?, options).await?)
    }

    /// A client of placement alone.
    ///
    /// # Errors
    /// No cluster is known, or none answers.
    pub(crate) async fn placement_client(&self) -> Outcome<PlacementClient> {
        let deadline = Duration::from_secs(self.timeout);
        let options = PlacementOptions { deadline, ..PlacementOptions::default() };
        Ok(PlacementClient::connect(&self.addresses()?, options).await?)
    }
}

impl From<quorate_client::Error> for Failure {
    fn from(error: quorate_client::Error) -> Self {
        use quorate_client::Error;
        match &error {
            Error::Unavailable { .. } | Error::Timeout { .. } | Error::NoQuorum { .. } => {
                Self::unavailable(error.to_string())
            }
            Error::Undetermined { .. }
            | Error::InvalidArgument(_)
            | Error::WrongCluster { .. }
            | Error::Refused { .. }
            | Error::Partial { .. } => Self::error(error.to_string()),
        }
    }
}

/// The local cluster that is meant where nobody says which, and its data folder.
///
/// # Errors
/// There is none.
pub(crate) fn local() -> Outcome<(PathBuf, Cluster)> {
    let here = env::current_dir()
        .map_err(|error| Failure::error(format!("the current folder cannot be read: {error}")))?;
    let named = env::var_os(DATA_VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
    let folder = named.or_else(|| nearest(&here)).or_else(remembered).ok_or_else(|| {
        Failure::unavailable(
            "no cluster is known: start one with `quorate up`, or name one with \
             --placement HOST:PORT",
        )
    })?;
    match Cluster::load(&folder)? {
        Some(cluster) => Ok((folder, cluster)),
        None => Err(Failure::unavailable(format!(
            "{} has no {FILE}: start a cluster with `quorate up`",
            folder.display()
        ))),
    }
}

/// The data folder that is meant: the one named, else that of [`local`].
///
/// # Errors
/// There is none.
pub(super) fn folder(named: Option<&Path>) -> Outcome<PathBuf> {
    match named {
        Some(folder) => Ok(folder.canonicalize().unwrap_or_else(|_| folder.to_owned())),
        None => Ok(local()?.0),
    }
}

/// The data folder of the nearest development cluster, from a folder up.
fn nearest(here: &Path) -> Option<PathBuf> {
    here.ancestors().map(|up| up.join(DEFAULT_DATA)).find(|folder| folder.join(FILE).is_file())
}

/// Remembers a data folder for commands run elsewhere. Not being able to is no failure:
/// only commands far from the folder need it.
pub(super) fn remember(folder: &Path) {
    let Some(pointer) = pointer() else { return };
    let written = pointer
        .parent()
        .map(fs::create_dir_all)
        .transpose()
        .and_then(|_| fs::write(&pointer, format!("{}\n", folder.display())));
    if let Err(error) = written {
        crate::output::note(&format!(
            "{} cannot be written ({error}); from other folders, name the cluster with \
             --placement",
            pointer.display()
        ));
    }
}

/// Forgets a data folder that is gone.
pub(super) fn forget(folder: &Path) {
    if remembered_in(pointer().as_deref()).is_some_and(|remembered| remembered == folder) {
        // Where it stays, it points to a folder without a cluster and is passed over.
        let _ = pointer().map(fs::remove_file);
    }
}

fn remembered() -> Option<PathBuf> {
    remembered_in(pointer().as_deref()).filter(|folder| folder.join(FILE).is_file())
}

fn remembered_in(pointer: Option<&Path>) -> Option<PathBuf> {
    let text = fs::read_to_string(pointer?).ok()?;
    Some(PathBuf::from(text.trim_end_matches('\n')))
}

/// The file in the user's state folder.
fn pointer() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    Some(state.join("quorate").join("cluster"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_nearest_cluster_from_a_folder_up_is_found() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(nearest(&deep), None);
        let far = root.path().join(DEFAULT_DATA);
        fs::create_dir_all(&far).unwrap();
        Cluster::new(false, Vec::new()).save(&far).unwrap();
        assert_eq!(nearest(&deep), Some(far));
        let near = root.path().join("a").join(DEFAULT_DATA);
        fs::create_dir_all(&near).unwrap();
        Cluster::new(false, Vec::new()).save(&near).unwrap();
        assert_eq!(nearest(&deep), Some(near));
    }

    #[test]
    fn a_pointer_names_a_folder_with_spaces_too() {
        let root = tempfile::tempdir().unwrap();
        let pointer = root.path().join("cluster");
        assert_eq!(remembered_in(Some(&pointer)), None);
        fs::write(&pointer, "/a b/c\n").unwrap();
        assert_eq!(remembered_in(Some(&pointer)), Some(PathBuf::from("/a b/c")));
    }
}
