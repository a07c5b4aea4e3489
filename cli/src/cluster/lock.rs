//! One command at a time starts or ends the processes of a data folder.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use crate::exit::{Failure, Outcome};

/// Held while it lives; the system frees it when the process ends, however that happens.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a data folder.
    ///
    /// # Errors
    /// Another command holds it, or the folder cannot be written.
    pub(super) fn take(folder: &Path) -> Outcome<Self> {
        let path = folder.join("lock");
        let file = File::create(&path).map_err(|error| {
            Failure::error(format!(
                "cannot write {}: {error}; choose another folder with --data",
                path.display()
            ))
        })?;
        // SAFETY: the descriptor is open for the whole call.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(Self { _file: file });
        }
        let error = io::Error::last_os_error();
        Err(Failure::error(if error.kind() == io::ErrorKind::WouldBlock {
            format!("another `quorate` command works on {}; wait for it to end", folder.display())
        } else {
            format!("cannot lock {}: {error}", path.display())
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_one_holds_it_and_letting_go_frees_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path()).unwrap();
        assert!(Lock::take(folder.path()).unwrap_err().words.contains("wait for it to end"));
        drop(first);
        Lock::take(folder.path()).unwrap();
    }
}
