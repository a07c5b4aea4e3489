//! Ports of a local cluster: free ones are found, and one in use names who holds it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Where the search for placement's ports starts: what clients of this protocol expect.
pub(crate) const PLACEMENT_PORT: u16 = 2379;
/// Where the search for the stores' ports starts.
pub(crate) const STORE_PORT: u16 = 20160;
/// Ports between two processes of a role.
const STEP: u16 = 10;
/// Ports that one process needs next to each other: service, then status.
const EACH: u16 = 2;
/// Ports between two attempts. Stays below the range from which systems pick ports for
/// outgoing connections (32768 and up on Linux).
const NEXT_ATTEMPT: u16 = 100;
const ATTEMPTS: u16 = 100;

/// Who listens on a port, as far as can be seen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    port: u16,
    process: Option<(u32, String)>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((pid, name)) => write!(f, "port {} is in use by {name} (pid {pid})", self.port),
            None => write!(f, "port {} is in use by another process", self.port),
        }
    }
}

/// First ports of `count` processes, one for each, found by searching from `base` up.
pub(crate) fn choose(base: u16, count: u16) -> Option<Vec<u16>> {
    let attempts = (0..ATTEMPTS).map_while(|attempt| base.checked_add(attempt * NEXT_ATTEMPT));
    attempts.take_while(|base| *base < 32_000).find_map(|base| {
        let ports = spaced(base, count)?;
        ports.iter().all(|port| first_taken(*port).is_none()).then_some(ports)
    })
}

/// First port of one further process of a cluster that has these ports, found from `base` up in
/// the steps of its others.
pub(crate) fn beside(base: u16, taken: &[u16]) -> Option<u16> {
    let candidates = (0..ATTEMPTS).map_while(|step| base.checked_add(step * STEP));
    candidates.take_while(|port| *port < 32_000).find(|port| {
        (*port..port + EACH).all(|port| !taken.contains(&port)) && first_taken(*port).is_none()
    })
}

/// First ports of `count` processes from exactly `base`.
///
/// # Errors
/// Who holds a port that is needed; `None` for ports above 65535.
pub(crate) fn fixed(base: u16, count: u16) -> Result<Vec<u16>, Option<Holder>> {
    let ports = spaced(base, count).ok_or(None)?;
    match ports.iter().find_map(|port| first_taken(*port)) {
        Some(port) => Err(Some(holder(port))),
        None => Ok(ports),
    }
}

/// Who holds a port, if it cannot be listened on.
pub(crate) fn in_the_way(port: u16) -> Option<Holder> {
    (!is_free(port)).then(|| holder(port))
}

fn spaced(base: u16, count: u16) -> Option<Vec<u16>> {
    let port = |number: u16| base.checked_add(number.checked_mul(STEP)?);
    (0..count).map(|number| port(number).filter(|port| *port <= u16::MAX - EACH)).collect()
}

fn first_taken(port: u16) -> Option<u16> {
    (port..port + EACH).find(|port| !is_free(*port))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok()
}

fn holder(port: u16) -> Holder {
    Holder { port, process: listening_inode(port).and_then(owner) }
}

/// The socket that listens on a port, from the kernel's tables.
fn listening_inode(port: u16) -> Option<String> {
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let text = std::fs::read_to_string(table).ok()?;
        text.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (_, local) = fields.get(1)?.rsplit_once(':')?;
            // 0A: listening.
            let listens = *fields.get(3)? == "0A" && u16::from_str_radix(local, 16) == Ok(port);
            listens.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
        })
    })
}

/// The process that has that socket open: only those of the same user can be seen.
fn owner(inode: String) -> Option<(u32, String)> {
    let wanted = format!("socket:[{inode}]");
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(open) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let holds = open.flatten().any(|file| {
            std::fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str())
        });
        if holds {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some((pid, name.trim().to_owned()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_taken_port_moves_the_whole_cluster_and_a_fixed_one_names_its_holder() {
        let ports = choose(21_000, 3).unwrap();
        let taken = TcpListener::bind(("127.0.0.1", ports[1])).unwrap();
        let moved = choose(ports[0], 3).unwrap();
        assert!(moved[0] > ports[2], "{moved:?} starts above {ports:?}");
        let holder = fixed(ports[0], 3).unwrap_err().unwrap();
        assert_eq!(holder.port, ports[1]);
        if cfg!(target_os = "linux") {
            assert_eq!(holder.process.as_ref().unwrap().0, std::process::id());
            assert!(holder.to_string().contains("is in use by"));
        }
        drop(taken);
        assert!(in_the_way(ports[1]).is_none());
    }

    #[test]
    fn ports_beyond_the_last_are_refused() {
        assert_eq!(fixed(65_530, 3), Err(None));
        assert!(choose(65_530, 3).is_none());
    }
}
