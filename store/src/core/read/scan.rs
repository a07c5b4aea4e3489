//! One scan, clipped to its region.

use std::ops::ControlFlow;

use bytes::Bytes;
use quorate_consensus::engine::{Cf, Direction, Reader};
use quorate_proto::limits::MAX_SCAN_LIMIT;
use quorate_proto::wire::kvrpcpb::{KeyRange, RawBatchScanRequest, RawScanRequest};

use super::collect::Collector;
use super::{Admitted, Effort, ReadError};
use crate::core::error::RegionError;
use crate::core::keys;

/// What to scan, as TiKV's clients say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Forward: the first key. Reverse: the first key beyond, empty for no bound.
    pub start: Bytes,
    /// Forward: the first key beyond, empty for no bound. Reverse: the last key.
    pub end: Bytes,
    /// Most pairs.
    pub limit: u32,
    /// Leave the values out.
    pub key_only: bool,
    /// From high keys to low ones.
    pub reverse: bool,
}

impl From<&RawScanRequest> for Scan {
    fn from(request: &RawScanRequest) -> Self {
        Self {
            start: request.start_key.clone(),
            end: request.end_key.clone(),
            limit: request.limit,
            key_only: request.key_only,
            reverse: request.reverse,
        }
    }
}

impl Scan {
    /// The scans of a batch. A range without an end goes up to where the next one starts, as in
    /// TiKV.
    pub fn batch(request: &RawBatchScanRequest) -> Vec<Self> {
        let ranges = &request.ranges;
        let scan = |(at, range): (usize, &KeyRange)| {
            let (start, mut end) = (&range.start_key, range.end_key.clone());
            if let Some(next) = ranges.get(at + 1).filter(|_| end.is_empty()) {
                // One that starts the other way is no end: rather too many rows than too few.
                let ahead = match request.reverse {
                    true => start.is_empty() || next.start_key < *start,
                    false => next.start_key > *start,
                };
                if ahead {
                    end = next.start_key.clone();
                }
            }
            Self {
                start: start.clone(),
                end,
                limit: request.each_limit,
                key_only: request.key_only,
                reverse: request.reverse,
            }
        };
        ranges.iter().enumerate().map(scan).collect()
    }

    /// Reads the part of the range that the region has.
    pub(super) fn run(
        &self,
        reader: &dyn Reader,
        admitted: &Admitted,
        collector: &mut Collector,
        effort: Effort,
    ) -> Result<(), ReadError> {
        let region = &admitted.region;
        if self.limit > MAX_SCAN_LIMIT {
            let (items, limit) = (self.limit as usize, MAX_SCAN_LIMIT as usize);
            return Err(RegionError::TooManyItems { region: region.id, items, limit }.into());
        }
        let (low, high, direction) = self.clip(admitted)?;
        if self.limit == 0 || (!high.is_empty() && low >= high) {
            return Ok(());
        }
        let mut left = self.limit;
        let mut failed: Option<ReadError> = None;
        let mut visit = |key: &[u8], stored: &[u8]| {
            if let Err(error) = self.row(key, stored, collector) {
                failed = Some(error);
                return ControlFlow::Break(());
            }
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        match effort {
            Effort::Brief => reader.scan_briefly(Cf::Data, low, high, direction, &mut visit)?,
            Effort::Whole => reader.scan(Cf::Data, low, high, direction, &mut visit)?,
        }
        failed.map_or(Ok(()), Err)
    }

    fn row(&self, key: &[u8], stored: &[u8], collector: &mut Collector) -> Result<(), ReadError> {
        let length = if self.key_only { 0 } else { keys::user_len(stored)? };
        Ok(collector.add(key, &stored[..length])?)
    }

    /// Lower bound, upper bound and direction inside the region. The end where the scan begins
    /// must be in the region, or rows would be left out without anybody noticing.
    fn clip<'a>(&'a self, admitted: &'a Admitted) -> Result<Clipped<'a>, RegionError> {
        let range = &admitted.region.range;
        let (start, end): (&[u8], &[u8]) = (&self.start, &self.end);
        if !self.reverse {
            admitted.check_key(start)?;
            return Ok((start, lower_end(end, &range.end), Direction::Forward));
        }
        // The bound itself is not read, so it may be the region's end.
        let inside = match start.is_empty() {
            true => range.end.is_empty(),
            false => start > range.start.as_ref() && lower_end(start, &range.end) == start,
        };
        if !inside {
            return Err(admitted.outside(start));
        }
        Ok((end.max(&range.start), start, Direction::Reverse))
    }
}

/// Lower bound, upper bound, direction.
type Clipped<'a> = (&'a [u8], &'a [u8], Direction);

/// The lower of two ends, where empty means no bound.
fn lower_end<'a>(left: &'a [u8], right: &'a [u8]) -> &'a [u8] {
    match (left.is_empty(), right.is_empty()) {
        (true, _) => right,
        (false, true) => left,
        (false, false) => left.min(right),
    }
}
