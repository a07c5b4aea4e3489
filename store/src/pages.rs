//! What a store tells on its status pages.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::RwLock;
use quorate_consensus::engine::Engine;
use quorate_proto::key;
use serde_json::{Value, json};

use crate::core::{Directory, LocalRegion};
use crate::metrics::{Exposition, Metrics};
use crate::process;
use crate::serve::Serving;
use crate::status::Pages;

/// Where a store is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It opens its folder and looks for placement.
    Starting,
    /// It has joined; that many stores are missing before the cluster starts.
    Waiting {
        /// How many.
        missing_stores: u32,
    },
    /// It serves.
    Serving,
    /// It hands its leaders over and answers what is under way.
    Stopping,
}

impl Phase {
    const fn name(&self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Waiting { .. } => "waiting",
            Phase::Serving => "serving",
            Phase::Stopping => "stopping",
        }
    }
}

/// Writes the counters of the Raft node.
pub(crate) type RaftCounters = Box<dyn Fn(&mut Exposition) + Send + Sync>;

/// What there is once the store serves.
pub(crate) struct Running {
    pub(crate) serving: Arc<Serving>,
    pub(crate) raft: RaftCounters,
    pub(crate) connections: Arc<AtomicUsize>,
}

/// Everything that the pages show.
pub(crate) struct StorePages {
    pub(crate) address: String,
    pub(crate) started: Instant,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) metrics: Arc<Metrics>,
    state: RwLock<State>,
}

struct State {
    phase: Phase,
    cluster_id: u64,
    store_id: u64,
    running: Option<Running>,
}

impl StorePages {
    /// The pages of a store that starts.
    pub(crate) fn new(
        address: String,
        engine: Arc<dyn Engine>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let (phase, running) = (Phase::Starting, None);
        let state = RwLock::new(State { phase, cluster_id: 0, store_id: 0, running });
        Arc::new(Self { address, started: Instant::now(), engine, metrics, state })
    }

    /// The store is somewhere else in its life.
    pub(crate) fn set_phase(&self, phase: Phase) {
        tracing::debug!(phase = phase.name(), "phase");
        self.state.write().phase = phase;
    }

    /// The store knows who it is.
    pub(crate) fn set_identity(&self, cluster_id: u64, store_id: u64) {
        let mut state = self.state.write();
        (state.cluster_id, state.store_id) = (cluster_id, store_id);
    }

    /// The store serves.
    pub(crate) fn set_running(&self, running: Running) {
        let mut state = self.state.write();
        (state.phase, state.running) = (Phase::Serving, Some(running));
    }
}

impl Pages for StorePages {
    fn health(&self, with_regions: bool) -> Value {
        let state = self.state.read();
        let directory = state.running.as_ref().map(|running| running.serving.directory());
        let all = directory.map(|directory| directory.all()).unwrap_or_default();
        let led = all.iter().filter(|local| local.view().is_leader());
        let mut page = json!({
            "role": "store",
            "id": state.store_id,
            "cluster_id": state.cluster_id,
            "address": self.address,
            "version": env!("CARGO_PKG_VERSION"),
            "state": state.phase.name(),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "regions": all.len(),
            "leaders": led.count(),
            "asleep": all.iter().filter(|local| local.view().is_asleep()).count(),
            "operations": self.metrics.operations(),
        });
        if let Phase::Waiting { missing_stores } = state.phase {
            page["missing_stores"] = json!(missing_stores);
        }
        if with_regions {
            page["region_list"] = all.iter().map(|local| region(local)).collect();
        }
        page
    }

    fn ready(&self) -> Result<(), String> {
        let state = self.state.read();
        match state.phase {
            Phase::Serving => Ok(()),
            Phase::Starting => Err("starting: placement has not answered yet".to_owned()),
            Phase::Waiting { missing_stores } => {
                Err(format!("the cluster starts once {missing_stores} more stores have joined"))
            }
            Phase::Stopping => Err("stopping".to_owned()),
        }
    }

    fn metrics(&self) -> String {
        let mut page = Exposition::default();
        self.metrics.write(&mut page);
        let state = self.state.read();
        if let Some(running) = &state.running {
            write_running(&mut page, running);
            (running.raft)(&mut page);
        }
        drop(state);
        write_engine(&mut page, self.engine.as_ref());
        process::write(&mut page, self.started.elapsed());
        page.finish()
    }
}

fn region(local: &LocalRegion) -> Value {
    let view = local.view();
    let state = local.state();
    let mut shown = json!({
        "id": local.id().0,
        "peer": local.peer().0,
        "leader": view.leader().map(|peer| peer.0),
        "is_leader": view.is_leader(),
        "term": view.term().0,
        "commit_index": view.committed().0,
        "applied_index": view.applied().0,
        "asleep": view.is_asleep(),
        "approximate_bytes": local.stats().bytes(),
        "approximate_keys": local.stats().keys(),
    });
    if let Some(region) = state.region() {
        shown["start"] = json!(key::display(&region.range.start));
        shown["end"] = json!(key::display(&region.range.end));
        shown["conf_ver"] = json!(region.epoch.conf_ver);
        shown["version"] = json!(region.epoch.version);
        let peers = region.peers.iter().map(|peer| {
            json!({ "id": peer.id.0, "store": peer.store.0, "role": format!("{:?}", peer.role) })
        });
        shown["peers"] = peers.collect();
    }
    if let Some((_, merging)) = local.merging() {
        shown["merging_into"] = json!(merging.target.0);
    }
    shown
}

fn write_running(page: &mut Exposition, running: &Running) {
    let (regions, leaders, asleep) = count(running.serving.directory());
    let budget = running.serving.budget();
    let connections = running.connections.load(Ordering::Relaxed);
    let all = running.serving.directory().all();
    let stopped = all.iter().filter(|local| local.merging().is_some()).count();
    let gauges: [(&str, &str, u64); 8] = [
        ("quorate_store_regions", "Regions with data on this store.", regions),
        ("quorate_store_leaders", "Regions that this store leads.", leaders),
        ("quorate_store_regions_asleep", "Regions whose group sleeps.", asleep),
        ("quorate_store_regions_merging", "Regions stopped for a merge.", stopped as u64),
        ("quorate_store_connections", "Open connections.", connections as u64),
        ("quorate_store_requests_waiting", "Requests without an answer.", budget.requests() as u64),
        ("quorate_store_write_bytes_waiting", "Bytes of writes without an answer.", budget.bytes()),
        (
            "quorate_store_answer_bytes_waiting",
            "Bytes of large answers that clients have not taken.",
            budget.answer_bytes(),
        ),
    ];
    for (name, help, value) in gauges {
        page.single(name, "gauge", help, value);
    }
}

/// Regions, leaders, sleeping regions.
pub(crate) fn count(directory: &Directory) -> (u64, u64, u64) {
    directory.all().iter().fold((0, 0, 0), |(regions, leaders, asleep), local| {
        let view = local.view();
        let (leads, sleeps) = (u64::from(view.is_leader()), u64::from(view.is_asleep()));
        (regions + 1, leaders + leads, asleep + sleeps)
    })
}

fn write_engine(page: &mut Exposition, engine: &dyn Engine) {
    let stats = engine.stats();
    let values: [(&str, &str, &str, u64); 10] = [
        ("quorate_engine_syncs_total", "counter", "Syncs of the write-ahead log.", stats.syncs),
        ("quorate_engine_batches_total", "counter", "Batches written.", stats.batches),
        (
            "quorate_engine_written_bytes_total",
            "counter",
            "Bytes of keys and values written.",
            stats.written_bytes,
        ),
        ("quorate_engine_memtable_bytes", "gauge", "Memtables.", stats.memtable_bytes),
        ("quorate_engine_block_cache_bytes", "gauge", "Block cache.", stats.block_cache_bytes),
        (
            "quorate_engine_table_reader_bytes",
            "gauge",
            "Indexes and filters outside of the block cache.",
            stats.table_reader_bytes,
        ),
        ("quorate_engine_sst_bytes", "gauge", "Live sorted files.", stats.sst_bytes),
        ("quorate_engine_wal_bytes", "gauge", "Write-ahead log files.", stats.wal_bytes),
        (
            "quorate_engine_pending_compaction_bytes",
            "gauge",
            "Bytes that compaction still has to rewrite.",
            stats.pending_compaction_bytes,
        ),
        ("quorate_engine_snapshots", "gauge", "Snapshots held.", stats.snapshots),
    ];
    for (name, kind, help, value) in values {
        page.single(name, kind, help, value);
    }
}
