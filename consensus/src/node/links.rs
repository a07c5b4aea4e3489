//! Connections to the other processes: one for each process and plane, opened when first needed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use quorate_proto::NodeId;
use quorate_proto::limits::MAX_FRAME_BYTES;
use quorate_proto::wire::peer::peer_client::PeerClient;
use quorate_proto::wire::peer::{self, Beat, Hello};
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint};

use super::outbox::{Frames, Outbox};
use super::{Addresses, Counters};
use crate::hash::FixedState;
use crate::shard::{Outgoing, Plane, Terms};

/// Version of the protocol between processes.
pub(super) const PROTOCOL: u32 = 1;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_millis(500);
/// A link that stood for so long was accepted: its end is news, and worth another quick attempt.
const LASTING: Duration = Duration::from_secs(1);
const WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// Who this process is to the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub(super) node: NodeId,
    pub(super) cluster_id: u64,
    pub(super) incarnation: u64,
    pub(super) terms: Terms,
}

impl Identity {
    pub(super) fn hello(&self, to: NodeId, plane: Plane) -> Hello {
        let plane = match plane {
            Plane::Control => peer::Plane::Control,
            Plane::Data => peer::Plane::Data,
            Plane::Bulk => peer::Plane::Bulk,
        };
        Hello {
            protocol: PROTOCOL,
            cluster_id: self.cluster_id,
            from_node: self.node.0,
            to_node: to.0,
            incarnation: self.incarnation,
            plane: plane.into(),
            lease_ms: self.terms.lease_ms,
            vote_promise_ms: self.terms.vote_promise_ms,
        }
    }
}

/// See the module.
pub(super) struct Links {
    identity: Identity,
    runtime: Handle,
    addresses: Arc<dyn Addresses>,
    counters: Arc<Counters>,
    outboxes: RwLock<HashMap<(NodeId, Plane), Arc<Outbox>, FixedState>>,
    unreachable: Arc<dyn Fn(NodeId) + Send + Sync>,
}

impl Links {
    pub(super) fn new(
        identity: Identity,
        runtime: Handle,
        addresses: Arc<dyn Addresses>,
        counters: Arc<Counters>,
        unreachable: Arc<dyn Fn(NodeId) + Send + Sync>,
    ) -> Self {
        let outboxes = RwLock::new(HashMap::default());
        Self { identity, runtime, addresses, counters, outboxes, unreachable }
    }

    fn outbox(&self, to: NodeId, plane: Plane) -> Arc<Outbox> {
        if let Some(outbox) = self.outboxes.read().get(&(to, plane)) {
            return outbox.clone();
        }
        let mut outboxes = self.outboxes.write();
        outboxes
            .entry((to, plane))
            .or_insert_with(|| {
                let outbox = Arc::new(Outbox::default());
                self.runtime.spawn(keep_link(
                    outbox.clone(),
                    self.identity,
                    to,
                    plane,
                    self.addresses.clone(),
                    self.counters.clone(),
                    self.unreachable.clone(),
                ));
                outbox
            })
            .clone()
    }

    /// Sends messages, in order for each process and plane.
    pub(super) fn send(&self, messages: Vec<Outgoing>) {
        let mut groups: Vec<((NodeId, Plane), Vec<peer::Envelope>)> = Vec::new();
        for message in messages {
            let key = (message.to, message.plane);
            match groups.iter_mut().find(|(known, _)| *known == key) {
                Some((_, envelopes)) => envelopes.push(message.envelope),
                None => groups.push((key, vec![message.envelope])),
            }
        }
        for ((to, plane), envelopes) in groups {
            let dropped = self.outbox(to, plane).push(envelopes);
            if dropped > 0 {
                self.counters.messages_dropped.add(dropped as u64);
                (self.unreachable)(to);
            }
        }
    }

    /// Sends a beat.
    pub(super) fn beat(&self, to: NodeId, beat: Beat) {
        self.outbox(to, Plane::Control).beat(beat);
    }

    /// Closes all links.
    pub(super) fn close(&self) {
        for outbox in self.outboxes.read().values() {
            outbox.close();
        }
    }
}

/// Opens a connection to a process.
pub(super) async fn connect(address: &str) -> Result<Channel, String> {
    Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| error.to_string())?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .connect()
        .await
        .map_err(|error| error.to_string())
}

async fn keep_link(
    outbox: Arc<Outbox>,
    identity: Identity,
    to: NodeId,
    plane: Plane,
    addresses: Arc<dyn Addresses>,
    counters: Arc<Counters>,
    unreachable: Arc<dyn Fn(NodeId) + Send + Sync>,
) {
    let mut wait = FIRST_RETRY;
    let mut known = String::new();
    loop {
        let error = match addresses.address(to) {
            None => "its address is not known yet".to_owned(),
            Some(address) => match connect(&address).await {
                Err(error) => error,
                Ok(channel) => {
                    outbox.set_up(true);
                    let since = tokio::time::Instant::now();
                    let frames = Frames {
                        outbox: outbox.clone(),
                        hello: Some(identity.hello(to, plane)),
                        counters: counters.clone(),
                    };
                    let mut client =
                        PeerClient::new(channel).max_encoding_message_size(MAX_FRAME_BYTES * 2);
                    let ended = client.stream(frames).await;
                    if since.elapsed() >= LASTING {
                        wait = FIRST_RETRY;
                        known.clear();
                    }
                    match ended {
                        // The server only ends the stream when it goes down; so do we when closed.
                        Ok(_) => "the other side closed the stream".to_owned(),
                        Err(status) => status.message().to_owned(),
                    }
                }
            },
        };
        let dropped = outbox.set_up(false);
        counters.messages_dropped.add(dropped as u64);
        unreachable(to);
        if outbox.is_closed() {
            return;
        }
        if error != known {
            // Once for each new reason; it is tried again several times a second.
            tracing::warn!(node = %to, ?plane, %error, "link is down");
            known = error;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LAST_RETRY);
    }
}
