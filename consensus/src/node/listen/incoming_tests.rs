//! Connections: bounded, closed where nobody speaks, and never in the way of peers.

#![allow(clippy::unwrap_used)]

use std::task::Poll;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::node::listen::bind;

/// Nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

fn listen(connections: usize, reserved: usize) -> (Incoming, SocketAddr) {
    let (listener, address) = bind("listen", "127.0.0.1:0").unwrap();
    let bounds = Bounds { connections, reserved, silence: None };
    (Incoming::new(listener, bounds).unwrap(), address)
}

/// Both ends of a new connection.
async fn pair(incoming: &mut Incoming, address: SocketAddr) -> (TcpStream, Connection) {
    let (client, (server, _)) = tokio::join!(TcpStream::connect(address), incoming.next());
    (client.unwrap(), server)
}

#[tokio::test(start_paused = true)]
async fn accepting_pauses_when_the_system_has_no_descriptors_left() {
    let (mut accepting, mut tried) = (Accepting::default(), 0);
    let endless = std::future::poll_fn(|cx| {
        accepting.poll(cx, |_| {
            tried += 1;
            Poll::Ready(Err::<(), _>(io::Error::from_raw_os_error(libc::EMFILE)))
        })
    });
    assert!(timeout(Duration::from_secs(1), endless).await.is_err());
    assert!((5..=11).contains(&tried), "tried {tried} times in a second");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_and_one_that_speaks_is_not() {
    let (mut incoming, address) = listen(4, 0);
    let (_silent_client, mut silent) = pair(&mut incoming, address).await;
    let (mut speaking_client, mut speaking) = pair(&mut incoming, address).await;
    speaking_client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut preface = [0; PREFACE];
    speaking.read_exact(&mut preface).await.unwrap();

    tokio::time::pause();
    let mut byte = [0; 1];
    let late = timeout(FIRST_BYTES + PROOF, silent.read_exact(&mut byte)).await.unwrap();
    assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!(timeout(FIRST_BYTES * 10, speaking.read_exact(&mut byte)).await.is_err(), "it waits");
}

#[tokio::test]
async fn clients_cannot_lock_peers_out() {
    let (mut incoming, address) = listen(1, 1);
    let open = incoming.open();
    let (_client, _first) = pair(&mut incoming, address).await;

    // One more may prove that it is a peer, and then does not count as a client.
    let (_peer, mut peer) = pair(&mut incoming, address).await;
    let mut third = TcpStream::connect(address).await.unwrap();
    let closed = async {
        tokio::select! {
            _ = incoming.next() => panic!("there is no place left"),
            read = third.read_u8() => read,
        }
    };
    assert!(timeout(PATIENCE, closed).await.unwrap().is_err());
    peer.connect_info().is_peer();
    tokio::time::pause();
    assert!(timeout(PROOF * 10, peer.read_u8()).await.is_err(), "a peer waits");
    drop(peer);
    tokio::time::resume();

    // One that does not prove it has to go.
    let (_other, mut other) = pair(&mut incoming, address).await;
    assert_eq!(open.load(Ordering::Relaxed), 2);
    tokio::time::pause();
    let late = timeout(PROOF * 2, other.read_u8()).await.unwrap();
    assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
    drop(other);
    assert_eq!(open.load(Ordering::Relaxed), 1);
}
