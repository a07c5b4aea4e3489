//! What the wire's commands and answers have in common.

use bytes::Bytes;
use quorate_proto::{
    Peer,
    wire::{
        errorpb, kvrpcpb,
        tikvpb::{
            batch_commands_request::request::Cmd as Command,
            batch_commands_response::response::Cmd as Wire,
        },
    },
};

use crate::{execute::Ask, refusal::Refusal, router::Route};

/// The context of a request to `peer` of `route`.
pub(crate) fn context(route: &Route, peer: Peer, ask: Ask) -> kvrpcpb::Context {
    let stale_ms = match ask {
        // A store takes 0 for a bound of its own choice.
        Ask::Stale(bound) => (bound.as_millis() as u64).max(1),
        Ask::Leader | Ask::Replica => 0,
    };
    kvrpcpb::Context {
        region_id: route.region.id.0,
        region_epoch: Some(route.region.epoch.into()),
        peer: Some(peer.into()),
        term: 0,
        replica_read: ask == Ask::Replica,
        stale_read: stale_ms > 0,
        api_version: 0,
        stale_ms,
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

/// What a store said, parsed once and small: it is moved between tasks for every operation.
#[derive(Debug)]
pub(crate) enum Answer {
    /// To a get: the value, if there is one.
    Value(Option<Bytes>),
    /// To a write: it was applied.
    Done,
    /// To a scan or a batch get.
    Pairs(Vec<kvrpcpb::KvPair>),
    /// To nothing that this client asks.
    Nothing,
    /// The region refused.
    Refused(Box<Refusal>),
    /// The store refused, in its own words.
    Failed(Box<str>),
}

impl Answer {
    /// What it is an answer to, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Value(_) => "get",
            Self::Done => "write",
            Self::Pairs(_) => "scan or batch get",
            Self::Nothing => "nothing",
            Self::Refused(_) | Self::Failed(_) => "refusal",
        }
    }
}

impl From<Wire> for Answer {
    fn from(wire: Wire) -> Self {
        fn parse(
            region_error: Option<Box<errorpb::Error>>,
            words: String,
            answer: impl FnOnce() -> Answer,
        ) -> Answer {
            match region_error {
                Some(error) => Answer::Refused(Box::new((*error).into())),
                None if !words.is_empty() => Answer::Failed(words.into()),
                None => answer(),
            }
        }
        let done = || Self::Done;
        match wire {
            Wire::RawGet(m) => {
                parse(m.region_error, m.error, || Self::Value((!m.not_found).then_some(m.value)))
            }
            Wire::RawPut(m) => parse(m.region_error, m.error, done),
            Wire::RawBatchPut(m) => parse(m.region_error, m.error, done),
            Wire::RawDelete(m) => parse(m.region_error, m.error, done),
            Wire::RawBatchDelete(m) => parse(m.region_error, m.error, done),
            Wire::RawDeleteRange(m) => parse(m.region_error, m.error, done),
            Wire::RawBatchGet(m) => parse(m.region_error, String::new(), || Self::Pairs(m.pairs)),
            Wire::RawScan(m) => parse(m.region_error, String::new(), || Self::Pairs(m.kvs)),
            Wire::RawBatchScan(m) => parse(m.region_error, String::new(), || Self::Pairs(m.kvs)),
            Wire::Empty(_) => Self::Nothing,
        }
    }
}
