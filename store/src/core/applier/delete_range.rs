//! Deleting a range of keys: one by one where they are few, else with a range tombstone, which
//! every later read of the range has to pass.
//!
//! Which of the two is chosen depends on what the engine holds at the moment, and may differ
//! between replicas: what remains is the same.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::engine::{Cf, Direction, Engine, EngineError, Op};
use quorate_proto::wire::command::DeleteRange;
use quorate_proto::{KeyRange, Region};

use super::Work;
use crate::core::directory::{Written, check_range};
use crate::core::error::RegionError;
use crate::core::keys;

/// Up to this many keys are deleted one by one.
const POINT_DELETES: usize = 1024;

impl<T> Work<T> {
    pub(super) fn delete_range(
        &mut self,
        region: &Arc<Region>,
        engine: &dyn Engine,
        range: DeleteRange,
        written: &mut Written,
    ) -> Result<Result<(), RegionError>, EngineError> {
        let end = if range.end.is_empty() { region.range.end.clone() } else { range.end };
        if let Err(refused) = check_range(region, &range.start, &end) {
            return Ok(Err(refused));
        }
        let range = KeyRange::new(range.start, end);
        match self.few_keys(engine, &range)? {
            Some(few) => {
                written.deletes += few.len() as u64;
                for key in few {
                    self.batch.delete(Cf::Data, key);
                }
            }
            None => {
                written.deletes += POINT_DELETES as u64;
                written.swept = true;
                keys::delete_data(&mut self.batch, &range);
            }
        }
        Ok(Ok(()))
    }

    /// The keys of a range, in the engine or on their way into it, where they are few.
    fn few_keys(
        &self,
        engine: &dyn Engine,
        range: &KeyRange,
    ) -> Result<Option<Vec<Bytes>>, EngineError> {
        let mut found = Vec::new();
        for op in self.batch.ops() {
            match op {
                Op::Put { cf: Cf::Data, key, .. } if range.contains(key) => found.push(key.clone()),
                Op::Put { .. } | Op::Delete { .. } | Op::DeleteRange { .. } => {}
            }
        }
        engine.scan(Cf::Data, &range.start, &range.end, Direction::Forward, &mut |key, _| {
            found.push(Bytes::copy_from_slice(key));
            if found.len() > POINT_DELETES {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok((found.len() <= POINT_DELETES).then_some(found))
    }
}
