//! Ends processes of a local cluster: by asking, and where that was allowed, by force.

use std::time::{Duration, Instant};

use super::description::Member;
use crate::exit::{Failure, Outcome};

/// How long processes get to hand over and end, by themselves: longer than they give themselves.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// How long the system gets to end a process that was killed.
const AFTER_KILL: Duration = Duration::from_secs(5);
/// Between two looks at whether a process has ended.
const POLL: Duration = Duration::from_millis(20);

/// Ends members together and gives the names of those that do not end.
///
/// # Errors
/// A process cannot be signalled.
pub(crate) fn stop(members: &[&Member], force: bool) -> Outcome<Vec<String>> {
    signal(members, libc::SIGTERM)?;
    let left = wait(members, PATIENCE);
    if force && !left.is_empty() { kill(&left) } else { Ok(names(&left)) }
}

/// kill -9 of members, without a word to them; the names of those that are there all the same.
///
/// # Errors
/// A process cannot be signalled.
pub(crate) fn kill(members: &[&Member]) -> Outcome<Vec<String>> {
    signal(members, libc::SIGKILL)?;
    Ok(names(&wait(members, AFTER_KILL)))
}

fn names(members: &[&Member]) -> Vec<String> {
    members.iter().map(|member| member.name()).collect()
}

fn signal(members: &[&Member], signal: libc::c_int) -> Outcome {
    for member in members {
        if let Some(process) = member.running() {
            process.signal(signal).map_err(|error| {
                Failure::error(format!(
                    "{} (pid {}) cannot be signalled: {error}; run this as the user that started \
                     it",
                    member.name(),
                    process.pid
                ))
            })?;
        }
    }
    Ok(())
}

/// Those that still run after that long.
fn wait<'a>(members: &[&'a Member], patience: Duration) -> Vec<&'a Member> {
    let deadline = Instant::now() + patience;
    let mut left = members.to_vec();
    loop {
        left.retain(|member| member.running().is_some());
        if left.is_empty() || Instant::now() >= deadline {
            return left;
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use quorate_placement::PlacementConfig;
    use quorate_store::StoreConfig;

    use super::PATIENCE;

    #[test]
    fn processes_are_waited_for_longer_than_they_give_themselves() {
        let store = StoreConfig::default().shutdown_secs;
        let placement = PlacementConfig::default().shutdown_secs;
        // A moment beside it for the runtime and the engine.
        assert!(PATIENCE.as_secs() >= store.max(placement) + 5);
    }
}
