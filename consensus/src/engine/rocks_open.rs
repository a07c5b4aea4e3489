//! The folder of an engine: what is in it and how it is opened.
//!
//! ```text
//! FORMAT    version of this layout, written before anything else
//! SYNCED    number of the last sync (see the module `synced`)
//! db/       RocksDB, with its lock file
//! staged/   files to be ingested (see the module `rocks_stage`)
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rocksdb::{Cache, DB, Options};

use super::rocks_list;
use super::space::space;
use super::synced::SyncedFile;
use super::{EngineError, RocksOptions};

/// Version of the layout and of the meaning of what RocksDB holds.
pub(super) const FORMAT: u32 = 1;
/// Key of the last sync's number in the default column family.
pub(super) const SYNC_KEY: &[u8] = b"sync";

/// With less on the disk, that is why a flush or a compaction failed: more than any of their files.
const SCARCE_BYTES: u64 = 64 << 20;

/// An open folder.
pub(super) struct Opened {
    pub(super) database: DB,
    pub(super) cache: Cache,
    pub(super) staged_options: Options,
    pub(super) staged_folder: PathBuf,
    /// Above the numbers of all segments of staged files.
    pub(super) next_segment: u64,
    pub(super) synced: SyncedFile,
    /// Number of the last sync.
    pub(super) number: u64,
}

pub(super) fn open(path: &Path, options: &RocksOptions) -> Result<Opened, EngineError> {
    let io = |error: io::Error| EngineError::from_io("opening the data folder", &error);
    create_folder(path).map_err(io)?;
    let database_folder = path.join("db");
    check_format(path, &database_folder)?;
    let staged_folder = path.join("staged");
    create_folder(&staged_folder).map_err(io)?;

    let prepared = options.prepare();
    let database = DB::open_cf_descriptors(&prepared.database, &database_folder, prepared.families)
        .map_err(|error| open_failed(path, &error))?;
    // Everything below holds RocksDB's lock on the folder.
    sync_folder(path).map_err(io)?;
    let next_segment = rocks_list::tidy_up(&staged_folder).map_err(io)?;
    let (synced, acknowledged) = SyncedFile::open(&path.join("SYNCED")).map_err(io)?;
    let recovered = recovered_sync(&database)?;
    if recovered < acknowledged {
        let path = path.display().to_string();
        return Err(EngineError::LostWrites { path, synced: acknowledged, recovered });
    }
    let (cache, staged_options) = (prepared.cache, prepared.staged);
    let number = recovered;
    Ok(Opened { database, cache, staged_options, staged_folder, next_segment, synced, number })
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Creates a folder and its parents where they are missing, durably.
fn create_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_folder(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => result?,
    }
    sync_folder(parent.unwrap_or(Path::new(".")))
}

fn check_format(path: &Path, database_folder: &Path) -> Result<(), EngineError> {
    let file = path.join("FORMAT");
    let corrupt = |reason: &str| EngineError::Corrupt {
        what: file.display().to_string(),
        reason: reason.to_owned(),
    };
    match fs::read_to_string(&file) {
        Ok(text) => {
            let found = text.trim().parse::<u32>().map_err(|_| corrupt("not a number"))?;
            if found > FORMAT {
                let path = path.display().to_string();
                return Err(EngineError::Newer { path, found, supported: FORMAT });
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(corrupt("not a number")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if database_folder.join("CURRENT").exists() {
                return Err(corrupt("missing beside a database"));
            }
            write_durably(&file, format!("{FORMAT}\n").as_bytes())
                .map_err(|error| EngineError::from_io("writing the file FORMAT", &error))
        }
        Err(error) => Err(EngineError::from_io("reading the file FORMAT", &error)),
    }
}

/// Writes a whole file so that a crash leaves either all of it or nothing under its name.
pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("part");
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

fn recovered_sync(database: &DB) -> Result<u64, EngineError> {
    let during = "reading the number of the last sync";
    let stored = database.get(SYNC_KEY).map_err(|error| EngineError::from_rocks(during, &error))?;
    let Some(stored) = stored else { return Ok(0) };
    let bytes = stored.try_into().map_err(|_| EngineError::Corrupt {
        what: during.to_owned(),
        reason: "not eight bytes".to_owned(),
    })?;
    Ok(u64::from_le_bytes(bytes))
}

fn open_failed(path: &Path, error: &rocksdb::Error) -> EngineError {
    let text = error.to_string();
    // RocksDB has no code of its own for these.
    if text.contains("While lock file") || text.contains("lock hold by current process") {
        return EngineError::Locked { path: path.display().to_string() };
    }
    if text.contains("No such file") {
        return EngineError::Corrupt { what: path.display().to_string(), reason: text };
    }
    EngineError::from_rocks("opening the database", error)
}

/// Bytes of write-ahead log files; 0 where the folder cannot be read.
pub(super) fn wal_bytes(database_folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(database_folder) else { return 0 };
    entries
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log"))
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// Why flushes and compactions fail. RocksDB tells only its own log; and while the disk is full it
/// tries again by itself, with writers that wait.
pub(super) fn background_failure(path: &Path) -> EngineError {
    let during = "flushing or compacting".to_owned();
    if space(path).is_some_and(|space| space.available < SCARCE_BYTES) {
        return EngineError::Full { during };
    }
    let reason = format!("see {} for the reason", path.join("LOG").display());
    EngineError::Fatal { during, reason }
}
