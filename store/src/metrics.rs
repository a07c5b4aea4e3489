//! What a store counts, and how it is written for Prometheus.
//!
//! Counters and histograms are plain atomics, touched relaxed: on the hot path a request costs
//! three uncontended additions and no clock reading of its own.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::kind::Kind;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done.
    Ok,
    /// The region, its leader or its epoch was another: the client asks elsewhere.
    Rerouted,
    /// Too much at once, or not ready.
    Busy,
    /// Not a request that we take.
    Invalid,
    /// A write of which nobody can say whether it will be applied.
    Undetermined,
}

impl Outcome {
    const ALL: [Outcome; 5] =
        [Outcome::Ok, Outcome::Rerouted, Outcome::Busy, Outcome::Invalid, Outcome::Undetermined];

    const fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Rerouted => "rerouted",
            Outcome::Busy => "busy",
            Outcome::Invalid => "invalid",
            Outcome::Undetermined => "undetermined",
        }
    }
}

/// Upper bounds of the latency buckets, microseconds.
const BOUNDS_US: [u64; 16] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000,
    1_000_000, 5_000_000,
];

/// Everything that is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: [[AtomicU64; Outcome::ALL.len()]; Kind::ALL.len()],
    latency: [Histogram; Kind::ALL.len()],
    /// Messages on batched streams, in.
    pub(crate) batches_in: AtomicU64,
    /// Messages on batched streams, out.
    pub(crate) batches_out: AtomicU64,
    /// Batched streams that are open.
    pub(crate) streams: AtomicU64,
    /// Reads that needed a read index.
    pub(crate) read_index: AtomicU64,
    /// Stale reads served without asking anybody.
    pub(crate) stale_reads: AtomicU64,
    /// Stale reads of replicas that were too old.
    pub(crate) stale_reads_refused: AtomicU64,
    /// Small reads that left the network thread: not all they needed was in memory, or much of what
    /// they met was deleted.
    pub(crate) disk_reads: AtomicU64,
    /// Splits proposed.
    pub(crate) splits_proposed: AtomicU64,
    /// Splits that did not come about.
    pub(crate) splits_failed: AtomicU64,
    /// Reports sent to placement.
    pub(crate) reports: AtomicU64,
    /// Streams to placement that broke.
    pub(crate) report_streams_lost: AtomicU64,
}

impl Metrics {
    /// One request ended. `took`: where it was measured.
    pub(crate) fn ended(&self, kind: Kind, outcome: Outcome, took: Option<Duration>) {
        self.requests[kind.index()][outcome as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(took) = took {
            self.latency[kind.index()].record(took);
        }
    }

    /// Requests that ended, whatever came of them.
    pub(crate) fn operations(&self) -> u64 {
        self.requests.iter().flatten().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Writes the counters of requests and streams.
    pub(crate) fn write(&self, to: &mut Exposition) {
        to.family("quorate_store_requests_total", "counter", "Requests by kind and outcome.");
        for kind in Kind::ALL {
            for outcome in Outcome::ALL {
                let count = self.requests[kind.index()][outcome as usize].load(Ordering::Relaxed);
                // Zeros, too: the growth from none to the first is what an alert looks for.
                let labels = [("kind", kind.name()), ("outcome", outcome.name())];
                to.sample("quorate_store_requests_total", &labels, count);
            }
        }
        let name = "quorate_store_request_seconds";
        to.family(name, "histogram", "From a request's arrival to its answer.");
        for kind in Kind::ALL {
            self.latency[kind.index()].write(to, name, kind.name());
        }
        let counters: [(&str, &str, &AtomicU64); 11] = [
            (
                "quorate_store_batches_in_total",
                "Messages received on batched streams.",
                &self.batches_in,
            ),
            (
                "quorate_store_batches_out_total",
                "Messages sent on batched streams.",
                &self.batches_out,
            ),
            (
                "quorate_store_read_index_total",
                "Reads that asked for a read index.",
                &self.read_index,
            ),
            (
                "quorate_store_stale_reads_total",
                "Stale reads served by this replica as it was.",
                &self.stale_reads,
            ),
            (
                "quorate_store_stale_reads_refused_total",
                "Stale reads of replicas that were too old.",
                &self.stale_reads_refused,
            ),
            (
                "quorate_store_disk_reads_total",
                "Small reads that left the network thread, mostly for what is not in memory.",
                &self.disk_reads,
            ),
            ("quorate_store_splits_proposed_total", "Splits proposed.", &self.splits_proposed),
            (
                "quorate_store_splits_failed_total",
                "Splits that did not come about.",
                &self.splits_failed,
            ),
            ("quorate_store_reports_total", "Reports sent to placement.", &self.reports),
            (
                "quorate_store_report_streams_lost_total",
                "Streams to placement that broke.",
                &self.report_streams_lost,
            ),
            ("quorate_store_streams", "Batched streams that are open.", &self.streams),
        ];
        for (name, help, value) in counters {
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            to.single(name, kind, help, value.load(Ordering::Relaxed));
        }
    }
}

/// Counts durations in fixed buckets.
#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let micros = nanos / 1_000;
        let bucket = BOUNDS_US.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(nanos, Ordering::Relaxed);
    }

    fn write(&self, to: &mut Exposition, name: &str, kind: &str) {
        let counts: Vec<u64> =
            self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return;
        }
        let mut sum = 0;
        for (count, bound) in counts.iter().zip(BOUNDS_US) {
            sum += count;
            let bound = (bound as f64 / 1e6).to_string();
            to.sample(&format!("{name}_bucket"), &[("kind", kind), ("le", &bound)], sum);
        }
        to.sample(&format!("{name}_bucket"), &[("kind", kind), ("le", "+Inf")], total);
        let seconds = self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9;
        to.sample(&format!("{name}_sum"), &[("kind", kind)], seconds);
        to.sample(&format!("{name}_count"), &[("kind", kind)], total);
    }
}

/// A page in Prometheus's text format, built line by line.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a family: `kind` is `counter`, `gauge` or `histogram`.
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One value. Label values are our own names: nothing in them needs escaping.
    pub(crate) fn sample(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        value: impl std::fmt::Display,
    ) {
        self.text.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{open}{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// A family of one value.
    pub(crate) fn single(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        value: impl std::fmt::Display,
    ) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// The page.
    pub(crate) fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_appear_by_kind_and_outcome_with_cumulative_buckets() {
        let metrics = Metrics::default();
        metrics.ended(Kind::Get, Outcome::Ok, Some(Duration::from_micros(20)));
        metrics.ended(Kind::Get, Outcome::Ok, Some(Duration::from_micros(200)));
        metrics.ended(Kind::Put, Outcome::Busy, None);
        let mut page = Exposition::default();
        metrics.write(&mut page);
        let page = page.finish();
        for line in [
            "quorate_store_requests_total{kind=\"raw_get\",outcome=\"ok\"} 2",
            "quorate_store_requests_total{kind=\"raw_put\",outcome=\"busy\"} 1",
            "quorate_store_request_seconds_bucket{kind=\"raw_get\",le=\"0.00001\"} 0",
            "quorate_store_request_seconds_bucket{kind=\"raw_get\",le=\"0.000025\"} 1",
            "quorate_store_request_seconds_bucket{kind=\"raw_get\",le=\"+Inf\"} 2",
            "quorate_store_request_seconds_count{kind=\"raw_get\"} 2",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
        assert_eq!(metrics.operations(), 3);
    }
}
