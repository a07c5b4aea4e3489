//! Where to cut a region: read it once, remember some of its keys, cut into equal parts.

use std::ops::ControlFlow;

use bytes::Bytes;
use quorate_consensus::engine::{Cf, Direction, EngineError, Reader};
use quorate_proto::Region;

use super::SplitOptions;

/// Most parts that one split makes.
pub const MAX_PARTS: u64 = 64;
/// Most of a region that is read for one plan, as a multiple of the bound. What lies beyond stays
/// in the last part and has its turn later.
const READ_BOUND: u64 = 16;
/// Keys remembered while reading. More of them, and every second is forgotten: with at least half
/// as many over the whole region, parts are equal to within half a percent.
const MARKS: usize = 1024;

/// What a region holds and where to cut it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SplitPlan {
    /// Bytes of keys and stored values that were read.
    pub bytes: u64,
    /// Keys that were read.
    pub keys: u64,
    /// Where to cut, ascending, each strictly inside the region; empty: nowhere.
    pub split_keys: Vec<Bytes>,
    /// False where the region has more than was read.
    pub complete: bool,
}

/// A key, and what lies before it.
struct Mark {
    key: Bytes,
    bytes: u64,
    keys: u64,
}

/// Measures a region; where it is over a bound of `options`, cuts it into equal parts of at most
/// two thirds of that bound, so that none of them has to be split again soon.
///
/// # Errors
/// The engine.
pub fn plan_split(
    reader: &dyn Reader,
    region: &Region,
    options: &SplitOptions,
) -> Result<SplitPlan, EngineError> {
    let bound = |limit: u64| limit.saturating_mul(READ_BOUND);
    let (mut plan, marks) =
        read(reader, region, bound(options.max_bytes), bound(options.max_keys))?;
    let parts = |size: u64, limit: u64| match size > limit {
        true => size.div_ceil((limit * 2 / 3).max(1)).clamp(2, MAX_PARTS),
        false => 1,
    };
    let by_bytes = parts(plan.bytes, options.max_bytes);
    let by_keys = parts(plan.keys, options.max_keys);
    plan.split_keys = match by_bytes >= by_keys {
        true => cut(region, &marks, by_bytes, plan.bytes, |mark| mark.bytes),
        false => cut(region, &marks, by_keys, plan.keys, |mark| mark.keys),
    };
    Ok(plan)
}

/// Cuts a region in two halves by size; no key where it has fewer than two.
///
/// # Errors
/// The engine.
pub fn plan_half(reader: &dyn Reader, region: &Region) -> Result<SplitPlan, EngineError> {
    let (mut plan, marks) = read(reader, region, u64::MAX, u64::MAX)?;
    plan.split_keys = cut(region, &marks, 2, plan.bytes, |mark| mark.bytes);
    if plan.split_keys.is_empty() {
        // All weight is in the last key: cut in front of it.
        let last = marks.into_iter().rev().map(|mark| mark.key);
        plan.split_keys = last.filter(|key| region.range.can_split_at(key)).take(1).collect();
    }
    Ok(plan)
}

/// Reads a region up to the bounds.
fn read(
    reader: &dyn Reader,
    region: &Region,
    max_bytes: u64,
    max_keys: u64,
) -> Result<(SplitPlan, Vec<Mark>), EngineError> {
    let mut plan = SplitPlan { complete: true, ..SplitPlan::default() };
    let mut marks: Vec<Mark> = Vec::with_capacity(MARKS);
    // Remember a key once this many bytes lie behind the last remembered one.
    let mut step = 0;
    let range = &region.range;
    reader.scan(Cf::Data, &range.start, &range.end, Direction::Forward, &mut |key, value| {
        if plan.bytes >= max_bytes || plan.keys >= max_keys {
            plan.complete = false;
            return ControlFlow::Break(());
        }
        if marks.last().is_none_or(|last| plan.bytes - last.bytes >= step) {
            if marks.len() == MARKS {
                let mut odd = true;
                marks.retain(|_| {
                    odd = !odd;
                    !odd
                });
                step = (plan.bytes / MARKS as u64 * 2).max(1);
            }
            let key = Bytes::copy_from_slice(key);
            marks.push(Mark { key, bytes: plan.bytes, keys: plan.keys });
        }
        plan.bytes += (key.len() + value.len()) as u64;
        plan.keys += 1;
        ControlFlow::Continue(())
    })?;
    Ok((plan, marks))
}

/// Keys that cut `total` into equal parts.
fn cut(
    region: &Region,
    marks: &[Mark],
    parts: u64,
    total: u64,
    before: impl Fn(&Mark) -> u64,
) -> Vec<Bytes> {
    let mut keys: Vec<Bytes> = Vec::new();
    for part in 1..parts {
        let target = u128::from(total) * u128::from(part) / u128::from(parts);
        let at = marks.partition_point(|mark| u128::from(before(mark)) < target);
        let Some(mark) = marks.get(at) else { break };
        let above = keys.last().is_none_or(|last| *last < mark.key);
        if above && region.range.can_split_at(&mark.key) {
            keys.push(mark.key.clone());
        }
    }
    keys
}
