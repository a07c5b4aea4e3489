//! What the operating system says about this process and its disk (Linux; elsewhere nothing).

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
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

/// Room on the disk of a folder, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    /// All of it.
    pub(crate) capacity: u64,
    /// What is free for us.
    pub(crate) available: u64,
}

/// Asks the file system of a folder.
pub(crate) fn disk(folder: &Path) -> Option<Disk> {
    let path = CString::new(folder.as_os_str().as_bytes()).ok()?;
    // SAFETY: statvfs is a plain structure of integers, valid when zeroed.
    let mut answer: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends with a zero byte, and both live through the call.
    let failed = unsafe { libc::statvfs(path.as_ptr(), &mut answer) } != 0;
    let block = answer.f_frsize as u64;
    (!failed).then(|| Disk {
        capacity: answer.f_blocks as u64 * block,
        available: answer.f_bavail as u64 * block,
    })
}
