//! File descriptors: enough for every connection and file that the settings allow, or no start.
//!
//! A process that runs out of them while it serves fails in the worst place: in the storage engine.
//! Many systems give a process 1,024 unless it asks for more, so it asks.

#[cfg(test)]
#[path = "descriptors_tests.rs"]
mod tests;

use std::io;

use super::incoming::RESERVED_FOR_PEERS;

/// Descriptors beside connections and sorted files: logs, staged snapshots, status pages, our own
/// connections to others, the runtime's.
const OWN: u64 = 512;

/// Raises the process's limit on descriptors as far as the system lets it, and checks that it is
/// enough for `connections` and for `files` of the engine.
///
/// # Errors
/// It is not; the words say what to change.
pub fn reserve_descriptors(connections: usize, files: u32) -> Result<(), String> {
    let limit = raise().map_err(|error| format!("cannot read the limit on open files: {error}"))?;
    enough(limit, connections as u64, u64::from(files))
}

fn enough(limit: u64, connections: u64, files: u64) -> Result<(), String> {
    let needed = connections
        .saturating_add(RESERVED_FOR_PEERS as u64)
        .saturating_add(files)
        .saturating_add(OWN);
    if needed <= limit {
        return Ok(());
    }
    Err(format!(
        "limits.connections {connections} with {files} files of the engine needs {needed} open \
         files, the system allows this process {limit}; raise its hard limit (ulimit -Hn, \
         LimitNOFILE of systemd), or set limits.connections to at most {}",
        connections.saturating_sub(needed - limit)
    ))
}

/// Sets the soft limit to the hard one. Returns what is allowed from then on.
fn raise() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read or write the structure that they are given.
    let read = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    if read != 0 {
        return Err(io::Error::last_os_error());
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: as above.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) };
    // A system that does not let us have its own hard limit: then what there was must do.
    Ok(if set == 0 { raised.rlim_cur } else { limit.rlim_cur })
}
