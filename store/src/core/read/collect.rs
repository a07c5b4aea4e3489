//! The rows of an answer, gathered in one piece of memory and bounded by what clients decode.

use bytes::Bytes;
use quorate_proto::RegionId;
use quorate_proto::limits::MAX_ANSWER_BYTES;
use quorate_proto::wire::kvrpcpb::KvPair;

use crate::core::error::RegionError;

/// Bytes that a pair takes on the wire beside its key and value, at most: two tags and lengths of
/// up to four bytes each, and those of the pair itself.
const PAIR_OVERHEAD: usize = 15;

/// How large an answer has become.
pub(super) struct Size {
    region: RegionId,
    bytes: usize,
}

impl Size {
    pub(super) fn new(region: RegionId) -> Self {
        Self { region, bytes: 0 }
    }
    /// Counts a pair.
    pub(super) fn add(&mut self, bytes: usize) -> Result<(), RegionError> {
        self.bytes += bytes + PAIR_OVERHEAD;
        if self.bytes <= MAX_ANSWER_BYTES {
            return Ok(());
        }
        Err(RegionError::AnswerTooLarge { region: self.region, limit: MAX_ANSWER_BYTES })
    }
}

/// Pairs in the order in which they were found.
pub(super) struct Collector {
    size: Size,
    bytes: Vec<u8>,
    /// Where in `bytes` each key and each value ends.
    ends: Vec<(usize, usize)>,
}

impl Collector {
    pub(super) fn new(region: RegionId) -> Self {
        Self { size: Size::new(region), bytes: Vec::new(), ends: Vec::new() }
    }
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), RegionError> {
        self.size.add(key.len() + value.len())?;
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ends.push((key_end, self.bytes.len()));
        Ok(())
    }
    /// The pairs; all share one allocation.
    pub(super) fn finish(self) -> Vec<KvPair> {
        let bytes = Bytes::from(self.bytes);
        let mut start = 0;
        let pair = |(key_end, end): (usize, usize)| {
            let (key, value) = (bytes.slice(start..key_end), bytes.slice(key_end..end));
            start = end;
            KvPair { error: None, key, value }
        };
        self.ends.into_iter().map(pair).collect()
    }
}
