//! Addresses: where a process listens, and under what name the others find it.

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};

use thiserror::Error;

/// Why an address cannot be used.
#[derive(Debug, Error)]
pub enum ListenError {
    /// It names no place, or not a single one.
    #[error("{what} {address:?} cannot be used: {reason}")]
    BadAddress {
        /// The knob.
        what: &'static str,
        /// Its value.
        address: String,
        /// What is wrong with it, and what to write instead.
        reason: String,
    },
    /// Somebody listens there already.
    #[error(
        "{what} {address} is taken by another process; stop that one, or set {what} to a free port"
    )]
    PortInUse {
        /// The knob.
        what: &'static str,
        /// Its value.
        address: String,
    },
}

/// Binds an address named in the configuration as `what`; says where that is.
///
/// # Errors
/// No such address, or it is taken; the words say what to change.
pub fn bind(what: &'static str, address: &str) -> Result<(TcpListener, SocketAddr), ListenError> {
    let bad = |reason: String| ListenError::BadAddress {
        what,
        address: address.to_owned(),
        reason: format!("{reason}; write HOST:PORT of this machine"),
    };
    let resolved = address
        .to_socket_addrs()
        .map_err(|error| bad(error.to_string()))?
        .next()
        .ok_or_else(|| bad("the name has no address".to_owned()))?;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::PortInUse { what, address: address.to_owned() },
        _ => bad(error.to_string()),
    };
    let listener = TcpListener::bind(resolved).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// The address that others are told: `advertise` where it is set, else where we listen.
///
/// # Errors
/// It is not `HOST:PORT`, or names no single place that others could connect to.
pub fn advertised(advertise: &str, bound: SocketAddr) -> Result<String, ListenError> {
    let bad = |what: &'static str, address: &str, reason: &str| ListenError::BadAddress {
        what,
        address: address.to_owned(),
        reason: reason.to_owned(),
    };
    if !advertise.is_empty() {
        dialable(advertise).map_err(|reason| bad("advertise", advertise, reason))?;
        return Ok(advertise.to_owned());
    }
    if bound.ip().is_unspecified() {
        let reason = "it means every address of this machine, which others cannot dial; set \
                      advertise to HOST:PORT";
        return Err(bad("listen", &bound.to_string(), reason));
    }
    Ok(bound.to_string())
}

/// Whether `address` is a `HOST:PORT` that names one place to connect to.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub fn dialable(address: &str) -> Result<(), &'static str> {
    let (host, port) = address.rsplit_once(':').ok_or("the port is missing; write HOST:PORT")?;
    match port.parse::<u16>() {
        Ok(0) => return Err("port 0 cannot be dialled; name the real port"),
        Ok(_) => {}
        Err(_) => return Err("the port is no number from 1 to 65535; write HOST:PORT"),
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.is_empty() {
        return Err("the host is missing; write HOST:PORT");
    }
    if bare.contains('/') || bare.contains(char::is_whitespace) {
        return Err("it is no HOST:PORT; leave out the scheme and the path");
    }
    if bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
        return Err("it means every address of a machine, which others cannot dial; name one");
    }
    Ok(())
}
