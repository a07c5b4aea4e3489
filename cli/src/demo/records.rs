//! The real records of a demo: a file that is given, or Debian's package index as
//! `scripts/dataset.sh` writes it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;

use crate::exit::{Failure, Outcome};
use crate::kv::lines;

/// What makes the data set, from the root of a checkout.
const SCRIPT: &str = "scripts/dataset.sh";

/// Records in a file of our own, and their keys.
#[derive(Debug)]
pub(super) struct Records {
    /// KEY TAB VALUE lines, each good.
    pub(super) file: PathBuf,
    /// Their keys, sorted, each once.
    pub(super) keys: Vec<Bytes>,
}

impl Records {
    /// Takes the first `limit` good lines of `given`, else of the data set, into `folder`.
    ///
    /// # Errors
    /// There is no file and no data set, or it cannot be read, or has too few records.
    pub(super) fn take(given: Option<&Path>, folder: &Path, limit: usize) -> Outcome<Self> {
        let whole = match given {
            Some(path) => path.to_owned(),
            None => make(folder)?,
        };
        let file = folder.join("records.tsv");
        let failed = |error: std::io::Error| {
            Failure::error(format!("cannot copy records from {}: {error}", whole.display()))
        };
        let source = File::open(&whole).map_err(|error| {
            Failure::error(format!("cannot read {}: {error}; check the path", whole.display()))
        })?;
        let mut to = BufWriter::new(File::create(&file).map_err(failed)?);
        let mut keys = Vec::new();
        for line in BufReader::new(source).split(b'\n') {
            let line = line.map_err(failed)?;
            let Ok((key, _)) = lines::parse(&line) else { continue };
            keys.push(key);
            to.write_all(&line).and_then(|()| to.write_all(b"\n")).map_err(failed)?;
            if keys.len() >= limit {
                break;
            }
        }
        to.flush().map_err(failed)?;
        keys.sort_unstable();
        keys.dedup();
        if keys.len() < MIN_RECORDS {
            return Err(Failure::error(format!(
                "{} has {} records, a demo needs {MIN_RECORDS}: give a larger file of KEY TAB \
                 VALUE lines",
                whole.display(),
                keys.len()
            )));
        }
        Ok(Self { file, keys })
    }

    /// So many keys, evenly spread.
    pub(super) fn spread(&self, count: usize) -> Vec<Bytes> {
        let step = self.keys.len() as f64 / count as f64;
        (0..count).map(|at| self.keys[((at as f64 + 0.5) * step) as usize].clone()).collect()
    }
}

/// Fewer records show nothing.
const MIN_RECORDS: usize = 1_000;

/// Runs the script of the checkout that the current folder is in.
fn make(folder: &Path) -> Outcome<PathBuf> {
    let missing = || {
        Failure::error(format!(
            "no records: give a file of KEY TAB VALUE lines with --records FILE, or run this in a \
             checkout, whose {SCRIPT} makes some from Debian's package index"
        ))
    };
    let here = std::env::current_dir().map_err(|_| missing())?;
    let script = here
        .ancestors()
        .map(|up| up.join(SCRIPT))
        .find(|path| path.is_file())
        .ok_or_else(missing)?;
    let path = folder.join("dataset.tsv");
    let to = File::create(&path)
        .map_err(|error| Failure::error(format!("cannot write {}: {error}", path.display())))?;
    let made = Command::new(&script)
        .stdin(Stdio::null())
        .stdout(to)
        .stderr(Stdio::null())
        .status()
        .map_err(|error| Failure::error(format!("cannot run {}: {error}", script.display())))?;
    if made.success() {
        return Ok(path);
    }
    Err(Failure::error(format!(
        "{} made no records ({made}): give a file of KEY TAB VALUE lines with --records FILE",
        script.display()
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_first_good_lines_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let given = folder.path().join("given");
        let mut text = "no tab\n".to_owned();
        (0..3_000).for_each(|number| text += &format!("{:05}\tv\n", (number * 7) % 3_000));
        std::fs::write(&given, text).unwrap();
        let records = Records::take(Some(&given), folder.path(), 2_000).unwrap();
        assert_eq!(records.keys.len(), 2_000);
        assert!(records.keys.is_sorted());
        assert_eq!(std::fs::read_to_string(&records.file).unwrap().lines().count(), 2_000);
        let spread = records.spread(4);
        assert_eq!(spread.len(), 4);
        assert!(spread.is_sorted() && spread[0] > records.keys[0]);
    }

    #[test]
    fn too_few_records_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let given = folder.path().join("given");
        std::fs::write(&given, "a\tb\n").unwrap();
        let words = Records::take(Some(&given), folder.path(), 10).unwrap_err().words;
        assert!(words.contains("has 1 records"), "{words}");
    }
}
