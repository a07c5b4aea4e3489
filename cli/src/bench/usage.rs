//! What a run costs: processor time of all processes, and syncs, from their own counters.

use std::fs;

use crate::cluster::pid::fields_after_name;
use crate::cluster::probe;

/// The processes that are measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched {
    /// Pids of the measured system.
    pub(super) pids: Vec<u32>,
    /// Where their metrics are.
    pub(super) status: Vec<String>,
    /// The counter of syncs in them.
    pub(super) sync_metric: String,
}

/// Counters at one moment, or between two.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// Processor time of the measured system, in microseconds.
    pub(super) system_micros: u64,
    /// Processor time of this process, in microseconds.
    pub(super) own_micros: u64,
    /// Syncs of the measured system; `None` where it does not say.
    pub(super) syncs: Option<f64>,
}

impl Usage {
    /// What was used since an earlier moment.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self {
            system_micros: self.system_micros.saturating_sub(earlier.system_micros),
            own_micros: self.own_micros.saturating_sub(earlier.own_micros),
            syncs: self.syncs.zip(earlier.syncs).map(|(now, before)| (now - before).max(0.0)),
        }
    }
}

impl Watched {
    /// Reads all counters.
    pub(super) fn read(&self) -> Usage {
        let counted = self.status.iter().filter_map(|address| {
            let page = probe::page(address, "/metrics").ok()?;
            counter(&page.body, &self.sync_metric)
        });
        let syncs: Vec<f64> = counted.collect();
        Usage {
            system_micros: self.pids.iter().map(|pid| processor_micros(*pid).unwrap_or(0)).sum(),
            own_micros: processor_micros(std::process::id()).unwrap_or(0),
            syncs: (!syncs.is_empty()).then(|| syncs.iter().sum()),
        }
    }
}

/// User and system time of a process, all threads, in microseconds; resolution: one clock tick.
fn processor_micros(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = fields_after_name(&stat)?;
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // SAFETY: sysconf has no memory effects.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let per_second = u64::try_from(per_second).ok().filter(|ticks| *ticks > 0)?;
    Some(ticks * 1_000_000 / per_second)
}

/// The sum of a metric over its labels, in Prometheus's text format.
fn counter(page: &str, name: &str) -> Option<f64> {
    let values: Vec<f64> = page
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let rest = if rest.starts_with('{') { rest.split_once('}')?.1 } else { rest };
            rest.strip_prefix(' ')?.split_whitespace().next()?.parse().ok()
        })
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn counters_are_summed_over_labels_and_not_confused() {
        let page =
            "# HELP syncs x\nsyncs{plane=\"a b\"} 3\nsyncs{plane=\"c\"} 4.5\nsyncs_total 9\n";
        assert_eq!(counter(page, "syncs"), Some(7.5));
        assert_eq!(counter(page, "syncs_total"), Some(9.0));
        assert_eq!(counter(page, "sync"), None);
    }

    #[test]
    fn work_takes_processor_time() {
        let me = Watched { pids: vec![std::process::id()], ..Watched::default() };
        let before = me.read();
        while me.read().since(&before).system_micros == 0 {
            std::hint::black_box((0..100_000u64).sum::<u64>());
        }
        assert_eq!(me.read().syncs, None);
    }
}
