//! Reads that do not go through the log.
//!
//! A read is admitted, looks into the engine, and is confirmed; only then may its answer leave.
//! One code for network threads and the simulator:
//!
//! 1. [`ReadPath::admit`] checks the request against the directory and takes the leader's lease
//!    ([`ReadAdmission::Lease`]). Without a valid lease, or for a read from any replica, the log
//!    must say up to where to read ([`ReadAdmission::NeedsIndex`]): send `Event::Read`, wait for
//!    `Reply::ReadAt`, go on with [`ReadPath::admit_at_index`].
//! 2. [`ReadPath::get`] and the others read. What they return is not an answer yet.
//! 3. [`ReadPath::confirm`], with a fresh clock: the lease still holds, and the region is still the
//!    same. Between 1 and 3 the process may have been paused, leadership lost, the region split,
//!    replaced by a snapshot or removed; then what was read is worth nothing.
//!
//! A stale read ([`ReadPath::admit_stale`]) asks nobody: the replica knows up to when it has
//! everything, and how old that is by now.
//!
//! A scan must begin inside the region and ends with it; the client goes on in the next one. Fewer
//! rows than asked for mean to clients that the region has no more, so an answer that would be too
//! large for them to decode is refused ([`RegionError::AnswerTooLarge`]), never cut.

mod collect;
mod scan;
mod stale;

use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::engine::{Cf, Engine, EngineError};
use quorate_consensus::time::Instant;
use quorate_consensus::view::Lease;
use quorate_proto::RegionId;
use quorate_proto::limits::MAX_BATCH_ITEMS;
use quorate_proto::wire::kvrpcpb::{Context, KvPair};
use thiserror::Error;

use self::collect::Collector;
pub use self::scan::Scan;
pub use self::stale::StaleClock;
use super::directory::{Admitted, Directory};
use super::error::RegionError;
use super::keys;

/// What reads need of a store. Cheap to clone.
#[derive(Clone)]
pub struct ReadPath {
    directory: Arc<Directory>,
    engine: Arc<dyn Engine>,
}

/// How much a read may take upon itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// In a thread that others wait for: `EngineError::Incomplete` rather than a wait for the disk,
    /// or a long pass over what is deleted.
    Brief,
    /// As long as it takes.
    Whole,
}

/// How a read may go on.
#[derive(Debug)]
pub enum ReadAdmission {
    /// Read now.
    Lease(Pass),
    /// Ask the group first.
    NeedsIndex(RegionId),
}

/// A read that may look into the engine.
#[derive(Debug)]
pub struct Pass {
    admitted: Admitted,
    grant: Grant,
}

/// What makes the engine current enough.
#[derive(Debug, Clone, Copy)]
enum Grant {
    /// The leader's lease, if it holds afterwards.
    Lease(Lease),
    /// An index that was applied before.
    Index,
    /// The replica is fresh enough until then, by the local clock.
    Fresh(Instant),
}

/// Why a read failed.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The region refuses it: an answer for the client.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The engine. Where it is fatal, stop the process.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Why what was read must not be answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Unconfirmed {
    /// The lease is gone: ask the group, then read again.
    NeedsIndex(RegionId),
    /// The region is another one: an answer for the client.
    Region(RegionError),
}

impl Pass {
    /// The region that is read.
    pub fn region(&self) -> RegionId {
        self.admitted.region.id
    }
    /// True where the lease lapses soon: send `Event::RenewLease`. One reader is told.
    pub fn renew(&self) -> bool {
        match self.grant {
            Grant::Lease(lease) => lease.renew,
            Grant::Index | Grant::Fresh(_) => false,
        }
    }
}

impl ReadPath {
    /// The reads of a store.
    pub fn new(directory: Arc<Directory>, engine: Arc<dyn Engine>) -> Self {
        Self { directory, engine }
    }

    /// Admits a read at `now`. Where a `stale_read` finds no lease here, which would be fresher
    /// than asked for, go on with [`ReadPath::admit_stale`].
    ///
    /// # Errors
    /// What the client must look up again.
    pub fn admit(&self, context: &Context, now: Instant) -> Result<ReadAdmission, RegionError> {
        let admitted = self.directory.admit(context)?;
        if let Some(lease) = admitted.local.view().lease(now) {
            return Ok(ReadAdmission::Lease(Pass { admitted, grant: Grant::Lease(lease) }));
        }
        if !(context.replica_read || context.stale_read) {
            admitted.check_leader()?;
        }
        Ok(ReadAdmission::NeedsIndex(admitted.region.id))
    }

    /// Admits a read whose group has said that this replica has applied enough. It counts from
    /// then on, whoever leads now.
    ///
    /// # Errors
    /// What the client must look up again.
    pub fn admit_at_index(&self, context: &Context) -> Result<Pass, RegionError> {
        Ok(Pass { admitted: self.directory.admit(context)?, grant: Grant::Index })
    }

    /// Whether what was read under `pass` may be answered at `now`, a clock read since.
    ///
    /// # Errors
    /// What to do instead.
    pub fn confirm(&self, pass: &Pass, now: Instant) -> Result<(), Unconfirmed> {
        let holds = match pass.grant {
            Grant::Lease(lease) => pass.admitted.local.view().still_holds(lease, now),
            Grant::Index => true,
            Grant::Fresh(until) => now <= until,
        };
        if !pass.admitted.unchanged() {
            return Err(Unconfirmed::Region(self.changed(&pass.admitted)));
        }
        if let (Grant::Fresh(_), false) = (pass.grant, holds) {
            return Err(Unconfirmed::Region(stale::too_old(&pass.admitted, 0)));
        }
        if holds { Ok(()) } else { Err(Unconfirmed::NeedsIndex(pass.region())) }
    }

    fn changed(&self, admitted: &Admitted) -> RegionError {
        let id = admitted.region.id;
        let Some(local) = self.directory.get(id) else { return RegionError::RegionNotFound(id) };
        match (local.region(), local.merging()) {
            (Some(now), _) => self.directory.epoch_not_match(&now, admitted.region.epoch.version),
            (None, Some(_)) => RegionError::Merging(id),
            (None, None) => RegionError::NotInitialized(id),
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// The key lies outside of the region, or the engine.
    pub fn get(&self, pass: &Pass, key: &[u8], effort: Effort) -> Result<Option<Bytes>, ReadError> {
        pass.admitted.check_key(key)?;
        let stored = match effort {
            Effort::Brief => self.engine.get_briefly(Cf::Data, key)?,
            Effort::Whole => self.engine.get(Cf::Data, key)?,
        };
        pass.admitted.local.stats().record_read(1);
        Ok(stored.map(keys::user_value).transpose()?)
    }

    /// The pairs of those keys that have a value, in the order asked for, all of one moment.
    ///
    /// # Errors
    /// A key lies outside of the region, too many keys or too large an answer, or the engine.
    pub fn batch_get(
        &self,
        pass: &Pass,
        keys: &[Bytes],
        effort: Effort,
    ) -> Result<Vec<KvPair>, ReadError> {
        let region = pass.region();
        if keys.len() > MAX_BATCH_ITEMS {
            let (items, limit) = (keys.len(), MAX_BATCH_ITEMS);
            return Err(RegionError::TooManyItems { region, items, limit }.into());
        }
        pass.admitted.check_keys(keys.iter().map(Bytes::as_ref))?;
        let wanted: Vec<&[u8]> = keys.iter().map(Bytes::as_ref).collect();
        let found = match effort {
            Effort::Brief => self.engine.multi_get_briefly(Cf::Data, &wanted)?,
            Effort::Whole => self.engine.multi_get(Cf::Data, &wanted)?,
        };
        pass.admitted.local.stats().record_read(keys.len() as u64);
        let mut size = collect::Size::new(region);
        let mut pairs = Vec::with_capacity(found.len());
        for (key, stored) in keys.iter().zip(found) {
            let Some(stored) = stored else { continue };
            let value = keys::user_value(stored)?;
            size.add(key.len() + value.len())?;
            pairs.push(KvPair { error: None, key: key.clone(), value });
        }
        Ok(pairs)
    }

    /// The pairs of a range, up to its limit, in its direction, all of one moment.
    ///
    /// # Errors
    /// The scan does not begin inside the region, too high a limit or too large an answer, or the
    /// engine.
    pub fn scan(&self, pass: &Pass, scan: &Scan, effort: Effort) -> Result<Vec<KvPair>, ReadError> {
        let mut collector = Collector::new(pass.region());
        scan.run(self.engine.as_ref(), &pass.admitted, &mut collector, effort)?;
        self.collected(pass, collector)
    }

    /// The pairs of several ranges, one behind the other, each up to its limit, all of one moment.
    ///
    /// # Errors
    /// As [`ReadPath::scan`], or too many ranges.
    pub fn batch_scan(
        &self,
        pass: &Pass,
        scans: &[Scan],
        effort: Effort,
    ) -> Result<Vec<KvPair>, ReadError> {
        let region = pass.region();
        if scans.len() > MAX_BATCH_ITEMS {
            let (items, limit) = (scans.len(), MAX_BATCH_ITEMS);
            return Err(RegionError::TooManyItems { region, items, limit }.into());
        }
        let snapshot = self.engine.snapshot();
        let mut collector = Collector::new(region);
        for scan in scans {
            scan.run(snapshot.as_ref(), &pass.admitted, &mut collector, effort)?;
        }
        self.collected(pass, collector)
    }

    fn collected(&self, pass: &Pass, collector: Collector) -> Result<Vec<KvPair>, ReadError> {
        let pairs = collector.finish();
        pass.admitted.local.stats().record_read(pairs.len() as u64);
        Ok(pairs)
    }
}
