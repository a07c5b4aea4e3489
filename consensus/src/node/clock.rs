//! The production clock.

use crate::time::Instant;

/// Now, on the clock that also runs while the machine sleeps: a lease must not outlive a
/// suspended virtual machine.
pub fn now() -> Instant {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a valid timespec that outlives the call.
    let failed = unsafe { libc::clock_gettime(CLOCK, &mut time) };
    assert_eq!(failed, 0, "every supported kernel has this clock");
    Instant((time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64 + 1)
}

#[cfg(target_os = "linux")]
const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
#[cfg(not(target_os = "linux"))]
const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
