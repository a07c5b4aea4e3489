//! The outgoing half of a lane: turns what waits in the queue into messages.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::Stream;
use quorate_proto::wire::tikvpb::BatchCommandsRequest;

use super::Lane;

/// Polled by the connection's own task.
pub(super) struct Outbound {
    lane: Arc<Lane>,
    /// It has already let other tasks go first since the last message.
    yielded: bool,
    /// Requests in the last message.
    last: usize,
}

impl Outbound {
    pub(super) fn new(lane: Arc<Lane>) -> Self {
        Self { lane, yielded: false, last: 0 }
    }
}

impl Stream for Outbound {
    type Item = BatchCommandsRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.lane.sender.register(context.waker());
        if this.lane.is_closed() {
            return Poll::Ready(None);
        }
        let (mut requests, mut request_ids);
        {
            let mut queue = this.lane.queue.lock();
            if !queue.ready() {
                this.yielded = false;
                return Poll::Pending;
            }
            // Where several callers are about, those woken by the same answer are about to send
            // too: let them, once, so that a message carries all of them.
            if !this.yielded && (this.last > 1 || queue.in_flight() > 0) {
                this.yielded = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let most = queue.next_message();
            (requests, request_ids) = (Vec::with_capacity(most), Vec::with_capacity(most));
            queue.drain(|reply| reply.is_closed(), &mut requests, &mut request_ids);
        }
        this.yielded = false;
        this.last = request_ids.len();
        this.lane.room.notify_waiters();
        if request_ids.is_empty() {
            // All were abandoned: look again.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(BatchCommandsRequest { requests, request_ids }))
    }
}
