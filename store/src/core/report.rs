//! What placement is told about the regions this store leads: only what changed.
//!
//! The first report on a stream has everything. After that, a region is reported when its
//! description or term changed, when its size did by an eighth, or when enough was written or read
//! to matter for the balance of load; and whenever its replicas get on that are not settled: one
//! is a learner, comes in or goes out, lags, or is silent. Silence grows and snapshots get on, so
//! these are told every time, and so is a region that is stopped for a merge. What is reported
//! counts as known; a broken stream starts anew with [`Reporter::restart`]. Of the replicas that
//! others lead, a few are named each time.
//!
//! How far snapshots are only the sending side of the process knows: [`add_snapshots`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::node::SnapshotProgress;
use quorate_consensus::shard::MAX_BEHIND;
use quorate_consensus::time::Instant;
use quorate_consensus::view::{PeerProgress, Replication};
use quorate_proto::wire::placement::{self as wire, HostedReplica, RegionReport};
use quorate_proto::{Region, RegionId, Term};

use super::directory::{Directory, LocalRegion};
use super::hosted::Round;

/// Sizes that differ by less are the same.
const SIZE_STEP: u64 = 64 * 1024;
/// Bytes written that make a region worth reporting.
const WRITTEN_BYTES: u64 = 1024 * 1024;
/// Keys written that make a region worth reporting.
const WRITTEN_KEYS: u64 = 4096;
/// Keys read that make a region worth reporting.
const READ_KEYS: u64 = 65_536;
/// A replica that lacks more entries than this, or has not applied so many, is called pending.
const PENDING: u64 = MAX_BEHIND;
/// A replica that was silent for so long is called down; a restart takes less.
const DOWN: Duration = Duration::from_secs(10);

/// What was last sent on the present stream.
#[derive(Debug, Default)]
pub struct Reporter {
    sent: BTreeMap<RegionId, Sent>,
    started: bool,
    round: Round,
}

#[derive(Debug, Clone)]
struct Sent {
    region: Arc<Region>,
    term: Term,
    bytes: u64,
    counters: Counters,
    /// How far its replicas were, where they were not settled.
    replication: Option<Replication>,
    /// It was stopped for a merge.
    stopped: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    written_bytes: u64,
    written_keys: u64,
    read_keys: u64,
}

/// One report's part about regions.
#[derive(Debug, Default, PartialEq)]
pub struct Regions {
    /// By region id. `written_*` and `read_keys` count since the region was last reported.
    pub reports: Vec<RegionReport>,
    /// True where `reports` is everything this store leads.
    pub full: bool,
    /// Regions that placement does not know: see [`unled`](super::unled).
    pub unled: Vec<RegionReport>,
    /// Replicas that others lead, those whose turn it is.
    pub hosted: Vec<HostedReplica>,
}

impl Reporter {
    /// Nothing sent yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new stream: the next report has everything. Counters go on.
    pub fn restart(&mut self) {
        self.started = false;
        self.round = Round::default();
    }

    /// True where the region was reported on this stream as it is now, by this leader.
    pub fn has_sent(&self, local: &LocalRegion) -> bool {
        let sent = self.sent.get(&local.id()).filter(|_| self.started);
        let same = |sent: &Sent, region: &Arc<Region>| {
            Arc::ptr_eq(&sent.region, region) && sent.term == local.view().term()
        };
        sent.is_some_and(|sent| local.replicated().is_some_and(|region| same(sent, &region)))
    }

    /// What to send now. Costs a look at every region: call it on a timer.
    pub fn report(&mut self, directory: &Directory, now: Instant) -> Regions {
        let full = !std::mem::replace(&mut self.started, true);
        let mut led = BTreeMap::new();
        let mut reports = Vec::new();
        let all = directory.all();
        for local in &all {
            let before = self.sent.remove(&local.id());
            let Some((sent, report)) = look(local, before, full, now) else { continue };
            led.insert(local.id(), sent);
            reports.extend(report);
        }
        self.sent = led;
        reports.sort_by_key(|report| report.region.as_ref().map_or(0, |region| region.id));
        let hosted = self.round.next(&all, now);
        Regions { reports, full, unled: Vec::new(), hosted }
    }

    /// What to send at once about one region: it was split, or its leader or its replicas changed. Nothing before
    /// the first full report, which will have it.
    pub fn report_one(&mut self, local: &LocalRegion, now: Instant) -> Option<RegionReport> {
        if !self.started {
            return None;
        }
        let before = self.sent.remove(&local.id());
        let (sent, report) = look(local, before, false, now)?;
        self.sent.insert(local.id(), sent);
        report
    }
}

/// What is known to placement afterwards, and the report where one is due; `None` for a region
/// that this store does not lead.
fn look(
    local: &LocalRegion,
    before: Option<Sent>,
    full: bool,
    at: Instant,
) -> Option<(Sent, Option<RegionReport>)> {
    let view = local.view();
    // Term first: a leader change in between is told with too old a term, and again next time.
    let term = view.term();
    if !view.is_leader() {
        return None;
    }
    // Before what is everywhere: see `GroupView::everywhere`.
    let merging = local.merging();
    let region =
        merging.as_ref().map(|(region, _)| Arc::clone(region)).or_else(|| local.region())?;
    let merging = merging.map(|(_, merging)| wire::MergingReport {
        target_id: merging.target.0,
        target_epoch: Some(merging.target_epoch.into()),
        frozen_index: merging.frozen.0,
        everywhere: view.everywhere() >= merging.frozen,
    });
    let leader = *region.peer(local.peer())?;
    let stats = local.stats();
    let counters = Counters {
        written_bytes: stats.written_bytes(),
        written_keys: stats.written_keys(),
        read_keys: stats.read_keys(),
    };
    let replication = view.replication();
    let stopped = merging.is_some();
    let now = Sent { region, term, bytes: stats.bytes(), counters, replication, stopped };
    // What was counted before this store led the region is not its leader's load.
    let last = before.as_ref().map_or(counters, |before| before.counters);
    let since = Counters {
        // Another replica of the region, let in since, counts from zero.
        written_bytes: counters.written_bytes.saturating_sub(last.written_bytes),
        written_keys: counters.written_keys.saturating_sub(last.written_keys),
        read_keys: counters.read_keys.saturating_sub(last.read_keys),
    };
    match before {
        Some(before) if !full && !differs(&before, &now, since) => return Some((before, None)),
        Some(_) | None => {}
    }
    let commit_index = view.committed().0;
    let mut report = RegionReport {
        region: Some(now.region.as_ref().into()),
        leader: Some(leader.into()),
        term: term.0,
        approximate_bytes: now.bytes,
        approximate_keys: stats.keys(),
        written_bytes: since.written_bytes,
        written_keys: since.written_keys,
        read_keys: since.read_keys,
        commit_index,
        last_index: commit_index,
        merging,
        ..RegionReport::default()
    };
    if let Some(replication) = &now.replication {
        add_replication(&mut report, replication, at);
    }
    Some((now, Some(report)))
}

fn add_replication(report: &mut RegionReport, replication: &Replication, now: Instant) {
    let silence =
        |peer: &PeerProgress| peer.silent_since.map_or(Duration::ZERO, |at| now.since(at));
    let last = replication.last.0;
    report.last_index = last;
    // Of the same moment as what is applied, which is compared with it.
    report.commit_index = replication.committed.0;
    for peer in &replication.peers {
        if peer.snapshot || peer.matched.0 + PENDING < last || replication.unapplied(peer) > PENDING
        {
            report.pending_peers.push(peer.peer.0);
        }
        if silence(peer) >= DOWN {
            report.down_peers.push(peer.peer.0);
        }
        report.progress.push(wire::PeerProgress {
            peer_id: peer.peer.0,
            match_index: peer.matched.0,
            applied_index: peer.applied.map_or(0, |applied| applied.0),
            silent_ms: silence(peer).as_millis() as u64,
            ..wire::PeerProgress::default()
        });
    }
}

fn differs(before: &Sent, now: &Sent, since: Counters) -> bool {
    !Arc::ptr_eq(&before.region, &now.region)
        || gets_on(before.replication.as_ref(), now.replication.as_ref())
        || before.term != now.term
        || before.stopped
        || now.stopped
        || before.bytes.abs_diff(now.bytes) >= SIZE_STEP.max(before.bytes / 8)
        || since.written_bytes >= WRITTEN_BYTES
        || since.written_keys >= WRITTEN_KEYS
        || since.read_keys >= READ_KEYS
}

/// True where the replicas that are not settled are elsewhere than they were, or are settled since.
fn gets_on(before: Option<&Replication>, now: Option<&Replication>) -> bool {
    let moves = |peer: &PeerProgress| peer.snapshot || peer.silent_since.is_some();
    before != now || now.is_some_and(|now| now.peers.iter().any(moves))
}

/// Fills in how far the snapshots are that leave from here. One that waits for its turn has sent
/// nothing, of about as much as its region has.
pub fn add_snapshots(reports: &mut [RegionReport], snapshots: &[SnapshotProgress]) {
    if snapshots.is_empty() {
        return;
    }
    for report in reports {
        let region = report.region.as_ref().map_or(0, |region| region.id);
        for progress in &mut report.progress {
            let leaves = |one: &&SnapshotProgress| {
                one.sending && (one.group.0, one.peer.0) == (region, progress.peer_id)
            };
            let Some(one) = snapshots.iter().find(leaves) else { continue };
            let roughly = match one.total_bytes {
                0 => report.approximate_bytes,
                known => known,
            };
            progress.snapshot_sent_bytes = one.bytes;
            // Without any it would stand for no snapshot at all.
            progress.snapshot_total_bytes = roughly.max(one.bytes).max(1);
            progress.snapshot_queue = one.queue;
        }
    }
}
