//! What the load wrote, and what the cluster may answer: a plain value.
//!
//! Each key has one writer, which writes 1, 2, 3… and waits for every answer. So a read must never
//! find less than what was acknowledged, or seen by another read, before it was sent; nor more
//! than was ever written. A write that nobody can say whether it was applied may be applied later:
//! its key is written no more, and what was asked of it still holds.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;

/// One key and its story.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    key: Bytes,
    attempted: u64,
    acknowledged: u64,
    seen: u64,
    /// Certainly not applied.
    refused: BTreeSet<u64>,
    writes: u64,
}

/// What must hold of a read that begins now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Floor(u64);

/// How an answer contradicts the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// Less than what was acknowledged or seen before.
    WentBack { key: String, found: u64, floor: u64 },
    /// A value that nobody wrote.
    NeverWritten { key: String, found: String },
    /// A write that was refused with the promise that nothing was applied.
    Refused { key: String, found: u64 },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WentBack { key, found, floor } => {
                write!(f, "{key} held {found} after {floor} was acknowledged")
            }
            Self::NeverWritten { key, found } => write!(f, "{key} held {found}, never written"),
            Self::Refused { key, found } => {
                write!(f, "{key} held {found}, a write that was refused")
            }
        }
    }
}

impl Slot {
    /// A key that was not written yet.
    pub(super) fn new(key: Bytes) -> Self {
        Self { key, attempted: 0, acknowledged: 0, seen: 0, refused: BTreeSet::new(), writes: 0 }
    }
    /// Its key.
    pub(super) fn key(&self) -> &Bytes {
        &self.key
    }
    /// Writes that were acknowledged.
    pub(super) fn writes(&self) -> u64 {
        self.writes
    }
    /// The next write: its number, and the value that says so.
    pub(super) fn begin_write(&mut self) -> (u64, Bytes) {
        self.attempted += 1;
        (self.attempted, value(self.attempted))
    }
    /// That write is durable.
    pub(super) fn acknowledge(&mut self, number: u64) {
        self.acknowledged = self.acknowledged.max(number);
        self.writes += 1;
    }
    /// That write was certainly not applied, and never will be.
    pub(super) fn refuse(&mut self, number: u64) {
        self.refused.insert(number);
    }
    /// What a read that begins now must find at least.
    pub(super) fn floor(&self) -> Floor {
        Floor(self.acknowledged.max(self.seen))
    }
    /// Judges what a read found that had begun at `floor`.
    pub(super) fn judge(&mut self, floor: Floor, found: Option<&[u8]>) -> Result<(), Violation> {
        let key = || quorate_proto::key::display(&self.key);
        let number = match found {
            None => 0,
            Some(bytes) => {
                read(bytes).filter(|number| *number <= self.attempted).ok_or_else(|| {
                    Violation::NeverWritten {
                        key: key(),
                        found: quorate_proto::key::display(&bytes[..bytes.len().min(40)]),
                    }
                })?
            }
        };
        if self.refused.contains(&number) {
            return Err(Violation::Refused { key: key(), found: number });
        }
        if number < floor.0 {
            return Err(Violation::WentBack { key: key(), found: number, floor: floor.0 });
        }
        self.seen = self.seen.max(number);
        Ok(())
    }
    /// Acknowledged writes that are gone, where the key holds `found` in the end.
    pub(super) fn lost(&self, found: Option<&[u8]>) -> u64 {
        let number = found.and_then(read).unwrap_or(0);
        if number >= self.acknowledged {
            return 0;
        }
        let never_there = self.refused.range(number + 1..=self.acknowledged).count() as u64;
        self.acknowledged - number - never_there
    }
}

/// Bytes of a value: as large as a small record.
const VALUE_BYTES: usize = 128;
/// Digits of the number in it.
const DIGITS: usize = 20;

fn value(number: u64) -> Bytes {
    let mut text = format!("{number:0DIGITS$} ");
    while text.len() < VALUE_BYTES {
        text.push('.');
    }
    text.into()
}

fn read(bytes: &[u8]) -> Option<u64> {
    let number = std::str::from_utf8(bytes.get(..DIGITS)?).ok()?.parse().ok()?;
    (value(number) == bytes).then_some(number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn written(numbers: u64) -> Slot {
        let mut slot = Slot::new(Bytes::from("k"));
        for _ in 0..numbers {
            let (number, _) = slot.begin_write();
            slot.acknowledge(number);
        }
        slot
    }

    #[test]
    fn a_read_never_goes_behind_what_was_acknowledged_before_it_began() {
        let mut slot = written(3);
        let floor = slot.floor();
        assert_eq!(slot.judge(floor, Some(&value(3))), Ok(()));
        let words = slot.judge(floor, Some(&value(2))).unwrap_err().to_string();
        assert_eq!(words, "k held 2 after 3 was acknowledged");
        assert!(slot.judge(floor, None).is_err());
        // One that is under way may be found or not; once it was found it stays.
        let (_, fourth) = slot.begin_write();
        assert_eq!(slot.judge(floor, Some(&value(3))), Ok(()));
        assert_eq!(slot.judge(floor, Some(&fourth)), Ok(()));
        let later = slot.floor();
        assert!(slot.judge(later, Some(&value(3))).is_err());
    }

    #[test]
    fn what_nobody_wrote_is_never_found() {
        let mut slot = written(1);
        let floor = slot.floor();
        assert!(slot.judge(floor, Some(&value(2))).is_err());
        assert!(slot.judge(floor, Some(b"1")).is_err());
        let (number, bytes) = slot.begin_write();
        slot.refuse(number);
        assert_eq!(
            slot.judge(floor, Some(&bytes)),
            Err(Violation::Refused { key: "k".to_owned(), found: 2 })
        );
    }

    #[test]
    fn what_is_gone_in_the_end_is_counted() {
        let mut slot = written(5);
        assert_eq!((slot.lost(Some(&value(5))), slot.lost(Some(&value(3)))), (0, 2));
        assert_eq!(slot.lost(None), 5);
        let (refused, _) = slot.begin_write();
        slot.refuse(refused);
        let (number, _) = slot.begin_write();
        slot.acknowledge(number);
        assert_eq!(slot.lost(Some(&value(5))), 1, "the sixth was never there");
        assert_eq!((slot.writes(), slot.lost(Some(&value(7)))), (6, 0));
    }
}
