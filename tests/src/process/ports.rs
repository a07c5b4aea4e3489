//! Free ports below the range from which systems take ports for outgoing connections.
//!
//! Each test process starts its search elsewhere, and no port is given twice in one process, so
//! that a port stays free for a process that is down for a while.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 22_000;
const COUNT: u16 = 10_000;
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port of the loopback address that nobody listens on.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    let own = u16::try_from(std::process::id() * 61 % u32::from(COUNT)).unwrap_or(0);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (own + step % COUNT) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port from {FIRST} to {} is free", FIRST + COUNT);
}

/// Two of them, as addresses.
///
/// # Panics
/// When there are none.
pub fn free_pair() -> (String, String) {
    (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()))
}
