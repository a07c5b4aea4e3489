//! Raft messages between raft-rs's protobuf 2 structs and our own envelope, field by field:
//! protobuf 2 is never parsed from the network (RUSTSEC-2024-0437).

use std::collections::BTreeSet;

use quorate_proto::wire::peer::{self, Envelope};
use quorate_proto::{PeerId, RegionId};
use raft::eraftpb::{ConfState, Entry, Message, MessageType, Snapshot};

use super::install::Staged;
use super::records::entry_kind;
use crate::shard::Plane;

/// Kinds of envelopes beyond raft-rs's own.
pub(crate) const HIBERNATE: u32 = 100;
pub(crate) const HIBERNATE_ACK: u32 = 101;
pub(crate) const WAKE: u32 = 102;
pub(crate) const MERGED: u32 = 103;

/// Why an envelope from the network was dropped.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum BadEnvelope {
    #[error("kind {0} is unknown or never travels")]
    Kind(u32),
    #[error("an entry of unknown kind {0}")]
    EntryKind(u32),
    #[error("a snapshot message without a snapshot")]
    NoSnapshot,
    #[error("its entries are not what such a message carries, or do not follow each other")]
    Entries,
    #[error("sender or receiver is missing")]
    NoPeer,
    #[error("a term or an index that cannot be")]
    Numbers,
    #[error("a snapshot of an impossible configuration")]
    Configuration,
    #[error(
        "it speaks of index {claimed} but our log ends at {last}; if this repeats, the log has lost entries: replace this store"
    )]
    BeyondOurLog { last: u64, claimed: u64 },
    #[error("a vote that was not asked for")]
    Unasked,
}

/// Greatest term and index accepted; raft-rs adds to them without a check.
const MAX_NUMBER: u64 = 1 << 62;
/// Longest name of a staged file.
const MAX_STAGED_NAME: usize = 100;

/// The kind of a message that travels. Proposals and transfers are never forwarded.
pub(crate) fn kind_of(number: u32) -> Option<MessageType> {
    use MessageType as M;
    Some(match number {
        3 => M::MsgAppend,
        4 => M::MsgAppendResponse,
        5 => M::MsgRequestVote,
        6 => M::MsgRequestVoteResponse,
        7 => M::MsgSnapshot,
        8 => M::MsgHeartbeat,
        9 => M::MsgHeartbeatResponse,
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
        fresh_ms: 0,
        fresh_commit: 0,
        merged_into: 0,
        applied: 0,
    }
}

/// True for an answer of a follower, on which it says how far it has applied.
pub(super) fn is_answer(kind: u32) -> bool {
    kind == MessageType::MsgAppendResponse as u32
        || kind == MessageType::MsgHeartbeatResponse as u32
}

/// True for a request for a vote, or for the promise of one.
pub(super) fn asks_for_vote(kind: u32) -> bool {
    kind == MessageType::MsgRequestVote as u32 || kind == MessageType::MsgRequestPreVote as u32
}

/// Unpacks an envelope for raft-rs.
///
/// # Errors
/// Anything that raft-rs must not see.
pub(crate) fn unpack(envelope: Envelope) -> Result<Message, BadEnvelope> {
    let kind = kind_of(envelope.kind).ok_or(BadEnvelope::Kind(envelope.kind))?;
    if envelope.from_peer == 0 || envelope.to_peer == 0 {
        return Err(BadEnvelope::NoPeer);
    }
    let numbers = [
        envelope.term,
        envelope.log_term,
        envelope.index,
        envelope.commit,
        envelope.commit_term,
        envelope.reject_hint,
        envelope.applied,
    ];
    // Only a question to the leader carries no term; raft-rs takes the rest for its own voice.
    let asks = kind == MessageType::MsgReadIndex;
    if numbers.iter().any(|number| *number > MAX_NUMBER) || (envelope.term == 0) != asks {
        return Err(BadEnvelope::Numbers);
    }
    // Nobody here asks for snapshots; raft-rs would go on sending them.
    if envelope.request_snapshot != 0 {
        return Err(BadEnvelope::Numbers);
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
    check_entries(&message, &entries)?;
    message.entries = entries.into();
    if kind == MessageType::MsgSnapshot {
        let meta = envelope.snapshot.ok_or(BadEnvelope::NoSnapshot)?;
        let mut snapshot = Snapshot::default();
        snapshot.mut_metadata().index = meta.index;
        snapshot.mut_metadata().term = meta.term;
        let conf = meta.conf.ok_or(BadEnvelope::NoSnapshot)?;
        let fits = |number: u64| (1..=MAX_NUMBER).contains(&number);
        if !fits(meta.index) || !fits(meta.term) || meta.term > message.term {
            return Err(BadEnvelope::Numbers);
        }
        if !is_staged_name(&meta.id) || !is_possible(&conf) {
            return Err(BadEnvelope::Configuration);
        }
        *snapshot.mut_metadata().mut_conf_state() = unpack_conf(conf);
        snapshot.data = meta.id.into();
        message.set_snapshot(snapshot);
    }
    Ok(message)
}

/// Entries follow the one that the message names, in order of index and term, and are not of a
/// later term than their sender.
fn check_entries(message: &Message, entries: &[Entry]) -> Result<(), BadEnvelope> {
    let fits = match message.msg_type {
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => entries.len() == 1,
        MessageType::MsgAppend => {
            let mut before = (message.index, message.log_term);
            (message.index == 0) == (message.log_term == 0)
                && before.1 <= message.term
                && entries.iter().all(|entry| {
                    let (index, term) = std::mem::replace(&mut before, (entry.index, entry.term));
                    entry.index == index + 1 && (term.max(1)..=message.term).contains(&entry.term)
                })
        }
        _ => entries.is_empty(),
    };
    if fits { Ok(()) } else { Err(BadEnvelope::Entries) }
}

fn is_staged_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=MAX_STAGED_NAME).contains(&name.len()) && name.bytes().all(plain)
}

/// The staged file that came with a message, where it has a proper name.
pub(crate) fn staged(envelope: &Envelope) -> Option<Staged> {
    let meta = envelope.snapshot.as_ref()?;
    let state = meta.state.clone();
    is_staged_name(&meta.id).then(|| Staged { id: meta.id.clone(), state })
}

/// True for a configuration that raft-rs can restore: it panics on the others.
fn is_possible(conf: &peer::ConfState) -> bool {
    let set = |list: &[u64]| -> Option<BTreeSet<u64>> {
        let set: BTreeSet<u64> = list.iter().copied().collect();
        (set.len() == list.len() && !set.contains(&0)).then_some(set)
    };
    let (Some(voters), Some(learners), Some(outgoing), Some(next)) = (
        set(&conf.voters),
        set(&conf.learners),
        set(&conf.voters_outgoing),
        set(&conf.learners_next),
    ) else {
        return false;
    };
    !voters.is_empty()
        && !conf.auto_leave
        && learners.is_disjoint(&voters)
        && learners.is_disjoint(&outgoing)
        && next.is_subset(&outgoing)
        && next.is_disjoint(&voters)
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

/// True where both describe the same configuration; raft-rs lists members in any order.
pub(crate) fn same_conf(one: &ConfState, other: &ConfState) -> bool {
    let same = |one: &[u64], other: &[u64]| {
        one.len() == other.len() && one.iter().all(|peer| other.contains(peer))
    };
    same(&one.voters, &other.voters)
        && same(&one.learners, &other.learners)
        && same(&one.voters_outgoing, &other.voters_outgoing)
        && same(&one.learners_next, &other.learners_next)
        && one.auto_leave == other.auto_leave
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

#[cfg(test)]
#[path = "message_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
