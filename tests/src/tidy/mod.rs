//! Holds the layout: what a core may use, which way dependencies point, that
//! every module says what it is for.
//!
//! Each rule is a function from text to what is wrong with it, so that the tests
//! can show that it catches what it should; [`Workspace`] only reads files.

pub mod crates;
pub mod docs;
pub mod source;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Folders without anything of ours in them.
const SKIPPED: [&str; 4] = [".git", "target", "data", "node_modules"];

/// The files of the workspace, as text.
pub struct Workspace {
    root: PathBuf,
    files: Vec<PathBuf>,
}

impl Workspace {
    /// The workspace that this package is part of.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn open() -> io::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
        let mut files = Vec::new();
        collect(&root, &mut files)?;
        let mut files: Vec<PathBuf> =
            files.iter().filter_map(|path| path.strip_prefix(&root).ok()).map(Into::into).collect();
        files.sort();
        Ok(Self { root, files })
    }

    /// Files with that ending, by path from the root, with their text.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn texts(&self, ending: &str) -> io::Result<Vec<(String, String)>> {
        let chosen = self.files.iter().filter(|path| path.extension().is_some_and(|e| e == ending));
        chosen
            .map(|path| {
                let name = path.to_string_lossy().replace('\\', "/");
                Ok((name, fs::read_to_string(self.root.join(path))?))
            })
            .collect()
    }

    /// Files below a folder, by path from the root, with their full path.
    pub fn below(&self, folder: &str) -> Vec<(String, PathBuf)> {
        let inside = self.files.iter().filter(|path| path.starts_with(folder));
        inside.map(|path| (path.to_string_lossy().into_owned(), self.root.join(path))).collect()
    }

    /// True where there is a file or folder at that path from the root.
    pub fn has(&self, path: &Path) -> bool {
        self.root.join(path).exists()
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let kind = entry.file_type()?;
        if kind.is_dir() && !SKIPPED.iter().any(|skipped| name == *skipped) {
            collect(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}
