//! Raft messages between raft-rs's protobuf 2 structs and our own envelope, field by field:
//! protobuf 2 is never parsed from the network (RUSTSEC-2024-0437).

use quorate_proto::wire::peer::{self, Envelope};
use quorate_proto::{PeerId, RegionId};
use raft::eraftpb::{ConfState, Entry, Message, MessageType, Snapshot};

use super::records::entry_kind;
use crate::shard::Plane;

/// Kinds of envelopes beyond raft-rs's own.
pub(crate) const HIBERNATE: u32 = 100;
pub(crate) const HIBERNATE_ACK: u32 = 101;

/// Why an envelope from the network was dropped.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum BadEnvelope {
    #[error("kind {0} is unknown or never travels")]
    Kind(u32),
    #[error("an entry of unknown kind {0}")]
    EntryKind(u32),
    #[error("a snapshot message without a snapshot")]
    NoSnapshot,
    #[error("a read-index message without exactly one context")]
    Entries,
    #[error("sender or receiver is missing")]
    NoPeer,
}

pub(crate) fn kind_of(number: u32) -> Option<MessageType> {
    use MessageType as M;
    Some(match number {
        2 => M::MsgPropose,
        3 => M::MsgAppend,
        4 => M::MsgAppendResponse,
        5 => M::MsgRequestVote,
        6 => M::MsgRequestVoteResponse,
        7 => M::MsgSnapshot,
        8 => M::MsgHeartbeat,
        9 => M::MsgHeartbeatResponse,
        13 => M::MsgTransferLeader,
        14 => M::MsgTimeoutNow,
        15 => M::MsgReadIndex,
        16 => M::MsgReadIndexResp,
        17 => M::MsgRequestPreVote,
        18 => M::MsgRequestPreVoteResponse,
        _ => return None,
    })
}

/// Which connection a message takes.
pub(crate) fn plane_of(kind: MessageType) -> Plane {
    match kind {
        MessageType::MsgAppend | MessageType::MsgAppendResponse => Plane::Data,
        MessageType::MsgSnapshot => Plane::Bulk,
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader
        | MessageType::MsgTimeoutNow
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse => Plane::Control,
    }
}

/// Packs a message of raft-rs. Entries' data is shared, not copied.
pub(crate) fn pack(group: RegionId, message: Message) -> Envelope {
    Envelope {
        group: group.0,
        from_peer: message.from,
        to_peer: message.to,
        kind: message.msg_type as u32,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        commit_term: message.commit_term,
        reject: message.reject,
        reject_hint: message.reject_hint,
        request_snapshot: message.request_snapshot,
        priority: message.priority,
        context: message.context,
        entries: message
            .entries
            .into_iter()
            .map(|entry| peer::Entry {
                kind: entry.entry_type as u32,
                term: entry.term,
                index: entry.index,
                data: entry.data,
                context: entry.context,
            })
            .collect(),
        snapshot: None,
        region: None,
        safe_truncate: 0,
    }
}

/// Unpacks an envelope for raft-rs.
///
/// # Errors
/// Anything that raft-rs must not see.
pub(crate) fn unpack(envelope: Envelope) -> Result<Message, BadEnvelope> {
    let kind = kind_of(envelope.kind).ok_or(BadEnvelope::Kind(envelope.kind))?;
    if kind == MessageType::MsgPropose {
        return Err(BadEnvelope::Kind(envelope.kind));
    }
    if envelope.from_peer == 0 || envelope.to_peer == 0 {
        return Err(BadEnvelope::NoPeer);
    }
    let mut message = Message::default();
    message.set_msg_type(kind);
    message.from = envelope.from_peer;
    message.to = envelope.to_peer;
    message.term = envelope.term;
    message.log_term = envelope.log_term;
    message.index = envelope.index;
    message.commit = envelope.commit;
    message.commit_term = envelope.commit_term;
    message.reject = envelope.reject;
    message.reject_hint = envelope.reject_hint;
    message.request_snapshot = envelope.request_snapshot;
    message.priority = envelope.priority;
    message.context = envelope.context;
    let mut entries = Vec::with_capacity(envelope.entries.len());
    for from in envelope.entries {
        let mut entry = Entry::default();
        entry.set_entry_type(entry_kind(from.kind).ok_or(BadEnvelope::EntryKind(from.kind))?);
        entry.term = from.term;
        entry.index = from.index;
        entry.data = from.data;
        entry.context = from.context;
        entries.push(entry);
    }
    let one_entry = matches!(kind, MessageType::MsgReadIndex | MessageType::MsgReadIndexResp);
    if one_entry && entries.len() != 1 {
        return Err(BadEnvelope::Entries);
    }
    message.entries = entries.into();
    if kind == MessageType::MsgSnapshot {
        let meta = envelope.snapshot.ok_or(BadEnvelope::NoSnapshot)?;
        let mut snapshot = Snapshot::default();
        snapshot.mut_metadata().index = meta.index;
        snapshot.mut_metadata().term = meta.term;
        *snapshot.mut_metadata().mut_conf_state() =
            unpack_conf(meta.conf.ok_or(BadEnvelope::NoSnapshot)?);
        snapshot.data = meta.id.into();
        message.set_snapshot(snapshot);
    }
    Ok(message)
}

pub(crate) fn unpack_conf(conf: peer::ConfState) -> ConfState {
    ConfState {
        voters: conf.voters,
        learners: conf.learners,
        voters_outgoing: conf.voters_outgoing,
        learners_next: conf.learners_next,
        auto_leave: conf.auto_leave,
        ..ConfState::default()
    }
}

/// A message of ours between two peers of a group.
pub(crate) fn own(
    group: RegionId,
    kind: u32,
    from: PeerId,
    to: PeerId,
    term: u64,
    index: u64,
) -> Envelope {
    Envelope {
        group: group.0,
        from_peer: from.0,
        to_peer: to.0,
        kind,
        term,
        index,
        ..Envelope::default()
    }
}
