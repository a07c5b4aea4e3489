//! Which segments a staged file is made of: the lists beside them.
//!
//! A list carries a checksum of its own and one for each segment, so that a process that is
//! started again can tell what it may go on with.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes};

use super::rocks_open::write_durably;

/// Tells a list from other files, with the version of its layout.
const MAGIC: &[u8] = b"quorate staged 1\n";
const READ_BYTES: usize = 1 << 20;

/// What a list says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct List {
    /// Entries of all segments.
    pub(super) entries: u64,
    /// Bytes of their keys and values.
    pub(super) bytes: u64,
    /// Smallest and greatest key; empty where there are no entries.
    pub(super) first: Vec<u8>,
    pub(super) last: Vec<u8>,
    /// What the user wanted to remember with the last checkpoint.
    pub(super) note: Bytes,
    pub(super) segments: Vec<Segment>,
}

/// One sorted file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Unique in the folder.
    pub(super) number: u64,
    /// Its length in bytes.
    pub(super) length: u64,
    /// CRC-32 (IEEE) of the whole file.
    pub(super) crc: u32,
}

impl List {
    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.put_u64_le(self.entries);
        out.put_u64_le(self.bytes);
        for text in [&self.first[..], &self.last[..], &self.note[..]] {
            out.put_u32_le(text.len() as u32);
            out.put_slice(text);
        }
        out.put_u32_le(self.segments.len() as u32);
        for segment in &self.segments {
            out.put_u64_le(segment.number);
            out.put_u64_le(segment.length);
            out.put_u32_le(segment.crc);
        }
        let crc = crc32fast::hash(&out);
        out.put_u32_le(crc);
        out
    }

    fn decode(text: &[u8]) -> Option<Self> {
        let (body, mut crc) = text.split_at_checked(text.len().checked_sub(4)?)?;
        if crc32fast::hash(body) != crc.get_u32_le() {
            return None;
        }
        let mut body = Bytes::copy_from_slice(body.strip_prefix(MAGIC)?);
        let entries = body.try_get_u64_le().ok()?;
        let bytes = body.try_get_u64_le().ok()?;
        let mut text = || {
            let length = body.try_get_u32_le().ok()? as usize;
            (length <= body.len()).then(|| body.split_to(length))
        };
        let (first, last, note) = (text()?.to_vec(), text()?.to_vec(), text()?);
        let count = body.try_get_u32_le().ok()?;
        let mut segments = Vec::new();
        for _ in 0..count {
            segments.push(Segment {
                number: body.try_get_u64_le().ok()?,
                length: body.try_get_u64_le().ok()?,
                crc: body.try_get_u32_le().ok()?,
            });
        }
        Some(Self { entries, bytes, first, last, note, segments })
    }

    /// Reads a list; `None` where there is none, `InvalidData` where it is damaged.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        match fs::read(path) {
            Ok(text) => match Self::decode(&text) {
                Some(list) => Ok(Some(list)),
                None => Err(io::Error::new(io::ErrorKind::InvalidData, "the list is damaged")),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a list, durably and whole or not at all.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        write_durably(path, &self.encode())
    }

    /// True where all segments are there and as they were written.
    pub(super) fn is_intact(&self, folder: &Path, name: &str) -> io::Result<bool> {
        for segment in &self.segments {
            match Segment::of(&segment_path(folder, name, segment.number), segment.number) {
                Ok(found) if found == *segment => {}
                Ok(_) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl Segment {
    /// Reads the file and describes it.
    pub(super) fn of(path: &Path, number: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut length = 0;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(Self { number, length, crc: hasher.finalize() });
            }
            hasher.update(&buffer[..read]);
            length += read as u64;
        }
    }
}

/// The list of an unfinished staged file.
pub(super) fn open_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.open"))
}

/// The list of a finished one.
pub(super) fn done_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.done"))
}

pub(super) fn segment_path(folder: &Path, name: &str, number: u64) -> PathBuf {
    folder.join(format!("{name}.{number}.seg"))
}

/// The staged file and the number that a segment's file name has.
fn parse_segment(file: &str) -> Option<(&str, u64)> {
    let (name, number) = file.strip_suffix(".seg")?.split_once('.')?;
    Some((name, number.parse().ok()?))
}

/// Names that have a list with this ending (`open`, `done`), sorted.
pub(super) fn names(folder: &Path, ending: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let file = entry?.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(ending)?.strip_suffix('.'));
        names.extend(name.map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Removes the segments of `name` that neither of its lists has.
pub(super) fn sweep(folder: &Path, name: &str) -> io::Result<()> {
    let mut listed = Vec::new();
    for path in [open_path(folder, name), done_path(folder, name)] {
        // A damaged list keeps nothing: its segments are of no use to anybody.
        if let Ok(Some(list)) = List::read(&path) {
            listed.extend(list.segments.iter().map(|segment| segment.number));
        }
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let file = entry.file_name();
        if let Some((owner, number)) = file.to_str().and_then(parse_segment)
            && owner == name
            && !listed.contains(&number)
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// At the start of a process: removes what no list has. Returns a number that is above those of
/// all segments.
pub(super) fn tidy_up(folder: &Path) -> io::Result<u64> {
    let mut next = 0;
    let mut owners = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        if let Some((owner, number)) = parse_segment(file) {
            next = next.max(number + 1);
            owners.push(owner.to_owned());
        } else if !file.ends_with(".open") && !file.ends_with(".done") {
            fs::remove_file(&path)?;
        }
    }
    owners.sort();
    owners.dedup();
    owners.iter().try_for_each(|owner| sweep(folder, owner))?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_list_survives_and_a_damaged_one_is_noticed() {
        let list = List {
            entries: 3,
            bytes: 12,
            first: b"a".to_vec(),
            last: b"c".to_vec(),
            note: Bytes::from_static(b"note"),
            segments: vec![Segment { number: 7, length: 100, crc: 5 }],
        };
        let encoded = list.encode();
        assert_eq!(List::decode(&encoded), Some(list));
        for at in 0..encoded.len() {
            let mut damaged = encoded.clone();
            damaged[at] ^= 1;
            assert_eq!(List::decode(&damaged), None);
            assert_eq!(List::decode(&encoded[..at]), None);
        }
    }

    #[test]
    fn names_of_segments_are_taken_apart() {
        assert_eq!(parse_segment("r1-p2.17.seg"), Some(("r1-p2", 17)));
        assert_eq!(parse_segment("r1-p2.x.seg"), None);
        assert_eq!(parse_segment("r1-p2.17.link"), None);
    }
}
