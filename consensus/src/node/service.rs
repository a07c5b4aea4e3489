//! The receiving side: streams of messages, and snapshots.

use std::sync::Arc;

use quorate_proto::NodeId;
use quorate_proto::wire::peer::peer_server::Peer;
use quorate_proto::wire::peer::{Closed, Frame, Hello, SnapshotAnswer, SnapshotChunk};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::beats::Beats;
use super::links::{Identity, PROTOCOL};
use super::listen::Caller;
use super::mailbox::Mailboxes;
use super::receive::Receiver;
use crate::shard::Terms;

/// Answers of one call: where to go on, and how it ended.
const ANSWERS: usize = 2;

/// The service other processes of the cluster speak to.
pub struct PeerService<T> {
    pub(super) identity: Identity,
    pub(super) mailboxes: Arc<Mailboxes<T>>,
    pub(super) receiver: Arc<Receiver>,
    pub(super) beats: Arc<Beats>,
}

/// Checks who is calling.
pub(super) fn check(identity: &Identity, hello: Option<Hello>) -> Result<NodeId, Status> {
    let hello = hello.ok_or_else(|| Status::invalid_argument("the first frame must say hello"))?;
    if hello.protocol > PROTOCOL {
        return Err(Status::failed_precondition(format!(
            "peer protocol {} is newer than ours, {PROTOCOL}; upgrade this process first",
            hello.protocol
        )));
    }
    if hello.cluster_id != identity.cluster_id {
        return Err(Status::failed_precondition(format!(
            "this process belongs to cluster {}, the caller to cluster {}; check its data folder and addresses",
            identity.cluster_id, hello.cluster_id
        )));
    }
    if hello.to_node != identity.node.0 {
        return Err(Status::failed_precondition(format!(
            "this is {}, not n{}; the caller has a stale address",
            identity.node, hello.to_node
        )));
    }
    if hello.from_node == 0 || hello.from_node == identity.node.0 {
        return Err(Status::failed_precondition(format!(
            "two processes use the id {}; stop one and give it a data folder of its own",
            identity.node
        )));
    }
    let theirs = Terms { lease_ms: hello.lease_ms, vote_promise_ms: hello.vote_promise_ms };
    identity.terms.agree(theirs).map_err(Status::failed_precondition)?;
    Ok(NodeId(hello.from_node))
}

/// The connection is a peer's: clients have no part in its place.
fn welcome(caller: Option<Caller>) {
    if let Some(caller) = caller {
        caller.is_peer();
    }
}

#[tonic::async_trait]
impl<T: Send + 'static> Peer for PeerService<T> {
    async fn stream(&self, request: Request<Streaming<Frame>>) -> Result<Response<Closed>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let mut frames = request.into_inner();
        let Some(first) = frames.message().await? else {
            return Ok(Response::new(Closed {}));
        };
        let from = check(&self.identity, first.hello)?;
        welcome(caller);
        while let Some(mut frame) = frames.message().await? {
            // Snapshots come by their own way, once their data is here.
            frame.envelopes.retain(|envelope| envelope.snapshot.is_none());
            if let Some(beat) = frame.beat {
                self.beats.heard(from, &beat);
                self.mailboxes.beat(from, beat.incarnation);
            }
            if !frame.envelopes.is_empty() {
                self.mailboxes.frame(from, frame.envelopes);
            }
        }
        Ok(Response::new(Closed {}))
    }

    type SnapshotStream = ReceiverStream<Result<SnapshotAnswer, Status>>;

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let mut chunks = request.into_inner();
        let Some(first) = chunks.message().await? else {
            return Err(Status::invalid_argument("a snapshot without chunks"));
        };
        let header =
            first.header.ok_or_else(|| Status::invalid_argument("a snapshot without a header"))?;
        let from = check(&self.identity, header.hello)?;
        welcome(caller);
        let (answers, stream) = mpsc::channel(ANSWERS);
        // On a task of its own: this one is dropped when the connection breaks, and what came by
        // then is kept.
        tokio::spawn(Arc::clone(&self.receiver).receive(from, header, chunks, answers));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
