//! Staged files: sorted files outside of the database, ingested later.
//!
//! A file is written as `NAME.part`, and renamed to `NAME.sst` once it is complete and durable.
//! A file without entries, which RocksDB cannot write, holds [`NO_ENTRIES`] instead.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::{IngestExternalFileOptions, Options, SstFileWriter};

use super::rocks::Shared;
use super::rocks_open::sync_folder;
use super::{Cf, EngineError, Stage, StagedFile};

const NO_ENTRIES: &[u8] = b"quorate: no entries\n";

/// A staged file being written.
pub(super) struct RocksStage {
    // Destroyed before the options and the database: fields drop in this order.
    writer: SstFileWriter<'static>,
    shared: Arc<Shared>,
    name: String,
    unfinished: PathBuf,
    last: Vec<u8>,
    entries: u64,
    bytes: u64,
}

impl RocksStage {
    pub(super) fn new(shared: Arc<Shared>, name: &str) -> Result<Self, EngineError> {
        // SAFETY: the options live in the heap allocation of `shared`, which this struct holds
        // for longer than the writer; the extended lifetime never leaves the struct.
        let options: &'static Options = unsafe { &*std::ptr::from_ref(shared.staged_options()) };
        let unfinished = shared.staged_folder().join(format!("{name}.part"));
        let writer = SstFileWriter::create(options);
        open(&writer, &unfinished)?;
        let name = name.to_owned();
        Ok(Self { writer, shared, name, unfinished, last: Vec::new(), entries: 0, bytes: 0 })
    }

    fn complete(&mut self) -> io::Result<()> {
        if self.entries == 0 {
            fs::write(&self.unfinished, NO_ENTRIES)?;
        }
        File::open(&self.unfinished)?.sync_all()?;
        fs::rename(&self.unfinished, finished(&self.shared, &self.name))?;
        sync_folder(self.shared.staged_folder())
    }
}

/// `SstFileWriter::open` ties the borrow to the writer's lifetime; here it is a short one.
fn open<'a>(writer: &'a SstFileWriter<'a>, path: &Path) -> Result<(), EngineError> {
    writer.open(path).map_err(failed)
}

impl Stage for RocksStage {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        if self.entries > 0 && self.last.as_slice() >= key {
            return Err(EngineError::Unordered { name: self.name.clone() });
        }
        self.writer.put(key, value).map_err(failed)?;
        self.last.clear();
        self.last.extend_from_slice(key);
        self.entries += 1;
        self.bytes += (key.len() + value.len()) as u64;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<StagedFile, EngineError> {
        if self.entries > 0 {
            self.writer.finish().map_err(failed)?;
        }
        self.complete().map_err(|error| EngineError::from_io(WRITING, &error))?;
        Ok(StagedFile { name: self.name.clone(), entries: self.entries, bytes: self.bytes })
    }
}

impl Drop for RocksStage {
    fn drop(&mut self) {
        // Gone already where it was finished; otherwise the next start removes it.
        let _ = fs::remove_file(&self.unfinished);
    }
}

const WRITING: &str = "writing a staged file";

fn failed(error: rocksdb::Error) -> EngineError {
    EngineError::from_rocks(WRITING, &error)
}

/// Names of finished files, sorted.
pub(super) fn list(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".sst")) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

pub(super) fn discard(shared: &Shared, name: &str) -> io::Result<()> {
    match fs::remove_file(finished(shared, name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// True where the file has entries.
pub(super) fn has_entries(shared: &Shared, name: &str) -> Result<bool, EngineError> {
    let opened = File::open(finished(shared, name));
    let mut start = Vec::with_capacity(NO_ENTRIES.len());
    let read = opened.and_then(|file| file.take(NO_ENTRIES.len() as u64).read_to_end(&mut start));
    match read {
        Ok(_) => Ok(start != NO_ENTRIES),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(EngineError::NotStaged { name: name.to_owned() })
        }
        Err(error) => Err(EngineError::from_io("reading a staged file", &error)),
    }
}

/// Adds the file to [`Cf::Data`], above everything written before, and keeps it.
///
/// Where a memtable holds keys of the file's range, RocksDB flushes it and stops all writers
/// meanwhile. So the flush is done ahead, while they go on.
pub(super) fn ingest(shared: &Shared, name: &str) -> Result<(), EngineError> {
    let during = "ingesting a staged file";
    let mut result = try_ingest(shared, name, false);
    if result.as_ref().is_err_and(|error| error.to_string().contains("requires flush")) {
        let flushed = shared.database().flush_cf(&shared.family(Cf::Data));
        flushed.map_err(|error| shared.poison(EngineError::from_rocks(during, &error)))?;
        result = try_ingest(shared, name, true);
    }
    result.map_err(|error| match error.kind() {
        rocksdb::ErrorKind::Corruption | rocksdb::ErrorKind::InvalidArgument => {
            EngineError::BadStaged { name: name.to_owned(), reason: error.to_string() }
        }
        _ => shared.poison(EngineError::from_rocks(during, &error)),
    })
}

/// RocksDB takes over a second name of the file instead of a copy, where the file system can.
fn try_ingest(shared: &Shared, name: &str, may_flush: bool) -> Result<(), rocksdb::Error> {
    let kept = finished(shared, name);
    let link = shared.staged_folder().join(format!("{name}.link"));
    let linked = shared.can_link() && link_anew(&kept, &link).is_ok();
    let mut options = IngestExternalFileOptions::default();
    options.set_move_files(linked);
    options.set_allow_blocking_flush(may_flush);
    let path = if linked { link } else { kept };
    let family = shared.family(Cf::Data);
    shared.database().ingest_external_file_cf_opts(&family, &options, vec![path])
}

fn link_anew(kept: &Path, link: &Path) -> io::Result<()> {
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::hard_link(kept, link)
}

fn finished(shared: &Shared, name: &str) -> PathBuf {
    shared.staged_folder().join(format!("{name}.sst"))
}
