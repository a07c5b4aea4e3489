//! A TCP proxy before a node: it cuts connections and flips bytes on demand.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Default)]
struct Orders {
    target: String,
    /// Cut the next connection that has carried so many bytes.
    cut_after: Option<u64>,
    /// Flip a byte of the next connection that has carried so many bytes.
    flip_after: Option<u64>,
    cuts: usize,
    flips: usize,
}

/// See the module.
pub(crate) struct Proxy {
    address: String,
    orders: Arc<Mutex<Orders>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let orders = Arc::new(Mutex::new(Orders { target, ..Orders::default() }));
        let shared = Arc::clone(&orders);
        let accepting = tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                tokio::spawn(carry(caller, Arc::clone(&shared)));
            }
        });
        Self { address, orders, accepting }
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    /// The node was started again, at another address.
    pub(crate) fn lead_to(&self, target: String) {
        self.orders.lock().target = target;
    }

    /// Breaks the next connection that has carried `bytes` to the node. Once.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.orders.lock().cut_after = Some(bytes);
    }

    /// Flips a bit in the middle of the next piece of the connection that has carried `bytes` to
    /// the node. Once.
    pub(crate) fn flip_after(&self, bytes: u64) {
        self.orders.lock().flip_after = Some(bytes);
    }

    /// Connections cut, bytes flipped.
    pub(crate) fn done(&self) -> (usize, usize) {
        let orders = self.orders.lock();
        (orders.cuts, orders.flips)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(caller: TcpStream, orders: Arc<Mutex<Orders>>) {
    let target = orders.lock().target.clone();
    let Ok(node) = TcpStream::connect(target).await else { return };
    let (mut from_caller, mut to_caller) = caller.into_split();
    let (mut from_node, mut to_node) = node.into_split();
    let back = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_node, &mut to_caller).await;
    });
    let mut buffer = vec![0; 16 * 1024];
    let mut carried = 0;
    while let Ok(read @ 1..) = from_caller.read(&mut buffer).await {
        carried += read as u64;
        {
            let mut orders = orders.lock();
            if orders.cut_after.is_some_and(|limit| carried >= limit) {
                orders.cut_after = None;
                orders.cuts += 1;
                break;
            }
            if orders.flip_after.is_some_and(|limit| carried >= limit) {
                orders.flip_after = None;
                orders.flips += 1;
                buffer[read / 2] ^= 0x10;
            }
        }
        if to_node.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    // Both halves go, so both sides notice.
    back.abort();
}
