//! What a store reports, parsed once.

use std::time::Duration;

use quorate_proto::wire::placement as wire;
use quorate_proto::{Epoch, InvalidRegion, LogIndex, PeerId, Region, RegionId, StoreId, Term};
use thiserror::Error;

use super::command::leader_from_wire;
use super::tree::{Merging, PeerProgress, RegionInfo, RegionStats};

/// Most regions one report may carry; a store with more sends several.
pub const MAX_REPORTED_REGIONS: usize = 50_000;

/// Most stores that a report names as not heard; the rest is left out.
pub const MAX_UNHEARD: usize = 64;

/// A store's own numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes of its disk.
    pub capacity_bytes: u64,
    /// Bytes of its disk that are free.
    pub available_bytes: u64,
    /// Bytes its data takes.
    pub used_bytes: u64,
    /// Regions it has a peer of.
    pub regions: u32,
    /// Regions it leads.
    pub leaders: u32,
    /// Operations it has served since it started.
    pub operations: u64,
    /// True while it stops: it gives its leaders away.
    pub stopping: bool,
    /// Processor time since its process started, in microseconds.
    pub cpu_us: u64,
    /// Snapshots on their way from it.
    pub snapshots_sending: u32,
    /// Snapshots on their way to it.
    pub snapshots_receiving: u32,
    /// Logs it truncated since its process started.
    pub log_truncations: u64,
    /// Entries in them.
    pub log_truncated_entries: u64,
    /// Bytes beyond which it splits a region that it leads; 0 where it does not say.
    pub split_bytes: u64,
    /// Keys beyond which it does.
    pub split_keys: u64,
    /// The newest form of commands that it applies; 0: older than 4.
    pub known_version: u32,
}

/// An order that a store refused, or that failed there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRefusal {
    /// Of which operator.
    pub operator: u64,
    /// Of which region.
    pub region: RegionId,
    /// The rule that stands in the way, in words.
    pub reason: String,
}

/// A replica that a store has and another one leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostedReplica {
    /// Of which region.
    pub region: RegionId,
    /// Which one.
    pub peer: PeerId,
    /// Of the region's epoch as the replica knows it.
    pub conf_ver: u64,
}

/// A store's report.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Who reports.
    pub store: StoreId,
    /// Which of its starts.
    pub incarnation: u64,
    /// Its numbers.
    pub stats: StoreStats,
    /// Regions that it leads and that changed.
    pub regions: Vec<RegionInfo>,
    /// True where these are all it leads.
    pub full: bool,
    /// Echoed in the answer.
    pub sequence: u64,
    /// Orders it could not follow since its last report.
    pub refusals: Vec<OrderRefusal>,
    /// Regions that it was told are not known here, and of which it hears no leader.
    pub unled: Vec<RegionInfo>,
    /// Some of its replicas that others lead, in turn.
    pub hosted: Vec<HostedReplica>,
    /// Stores that share a region with it and that it does not hear.
    pub unheard: Vec<StoreId>,
}

/// Why a report was refused. Its stream ends.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BadReport {
    /// No store.
    #[error("a report names no store: join first")]
    NoStore,
    /// Too long.
    #[error("a report carries {0} regions; send at most {MAX_REPORTED_REGIONS} in one")]
    TooManyRegions(usize),
    /// A region without its description.
    #[error("a reported region has no description")]
    NoRegion,
    /// A bad description.
    #[error(transparent)]
    Region(#[from] InvalidRegion),
    /// One that is stopped for nobody, or at no epoch.
    #[error("{0} is reported as stopped for a merge without the target's id and epoch")]
    Merging(RegionId),
    /// A store reports only what it leads.
    #[error("{0} is reported by a store that does not lead it")]
    NotLed(RegionId),
    /// A store tells only of regions that it has a replica of.
    #[error("{0} is told of by a store that is not in its peer list")]
    NotHosted(RegionId),
}

impl TryFrom<wire::StoreReport> for Report {
    type Error = BadReport;

    fn try_from(wire: wire::StoreReport) -> Result<Self, BadReport> {
        if wire.store_id == 0 {
            return Err(BadReport::NoStore);
        }
        let told = wire.regions.len() + wire.unled.len() + wire.hosted.len();
        if told > MAX_REPORTED_REGIONS {
            return Err(BadReport::TooManyRegions(told));
        }
        let store = StoreId(wire.store_id);
        let stats = StoreStats {
            capacity_bytes: wire.capacity_bytes,
            available_bytes: wire.available_bytes,
            used_bytes: wire.used_bytes,
            regions: wire.region_count,
            leaders: wire.leader_count,
            operations: wire.operations,
            stopping: wire.stopping,
            cpu_us: wire.cpu_us,
            snapshots_sending: wire.snapshots_sending,
            snapshots_receiving: wire.snapshots_receiving,
            log_truncations: wire.log_truncations,
            log_truncated_entries: wire.log_truncated_entries,
            split_bytes: wire.split_bytes,
            split_keys: wire.split_keys,
            known_version: wire.known_version,
        };
        let refusals = wire.refusals.into_iter().map(|refusal| OrderRefusal {
            operator: refusal.operator_id,
            region: RegionId(refusal.region_id),
            reason: refusal.reason,
        });
        let regions = wire.regions.into_iter().map(|region| led_from_wire(store, region));
        let unled = wire.unled.into_iter().map(|region| unled_from_wire(store, region));
        let hosted = wire.hosted.into_iter().map(|replica| HostedReplica {
            region: RegionId(replica.region_id),
            peer: PeerId(replica.peer_id),
            conf_ver: replica.conf_ver,
        });
        Ok(Self {
            store,
            incarnation: wire.incarnation,
            stats,
            regions: regions.collect::<Result<_, _>>()?,
            full: wire.full,
            sequence: wire.sequence,
            refusals: refusals.collect(),
            unled: unled.collect::<Result<_, _>>()?,
            hosted: hosted.collect(),
            unheard: wire.unheard_store_ids.into_iter().take(MAX_UNHEARD).map(StoreId).collect(),
        })
    }
}

fn led_from_wire(store: StoreId, wire: wire::RegionReport) -> Result<RegionInfo, BadReport> {
    let info = region_from_wire(wire)?;
    match info.leader {
        Some(leader) if leader.store == store => Ok(info),
        Some(_) | None => Err(BadReport::NotLed(info.region.id)),
    }
}

/// A region that nobody leads has no leader and no term, whatever the report says.
fn unled_from_wire(store: StoreId, wire: wire::RegionReport) -> Result<RegionInfo, BadReport> {
    let info = RegionInfo { leader: None, term: Term(0), led: false, ..region_from_wire(wire)? };
    match info.region.peer_on(store) {
        Some(_) => Ok(info),
        None => Err(BadReport::NotHosted(info.region.id)),
    }
}

fn region_from_wire(wire: wire::RegionReport) -> Result<RegionInfo, BadReport> {
    let region = Region::try_from(wire.region.ok_or(BadReport::NoRegion)?)?;
    let leader = leader_from_wire(&region, wire.leader)?;
    let merging = wire.merging.map(|wire| merging_from_wire(region.id, wire)).transpose()?;
    Ok(RegionInfo {
        region,
        leader,
        term: Term(wire.term),
        down: wire.down_peers.into_iter().map(Into::into).collect(),
        pending: wire.pending_peers.into_iter().map(Into::into).collect(),
        progress: wire.progress.into_iter().map(progress_from_wire).collect(),
        last_index: LogIndex(wire.last_index),
        merging,
        stats: RegionStats {
            bytes: wire.approximate_bytes,
            keys: wire.approximate_keys,
            written_bytes: wire.written_bytes,
            written_keys: wire.written_keys,
            read_keys: wire.read_keys,
            commit: LogIndex(wire.commit_index),
        },
        led: true,
    })
}

fn merging_from_wire(region: RegionId, wire: wire::MergingReport) -> Result<Merging, BadReport> {
    let target_epoch = wire.target_epoch.map(Epoch::from);
    match target_epoch.filter(|_| wire.target_id != 0) {
        Some(target_epoch) => Ok(Merging {
            target: RegionId(wire.target_id),
            target_epoch,
            frozen: LogIndex(wire.frozen_index),
            everywhere: wire.everywhere,
        }),
        None => Err(BadReport::Merging(region)),
    }
}

fn progress_from_wire(wire: wire::PeerProgress) -> PeerProgress {
    let (sent, total) = (wire.snapshot_sent_bytes, wire.snapshot_total_bytes);
    PeerProgress {
        peer: PeerId(wire.peer_id),
        matched: LogIndex(wire.match_index),
        // 0 stands for one that does not say; entries count from 1.
        applied: Some(LogIndex(wire.applied_index)).filter(|index| index.0 != 0),
        snapshot: (sent != 0 || total != 0).then_some((sent, total)),
        queue: wire.snapshot_queue,
        silent: Duration::from_millis(wire.silent_ms),
    }
}
