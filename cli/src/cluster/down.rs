//! `quorate down`: ends exactly the processes that `quorate up` started.

use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{fs, io};

use super::description::{Cluster, FILE, Member, Role};
use super::end::{PATIENCE, stop};
use super::find;
use super::lock::Lock;
use crate::exit::{Failure, Outcome};
use crate::output;

/// Stops the cluster that `quorate up` started; its data stays.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DownArgs {
    /// The data folder given to `quorate up` [default: the nearest data/dev, or the last one]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Kill what does not end in time
    #[arg(long)]
    force: bool,
}

/// Runs the command.
///
/// # Errors
/// No cluster is known, or a process did not end.
pub(crate) fn down(args: &DownArgs) -> Outcome {
    let (folder, cluster) = match &args.data {
        Some(folder) => match Cluster::load(folder)? {
            Some(cluster) => (folder.canonicalize().unwrap_or_else(|_| folder.clone()), cluster),
            None => {
                return Err(Failure::error(format!(
                    "{} holds no cluster: name the folder that `quorate up` was given",
                    folder.display()
                )));
            }
        },
        None => find::local()?,
    };
    let _lock = Lock::take(&folder)?;
    let begun = Instant::now();
    // Stores first: they need placement to hand over. One after the other, so that each finds
    // another one to hand over to.
    let stores = running(&cluster, Role::Store);
    let mut left = Vec::new();
    for store in &stores {
        left.extend(stop(&[store], args.force)?);
    }
    let members = running(&cluster, Role::Placement);
    left.extend(stop(&members, args.force)?);
    if !left.is_empty() {
        return Err(Failure::error(format!(
            "still running after {} s: {}; wait and run `quorate down` again, or end them with \
             --force",
            PATIENCE.as_secs(),
            left.join(", ")
        )));
    }
    let stopped = stores.len() + members.len();
    if cluster.ephemeral {
        discard(&folder, &cluster)?;
    }
    let kept = if cluster.ephemeral { "data discarded" } else { "data kept" };
    let words = if stopped == 0 {
        format!("not running; {kept} ({})\n", folder.display())
    } else {
        let took = begun.elapsed().as_secs_f64();
        format!("stopped {stopped} processes in {took:.1} s; {kept} ({})\n", folder.display())
    };
    output::emit(&words)
}

fn running(cluster: &Cluster, role: Role) -> Vec<&Member> {
    cluster.of(role).filter(|member| member.running().is_some()).collect()
}

/// Removes the data of a cluster that was to be discarded: what `up` made, and the folder only
/// where nothing else is in it.
fn discard(folder: &Path, cluster: &Cluster) -> Outcome {
    find::forget(folder);
    let folders = cluster.members.iter().map(|member| Cluster::folder_of(folder, member));
    let files = [FILE, "placement.toml", "store.toml", "lock"];
    let remove = || {
        for made in folders.chain([folder.join("logs")]) {
            absent_is_fine(fs::remove_dir_all(made))?;
        }
        for made in files {
            absent_is_fine(fs::remove_file(folder.join(made)))?;
        }
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            other => other,
        }
    };
    remove().map_err(|error| {
        Failure::error(format!(
            "{} cannot be removed: {error}; remove it by hand",
            folder.display()
        ))
    })
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_what_up_made_is_discarded() {
        let folder = tempfile::tempdir().unwrap();
        let member = Member {
            role: Role::Store,
            number: 1,
            address: String::new(),
            status_address: String::new(),
            process: None,
        };
        let cluster = Cluster::new(true, vec![member]);
        cluster.save(folder.path()).unwrap();
        fs::create_dir_all(folder.path().join("store-1")).unwrap();
        fs::write(folder.path().join("letter.txt"), "mine").unwrap();
        discard(folder.path(), &cluster).unwrap();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "the letter stays: {left:?}");
        fs::remove_file(folder.path().join("letter.txt")).unwrap();
        discard(folder.path(), &cluster).unwrap();
        assert!(!folder.path().exists());
    }
}
