//! Which process is meant: its pid and when it started.
//!
//! A pid alone is reused by the system; together with the start time it names
//! one process for good, so that none of somebody else is ever signalled.

use std::io;

use serde::{Deserialize, Serialize};

/// One process of this machine, past or present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// Its number.
    pub(crate) pid: u32,
    /// When it started, in the system's own words.
    pub(crate) started: String,
}

impl Identity {
    /// The process that has this pid now; `None` where there is none, or only its remains.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, started: started(pid)? })
    }
    /// True while that very process runs.
    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }
    /// Sends a signal to that very process. False where it is gone.
    ///
    /// # Errors
    /// The process is somebody else's.
    pub(crate) fn signal(&self, signal: libc::c_int) -> io::Result<bool> {
        if !self.is_alive() {
            return Ok(false);
        }
        let Ok(pid) = libc::pid_t::try_from(self.pid) else { return Ok(false) };
        // SAFETY: kill has no memory effects; pid is positive, so no group is addressed.
        if unsafe { libc::kill(pid, signal) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ESRCH) { Ok(false) } else { Err(error) }
    }
}

/// Clock ticks from the boot to the start of the process, and which boot that was.
#[cfg(target_os = "linux")]
fn started(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let fields = fields_after_name(&stat)?;
    // A zombie holds its pid but runs no more.
    let gone = matches!(*fields.first()?, "Z" | "X");
    (!gone).then_some(format!("{}@{}", fields.get(19)?, boot.trim()))
}

/// Start time as `ps` prints it: systems without /proc.
#[cfg(not(target_os = "linux"))]
fn started(pid: u32) -> Option<String> {
    let mut command = std::process::Command::new("ps");
    let output = command.args(["-o", "stat=,lstart=", "-p", &pid.to_string()]).output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?;
    let (state, start) = line.trim().split_once(char::is_whitespace)?;
    (!state.starts_with('Z')).then_some(start.trim().to_owned())
}

/// The fields of `/proc/PID/stat` from the state on. The name before them may contain
/// spaces and parentheses.
pub(crate) fn fields_after_name(stat: &str) -> Option<Vec<&str>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace().collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;

    #[test]
    fn a_recycled_pid_is_another_process() {
        let me = Identity::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        let earlier = Identity { started: format!("0{}", me.started), ..me.clone() };
        assert!(!earlier.is_alive());
        // Signal 0 asks only whether it could be sent.
        assert!(me.signal(0).unwrap());
        assert!(!earlier.signal(libc::SIGKILL).unwrap(), "would have ended this test");
    }

    #[test]
    fn an_ended_process_is_not_alive_even_before_it_is_reaped() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        assert!(identity.signal(libc::SIGTERM).unwrap());
        while identity.is_alive() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!identity.signal(libc::SIGTERM).unwrap());
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        assert_eq!(fields_after_name("7 (a) b (c) S 1 2").unwrap(), ["S", "1", "2"]);
        assert_eq!(fields_after_name("no name"), None);
    }
}
