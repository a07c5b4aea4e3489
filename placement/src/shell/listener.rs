//! The listening socket: the address checked before anything is opened, connections counted.
//!
//! A connection beyond the bound is closed at once; its client tries again later.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::error::PlacementError;

/// Binds an address named in the configuration as `what`.
///
/// # Errors
/// No such address, or it is taken; the words say what to change.
pub(crate) fn bind(
    what: &'static str,
    address: &str,
) -> Result<(std::net::TcpListener, SocketAddr), PlacementError> {
    let bad = |reason: String| PlacementError::BadAddress {
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
        io::ErrorKind::AddrInUse => PlacementError::PortInUse { what, address: address.to_owned() },
        _ => bad(error.to_string()),
    };
    let listener = std::net::TcpListener::bind(resolved).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Connections as they come in, at most `bound` at a time.
pub(crate) struct Incoming {
    listener: TcpListener,
    free: Arc<Semaphore>,
    refused: u64,
}

impl Incoming {
    /// Takes connections from `listener`. Needs a runtime.
    ///
    /// # Errors
    /// The runtime cannot watch the socket.
    pub(crate) fn new(listener: std::net::TcpListener, bound: usize) -> io::Result<Self> {
        let free = Arc::new(Semaphore::new(bound.min(Semaphore::MAX_PERMITS)));
        Ok(Self { listener: TcpListener::from_std(listener)?, free, refused: 0 })
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
            let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() else {
                self.refused += 1;
                if self.refused.is_power_of_two() {
                    let refused = self.refused;
                    tracing::warn!(refused, "closed a connection beyond limits.connections");
                }
                continue;
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
            return Poll::Ready(Some(Ok(Connection { stream, _permit: permit })));
        }
    }
}

/// One connection; counted as long as it lives.
pub(crate) struct Connection {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
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
