//! What the operating system says about this process (Linux; elsewhere nothing).

use std::time::Duration;

use quorate_consensus::node::usage;

use crate::metrics::Exposition;

/// Writes CPU time, memory and uptime under Prometheus's usual names.
pub(crate) fn write(page: &mut Exposition, uptime: Duration) {
    if let Some((cpu, resident)) = usage() {
        page.single("process_cpu_seconds_total", "counter", "CPU time used.", cpu);
        page.single("process_resident_memory_bytes", "gauge", "Resident memory.", resident);
    }
    let help = "Seconds since the start.";
    page.single("process_uptime_seconds", "gauge", help, uptime.as_secs());
}

/// Processor time since the start, in microseconds; 0 where the system does not say.
pub(crate) fn cpu_us() -> u64 {
    // SAFETY: rusage is a plain structure of integers, valid when zeroed.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the structure lives through the call.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) } != 0 {
        return 0;
    }
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    micros(usage.ru_utime) + micros(usage.ru_stime)
}
