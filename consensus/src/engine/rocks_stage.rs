//! Staged files: sorted files outside of the database, ingested later.
//!
//! ```text
//! NAME.7.seg   a segment; its number is unique in the folder
//! NAME.open    the list of an unfinished staged file as of its last checkpoint
//! NAME.done    the list of a finished one
//! ```
//!
//! RocksDB cannot go on with a sorted file that another process began. So a staged file is a row
//! of segments, each complete and durable; every checkpoint ends one, and the list names them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rocksdb::{IngestExternalFileOptions, Options, SstFileWriter};

use super::rocks::Shared;
use super::rocks_list::{self, List, Segment, done_path, open_path, segment_path};
use super::rocks_open::sync_folder;
use super::{Cf, EngineError, Stage, StagedFile};

/// A staged file being written.
pub(super) struct RocksStage {
    // Destroyed before the options and the database: fields drop in this order.
    writer: SstFileWriter<'static>,
    shared: Arc<Shared>,
    name: String,
    /// The segment being written.
    current: Option<Current>,
    /// Everything written so far; its segments are those that are complete.
    list: List,
}

/// A segment being written.
struct Current {
    number: u64,
    file: File,
    /// Bytes put since the kernel was last asked to write.
    unwritten: u64,
}

impl RocksStage {
    /// Begins anew.
    pub(super) fn new(shared: Arc<Shared>, name: &str) -> Result<Self, EngineError> {
        let folder = shared.staged_folder();
        remove(&open_path(folder, name))
            .and_then(|()| rocks_list::sweep(folder, name))
            .map_err(|error| EngineError::from_io(WRITING, &error))?;
        Ok(Self::with(shared, name, List::default()))
    }

    /// Goes on behind the last checkpoint; `None` where there is none, or its segments are
    /// damaged.
    pub(super) fn resume(shared: Arc<Shared>, name: &str) -> Result<Option<Self>, EngineError> {
        let folder = shared.staged_folder();
        let list = match List::read(&open_path(folder, name)) {
            Ok(Some(list)) if list.is_intact(folder, name).map_err(reading)? => list,
            Ok(None) => return Ok(None),
            Ok(Some(_)) => return discard_open(&shared, name).map(|()| None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return discard_open(&shared, name).map(|()| None);
            }
            Err(error) => return Err(reading(error)),
        };
        // What was written behind the checkpoint is received again.
        rocks_list::sweep(folder, name).map_err(reading)?;
        Ok(Some(Self::with(shared, name, list)))
    }

    fn with(shared: Arc<Shared>, name: &str, list: List) -> Self {
        // SAFETY: the options live in the heap allocation of `shared`, which this struct holds
        // for longer than the writer; the extended lifetime never leaves the struct.
        let options: &'static Options = unsafe { &*std::ptr::from_ref(shared.staged_options()) };
        let writer = SstFileWriter::create(options);
        Self { writer, shared, name: name.to_owned(), current: None, list }
    }

    pub(super) fn note(&self) -> Bytes {
        self.list.note.clone()
    }

    fn end_segment(&mut self) -> Result<(), EngineError> {
        let Some(current) = &self.current else { return Ok(()) };
        self.writer.finish().map_err(failed)?;
        let path = segment_path(self.shared.staged_folder(), &self.name, current.number);
        let segment = current
            .file
            .sync_all()
            .and_then(|()| Segment::of(&path, current.number))
            .map_err(|error| EngineError::from_io(WRITING, &error))?;
        self.list.segments.push(segment);
        self.current = None;
        Ok(())
    }

    fn begin_segment(&mut self) -> Result<&mut Current, EngineError> {
        let number = self.shared.segments().fetch_add(1, Ordering::Relaxed);
        let path = segment_path(self.shared.staged_folder(), &self.name, number);
        open(&self.writer, &path)?;
        let file = File::open(&path).map_err(|error| EngineError::from_io(WRITING, &error))?;
        Ok(self.current.insert(Current { number, file, unwritten: 0 }))
    }
}

/// `SstFileWriter::open` ties the borrow to the writer's lifetime; here it is a short one.
fn open<'a>(writer: &'a SstFileWriter<'a>, path: &Path) -> Result<(), EngineError> {
    writer.open(path).map_err(failed)
}

impl Stage for RocksStage {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        if self.list.entries > 0 && self.list.last.as_slice() >= key {
            return Err(EngineError::Unordered { name: self.name.clone() });
        }
        if self.current.is_none() {
            self.begin_segment()?;
        }
        self.writer.put(key, value).map_err(failed)?;
        if let Some(current) = &mut self.current {
            current.unwritten += (key.len() + value.len()) as u64;
            if current.unwritten >= WRITE_BEHIND {
                current.unwritten = 0;
                begin_writing(&current.file);
            }
        }
        if self.list.entries == 0 {
            self.list.first = key.to_vec();
        }
        self.list.last.clear();
        self.list.last.extend_from_slice(key);
        self.list.entries += 1;
        self.list.bytes += (key.len() + value.len()) as u64;
        Ok(())
    }

    fn checkpoint(&mut self, note: &[u8]) -> Result<(), EngineError> {
        self.end_segment()?;
        self.list.note = Bytes::copy_from_slice(note);
        self.list
            .write(&open_path(self.shared.staged_folder(), &self.name))
            .map_err(|error| EngineError::from_io(WRITING, &error))
    }

    fn finish(mut self: Box<Self>) -> Result<StagedFile, EngineError> {
        self.end_segment()?;
        self.list.note = Bytes::new();
        let folder = self.shared.staged_folder();
        self.list
            .write(&done_path(folder, &self.name))
            .and_then(|()| remove(&open_path(folder, &self.name)))
            .and_then(|()| rocks_list::sweep(folder, &self.name))
            .and_then(|()| sync_folder(folder))
            .map_err(|error| EngineError::from_io(WRITING, &error))?;
        self.shared.verified().lock().insert(self.name.clone());
        let (entries, bytes) = (self.list.entries, self.list.bytes);
        Ok(StagedFile { name: self.name.clone(), entries, bytes })
    }
}

impl Drop for RocksStage {
    fn drop(&mut self) {
        if let Some(current) = &self.current {
            let path = segment_path(self.shared.staged_folder(), &self.name, current.number);
            // Otherwise the next start removes it.
            let _ = fs::remove_file(path);
        }
    }
}

/// Asks the kernel to begin writing what the file has, and not to wait until there is a mountain
/// of it: a sync of the log would have to wait for that too. (RocksDB does so for its own files, but
/// offers it for staged ones only in C++.)
fn begin_writing(file: &File) {
    #[cfg(target_os = "linux")]
    // SAFETY: the descriptor is open; 0 and 0 mean the whole file. It is a hint: what fails here,
    // the sync at the end finds.
    unsafe {
        let flags = libc::SYNC_FILE_RANGE_WRITE;
        libc::sync_file_range(std::os::fd::AsRawFd::as_raw_fd(file), 0, 0, flags);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Bytes after which the kernel is asked to begin writing them.
const WRITE_BEHIND: u64 = 1 << 20;
const WRITING: &str = "writing a staged file";

fn failed(error: rocksdb::Error) -> EngineError {
    EngineError::from_rocks(WRITING, &error)
}

fn reading(error: io::Error) -> EngineError {
    EngineError::from_io("reading a staged file", &error)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Names and notes of unfinished files that can be gone on with, sorted.
pub(super) fn unfinished(folder: &Path) -> io::Result<Vec<(String, Bytes)>> {
    let mut found = Vec::new();
    for name in rocks_list::names(folder, "open")? {
        match List::read(&open_path(folder, &name)) {
            Ok(Some(list)) => found.push((name, list.note)),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                remove(&open_path(folder, &name))?;
                rocks_list::sweep(folder, &name)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn discard_open(shared: &Shared, name: &str) -> Result<(), EngineError> {
    tracing::warn!(name, "a staged file was damaged; it is received again");
    let folder = shared.staged_folder();
    remove(&open_path(folder, name)).and_then(|()| rocks_list::sweep(folder, name)).map_err(reading)
}

/// Removes a staged file, finished or not.
pub(super) fn discard(shared: &Shared, name: &str) -> io::Result<()> {
    shared.verified().lock().remove(name);
    let folder = shared.staged_folder();
    remove(&open_path(folder, name))?;
    remove(&done_path(folder, name))?;
    rocks_list::sweep(folder, name)
}

/// The list of a finished file. Where an earlier process finished it, its segments are checked.
pub(super) fn finished(shared: &Shared, name: &str) -> Result<List, EngineError> {
    let folder = shared.staged_folder();
    let bad = |reason: &str| {
        let (name, reason) = (name.to_owned(), reason.to_owned());
        EngineError::BadStaged { name, reason }
    };
    let list = match List::read(&done_path(folder, name)) {
        Ok(Some(list)) => list,
        Ok(None) => return Err(EngineError::NotStaged { name: name.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(bad(&error.to_string()));
        }
        Err(error) => return Err(reading(error)),
    };
    if !shared.verified().lock().contains(name) {
        if !list.is_intact(folder, name).map_err(reading)? {
            return Err(bad("a segment is missing or damaged"));
        }
        shared.verified().lock().insert(name.to_owned());
    }
    Ok(list)
}

/// Removes the keys from `start` up to `end` from [`Cf::Data`].
///
/// It is a file with nothing but that removal, and not a write: a write of it, in the memtable,
/// would have to be flushed before the ingest, and the flushed file, which holds what was written
/// to all other regions as well, would be merged with all of the next level.
pub(super) fn clear(
    shared: &Shared,
    name: &str,
    start: &[u8],
    end: &[u8],
) -> Result<(), EngineError> {
    let number = shared.segments().fetch_add(1, Ordering::Relaxed);
    let path = segment_path(shared.staged_folder(), name, number);
    let mut writer = SstFileWriter::create(shared.staged_options());
    let opened = open(&writer, &path);
    let added = opened
        .and_then(|()| writer.delete_range(start, end).map_err(failed))
        .and_then(|()| writer.finish().map_err(failed))
        .and_then(|()| add(shared, name, std::slice::from_ref(&path), shared.can_link()));
    // It is still there where that failed, or where the file system has no second names.
    remove(&path).map_err(|error| EngineError::from_io(WRITING, &error))?;
    added
}

/// Adds the file to [`Cf::Data`], above everything written before, and keeps it.
pub(super) fn ingest(shared: &Shared, name: &str, list: &List) -> Result<(), EngineError> {
    let folder = shared.staged_folder();
    let segment = |segment: &Segment| segment_path(folder, name, segment.number);
    let paths: Vec<_> = list.segments.iter().map(segment).collect();
    let links: Vec<_> = paths.iter().map(|path| path.with_extension("link")).collect();
    // RocksDB takes over second names instead of copies, where the file system can.
    let linked = || paths.iter().zip(&links).all(|(path, link)| link_anew(path, link).is_ok());
    if shared.can_link() && linked() {
        add(shared, name, &links, true)
    } else {
        add(shared, name, &paths, false)
    }
}

/// Adds sorted files to the database; `moved`: their names go.
///
/// Where a memtable holds keys of the files' range, RocksDB flushes it and stops all writers
/// meanwhile. So the flush is done ahead, while they go on.
fn add(shared: &Shared, name: &str, paths: &[PathBuf], moved: bool) -> Result<(), EngineError> {
    let during = "ingesting a staged file";
    let mut result = try_add(shared, paths, moved, false);
    if result.as_ref().is_err_and(|error| error.to_string().contains("requires flush")) {
        let flushed = shared.database().flush_cf(&shared.family(Cf::Data));
        flushed.map_err(|error| shared.poison(EngineError::from_rocks(during, &error)))?;
        result = try_add(shared, paths, moved, true);
    }
    result.map_err(|error| match error.kind() {
        rocksdb::ErrorKind::Corruption | rocksdb::ErrorKind::InvalidArgument => {
            EngineError::BadStaged { name: name.to_owned(), reason: error.to_string() }
        }
        _ => shared.poison(EngineError::from_rocks(during, &error)),
    })
}

fn try_add(
    shared: &Shared,
    paths: &[PathBuf],
    moved: bool,
    may_flush: bool,
) -> Result<(), rocksdb::Error> {
    let mut options = IngestExternalFileOptions::default();
    options.set_move_files(moved);
    options.set_allow_blocking_flush(may_flush);
    let family = shared.family(Cf::Data);
    shared.database().ingest_external_file_cf_opts(&family, &options, paths.to_vec())
}

fn link_anew(kept: &Path, link: &Path) -> io::Result<()> {
    remove(link)?;
    fs::hard_link(kept, link)
}
