//! Connections as they come in: counted, bounded, and closed where nobody speaks.
//!
//! A connection beyond the bound of clients is given a moment to prove that it is another process
//! of the cluster, by the first words of its peer stream: clients can never lock those out. Beyond
//! that reserve too, a connection is closed at once; its client sees it break and tries again
//! elsewhere or later. Keeping alive begins with HTTP/2's preface, so whoever does not send even
//! that is closed after [`FIRST_BYTES`]. When nothing can be accepted, mostly for want of
//! descriptors, accepting pauses for a moment instead of spinning.

#[cfg(test)]
#[path = "incoming_tests.rs"]
mod tests;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep};
use tonic::transport::server::Connected;

/// Connections beyond the bound that only other processes of the cluster may use.
pub(super) const RESERVED_FOR_PEERS: usize = 256;
/// How long a connection may take to its first bytes, [`PREFACE`] of them.
const FIRST_BYTES: Duration = Duration::from_secs(10);
/// What every HTTP/2 connection begins with, in bytes.
const PREFACE: usize = 24;
/// How long a connection beyond the bound may take to prove that it is a peer.
const PROOF: Duration = Duration::from_secs(3);
/// Pause after an accept that failed.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// What a listener allows.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    connections: usize,
    reserved: usize,
    silence: Option<Duration>,
}

impl Bounds {
    /// For the address of clients and peers: so many connections of clients.
    pub fn serving(connections: usize) -> Self {
        Self { connections, reserved: RESERVED_FOR_PEERS, silence: None }
    }

    /// For the status pages: few, and closed after half a minute without a word.
    pub fn pages() -> Self {
        Self { connections: 64, reserved: 0, silence: Some(Duration::from_secs(30)) }
    }
}

/// Connections as they come in. See the module.
pub struct Incoming {
    listener: TcpListener,
    bounds: Bounds,
    counts: Arc<Counts>,
    accepting: Accepting,
    refused: u64,
}

/// Who has connections open.
#[derive(Debug, Default)]
struct Counts {
    open: Arc<AtomicUsize>,
    /// Of those: proved to be other processes of the cluster.
    peers: AtomicUsize,
}

impl Incoming {
    /// Takes connections from `listener`. Needs a runtime.
    ///
    /// # Errors
    /// The runtime cannot watch the socket.
    pub fn new(listener: std::net::TcpListener, bounds: Bounds) -> io::Result<Self> {
        let listener = TcpListener::from_std(listener)?;
        let (counts, accepting) = (Arc::default(), Accepting::default());
        Ok(Self { listener, bounds, counts, accepting, refused: 0 })
    }

    /// How many connections are open, kept up to date.
    pub fn open(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.counts.open)
    }

    /// The next connection; `None` where it had to be refused.
    fn admit(&mut self, stream: TcpStream) -> Option<Connection> {
        let open = self.counts.open.load(Ordering::Relaxed);
        let clients = open.saturating_sub(self.counts.peers.load(Ordering::Relaxed));
        let Bounds { connections, reserved, silence } = self.bounds;
        let on_probation = clients >= connections;
        if open >= connections.saturating_add(reserved) {
            self.refused += 1;
            if self.refused.is_power_of_two() {
                let refused = self.refused;
                tracing::warn!(connections, refused, "closed a connection beyond the bound");
            }
            return None;
        }
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        self.counts.open.fetch_add(1, Ordering::Relaxed);
        let (awaited, patience) = match on_probation {
            true => (Awaited::Proof, PROOF),
            false => (Awaited::Bytes(PREFACE), FIRST_BYTES),
        };
        let caller =
            Caller { place: Arc::new(Mutex::new(Place::Client)), counts: self.counts.clone() };
        let deadline = Some(Box::pin(sleep(patience)));
        Some(Connection { stream, caller, awaited, deadline, silence })
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_connection(cx).map(|(connection, _)| Some(Ok(connection)))
    }
}

impl Incoming {
    /// The next connection, with where it comes from.
    pub async fn next(&mut self) -> (Connection, SocketAddr) {
        std::future::poll_fn(|cx| self.poll_connection(cx)).await
    }

    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<(Connection, SocketAddr)> {
        loop {
            let listener = &self.listener;
            let (stream, from) = ready!(self.accepting.poll(cx, |cx| listener.poll_accept(cx)));
            if let Some(connection) = self.admit(stream) {
                return Poll::Ready((connection, from));
            }
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Accepts, and pauses after what failed.
#[derive(Default)]
struct Accepting {
    pause: Option<Pin<Box<Sleep>>>,
    failed: u64,
}

impl Accepting {
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<T> {
        loop {
            if let Some(pause) = self.pause.as_mut() {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(accept(cx)) {
                Ok(accepted) => return Poll::Ready(accepted),
                Err(error) => {
                    self.failed += 1;
                    if self.failed.is_power_of_two() {
                        let failed = self.failed;
                        tracing::warn!(%error, failed, "cannot accept a connection");
                    }
                    self.pause = Some(Box::pin(sleep(AFTER_ERROR)));
                }
            }
        }
    }
}

/// As what a connection is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Client,
    Peer,
    Closed,
}

/// Who is at the other end of a connection, as far as that is known; travels with each request.
#[derive(Debug, Clone)]
pub struct Caller {
    place: Arc<Mutex<Place>>,
    counts: Arc<Counts>,
}

impl Caller {
    /// It is another process of the cluster: it does not count as a client any more.
    pub(in crate::node) fn is_peer(&self) {
        let mut place = self.place.lock();
        if *place == Place::Client {
            *place = Place::Peer;
            self.counts.peers.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn proved(&self) -> bool {
        *self.place.lock() == Place::Peer
    }

    fn closed(&self) {
        let before = std::mem::replace(&mut *self.place.lock(), Place::Closed);
        if before == Place::Peer {
            self.counts.peers.fetch_sub(1, Ordering::Relaxed);
        }
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a connection owes before its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// So many more bytes.
    Bytes(usize),
    /// That it is a peer.
    Proof,
    /// Nothing.
    Nothing,
}

/// One connection; counted as long as it lives.
pub struct Connection {
    stream: TcpStream,
    caller: Caller,
    awaited: Awaited,
    deadline: Option<Pin<Box<Sleep>>>,
    silence: Option<Duration>,
}

impl Connection {
    /// Something was read.
    fn heard(&mut self, bytes: usize) {
        match self.awaited {
            Awaited::Bytes(missing) if missing > bytes => {
                self.awaited = Awaited::Bytes(missing - bytes);
                return;
            }
            Awaited::Bytes(_) => self.awaited = Awaited::Nothing,
            Awaited::Proof => return,
            Awaited::Nothing => {}
        }
        match (self.silence, self.deadline.as_mut()) {
            (None, _) => self.deadline = None,
            (Some(silence), Some(deadline)) => deadline.as_mut().reset(Instant::now() + silence),
            (Some(silence), None) => self.deadline = Some(Box::pin(sleep(silence))),
        }
    }

    /// True once it owes what it has not given in time.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        if self.awaited == Awaited::Proof && self.caller.proved() {
            self.awaited = Awaited::Nothing;
            self.deadline = None;
        }
        self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.caller.closed();
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_late(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        this.heard(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
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
