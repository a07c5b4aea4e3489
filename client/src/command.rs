//! What the wire's commands and answers have in common.

use quorate_proto::{
    Peer,
    wire::{
        errorpb, kvrpcpb,
        tikvpb::{
            batch_commands_request::request::Cmd as Command,
            batch_commands_response::response::Cmd as Answer,
        },
    },
};

use crate::router::Route;

/// The context of a request to `peer` of `route`.
pub(crate) fn context(route: &Route, peer: Peer, replica_read: bool) -> kvrpcpb::Context {
    kvrpcpb::Context {
        region_id: route.region.id.0,
        region_epoch: Some(route.region.epoch.into()),
        peer: Some(peer.into()),
        term: 0,
        replica_read,
        stale_read: false,
        api_version: 0,
    }
}

/// About how many bytes a request takes on the wire.
pub(crate) fn size(command: &Command) -> usize {
    /// Context, ids and tags.
    const OVERHEAD: usize = 64;
    OVERHEAD
        + match command {
            Command::RawGet(m) => m.key.len(),
            Command::RawBatchGet(m) => m.keys.iter().map(|key| key.len() + 4).sum(),
            Command::RawPut(m) => m.key.len() + m.value.len(),
            Command::RawBatchPut(m) => {
                m.pairs.iter().map(|pair| pair.key.len() + pair.value.len() + 8).sum()
            }
            Command::RawDelete(m) => m.key.len(),
            Command::RawBatchDelete(m) => m.keys.iter().map(|key| key.len() + 4).sum(),
            Command::RawScan(m) => m.start_key.len() + m.end_key.len(),
            Command::RawDeleteRange(m) => m.start_key.len() + m.end_key.len(),
            Command::RawBatchScan(m) => {
                m.ranges.iter().map(|range| range.start_key.len() + range.end_key.len() + 8).sum()
            }
            Command::Empty(_) => 0,
        }
}

/// Takes the region error out of an answer.
pub(crate) fn region_error(answer: &mut Answer) -> Option<errorpb::Error> {
    match answer {
        Answer::RawGet(m) => m.region_error.take(),
        Answer::RawBatchGet(m) => m.region_error.take(),
        Answer::RawPut(m) => m.region_error.take(),
        Answer::RawBatchPut(m) => m.region_error.take(),
        Answer::RawDelete(m) => m.region_error.take(),
        Answer::RawBatchDelete(m) => m.region_error.take(),
        Answer::RawScan(m) => m.region_error.take(),
        Answer::RawDeleteRange(m) => m.region_error.take(),
        Answer::RawBatchScan(m) => m.region_error.take(),
        Answer::Empty(_) => None,
    }
}

/// The error in words that some answers carry; empty where there is none.
pub(crate) fn error_words(answer: &Answer) -> &str {
    match answer {
        Answer::RawGet(m) => &m.error,
        Answer::RawPut(m) => &m.error,
        Answer::RawBatchPut(m) => &m.error,
        Answer::RawDelete(m) => &m.error,
        Answer::RawBatchDelete(m) => &m.error,
        Answer::RawDeleteRange(m) => &m.error,
        Answer::RawBatchGet(_)
        | Answer::RawScan(_)
        | Answer::RawBatchScan(_)
        | Answer::Empty(_) => "",
    }
}
