//! Lines of an import file: KEY TAB VALUE, both in the key syntax.

use std::io::{self, BufRead};

use bytes::Bytes;
use quorate_proto::key::{self, InvalidKey};
use quorate_proto::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use thiserror::Error;

/// Longest line in bytes: every byte of key and value may be written in four.
const MAX_LINE_BYTES: usize = 4 * (MAX_KEY_BYTES + MAX_VALUE_BYTES) + 1;

/// Why a line is none. The rest of the file is not affected.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum BadLine {
    /// There is no TAB.
    #[error("no TAB between key and value")]
    NoTab,
    /// Bytes that are no UTF-8.
    #[error("not UTF-8; write other bytes as \\xNN")]
    NotText,
    /// The key has a bad escape.
    #[error("key: {0}")]
    Key(InvalidKey),
    /// The value has a bad escape.
    #[error(
        "value: bad escape at byte {at}: write \\xNN (two hex digits), or \\\\ for a backslash"
    )]
    Value {
        /// Where in the value's text, in bytes.
        at: usize,
    },
    /// The key is empty.
    #[error("the key is empty")]
    EmptyKey,
    /// The key is over the limit.
    #[error("the key has {0} bytes, at most {MAX_KEY_BYTES} are allowed")]
    LongKey(usize),
    /// The value is over the limit.
    #[error("the value has {0} bytes, at most {MAX_VALUE_BYTES} are allowed")]
    LongValue(usize),
    /// More bytes than key and value can have.
    #[error("longer than any key and value, {MAX_LINE_BYTES} bytes")]
    LongLine,
}

/// Reads one line, without its end.
pub(crate) fn parse(line: &[u8]) -> Result<(Bytes, Bytes), BadLine> {
    let text = std::str::from_utf8(line).map_err(|_| BadLine::NotText)?;
    let (key, value) = text.split_once('\t').ok_or(BadLine::NoTab)?;
    let key = key::parse(key).map_err(BadLine::Key)?;
    let value = key::parse(value).map_err(|InvalidKey { at }| BadLine::Value { at })?;
    if key.is_empty() {
        return Err(BadLine::EmptyKey);
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(BadLine::LongKey(key.len()));
    }
    if value.len() > MAX_VALUE_BYTES {
        return Err(BadLine::LongValue(value.len()));
    }
    Ok((key.into(), value.into()))
}

/// One line of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Counted from 1.
    pub(super) number: u64,
    /// Bytes of the file up to and with this line.
    pub(super) position: u64,
    /// What it says.
    pub(super) pair: Result<(Bytes, Bytes), BadLine>,
}

/// The lines of a file, one after the other, each of bounded length.
pub(super) struct Lines<R> {
    source: R,
    number: u64,
    position: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// From the start of a file.
    pub(super) fn new(source: R) -> Self {
        Self { source, number: 0, position: 0, buffer: Vec::new() }
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read on.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        let Some(whole) = self.fill()? else { return Ok(None) };
        self.number += 1;
        let line = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let pair = if whole { parse(line) } else { Err(BadLine::LongLine) };
        Ok(Some(Line { number: self.number, position: self.position, pair }))
    }

    /// Takes a line into the buffer; false where it was too long to keep.
    fn fill(&mut self) -> io::Result<Option<bool>> {
        self.buffer.clear();
        let mut whole = true;
        loop {
            let available = match self.source.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() {
                return Ok((!self.buffer.is_empty() || !whole).then_some(whole));
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(available.len(), |end| end + 1);
            if self.buffer.len() + taken > MAX_LINE_BYTES + 2 {
                whole = false;
                self.buffer.clear();
            }
            if whole {
                self.buffer.extend_from_slice(&available[..taken]);
            }
            self.source.consume(taken);
            self.position += taken as u64;
            if end.is_some() {
                return Ok(Some(whole));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::BufReader;

    use super::*;

    fn all(text: &[u8]) -> Vec<Line> {
        // A tiny buffer, so that lines span several reads.
        let mut lines = Lines::new(BufReader::with_capacity(3, text));
        std::iter::from_fn(|| lines.next().unwrap()).collect()
    }

    #[test]
    fn keys_and_values_have_the_same_escapes() {
        assert_eq!(
            parse(b"a\\x00b\tone\\x09two\\\\ \xc3\xa9"),
            Ok((Bytes::from_static(b"a\0b"), Bytes::from_static(b"one\ttwo\\ \xc3\xa9")))
        );
        assert_eq!(parse(b"k\ta\tb"), Ok((Bytes::from("k"), Bytes::from("a\tb"))));
        assert_eq!(parse(b"k\t"), Ok((Bytes::from("k"), Bytes::new())));
    }

    #[test]
    fn every_kind_of_bad_line_says_what_is_wrong() {
        assert_eq!(parse(b"no tab"), Err(BadLine::NoTab));
        assert_eq!(parse(b"\tvalue"), Err(BadLine::EmptyKey));
        assert_eq!(parse(b"\xff\tvalue"), Err(BadLine::NotText));
        assert_eq!(parse(b"a\\q\tvalue"), Err(BadLine::Key(InvalidKey { at: 1 })));
        assert_eq!(parse(b"a\tb\\x0"), Err(BadLine::Value { at: 1 }));
        let long = [vec![b'k'; MAX_KEY_BYTES + 1], b"\tv".to_vec()].concat();
        assert_eq!(parse(&long), Err(BadLine::LongKey(MAX_KEY_BYTES + 1)));
        let long = [b"k\t".to_vec(), vec![b'v'; MAX_VALUE_BYTES + 1]].concat();
        assert_eq!(parse(&long), Err(BadLine::LongValue(MAX_VALUE_BYTES + 1)));
    }

    #[test]
    fn lines_are_numbered_and_bad_ones_do_not_stop_the_rest() {
        let lines = all(b"a\t1\r\nbad\nb\t2");
        let numbers: Vec<(u64, u64)> =
            lines.iter().map(|line| (line.number, line.position)).collect();
        assert_eq!(numbers, [(1, 5), (2, 9), (3, 12)]);
        assert_eq!(lines[0].pair, Ok((Bytes::from("a"), Bytes::from("1"))));
        assert_eq!(lines[1].pair, Err(BadLine::NoTab));
        assert_eq!(lines[2].pair, Ok((Bytes::from("b"), Bytes::from("2"))));
        assert_eq!(all(b""), []);
    }

    #[test]
    fn a_line_longer_than_anything_is_skipped_without_being_kept() {
        let text = [b"k\t".to_vec(), vec![b'x'; 5 << 20], b"\na\t1\n".to_vec()].concat();
        let mut lines = Lines::new(BufReader::new(text.as_slice()));
        assert_eq!(lines.next().unwrap().unwrap().pair, Err(BadLine::LongLine));
        assert!(lines.buffer.capacity() <= 2 * (MAX_LINE_BYTES + 2));
        assert_eq!(lines.next().unwrap().unwrap().number, 2);
        assert_eq!(lines.next().unwrap(), None);
    }
}
