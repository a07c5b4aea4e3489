//! The listening socket: addresses checked before anything is opened, connections counted.
//!
//! A connection beyond the bound is closed at once; its client sees the connection break and
//! tries again elsewhere or later. Other stores' Raft connections count like any other, so the
//! bound is set high.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::error::StoreError;

/// Binds an address named in the configuration as `what`.
///
/// # Errors
/// No such address, or it is taken; the words say what to change.
pub(crate) fn bind(what: &'static str, address: &str) -> Result<std::net::TcpListener, StoreError> {
    let bad = |reason: String| StoreError::BadAddress { what, address: address.to_owned(), reason };
    let resolved = address
        .to_socket_addrs()
        .map_err(|error| bad(error.to_string()))?
        .next()
        .ok_or_else(|| bad("the name has no address".to_owned()))?;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => StoreError::PortInUse { what, address: address.to_owned() },
        _ => bad(error.to_string()),
    };
    let listener = std::net::TcpListener::bind(resolved).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// The address that others are told: `advertise` where it is set, else where we listen.
///
/// # Errors
/// It is not `HOST:PORT`, or names no single place that others could connect to.
pub(crate) fn advertised(advertise: &str, bound: SocketAddr) -> Result<String, StoreError> {
    let bad = |address: &str, reason: &str| StoreError::BadAddress {
        what: "advertise",
        address: address.to_owned(),
        reason: reason.to_owned(),
    };
    if advertise.is_empty() {
        return if bound.ip().is_unspecified() {
            let reason = "it means every address of this machine, which others cannot dial; set \
                          advertise to HOST:PORT";
            Err(bad(&bound.to_string(), reason))
        } else {
            Ok(bound.to_string())
        };
    }
    let (host, port) = advertise
        .rsplit_once(':')
        .ok_or_else(|| bad(advertise, "the port is missing; write HOST:PORT"))?;
    match port.parse::<u16>() {
        Ok(0) => return Err(bad(advertise, "port 0 cannot be dialled; name the real port")),
        Ok(_) => {}
        Err(_) => return Err(bad(advertise, "the port is no number from 1 to 65535")),
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.is_empty() {
        return Err(bad(advertise, "the host is missing; write HOST:PORT"));
    }
    if bare.contains('/') || bare.contains(char::is_whitespace) {
        return Err(bad(advertise, "it is no HOST:PORT; leave out the scheme and the path"));
    }
    if bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
        let reason = "it means every address of a machine, which others cannot dial; name one";
        return Err(bad(advertise, reason));
    }
    Ok(advertise.to_owned())
}

/// Connections as they come in, at most `bound` at a time.
pub(crate) struct Incoming {
    listener: TcpListener,
    open: Arc<AtomicUsize>,
    bound: usize,
    refused: u64,
}

impl Incoming {
    /// Takes connections from `listener`. Needs a runtime.
    ///
    /// # Errors
    /// The runtime cannot watch the socket.
    pub(crate) fn new(listener: std::net::TcpListener, bound: usize) -> io::Result<Self> {
        let listener = TcpListener::from_std(listener)?;
        Ok(Self { listener, open: Arc::new(AtomicUsize::new(0)), bound, refused: 0 })
    }

    /// How many connections are open, kept up to date.
    pub(crate) fn open(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.open)
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let stream = match ready!(self.listener.poll_accept(cx)) {
                Ok((stream, _)) => stream,
                // Of this one connection, or out of descriptors: the server tries again.
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            if self.open.load(Ordering::Relaxed) >= self.bound {
                self.refused += 1;
                if self.refused.is_power_of_two() {
                    tracing::warn!(
                        connections = self.bound,
                        refused = self.refused,
                        "closed a connection beyond limits.connections"
                    );
                }
                continue;
            }
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
            self.open.fetch_add(1, Ordering::Relaxed);
            return Poll::Ready(Some(Ok(Connection { stream, open: Arc::clone(&self.open) })));
        }
    }
}

/// One connection; counted as long as it lives.
pub(crate) struct Connection {
    stream: TcpStream,
    open: Arc<AtomicUsize>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
