//! What raft-rs must not be shown: messages on which it would panic or lose its way, given the
//! state that the peer is in. What is wrong in every state is refused by [`message::unpack`].
//!
//! raft-rs trusts its peers. A message that contradicts what this peer knows comes from a peer
//! whose disk lost entries, or from a bug; it is dropped with a word about it, and the process
//! goes on.
//!
//! [`message::unpack`]: super::message::unpack

use raft::Raft;
use raft::eraftpb::{Message, MessageType};

use super::GroupLog;
use super::message::BadEnvelope;

pub(super) fn check(message: &Message, raft: &Raft<GroupLog>) -> Result<(), BadEnvelope> {
    let log = &raft.raft_log;
    let last = log.last_index();
    match message.msg_type {
        MessageType::MsgHeartbeat if message.term >= raft.term && message.commit > last => {
            Err(BadEnvelope::BeyondOurLog { last, claimed: message.commit })
        }
        MessageType::MsgAppendResponse if message.index > last && message.term >= raft.term => {
            Err(BadEnvelope::BeyondOurLog { last, claimed: message.index })
        }
        // Nobody can answer a request for a vote that has not left: it leaves after the write.
        MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse
            if log.persisted != last =>
        {
            Err(BadEnvelope::Unasked)
        }
        _ => Ok(()),
    }
}
