//! What the raft workers tell the store: answers to requests, changes to report, strangers.

use std::sync::Arc;

use quorate_consensus::node::Replies;
use quorate_consensus::shard::{LeaderChange, Outgoing, Reply, Stranger};
use quorate_consensus::time::Instant;
use quorate_proto::RegionId;
use quorate_proto::wire::peer::Envelope;
use tokio::sync::mpsc;

use crate::core::Directory;
use crate::placement::Nudge;
use crate::placement_time::PlacementTime;
use crate::serve::Token;
use crate::strangers;

/// Hears the raft workers.
pub(crate) struct Answering {
    pub(crate) nudge: Arc<Nudge>,
    pub(crate) strangers: mpsc::Sender<Stranger>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) time: Arc<PlacementTime>,
}

impl Replies<Token> for Answering {
    fn reply(&self, token: Token, reply: Reply) {
        token.reply(reply);
    }

    fn leader_changed(&self, change: LeaderChange) {
        if change.is_local {
            self.nudge.add(change.group);
        }
    }

    fn changed(&self, region: RegionId) {
        self.nudge.add(region);
    }

    fn stranger(&self, stranger: Stranger) -> Option<Outgoing> {
        if let Some(gone) = self.directory.taken_in(stranger.group) {
            return Some(stranger.answer_merged(gone.into, gone.region.as_ref().into()));
        }
        if !stranger.asks {
            // Where the queue is full, it will be called a stranger again.
            let _ = self.strangers.try_send(stranger);
        }
        None
    }

    fn placement_ms(&self, now: Instant) -> u64 {
        self.time.at(now)
    }

    fn admit_snapshot(&self, message: &Envelope) -> Result<(), String> {
        strangers::admit_snapshot(&self.directory, message)
    }
}
