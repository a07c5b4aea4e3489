//! How much work each region makes, from what stores report.
//!
//! Reports carry what was counted since the report before and come when enough has been counted, so
//! at any distance. A rate is a mean that forgets: after `dt` seconds in which `d` was counted,
//! `rate ← rate·w + (d/dt)·(1 − w)` with `w = e^(−dt/τ)` and τ = [`MEMORY`]; read later, it has
//! faded by the same factor. Work that goes on for τ reaches 63 % of its rate, a burst of a tenth
//! of that 10 %: what is planned from it follows the trend and not the burst.
//!
//! The first report of a leader gives no rate: nobody knows since when it counted. A change of
//! leader keeps the rates, as its work goes with the region.
//!
//! A store tells the processor time of its process, not of each region. Regions' shares are
//! estimated by their work ([`Load::work`]); what followers do is counted to the leader.
//!
//! Bounded by the number of regions: [`Loads::prune`] forgets those that are gone.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_consensus::time::Instant;
use quorate_proto::{RegionId, StoreId};

use super::report::Report;
use super::tree::{RegionInfo, RegionTree};

/// How long past work counts.
pub const MEMORY: Duration = Duration::from_secs(60);
/// Bytes written that make as much work as writing one more key.
pub const BYTES_PER_WRITE: f64 = 1024.0;
/// Keys read that make as much work as writing one: a read is not replicated, synced or applied.
pub const READS_PER_WRITE: f64 = 8.0;

/// Rates of a region's work.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Bytes written a second.
    pub written_bytes: f64,
    /// Keys written a second.
    pub written_keys: f64,
    /// Keys read a second.
    pub read_keys: f64,
}

impl Load {
    /// Writes a second: each key counts as one, and so does each [`BYTES_PER_WRITE`].
    pub fn writes(&self) -> f64 {
        self.written_keys + self.written_bytes / BYTES_PER_WRITE
    }

    /// Writes and reads as one number, in writes a second: the weight by which a store's processor
    /// time is divided among its regions.
    pub fn work(&self) -> f64 {
        self.writes() + self.read_keys / READS_PER_WRITE
    }

    fn faded(&self, by: f64) -> Load {
        Load {
            written_bytes: self.written_bytes * by,
            written_keys: self.written_keys * by,
            read_keys: self.read_keys * by,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Known {
    leader: StoreId,
    at: Instant,
    load: Load,
}

#[derive(Clone, Copy, Debug)]
struct Processor {
    incarnation: u64,
    at: Instant,
    used_us: u64,
    /// Cores in use.
    rate: f64,
}

/// The rates of all regions, and the processors of all stores. See the module.
#[derive(Debug, Default)]
pub struct Loads {
    regions: BTreeMap<RegionId, Known>,
    processors: BTreeMap<StoreId, Processor>,
}

/// What is kept of a rate after that time.
fn kept(elapsed: Duration) -> f64 {
    (-elapsed.as_secs_f64() / MEMORY.as_secs_f64()).exp()
}

impl Loads {
    /// Takes in a store's report.
    pub fn report(&mut self, report: &Report, now: Instant) {
        self.processor(report.store, report.incarnation, report.stats.cpu_us, now);
        for info in &report.regions {
            self.region(report.store, info, now);
        }
    }

    fn processor(&mut self, store: StoreId, incarnation: u64, used_us: u64, now: Instant) {
        let fresh = Processor { incarnation, at: now, used_us, rate: 0.0 };
        let known = self.processors.entry(store).or_insert(fresh);
        if known.incarnation != incarnation || used_us < known.used_us {
            *known = fresh;
            return;
        }
        let elapsed = now.since(known.at);
        // Pushed reports follow each other closely; a rate needs some time between.
        if elapsed < Duration::from_millis(100) {
            return;
        }
        let rate = (used_us - known.used_us) as f64 / 1e6 / elapsed.as_secs_f64();
        let keep = kept(elapsed);
        *known =
            Processor { at: now, used_us, rate: known.rate * keep + rate * (1.0 - keep), ..fresh };
    }

    fn region(&mut self, store: StoreId, info: &RegionInfo, now: Instant) {
        let fresh = Known { leader: store, at: now, load: Load::default() };
        let known = self.regions.entry(info.region.id).or_insert(fresh);
        let elapsed = now.since(known.at);
        if known.leader != store || elapsed.is_zero() {
            known.leader = store;
            known.at = now;
            return;
        }
        let keep = kept(elapsed);
        let seconds = elapsed.as_secs_f64();
        let mean = |rate: f64, counted: u64| rate * keep + counted as f64 / seconds * (1.0 - keep);
        known.load = Load {
            written_bytes: mean(known.load.written_bytes, info.stats.written_bytes),
            written_keys: mean(known.load.written_keys, info.stats.written_keys),
            read_keys: mean(known.load.read_keys, info.stats.read_keys),
        };
        known.at = now;
    }

    /// The rates of a region as of now; zero for one that is not known.
    pub fn of(&self, region: RegionId, now: Instant) -> Load {
        let known = self.regions.get(&region);
        known.map_or(Load::default(), |known| known.load.faded(kept(now.since(known.at))))
    }

    /// The rates of all known regions as of now, in order of their ids.
    pub fn iter(&self, now: Instant) -> impl Iterator<Item = (RegionId, Load)> + '_ {
        self.regions
            .iter()
            .map(move |(region, known)| (*region, known.load.faded(kept(now.since(known.at)))))
    }

    /// Cores that the process of a store keeps busy.
    pub fn cores(&self, store: StoreId) -> f64 {
        self.processors.get(&store).map_or(0.0, |processor| processor.rate)
    }

    /// Forgets regions that are not in the tree. Linear; costs nothing while there are none.
    pub fn prune(&mut self, tree: &RegionTree) {
        if self.regions.len() > tree.len() {
            self.regions.retain(|region, _| tree.get(*region).is_some());
        }
    }
}
