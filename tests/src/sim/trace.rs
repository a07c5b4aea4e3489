//! A hash of everything that happened, and the words of it where somebody wants to read them.

use std::fmt;

/// FNV-1a over the words of every event.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    lines: u64,
    print: bool,
}

impl Trace {
    pub(crate) fn new(print: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: 0, print }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// Adds one event.
    pub(crate) fn note(&mut self, now: u64, words: fmt::Arguments<'_>) {
        self.lines += 1;
        self.add(&now.to_le_bytes());
        // Formatting into the hash costs no memory.
        let _ = fmt::write(self, words);
        if self.print {
            println!("{:>10.3} ms  {words}", now as f64 / 1e6);
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

impl fmt::Write for Trace {
    fn write_str(&mut self, words: &str) -> fmt::Result {
        self.add(words.as_bytes());
        Ok(())
    }
}

/// FNV-1a of some bytes, each part with its length.
pub(crate) fn fnv(parts: &[&[u8]]) -> u64 {
    let mut trace = Trace::new(false);
    for part in parts {
        trace.add(&(part.len() as u64).to_le_bytes());
        trace.add(part);
    }
    trace.hash
}
