//! Counters of a member, in Prometheus's text format.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{
    Encoder, Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use quorate_consensus::node::usage;

use crate::core::events::Events;

/// Kinds of events that alerts look for.
const ALERTED: [&str; 4] = ["partition-found", "quorum-lost", "store-down", "store-suspect"];

/// All counters and gauges. Those of the state are set when somebody looks.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) leading: IntGauge,
    pub(crate) term: IntGauge,
    pub(crate) committed: IntGauge,
    pub(crate) applied: IntGauge,
    pub(crate) stores: IntGauge,
    pub(crate) regions: IntGauge,
    pub(crate) operators: IntGauge,
    pub(crate) streams: IntGauge,
    pub(crate) log_bytes: IntGauge,
    pub(crate) syncs: IntGauge,
    pub(crate) timestamps: IntCounter,
    pub(crate) lookups: IntCounter,
    pub(crate) reports: IntCounter,
    pub(crate) stale_regions: IntCounter,
    pub(crate) orders: IntCounter,
    pub(crate) under_replicated: IntGauge,
    pub(crate) leaderless: IntGauge,
    pub(crate) partitions: IntGauge,
    pub(crate) unreported: IntGauge,
    pub(crate) without_quorum: IntGauge,
    pub(crate) events: IntGauge,
    memory: IntGauge,
    cpu: Gauge,
    event_kinds: IntCounterVec,
    /// The last event that is counted.
    counted: AtomicU64,
    pub(crate) store_states: IntGaugeVec,
    pub(crate) member_states: IntGaugeVec,
    pub(crate) operator_kinds: IntGaugeVec,
    pub(crate) operators_ended: IntGaugeVec,
}

impl Metrics {
    /// All at zero.
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help);
            register(&registry, gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help);
            register(&registry, counter)
        };
        let by = |name: &str, help: &str, label: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &[label]);
            register(&registry, gauges)
        };
        Self {
            under_replicated: gauge(
                "quorate_placement_under_replicated_regions",
                "regions with fewer healthy voters than wanted, at the leader",
            ),
            partitions: gauge(
                "quorate_placement_partitions",
                "pairs of stores that do not hear each other, at the leader",
            ),
            leaderless: gauge(
                "quorate_placement_leaderless_regions",
                "regions that nobody known to be alive leads, at the leader",
            ),
            unreported: gauge(
                "quorate_placement_unreported_regions",
                "regions that may have a leader which has not reported to this leader yet",
            ),
            without_quorum: gauge(
                "quorate_placement_regions_without_quorum",
                "regions without a live majority of their voters, at the leader",
            ),
            events: gauge("quorate_placement_last_event", "number of the last event"),
            memory: gauge("process_resident_memory_bytes", "Resident memory."),
            cpu: register(&registry, Gauge::new("process_cpu_seconds_total", "CPU time used.")),
            event_kinds: {
                let name = "quorate_placement_events_total";
                let help = "events by kind, those that were kept when this member started included";
                let kinds =
                    register(&registry, IntCounterVec::new(Opts::new(name, help), &["kind"]));
                // At 0 from the beginning, so that the first one is growth.
                for kind in ALERTED {
                    kinds.with_label_values(&[kind]);
                }
                kinds
            },
            counted: AtomicU64::new(0),
            store_states: by(
                "quorate_placement_stores_by_state",
                "stores by the state of their life, at the leader",
                "state",
            ),
            member_states: by(
                "quorate_placement_members_by_state",
                "replicas on their way by the state of their lifecycle, at the leader",
                "state",
            ),
            operator_kinds: by(
                "quorate_placement_operators_by_kind",
                "operators under way by their kind, at the leader",
                "kind",
            ),
            operators_ended: by(
                "quorate_placement_operators_ended",
                "operators that ended since this member leads, by what became of them",
                "end",
            ),
            leading: gauge("quorate_placement_leading", "1 where this member leads placement"),
            term: gauge("quorate_placement_term", "term of the placement group"),
            committed: gauge("quorate_placement_committed_index", "last committed entry"),
            applied: gauge("quorate_placement_applied_index", "last applied entry"),
            stores: gauge("quorate_placement_stores", "stores of the cluster"),
            regions: gauge("quorate_placement_regions", "regions with a known route"),
            operators: gauge("quorate_placement_operators", "operators under way"),
            streams: gauge("quorate_placement_store_streams", "stores that report to this member"),
            log_bytes: gauge("quorate_placement_wal_bytes", "bytes of write-ahead log files"),
            syncs: gauge("quorate_placement_syncs", "syncs of the write-ahead log since the start"),
            timestamps: counter("quorate_placement_timestamps_total", "timestamps handed out"),
            lookups: counter("quorate_placement_lookups_total", "lookups of regions"),
            reports: counter("quorate_placement_reports_total", "reports of stores"),
            stale_regions: counter(
                "quorate_placement_stale_regions_total",
                "reported regions that were older than what was known",
            ),
            orders: counter("quorate_placement_orders_total", "orders sent to stores"),
            registry,
        }
    }

    /// Counts the events that were replicated since it was last called.
    pub(crate) fn count_events(&self, events: &Events) {
        let last = events.last();
        let counted = self.counted.fetch_max(last, Ordering::Relaxed);
        // After a snapshot the numbers may have leapt; what was dropped meanwhile is not counted.
        for event in events.after(counted, 0) {
            self.event_kinds.with_label_values(&[event.news.kind.as_str()]).inc();
        }
    }

    /// All of them as text.
    pub(crate) fn text(&self) -> String {
        if let Some((cpu, resident)) = usage() {
            self.cpu.set(cpu);
            self.memory.set(i64::try_from(resident).unwrap_or(i64::MAX));
        }
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("# the metrics cannot be encoded: {error}\n"),
        }
    }
}

/// Names and help are our own and checked by every start.
fn register<M: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> M {
    match metric.and_then(|metric| registry.register(Box::new(metric.clone())).map(|()| metric)) {
        Ok(metric) => metric,
        Err(error) => panic!("a metric has a bad or a second name: {error}"),
    }
}
