//! What waits to be sent to one process on one plane.
//!
//! An outbox is bounded. When it is full, or its link is down, the newest messages are dropped
//! and counted, and the groups are told that the process is unreachable: Raft sends again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use prost::Message;
use quorate_proto::limits::MAX_FRAME_BYTES;
use quorate_proto::wire::peer::{Beat, Envelope, Frame, Hello};

/// Messages kept while the link is up.
const CAPACITY: usize = 16_384;
/// Bytes kept while the link is up.
const CAPACITY_BYTES: usize = 64 * 1024 * 1024;
/// Messages kept while the link is down: enough for the votes of a start.
const CAPACITY_DOWN: usize = 4_096;
/// Bytes put into one frame.
const FRAME_BYTES: usize = MAX_FRAME_BYTES / 4;

#[derive(Default)]
struct Queue {
    envelopes: Vec<Envelope>,
    bytes: usize,
    beat: Option<Beat>,
    up: bool,
    closed: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
}

/// Roughly the bytes of a message on the wire.
pub(super) fn size_of(envelope: &Envelope) -> usize {
    64 + envelope.entries.iter().map(|entry| entry.data.len() + 24).sum::<usize>()
}

impl Outbox {
    /// Queues messages; returns how many were dropped.
    pub(super) fn push(&self, envelopes: impl IntoIterator<Item = Envelope>) -> usize {
        let mut dropped = 0;
        {
            let mut queue = self.queue.lock();
            let capacity = if queue.up { CAPACITY } else { CAPACITY_DOWN };
            for envelope in envelopes {
                let size = size_of(&envelope);
                if queue.envelopes.len() >= capacity || queue.bytes + size > CAPACITY_BYTES {
                    dropped += 1;
                    continue;
                }
                queue.bytes += size;
                queue.envelopes.push(envelope);
            }
        }
        self.waker.wake();
        dropped
    }

    /// Sets the beat to send next; an older one that has not left is replaced.
    pub(super) fn beat(&self, beat: Beat) {
        self.queue.lock().beat = Some(beat);
        self.waker.wake();
    }

    /// The link is up or down. Going down drops what is queued; returns how much that was.
    pub(super) fn set_up(&self, up: bool) -> usize {
        let mut queue = self.queue.lock();
        let was_up = std::mem::replace(&mut queue.up, up);
        if was_up && !up {
            queue.bytes = 0;
            queue.beat = None;
            return std::mem::take(&mut queue.envelopes).len();
        }
        0
    }

    /// No more frames: streams of this outbox end.
    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.waker.wake();
    }

    /// True once [`Outbox::close`] was called.
    pub(super) fn is_closed(&self) -> bool {
        self.queue.lock().closed
    }

    fn take(&self) -> Taken {
        let mut queue = self.queue.lock();
        if queue.envelopes.is_empty() && queue.beat.is_none() {
            return if queue.closed { Taken::Closed } else { Taken::Empty };
        }
        let mut frame = Frame { hello: None, envelopes: Vec::new(), beat: queue.beat.take() };
        if queue.bytes <= FRAME_BYTES {
            queue.bytes = 0;
            frame.envelopes = std::mem::take(&mut queue.envelopes);
        } else {
            let mut bytes = 0;
            let mut count = 0;
            for envelope in &queue.envelopes {
                bytes += size_of(envelope);
                count += 1;
                if bytes >= FRAME_BYTES {
                    break;
                }
            }
            queue.bytes -= bytes;
            let rest = queue.envelopes.split_off(count);
            frame.envelopes = std::mem::replace(&mut queue.envelopes, rest);
        }
        Taken::Frame(frame)
    }
}

enum Taken {
    Frame(Frame),
    Empty,
    Closed,
}

/// The frames of an outbox, as a gRPC client stream: the handshake first.
pub(super) struct Frames {
    pub(super) outbox: Arc<Outbox>,
    pub(super) hello: Option<Hello>,
    pub(super) counters: Arc<super::Counters>,
}

impl Stream for Frames {
    type Item = Frame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        if let Some(hello) = self.hello.take() {
            return Poll::Ready(Some(Frame { hello: Some(hello), ..Frame::default() }));
        }
        let mut taken = self.outbox.take();
        if matches!(taken, Taken::Empty) {
            self.outbox.waker.register(context.waker());
            taken = self.outbox.take();
        }
        match taken {
            Taken::Frame(frame) => {
                debug_assert!(frame.encoded_len() <= MAX_FRAME_BYTES, "frames are bounded");
                self.counters.frames_sent.add(1);
                self.counters.messages_sent.add(frame.envelopes.len() as u64);
                Poll::Ready(Some(frame))
            }
            Taken::Empty => Poll::Pending,
            Taken::Closed => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
